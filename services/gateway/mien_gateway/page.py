"""The pages: `/`, `/room/{room}` and their files below `/static`, with security headers."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from mien_gateway.page_files import PageFiles, answer, page_file
from mien_gateway.settings import GatewaySettings

#: What a page may use of the device. A page of a room needs camera and microphone; nothing else is for any page.
_NO_DEVICES = "camera=(), microphone=(), geolocation=(), display-capture=()"
_ROOM_DEVICES = "camera=(self), microphone=(self), geolocation=(), display-capture=()"


def security_headers(settings: GatewaySettings) -> dict[str, str]:
    """Headers by which a page loads only its own files and connects only to this gateway and to signaling."""
    signaling = origin(settings.signaling_url)
    gateway = origin(settings.public_url)
    uplink = f"ws{gateway.removeprefix('http')}"  # 'self' does not include ws: in every browser
    policy = {
        "default-src": "'self'",
        "script-src": "'self' 'wasm-unsafe-eval'",  # the encoder K is a WebAssembly module
        "worker-src": "'self'",
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
        "Referrer-Policy": "no-referrer",  # the page's address may contain a token
        "Cache-Control": "no-cache",
    }


def origin(url: str) -> str:
    """The origin of a URL, as a browser names it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _Page:
    """One page: its HTML with the addresses of its files as they are now."""

    def __init__(self, html: Path, files: PageFiles, headers: dict[str, str]) -> None:
        self._html = html
        self._files = files
        self._headers = headers

    def response(self, request: Request) -> Response:
        html = self._files.file(self._html)
        body = html.body.replace(b'"/static/', f'"/static/{self._files.version()}/'.encode())
        return answer(page_file(body, html.media_type), request.headers, self._headers)


def install(app: FastAPI, settings: GatewaySettings) -> None:
    """Serve the pages if the settings name a folder with them."""
    if settings.web_root is None:
        return
    headers = security_headers(settings)
    files = PageFiles(settings.web_root, headers)
    watch = _Page(settings.web_root / "index.html", files, headers | {"Permissions-Policy": _NO_DEVICES})
    room = _Page(settings.web_root / "room/index.html", files, headers | {"Permissions-Policy": _ROOM_DEVICES})
    app.mount("/static", files, name="static")

    @app.get("/", include_in_schema=False)
    async def watch_page(request: Request) -> Response:
        return watch.response(request)

    @app.get("/room/{room_id}", include_in_schema=False)
    async def room_page(room_id: str, request: Request) -> Response:
        """The same page for every room, by its id or its name: the page itself asks whether there is one."""
        return room.response(request)
