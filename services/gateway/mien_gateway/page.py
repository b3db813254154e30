"""The watch page: `/` and `/static/*` from one folder, with security headers."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mien_gateway.settings import GatewaySettings

#: The types of files that are served. Other files in the folder are not.
_SERVED = frozenset({".css", ".html", ".ico", ".js", ".png", ".svg", ".webp", ".woff2"})


def security_headers(settings: GatewaySettings) -> dict[str, str]:
    """Headers by which the page loads only its own files and connects only to this gateway and to signaling."""
    signaling = origin(settings.signaling_url)
    gateway = origin(settings.public_url)
    uplink = f"ws{gateway.removeprefix('http')}"  # 'self' does not include ws: in every browser
    policy = {
        "default-src": "'self'",
        "connect-src": f"'self' {signaling} {uplink}",
        "img-src": "'self' blob: data:",
        "media-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",  # the page's address may contain a watch token
        "Cache-Control": "no-cache",
    }


def origin(url: str) -> str:
    """The origin of a URL, as a browser names it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _PageFiles(StaticFiles):
    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        super().__init__(directory=folder)
        self._headers = headers

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if Path(path).suffix in _SERVED else ("", None)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def install(app: FastAPI, settings: GatewaySettings) -> None:
    """Serve the page if the settings name one."""
    if settings.web_root is None:
        return
    headers = security_headers(settings)
    index = settings.web_root / "index.html"
    app.mount("/static", _PageFiles(settings.web_root, headers), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(index, headers=headers)
