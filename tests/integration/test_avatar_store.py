"""The avatar store on a real folder and on S3, by the same calls."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import httpx
import pytest
from moto.server import ThreadedMotoServer

from mien_shared.avatars import AvatarNotFound, AvatarRecord, AvatarStore, AvatarStoreError, FaceBox
from mien_shared.keypoints import Keypoints

pytestmark = pytest.mark.integration


def avatar(avatar_id: str = "a1") -> AvatarRecord:
    rows = [tuple(float(value) for value in row) for row in Keypoints.at_rest().rows()]
    box = FaceBox(x=448, y=100, size=384)
    return AvatarRecord.model_validate(
        {"avatar_id": avatar_id, "width": 1280, "height": 720, "face_box": box, "keypoints": rows}
    )


@pytest.fixture
def bucket() -> str:
    """The server keeps the buckets of all tests of a process."""
    return f"mien-{secrets.token_hex(6)}"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[AvatarStore]:
    """A bucket behind a real S3 endpoint on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        settings = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
        for name, value in (settings | {"ENDPOINT": endpoint}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        httpx.put(f"{endpoint}/{bucket}", trust_env=False).raise_for_status()
        yield AvatarStore.open(f"s3://{bucket}/avatars")
    finally:
        server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AvatarStore:
    if request.param == "folder":
        return AvatarStore.open(f"file:{tmp_path}/avatars")
    s3_store: AvatarStore = request.getfixturevalue("s3")
    return s3_store


async def test_what_is_put_is_found_until_it_is_deleted(store: AvatarStore) -> None:
    await store.put(avatar(), b"png")
    assert await store.record("a1") == avatar()
    assert await store.picture("a1") == b"png"
    assert (await store.record("a1")).source_keypoints() == Keypoints.at_rest()
    await store.delete("a1")
    for call in (store.record("a1"), store.picture("a1"), store.delete("a1")):
        with pytest.raises(AvatarNotFound, match=r"^there is no avatar a1$"):
            await call


@pytest.mark.parametrize("avatar_id", ["..", "../a1", "a/b", "", "a" * 65, "a1\n", "a1/picture.png"])
async def test_an_id_never_leaves_its_folder(store: AvatarStore, avatar_id: str) -> None:
    for call in (store.record(avatar_id), store.picture(avatar_id), store.delete(avatar_id)):
        with pytest.raises(AvatarNotFound, match=r"^an avatar id has 1 to 64 letters, digits, '-' and '_'$"):
            await call


async def test_avatars_outlive_the_process_that_stored_them(tmp_path: Path) -> None:
    await AvatarStore.open(f"file://{tmp_path}/avatars").put(avatar(), b"png")
    assert await AvatarStore.open(f"file:{tmp_path}/avatars").picture("a1") == b"png"


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars" / "a1").write_text("a file where a folder should be")
    with pytest.raises(AvatarStoreError, match=r"^the avatar could not be stored$"):
        await store.put(avatar(), b"png")


async def test_an_avatar_that_cannot_be_written_anew_stays_what_it_was(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    await store.put(avatar(), b"png")
    folder = tmp_path / "avatars" / "a1"
    (folder / "picture.png").unlink()
    (folder / "picture.png").mkdir()  # nothing can be put there
    with pytest.raises(AvatarStoreError):
        await store.put(avatar(), b"other")
    assert await store.record("a1") == avatar()


async def test_a_picture_whose_record_cannot_be_written_does_not_stay(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars" / "a1" / "avatar.json" / "in the way").mkdir(parents=True)
    with pytest.raises(AvatarStoreError):
        await store.put(avatar(), b"png")
    assert not (tmp_path / "avatars" / "a1" / "picture.png").exists()


async def test_a_bucket_that_is_not_there_is_an_error_of_the_store(s3: AvatarStore) -> None:
    with pytest.raises(AvatarStoreError, match=r"^the avatar could not be stored$"):
        await AvatarStore.open("s3://mien-no-such-bucket/avatars").put(avatar(), b"png")


async def test_a_face_without_its_record_is_deleted_too(store: AvatarStore) -> None:
    """What a deletion that failed half way left, or an upload whose process was killed."""
    await store.put(avatar(), b"png")
    await store._store.delete_async("a1/avatar.json")
    assert await store.picture("a1") == b"png"
    await store.delete("a1")
    with pytest.raises(AvatarNotFound):
        await store.picture("a1")
    with pytest.raises(AvatarNotFound):
        await store.delete("a1")


async def test_deleting_leaves_nothing_and_touches_no_other(store: AvatarStore) -> None:
    for avatar_id in ("a1", "a10", "a"):
        await store.put(avatar(avatar_id), b"png")
        await store.mark_used(avatar_id)
    await store.delete("a1")
    left = [entry["path"] for entry in await store._store.list().collect_async()]
    assert sorted(left) == [
        f"{name}/{part}" for name in ("a", "a10") for part in ("avatar.json", "picture.png", "used")
    ]


class _Proxy(BaseHTTPRequestHandler):
    """In front of an S3 endpoint: refuses the deletion of objects that are named `refused`, alone or in a list."""

    endpoint: ClassVar[str]
    refused: ClassVar[str | None]
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        deletes = self.command == "DELETE" or self.path.endswith("?delete")
        if deletes and self.refused is not None and self.refused in f"{self.path} {body.decode()}":
            self._answer(403, {}, b"")
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        answer = httpx.request(self.command, self.endpoint + self.path, content=body, headers=headers, trust_env=False)
        self._answer(answer.status_code, dict(answer.headers), answer.content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - http.server looks for these names

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        length = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


async def test_a_deletion_that_fails_half_way_keeps_no_face_and_can_be_repeated(
    s3: AvatarStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Proxy.endpoint, _Proxy.refused = os.environ["AWS_ENDPOINT"], "avatar.json"
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{proxy.server_port}")
        store = AvatarStore.open(f"s3://{bucket}/avatars")
        await store.put(avatar(), b"png")
        with pytest.raises(AvatarStoreError, match=r"^the avatar could not be deleted$"):
            await store.delete("a1")
        with pytest.raises(AvatarNotFound):
            await store.picture("a1")
        assert await s3.record("a1") == avatar(), "the record is still there, so that a retry knows of the avatar"
        _Proxy.refused = "picture.png"
        await store.put(avatar("a2"), b"png")
        with pytest.raises(AvatarStoreError):
            await store.delete("a2")
        assert await s3.record("a2") == avatar("a2"), "as long as there is a face, there is a record of it"
        _Proxy.refused = None
        for avatar_id in ("a1", "a2"):
            await store.delete(avatar_id)
            with pytest.raises(AvatarNotFound):
                await store.delete(avatar_id)
    finally:
        proxy.shutdown()
        proxy.server_close()


async def test_a_part_of_a_picture_that_a_killed_process_left_is_listed_and_deleted(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars" / "a1").mkdir()
    (tmp_path / "avatars" / "a1" / "picture.png#1").write_bytes(b"part of a face")
    (found,) = await store.stored()
    assert (found.avatar_id, found.is_whole) == ("a1", False)
    await store.delete("a1")
    assert list((tmp_path / "avatars").iterdir()) == []


async def test_the_list_says_what_is_stored_and_when_it_was_used(store: AvatarStore) -> None:
    assert await store.stored() == []
    before_s = time.time() - 1  # S3 tells whole seconds
    await store.put(avatar("b"), b"png")
    await store.put(avatar("a"), b"png")
    await store._store.put_async("c/picture.png", b"png")
    a, b, c = await store.stored()
    assert [(one.avatar_id, one.is_whole) for one in (a, b, c)] == [("a", True), ("b", True), ("c", False)]
    assert before_s <= a.created_unix_s == a.used_unix_s <= time.time() + 1
    async with asyncio.timeout(10):
        while (used := (await store.stored())[0]).used_unix_s == a.used_unix_s:  # until it is another second
            await store.mark_used("a")
    assert used.created_unix_s == a.created_unix_s < used.used_unix_s <= time.time() + 1


async def test_a_store_that_cannot_be_listed_says_so(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path}/avatars")
    (tmp_path / "avatars").rmdir()
    (tmp_path / "avatars").write_text("a file where the folder should be")
    with pytest.raises(AvatarStoreError, match=r"^the avatars could not be listed$"):
        await store.stored()
    with pytest.raises(AvatarStoreError, match=r"^the avatar's use could not be noted$"):
        await store.mark_used("a")
