"""The avatar store's disk is full."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from failure.eye import longest_gap_s, watching
from failure.stacks import Note, Run, bundled_face

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR
from mien_client.viewer import Viewer

pytestmark = pytest.mark.failure

_BLOCK_BYTES = os.sysconf("SC_PAGE_SIZE")  # block size of a tmpfs


@pytest.fixture
def small_disk(root_only: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, free_bytes: int) -> None:
    """Fill the disk until this many bytes are free, rounded up to whole blocks."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    stat = os.statvfs(disk)
    blocks = stat.f_bavail * stat.f_frsize // _BLOCK_BYTES - -(-free_bytes // _BLOCK_BYTES)
    filler.write_bytes(bytes(blocks * _BLOCK_BYTES))
    stat = os.statvfs(disk)
    assert stat.f_bavail * stat.f_frsize == -(-free_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def files(disk: Path) -> set[str]:
    return {str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()} - {"filler"}


async def test_the_avatar_stores_disk_is_full(run_system: Run, note: Note, small_disk: Path) -> None:
    store = small_disk / "avatars"
    async with (
        run_system(generator_env={"MIEN_AVATAR_STORE": f"file:{store}"}) as system,
        system.call() as call,
        MienClient(system.stack.url) as mien,
        httpx.AsyncClient(base_url=system.stack.url, trust_env=False, timeout=20) as http,
    ):
        picture = (await http.get(f"/v1/avatars/{BUNDLED_AVATAR}/picture")).content

        async def upload() -> httpx.Response:
            return await http.post("/v1/avatars", files={"image": ("face.png", picture)})

        fitting = await upload()
        assert fitting.status_code == 201
        stored = store / fitting.json()["avatar_id"] / "picture.png"
        before, png_bytes = files(small_disk), stored.stat().st_size
        async with watching(call.session, await bundled_face(system)) as eye:
            began_s = time.monotonic()
            # No room for the picture; room for the picture but not for the avatar's record; no room at all.
            for free_bytes in (png_bytes // 2, png_bytes, 0):
                leave(small_disk, free_bytes)
                refused = await upload()
                assert refused.status_code == 503, refused.text
                assert refused.headers["content-type"] == "application/problem+json"
                assert refused.json()["type"] == "urn:mien:problem:avatar-store-unavailable"
                assert int(refused.headers["retry-after"]) > 0
                assert files(small_disk) == before, "no half-written file stays"
            assert (await mien.avatar(fitting.json()["avatar_id"])).width == 1280
            other = await mien.create_session(BUNDLED_AVATAR)
            async with Viewer(other.whep_url, other.watch_token) as viewer:
                assert (await anext(viewer.frames())).picture.width == 1280
            await mien.end_session(other.session_id, other.token)
            await system.stack.kill("gateway")
            await system.stack.start("gateway")  # returns when the gateway is ready
            gap_s = longest_gap_s(eye.since(began_s))
            assert eye.is_connected
            assert gap_s < 0.5
        (small_disk / "filler").unlink()
        assert (await upload()).status_code == 201
        assert system.stack.ended() == {}
    note(
        "the avatar store's disk full",
        "no effect; an upload gets 503 `avatar-store-unavailable` with Retry-After and leaves no file behind; "
        "other calls and new sessions work; a restarted gateway becomes ready",
        f"longest gap between two pictures {gap_s * 1000:.0f} ms",
    )
