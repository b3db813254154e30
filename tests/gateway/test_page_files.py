"""How the pages' files are served: by version, compressed, from one folder."""

from __future__ import annotations

import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from mien_gateway.page_files import PageFiles

Get = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    (web / "room").mkdir(parents=True)
    (web / "room/app.js").write_text("export const answer = 42;\n" * 100)
    (web / "tiny.js").write_text("1")
    (web / "secret.py").write_text("print()")
    sdk = tmp_path / "js"
    (sdk / "encoder").mkdir(parents=True)
    (sdk / "node_modules").mkdir()
    (sdk / "node_modules/other.js").write_text("2")
    (sdk / "encoder/kernel.wasm").write_bytes(b"\0asm" + b"\1" * 500)
    (sdk / "encoder/encoder.weights").write_bytes(os.urandom(500))
    (web / "client").symlink_to(sdk)
    (tmp_path / "outside.js").write_text("3")
    return web


@pytest.fixture
def files(folder: Path) -> PageFiles:
    return PageFiles(folder, {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})


@pytest.fixture
def get(files: PageFiles) -> Get:
    async def call(path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(files), base_url="http://page") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers={"accept-encoding": "identity"} | named)

    return call


async def test_types_of_what_a_browser_must_recognise(get: Get) -> None:
    for path, media_type in (
        ("/room/app.js", "text/javascript; charset=utf-8"),
        ("/client/encoder/kernel.wasm", "application/wasm"),
        ("/client/encoder/encoder.weights", "application/octet-stream"),
    ):
        answer = await get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/secret.py",
        "/missing.js",
        "/client/node_modules/other.js",
        "/../outside.js",
        "/%2e%2e/outside.js",
        "/client/../../outside.js",
        "/",
        "/room",
        "/v-0/secret.py",
        "/v-0/v-0/tiny.js",
    ],
)
async def test_nothing_else_is_served(get: Get, path: str) -> None:
    assert (await get(path)).status_code == 404


async def test_a_method_that_changes_something_is_refused(get: Get) -> None:
    answer = await get("/tiny.js", "POST")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await get("/tiny.js", "HEAD")).status_code == 200


async def test_a_file_of_the_newest_version_is_kept_for_good(get: Get, files: PageFiles, folder: Path) -> None:
    version = files.version()
    kept = await get(f"/{version}/room/app.js")
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/room/app.js", "/v-0123456789abcdef/room/app.js"):
        asked_each_time = await get(path)
        assert asked_each_time.headers["cache-control"] == "no-cache"
        assert asked_each_time.content == kept.content

    (folder / "room/app.js").write_text("export const answer = 43;\n")
    changed = await get(f"/{version}/room/app.js")
    assert (changed.headers["cache-control"], changed.text) == ("no-cache", "export const answer = 43;\n")
    assert files.version() != version
    assert (await get(f"/{files.version()}/room/app.js")).headers["cache-control"].endswith("immutable")


async def test_what_the_browser_has_is_not_sent_again(get: Get, folder: Path) -> None:
    tag = (await get("/room/app.js")).headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await get("/room/app.js", if_none_match=given)
        assert (again.status_code, again.content) == (304, b"")
    (folder / "room/app.js").write_text("changed")
    assert (await get("/room/app.js", if_none_match=tag)).status_code == 200


async def test_text_is_compressed_for_whoever_takes_it(get: Get, folder: Path) -> None:
    plain = (folder / "room/app.js").read_bytes()
    for accepted, packed in (("gzip, deflate, br", True), ("br", False), ("gzip;q=0", False), ("", False)):
        answer = await get("/room/app.js", accept_encoding=accepted)
        assert (answer.headers.get("content-encoding") == "gzip") == packed, accepted
        assert answer.content == plain, "httpx unpacks"
        assert answer.headers["vary"] == "Accept-Encoding"
    assert int((await get("/room/app.js", accept_encoding="gzip")).headers["content-length"]) < len(plain) / 5
    assert len(gzip.compress(b"1")) > 1
    assert "content-encoding" not in (await get("/tiny.js", accept_encoding="gzip")).headers, "it would only grow"


async def test_a_file_that_was_removed_is_gone(get: Get, folder: Path) -> None:
    (folder / "tiny.js").unlink()
    assert (await get("/tiny.js")).status_code == 404
