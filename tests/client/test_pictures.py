"""A clip's pictures at the clip's pace, from files as cameras, phones and recorders leave them."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import MATRICES, blanked, corners, stored_for, turned, write_clip, write_sound

from mien_client.pictures import ClipPictures, Picture
from mien_client.sources import SourceError

FRAMES, FPS = 12, 25
SHADES = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(FRAMES)]
HOUR = 3600 * FPS


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Half a second at 25 frames a second, each frame brighter than the one before."""
    return write_clip(tmp_path / "clip.mkv", SHADES, codec="ffv1")


class Time:
    """A clock that moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def clock_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def number_of(picture: Picture) -> int:
    return round(float(picture.frame.to_ndarray(format="rgb24").mean()) / 10)


class Taken:
    """What a consumer takes that needs `work_s` for each picture: (time since the start, number) of each."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.said: list[str] = []
        self.late = 0

    async def take(self, clip: Path, work_s: float = 0.01, count: int = 1000, loop: bool = False) -> None:
        time = Time()
        async with ClipPictures(str(clip), loop, time.clock_s, time.sleep, self.said.append) as pictures:
            try:
                async for picture in pictures:
                    self.seen.append((picture.time_s - 50, number_of(picture)))
                    time.now_s += work_s
                    if len(self.seen) == count:
                        break
            finally:
                self.late = pictures.late

    @property
    def times(self) -> list[float]:
        return [at_s for at_s, _ in self.seen]

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.seen]


@pytest.fixture
def taken() -> Taken:
    return Taken()


def steady(count: int) -> list[float]:
    return [number / FPS for number in range(count)]


# --- pace -------------------------------------------------------------------------------------------------------------


async def test_every_picture_comes_at_its_time(clip: Path, taken: Taken) -> None:
    await taken.take(clip)
    assert taken.numbers == list(range(FRAMES))
    assert taken.times == pytest.approx(steady(FRAMES))
    assert (taken.late, taken.said) == (0, [])


async def test_a_slow_taker_gets_the_newest_and_the_rest_is_counted(clip: Path, taken: Taken) -> None:
    await taken.take(clip, work_s=0.24)
    assert taken.numbers == [0, 4, 10]
    assert taken.late == FRAMES - 3


async def test_a_loop_goes_on_at_the_same_pace(clip: Path, taken: Taken) -> None:
    await taken.take(clip, count=3 * FRAMES, loop=True)
    assert taken.numbers == list(range(FRAMES)) * 3
    assert taken.times == pytest.approx(steady(3 * FRAMES))


async def test_a_still_picture_in_a_loop_comes_at_the_usual_rate(tmp_path: Path, taken: Taken) -> None:
    await taken.take(write_clip(tmp_path / "still.mkv", SHADES[:1], codec="ffv1"), count=4, loop=True)
    assert taken.times == pytest.approx(steady(4))


# --- time stamps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [20 * FPS, HOUR])
@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
async def test_a_clip_that_was_cut_out_begins_at_once(tmp_path: Path, taken: Taken, start: int, suffix: str) -> None:
    stamps = [start + number for number in range(FRAMES)]
    await taken.take(write_clip(tmp_path / f"cut{suffix}", SHADES, stamps))
    assert len(taken.seen) == FRAMES
    assert taken.times == pytest.approx(steady(FRAMES), abs=0.002)
    assert taken.said == []


def joined(folder: Path, jump: int) -> Path:
    """Two segments of a stream, one behind the other; the stamps of the second are `jump` intervals off."""
    half = FRAMES // 2
    first = write_clip(folder / "1.ts", SHADES[:half], [10 * FPS + number for number in range(half)])
    second = write_clip(folder / "2.ts", SHADES[half:], [10 * FPS + jump + number for number in range(half, FRAMES)])
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


@pytest.mark.parametrize("jump", [3 * FPS, HOUR, -3 * FPS])
async def test_a_jump_is_no_wait_and_is_said(tmp_path: Path, taken: Taken, jump: int) -> None:
    path = joined(tmp_path, jump)
    await taken.take(path)
    assert taken.numbers == list(range(FRAMES))
    assert taken.times == pytest.approx(steady(FRAMES), abs=0.002)
    assert taken.said == [
        f"{path}: time stamps jump by {(jump + 1) / FPS:.1f} s; such pictures are played at 25 a second"
    ]


async def test_a_jump_in_a_loop_is_said_once(tmp_path: Path, taken: Taken) -> None:
    await taken.take(joined(tmp_path, HOUR), count=2 * FRAMES, loop=True)
    assert len(taken.said) == 1


