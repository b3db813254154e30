"""A camera's pictures as they arrive, and what is said about a camera that cannot be used.

No machine that runs these tests has a camera: clips stand for what FFmpeg reads from one.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clip_files import write_clip

from mien_client.pictures import CameraPictures
from mien_client.sources import SourceError

OpenCamera = Callable[..., Any]
HINTS = {
    "linux": "`ls /dev/video*` lists the cameras",
    "darwin": "allow the terminal to use it in System Settings, Privacy & Security, Camera",
}


async def refused(device: str | None = None, system: str = "linux") -> str:
    """What is said about a camera that cannot be opened."""
    with pytest.raises(SourceError) as refusal:
        async with CameraPictures(device, system):
            pass
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="not a Unix")
async def test_what_is_no_camera_is_named(tmp_path: Path) -> None:
    """FFmpeg's own answers, where it can read cameras of Linux."""
    if "v4l2" not in " ".join(av.formats_available):
        pytest.skip("this PyAV reads no cameras of Linux")
    missing = str(tmp_path / "video7")
    assert await refused(missing) == f"there is no camera {missing}: {HINTS['linux']}"
    assert (await refused("/dev/null")).startswith("the camera /dev/null cannot be opened (")


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[OpenCamera], None]:
    def use(open_camera: OpenCamera) -> None:
        monkeypatch.setattr(av, "open", open_camera)

    return use


def failing(number: int) -> OpenCamera:
    def open_camera(device: str, **_: object) -> Any:
        raise av.error.OSError(number, os.strerror(number), device)

    return open_camera


@pytest.mark.parametrize(("system", "device"), [("linux", "/dev/video0"), ("darwin", "default")])
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EBUSY, "the camera {device} is used by another program: close that program"),
        (errno.EACCES, "you may not use the camera {device}: permission denied"),
        (errno.EIO, "the camera {device} cannot be opened (Input/output error): {hint}"),
    ],
)
async def test_a_camera_that_cannot_be_opened_is_named(
    opens: Callable[[OpenCamera], None], system: str, device: str, number: int, says: str
) -> None:
    opens(failing(number))
    assert await refused(None, system) == says.format(device=device, hint=HINTS[system])


async def test_a_system_whose_cameras_we_cannot_read_is_named() -> None:
    assert await refused(None, "win32") == "cameras can be read on Linux and macOS, not on win32: send a clip instead"


async def test_a_build_without_cameras_is_named(opens: Callable[[OpenCamera], None]) -> None:
    def open_camera(device: str, **_: object) -> Any:
        raise ValueError("no container format 'avfoundation'")

    opens(open_camera)
    assert await refused(None, "darwin") == "this PyAV cannot read cameras: it was built without avfoundation"


class Camera:
    """A clip that stands for a camera. Between two pictures it has nothing to read, like AVFoundation."""

    def __init__(self, path: Path, ends_with: Exception | None = None) -> None:
        self._container = av.open(str(path))
        self._packets = self._container.demux(video=0)
        self._ends_with = ends_with
        self.closed = False

    def demux(self, video: int) -> Iterator[Any]:
        assert video == 0
        for packet in self._packets:
            if not packet.size:
                break
            yield packet
            raise av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if self._ends_with:
            raise self._ends_with

    def close(self) -> None:
        self.closed = True
        self._container.close()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "film.mkv", [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(6)], codec="ffv1")


async def pictures_until_it_ends() -> tuple[int, str]:
    """How many pictures a camera gives, and what is said at its end."""
    count = 0
    async with asyncio.timeout(20), CameraPictures(None, "darwin") as pictures:
        try:
            async for picture in pictures:
                assert picture.rgb(1280).shape == (48, 64, 3)
                count += 1
        except SourceError as end:
            return count, str(end)
    raise AssertionError("a camera does not end without a word")


async def test_a_camera_without_the_size_is_opened_in_its_own(opens: Callable[[OpenCamera], None], film: Path) -> None:
    tried: list[dict[str, str]] = []
    real = Camera(film)

    def open_camera(device: str, format: str, options: dict[str, str]) -> Any:
        assert (device, format) == ("default", "avfoundation")
        tried.append(options)
        if "video_size" in options:
            raise av.error.OSError(errno.EIO, "Input/output error", device)
        return real

    opens(open_camera)
    count, end = await pictures_until_it_ends()
    assert [sorted(options) for options in tried] == [["framerate", "video_size"], ["framerate"]]
    assert count == 5, "the first picture, from the time of opening, is too old to send"
    assert end == "the camera default stopped"
    assert real.closed


async def test_a_camera_that_is_pulled_out_is_named(opens: Callable[[OpenCamera], None], film: Path) -> None:
    real = Camera(film, av.error.OSError(errno.ENODEV, "No such device", "default"))
    opens(lambda device, **_: real)
    count, end = await pictures_until_it_ends()
    assert (count, end) == (5, "the camera default stopped: No such device")
    assert real.closed
