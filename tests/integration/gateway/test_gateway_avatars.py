"""Avatars over HTTP: every good and every bad upload, with the process that decodes them."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from mien_gateway.bundled import BUNDLED_AVATAR_ID
from mien_gateway.portrait_contract import PictureRefused, Refusal
from mien_gateway.portrait_process import PortraitFailed, PortraitProcess

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
PORTRAITS = ROOT.parent / "shared/data/portraits"
DRAWN = ROOT / "services/gateway/mien_gateway/bundled/mien.png"

needs_portraits = pytest.mark.skipif(not PORTRAITS.is_dir(), reason="no portraits lie beside the repository")
needs_drawing = pytest.mark.skipif(not DRAWN.is_file(), reason="the bundled avatar has not been drawn")


def png(width: int = 64, height: int = 64) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of 100 bytes that claims any number of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=100)
    return out.getvalue()


def gif() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "GIF")
    return out.getvalue()


def assert_problem(answer: httpx.Response, status: int, code: str, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"], body["detail"]) == (f"urn:mien:problem:{code}", status, detail)


async def upload(gateway: Any, data: bytes, field: str = "image", **form: str) -> httpx.Response:
    files = {field: ("picture", data)}
    answer: httpx.Response = await gateway.http.post("/v1/avatars", files=files, data={"consent": "drawn"} | form)
    return answer


async def keeps_an_avatar(gateway: Any, data: bytes) -> None:
    """Upload, read, see and delete one."""
    answer = await upload(gateway, data)
    assert answer.status_code == 201, answer.text
    avatar = answer.json()
    assert set(avatar) == {"avatar_id", "kind", "width", "height", "face_box", "keypoints", "consent"}
    assert (avatar["width"], avatar["height"]) == (1280, 720)
    assert [len(row) for row in avatar["keypoints"]] == [6] * 10
    box = avatar["face_box"]
    assert set(box) == {"x", "y", "size"}
    assert 64 <= box["size"] <= 720
    path = f"/v1/avatars/{avatar['avatar_id']}"
    assert answer.headers["location"] == path
    assert (await gateway.http.get(path)).json() == avatar
    picture = await gateway.http.get(f"{path}/picture")
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "no-store"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert (image.size, image.mode, image.info) == ((1280, 720), "RGB", {})
    assert (await gateway.http.delete(path)).status_code == 204
    for gone in (
        await gateway.http.get(path),
        await gateway.http.get(f"{path}/picture"),
        await gateway.http.delete(path),
    ):
        assert_problem(gone, 404, "avatar-not-found", "there is no avatar with this id")
    assert await gateway.metric("mien_avatar_uploads_total", result="created") == 1
    assert await gateway.metric("mien_avatar_processing_seconds_count") == 1


@needs_portraits
async def test_a_photograph_becomes_an_avatar(start_gateway: Any) -> None:
    await keeps_an_avatar(await start_gateway(), (PORTRAITS / "cc0_006.jpg").read_bytes())


@needs_drawing
async def test_the_drawn_character_is_found_as_a_face_too(start_gateway: Any) -> None:
    await keeps_an_avatar(await start_gateway(), DRAWN.read_bytes())


@needs_drawing
async def test_the_bundled_avatar_is_there_from_the_start_and_stays(start_gateway: Any) -> None:
    gateway = await start_gateway()
    path = f"/v1/avatars/{BUNDLED_AVATAR_ID}"
    assert (await gateway.http.get(path)).json()["face_box"]["size"] == 384
    assert (await gateway.http.get(f"{path}/picture")).content == DRAWN.read_bytes()
    assert_problem(await gateway.http.delete(path), 409, "avatar-bundled", "a bundled avatar cannot be deleted")


@pytest.mark.parametrize(
    ("data", "status", "code", "detail"),
    [
        (b"hello", 415, "not-an-image", "the file is not a picture; send a JPEG, PNG or WebP picture"),
        (b"", 415, "not-an-image", "the file is not a picture; send a JPEG, PNG or WebP picture"),
        (gif(), 415, "unsupported-format", "GIF is not taken; send a JPEG, PNG or WebP picture"),
        (animated(), 415, "animated-image", "the picture is animated; send a still picture"),
        (png()[:5000], 422, "truncated-image", "the picture is damaged or cut short"),
        (
            bomb(10_000, 10_000),
            413,
            "too-many-pixels",
            "the picture has 10000 x 10000 pixels; at most 50000000 pixels are accepted",
        ),
        (png(), 422, "no-face", "no face was found in the picture"),
    ],
)
async def test_a_bad_picture_is_answered_by_name(
    start_gateway: Any, data: bytes, status: int, code: str, detail: str
) -> None:
    gateway = await start_gateway()
    assert_problem(await upload(gateway, data), status, code, detail)
    assert await gateway.metric("mien_avatar_uploads_total", result=code) == 1


async def test_a_bad_form_is_answered_by_name(start_gateway: Any) -> None:
    gateway = await start_gateway()
    missing = "the form has no file in a field named 'image'"
    assert_problem(await upload(gateway, png(), field="picture"), 422, "missing-image", missing)
    as_text = await gateway.http.post("/v1/avatars", files={"image": (None, "not a file")})
    assert_problem(as_text, 422, "missing-image", missing)
    raw = await gateway.http.post("/v1/avatars", content=png(), headers={"Content-Type": "image/png"})
    assert_problem(raw, 415, "not-multipart", "send multipart/form-data with the picture in the field 'image'")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await gateway.http.post("/v1/avatars", content=b"--y\r\nnothing", headers=form)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:mien:problem:malformed-form")
    answer = await gateway.http.post("/v1/avatars", content=b"", headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:mien:problem:malformed-form")
    two = [("image", ("a", png())), ("image", ("b", png()))]
    answer = await gateway.http.post("/v1/avatars", files=two)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:mien:problem:malformed-form")


@needs_drawing
async def test_the_record_keeps_who_said_that_the_person_agreed_and_when(start_gateway: Any) -> None:
    gateway = await start_gateway()
    before_ms = time.time() * 1000
    answer = await upload(gateway, DRAWN.read_bytes(), consent="granted", consent_name=" Ada Lovelace ")
    assert answer.status_code == 201, answer.text
    consent = answer.json()["consent"]
    assert (consent["kind"], consent["name"]) == ("granted", "Ada Lovelace")
    assert consent["said_by"].startswith("operator ")
    assert gateway.http.headers["Authorization"].removeprefix("Bearer ") not in consent["said_by"]
    assert abs(consent["said_at_ms"] - before_ms) < 60_000
    path = f"/v1/avatars/{answer.json()['avatar_id']}"
    assert (await gateway.http.get(path)).json()["consent"] == consent
    assert (await gateway.anyone.get(path)).status_code == 401
    assert (await gateway.http.get(f"/v1/avatars/{BUNDLED_AVATAR_ID}")).json()["consent"] is None
    folder = Path(gateway.settings.avatar_store.removeprefix("file:"))
    kept = {path for path in folder.rglob("*") if path.is_file() and b"Lovelace" in path.read_bytes()}
    assert kept == {folder / answer.json()["avatar_id"] / "avatar.json"}
    assert (await gateway.http.delete(path)).status_code == 204
    assert not kept & set(folder.rglob("*")), "the statement goes with the avatar"


@pytest.mark.parametrize(
    ("form", "code", "says"),
    [
        ({"consent": ""}, "consent-missing", "say in the field 'consent' whether the person in the picture agreed"),
        ({"consent": "", "consent_name": "Ada"}, "consent-missing", "say in the field 'consent'"),
        ({"consent": "yes"}, "consent-invalid", "must be one of 'self', 'granted', 'drawn'"),
        ({"consent": "granted"}, "consent-invalid", "'granted' needs the person's name in the field 'consent_name'"),
        ({"consent": "granted", "consent_name": "a" * 129}, "consent-invalid", "at most 128 printable characters"),
        ({"consent": "self", "consent_name": "a\x00b"}, "consent-invalid", "at most 128 printable characters"),
    ],
)
async def test_an_upload_says_whether_the_person_agreed(
    start_gateway: Any, form: dict[str, str], code: str, says: str
) -> None:
    gateway = await start_gateway()
    answer = await upload(gateway, png(), **form)
    assert (answer.status_code, answer.json()["type"]) == (422, f"urn:mien:problem:{code}"), answer.text
    assert says in answer.json()["detail"]
    assert await gateway.metric("mien_avatar_processing_seconds_count") == 0, "the picture was not decoded"


@needs_drawing
async def test_a_demo_on_the_same_machine_need_not_say_it(start_gateway: Any) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[])
    answer = await gateway.anyone.post("/v1/avatars", files={"image": ("picture", DRAWN.read_bytes())})
    assert (answer.status_code, answer.json()["consent"]) == (201, None)
    said = await gateway.anyone.post(
        "/v1/avatars", files={"image": ("picture", DRAWN.read_bytes())}, data={"consent": "self"}
    )
    assert said.json()["consent"]["kind"] == "self"


@needs_drawing
async def test_an_operator_may_forbid_photographs(start_gateway: Any) -> None:
    gateway = await start_gateway(photographs=False)
    detail = "photographs are not taken here (MIEN_PHOTOGRAPHS): choose a bundled avatar; operators may upload drawings"
    for form in ({"consent": "self"}, {"consent": "granted", "consent_name": "Ada"}):
        assert_problem(await upload(gateway, DRAWN.read_bytes(), **form), 403, "photographs-forbidden", detail)
    assert (await upload(gateway, DRAWN.read_bytes())).status_code == 201, "a drawing"


async def test_only_an_operator_may_call_a_picture_a_drawing_where_photographs_are_forbidden(
    start_gateway: Any,
) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[], photographs=False)
    for form in ({"consent": "drawn"}, {}):
        answer = await gateway.anyone.post("/v1/avatars", files={"image": ("picture", png())}, data=form)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:mien:problem:photographs-forbidden")


async def test_a_body_that_says_it_is_too_large_is_refused_while_it_is_being_sent(start_gateway: Any) -> None:
    gateway = await start_gateway(max_upload_bytes=10_000)
    answer = await upload(gateway, b"\0" * 20_000_000)
    assert_problem(answer, 413, "upload-too-large", "an upload may have at most 10000 bytes")
    assert answer.headers["connection"] == "close"


async def test_a_body_that_does_not_say_its_size_is_cut_off_at_the_limit(start_gateway: Any) -> None:
    gateway = await start_gateway(max_upload_bytes=100_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(gateway.url).port)

    async def send_without_end() -> None:
        writer.write(
            b"POST /v1/avatars HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: " + gateway.http.headers["Authorization"].encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"\0" * 10_000
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            part = b"\0" * 65_536

    sending = asyncio.create_task(send_without_end())
    answer = await reader.readuntil(b'bytes"}')
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"urn:mien:problem:upload-too-large" in answer
    with pytest.raises(ConnectionError):
        await sending  # the gateway hangs up on one that goes on
    writer.close()


async def test_a_body_that_does_not_come_is_given_up(start_gateway: Any) -> None:
    gateway = await start_gateway(upload_timeout_s=0.2)
    over = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await over.wait()

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    sending = asyncio.create_task(gateway.http.post("/v1/avatars", content=stalled(), headers=form))
    await gateway.reaches(1, "mien_avatar_uploads_total", result="upload-timeout")
    over.set()
    await asyncio.gather(sending, return_exceptions=True)


async def test_more_uploads_than_are_taken_at_once_are_sent_away(start_gateway: Any) -> None:
    gateway = await start_gateway(max_uploads=1, upload_timeout_s=120)
    begun, over = asyncio.Event(), asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        begun.set()
        await over.wait()
        yield b"--x--\r\n"

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    # The first upload starts the worker. A stalled upload that came after another would be refused, and not know it.
    assert (await upload(gateway, b"hello")).status_code == 415
    sending = asyncio.create_task(gateway.http.post("/v1/avatars", content=stalled(), headers=form))
    await begun.wait()
    await asyncio.sleep(1.0)
    async with asyncio.timeout(60):
        while (answer := await upload(gateway, b"hello")).status_code != 503:
            await asyncio.sleep(0.01)
    assert_problem(answer, 503, "uploads-busy", "too many uploads are in progress; try again later")
    assert answer.headers["retry-after"] == "2"
    over.set()
    assert (await sending).status_code == 422
    assert (await upload(gateway, b"hello")).status_code == 415


async def test_the_memory_of_all_uploads_is_bounded(start_gateway: Any) -> None:
    gateway = await start_gateway(
        upload_budget_bytes=150_000, max_upload_bytes=100_000, upload_timeout_s=120, uploads_per_minute=1_000_000
    )
    begun, over = asyncio.Event(), asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        begun.set()
        await over.wait()
        yield b" " * 79_990 + b"\r\n"

    form = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "79997"}
    # The first upload starts the worker. A stalled upload that came after another would be refused, and not know it.
    assert (await upload(gateway, bytes(75_000))).status_code == 415
    sending = asyncio.create_task(gateway.http.post("/v1/avatars", content=stalled(), headers=form))
    await begun.wait()
    await asyncio.sleep(1.0)
    full = "the uploads in progress need all memory for uploads; try again later"
    async with asyncio.timeout(60):
        while (answer := await upload(gateway, bytes(75_000))).status_code != 503:
            await asyncio.sleep(0.01)
    assert_problem(answer, 503, "uploads-busy", full)
    assert answer.headers["retry-after"] == "2"
    assert (await upload(gateway, bytes(50_000))).status_code == 415, "a smaller one still fits"

    async def chunks() -> AsyncIterator[bytes]:  # without Content-Length
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(9):
            yield bytes(9_000)

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(await gateway.http.post("/v1/avatars", content=chunks(), headers=form), 503, "uploads-busy", full)
    over.set()
    assert (await sending).status_code == 422
    assert (await upload(gateway, bytes(75_000))).status_code == 415
    assert await gateway.metric("mien_avatar_uploads_total", result="uploads-busy") >= 2


async def test_uploads_need_no_folder_for_temporary_files(
    start_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a full disk, as it were"))
    answers = await asyncio.gather(*(upload(gateway, bytes(10 * 2**20 - 1000)) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [415] * 6


async def test_a_store_that_fails_is_a_503(start_gateway: Any, tmp_path: Path) -> None:
    gateway = await start_gateway()
    (tmp_path / "avatars" / "broken").write_text("a file where the store would have a folder")
    answer = await gateway.http.get("/v1/avatars/broken")
    assert_problem(answer, 503, "avatar-store-unavailable", "the avatar could not be read")


def worker(deadline_s: float = 10, memory_bytes: int = 3 * 2**29) -> PortraitProcess:
    return PortraitProcess(deadline_s, memory_bytes, 50_000_000)


async def wakes(portraits: PortraitProcess) -> None:
    with pytest.raises(PictureRefused, match="the file is not a picture"):
        await portraits.make(b"hello")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_the_worker_starts_with_the_first_picture_and_serves_the_next_too() -> None:
    assert worker().pid is None
    portraits = worker()
    await wakes(portraits)
    pid = portraits.pid
    with pytest.raises(PictureRefused):
        await portraits.make(png())
    assert portraits.pid == pid
    assert pid is not None
    await portraits.aclose()
    assert not is_running(pid)


async def test_the_worker_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_TOKEN_SECRET", "x" * 40)
    monkeypatch.setenv("REDIS_URL", "redis://user:password@host")
    portraits = worker()
    with pytest.raises(PictureRefused):
        await portraits.make(b"hello")
    environment = Path(f"/proc/{portraits.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"MIEN_" not in environment
    assert b"REDIS_" not in environment
    await portraits.aclose()


async def test_a_worker_that_dies_is_replaced() -> None:
    portraits = worker()
    with pytest.raises(PictureRefused):
        await portraits.make(b"hello")
    assert portraits.pid is not None
    os.kill(portraits.pid, signal.SIGSTOP)  # so that the question is on its way when it dies
    asking = asyncio.create_task(portraits.make(png()))
    await asyncio.sleep(0)
    os.kill(portraits.pid, signal.SIGKILL)
    with pytest.raises(PortraitFailed, match="the picture took too much time or memory"):
        await asking
    with pytest.raises(PictureRefused):
        await portraits.make(b"hello")
    await portraits.aclose()


async def test_a_picture_beyond_the_deadline_ends_the_worker() -> None:
    portraits = worker(deadline_s=0.001)
    with pytest.raises(PortraitFailed, match="the picture took too much time or memory"):
        await portraits.make(png(2000, 2000))
    assert portraits.pid is None
    await portraits.aclose()


async def test_a_picture_beyond_the_memory_is_refused_and_the_worker_lives() -> None:
    portraits = worker(memory_bytes=700 * 2**20)
    large = io.BytesIO()
    Image.new("RGBA", (7000, 7000)).save(large, "PNG", compress_level=1)
    with pytest.raises(PictureRefused) as caught:
        await portraits.make(large.getvalue())
    assert caught.value.refusal is Refusal.TOO_MUCH_MEMORY
    pid = portraits.pid
    with pytest.raises(PictureRefused, match="the file is not a picture"):
        await portraits.make(b"hello")
    assert portraits.pid == pid
    await portraits.aclose()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
async def test_the_largest_pictures_that_are_taken_fit_the_workers_memory(mode: str) -> None:
    portraits = worker()
    large = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new(mode, (7070, 7070)).save(large, kind, compress_level=1)
    with pytest.raises(PictureRefused, match="no face was found"):
        await portraits.make(large.getvalue())
    await portraits.aclose()


async def test_giving_up_on_a_picture_leaves_nothing_for_the_next() -> None:
    portraits = worker()
    with pytest.raises(PictureRefused):
        await portraits.make(b"hello")
    pid = portraits.pid
    asking = asyncio.create_task(portraits.make(png(2000, 2000)))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert pid is not None
    assert not is_running(pid)
    with pytest.raises(PictureRefused, match="the file is not a picture"):
        await portraits.make(b"hello")
    await portraits.aclose()