async def test_a_clip_without_stamps_is_played_at_its_rate(tmp_path: Path, taken: Taken) -> None:
    path = write_clip(tmp_path / "raw.h264", SHADES)
    await taken.take(path)
    assert taken.times == pytest.approx(steady(FRAMES))
    assert taken.said == [f"{path}: pictures have no time stamps; such pictures are played at 25 a second"]


# --- orientation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MATRICES)
async def test_a_phones_clip_is_turned_upright(tmp_path: Path, name: str) -> None:
    shown = corners(64, 96)
    path = turned(write_clip(tmp_path / "phone.mp4", [stored_for(MATRICES[name], shown)]), MATRICES[name])
    async with ClipPictures(str(path)) as pictures:
        async for picture in pictures:
            rgb = picture.rgb(1280)
            assert rgb.shape == shown.shape
            np.testing.assert_allclose(rgb[8::16, 8::16].astype(int), shown[8::16, 8::16], atol=12)
            assert max(picture.rgb(48).shape) == 48


# --- files that cannot be played --------------------------------------------------------------------------------------


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def sound_with_a_cover(path: Path) -> Path:
    """A song whose cover is a video stream of one picture."""
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.VideoFrame.from_ndarray(SHADES[3], format="rgb24").reformat(format="yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(frame))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts, silence.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
        container.mux(cover.encode(None))
    return path


async def refused(path: Path) -> str:
    """What is wrong with a clip that cannot be opened."""
    with pytest.raises(SourceError) as refusal:
        async with ClipPictures(str(path)):
            pass
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


async def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "audio.m4a", "aac")
    assert await refused(path) == f"{path} has no video, only sound"


async def test_a_songs_cover_is_no_video(tmp_path: Path) -> None:
    path = sound_with_a_cover(tmp_path / "song.m4a")
    assert await refused(path) == f"{path} has no video, only sound"


async def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert await refused(tmp_path / "empty.mp4") == f"{tmp_path / 'empty.mp4'} is empty"


async def test_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip at all")
    assert (await refused(tmp_path / "text.mp4")).startswith(f"{tmp_path / 'text.mp4'} is not a clip, or it is cut off")


async def test_a_clip_that_lost_its_end_with_the_index_is_refused(tmp_path: Path) -> None:
    path = cut(write_clip(tmp_path / "clip.mp4", SHADES), 0.5)
    assert (await refused(path)).startswith(f"{path} is not a clip, or it is cut off")


async def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert await refused(tmp_path) == f"{tmp_path} is a folder, not a clip"
    path = tmp_path / "nowhere.mp4"
    assert await refused(path) == f"{path} cannot be read: No such file or directory"


async def test_a_clip_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = blanked(write_clip(tmp_path / "clip.mp4", SHADES))
    assert await refused(path) == f"{path} has a video in which no picture can be decoded"


def half_of(path: Path) -> Path:
    """A clip whose index is whole and whose pictures are cut off, like a download that was broken off."""
    rng = np.random.default_rng(3)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(FRAMES)]
    whole = write_clip(path.with_stem("whole"), noise)
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return cut(path, 0.6)


async def test_a_clip_that_is_cut_off_is_played_as_far_as_it_goes(tmp_path: Path, taken: Taken) -> None:
    path = half_of(tmp_path / "half.mp4")
    with pytest.raises(SourceError, match=r"half\.mp4 is damaged or cut off: "):
        await taken.take(path)
    assert 3 < len(taken.seen) < FRAMES


async def test_a_clip_that_is_cut_off_is_repeated_as_well(tmp_path: Path, taken: Taken) -> None:
    await taken.take(half_of(tmp_path / "half.mp4"), count=2 * FRAMES, loop=True)
    assert len(taken.seen) == 2 * FRAMES
    assert len(taken.said) == 1
    assert "is damaged or cut off" in taken.said[0]


async def test_a_reader_that_is_cancelled_closes_the_clip(tmp_path: Path) -> None:
    """The thread is decoding then, large pictures for a while: a generator cannot be closed while it runs."""
    rng = np.random.default_rng(5)
    noise = [rng.integers(0, 255, (480, 640, 3), np.uint8) for _ in range(3)]
    clip = write_clip(tmp_path / "large.mkv", noise, codec="ffv1")

    async def read() -> None:
        async with ClipPictures(str(clip), loop=True, sleep=lambda seconds: asyncio.sleep(0)) as pictures:
            async for _ in pictures:
                started.set()

    for _ in range(20):
        started = asyncio.Event()
        task = asyncio.create_task(read())
        async with asyncio.timeout(10):
            await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
