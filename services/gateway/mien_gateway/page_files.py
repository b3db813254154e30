"""The files of the pages and of the browser SDK, as a browser gets them: compressed, and kept where that is safe.

The pages name every file by a version: `/static/v-DIGEST/room/app.js`. Modules, the worker and the encoder's files find
each other by relative addresses, so they come by the same version. A browser keeps what comes by the newest version for
good; a change of any file changes the version. By a plain address (`/static/app.js`) a browser asks each time.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: The types of files that are served. Other files in the folder are not.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".weights": "application/octet-stream",
    ".woff2": "font/woff2",
}
#: These are compressed already.
_PACKED = frozenset({".png", ".webp", ".woff2"})
#: Folders that a checkout has beside the SDK's files.
_NOT_SERVED = frozenset({"node_modules", "types"})
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file. packed: the body by gzip, None where that saves nothing."""

    body: bytes
    packed: bytes | None
    media_type: str
    etag: str


class PageFiles:
    """Serves every file of these types below a folder, by its path in it. Links are followed: `client` is one.

    The files are read once; one that has changed since is read again.
    """

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        self._folder = folder
        self._headers = headers
        self._read: dict[Path, tuple[tuple[int, int], PageFile]] = {}
        self._paths: dict[str, Path] = {}
        self._version = ""
        self.version()

    def version(self) -> str:
        """A digest of what the files are now, and how their addresses begin: "v-0123456789abcdef"."""
        self._paths = {path.relative_to(self._folder).as_posix(): path for path in _below(self._folder)}
        digest = hashlib.sha256()
        for name, path in sorted(self._paths.items()):
            digest.update(f"{name} {self.file(path).etag}\n".encode())
        self._version = f"v-{digest.hexdigest()[:16]}"
        return self._version

    def file(self, path: Path) -> PageFile:
        """The file as it is now; raises OSError."""
        stat = path.stat()
        seen = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(path)
        if known is None or known[0] != seen:
            known = (seen, _file(path))
            self._read[path] = known
            self._version = ""  # until a page is asked for
        return known[1]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        await self._response(scope)(scope, receive, send)

    def _response(self, scope: Scope) -> Response:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        name = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        first, _, rest = name.partition("/")
        versioned = first.startswith("v-")
        path = self._paths.get(rest if versioned else name)
        if path is None:
            return Response("Not Found", 404, media_type="text/plain")
        try:
            found = self.file(path)
        except OSError:  # it was removed while the gateway runs
            return Response("Not Found", 404, media_type="text/plain")
        keep = versioned and first == self._version
        return answer(found, Headers(scope=scope), self._headers | ({"Cache-Control": _FOR_GOOD} if keep else {}))


def answer(found: PageFile, asked: Headers, headers: dict[str, str]) -> Response:
    """The file, compressed for a browser that takes gzip; 304 for one that has it."""
    headers = headers | {"ETag": found.etag, "Vary": "Accept-Encoding"}
    if found.etag in {tag.strip().removeprefix("W/") for tag in asked.get("if-none-match", "").split(",")}:
        return Response(status_code=304, headers=headers)
    if found.packed is not None and _takes_gzip(asked.get("accept-encoding", "")):
        return Response(found.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=found.media_type)
    return Response(found.body, headers=headers, media_type=found.media_type)


def page_file(body: bytes, media_type: str, is_packed: bool = False) -> PageFile:
    """A file that is served from memory."""
    packed = None if is_packed else gzip.compress(body, 9, mtime=0)
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return PageFile(body, packed if packed is not None and len(packed) < len(body) else None, media_type, etag)


def _file(path: Path) -> PageFile:
    return page_file(path.read_bytes(), _TYPES[path.suffix], path.suffix in _PACKED)


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in _NOT_SERVED]
        yield from (Path(parent) / name for name in names if Path(name).suffix in _TYPES)


def _takes_gzip(accept_encoding: str) -> bool:
    """RFC 9110, section 12.5.3, for the one coding that we have."""
    for part in accept_encoding.split(","):
        coding, _, parameters = part.strip().partition(";")
        if coding.strip() in {"gzip", "*"}:
            return parameters.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
