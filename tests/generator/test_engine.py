"""The engine with the real warp generator, compositor and encoder: sessions in, decodable frames out."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

import av
import numpy as np
import pytest

from mien_generator.engine import Engine
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.warp import WarpFace, WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.frame.region import CropBox
from mien_generator.h264.encoder import EncodedPicture, EncoderError, H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import GeneratorMetrics
from mien_generator.pipeline import Pipeline
from mien_generator.session import Arrival, GeneratorSession
from mien_shared.clock import SystemClock
from mien_shared.messages import EncodedFrame, KeyframeReason, SessionRecord
from mien_shared.motion import Keypoints, MotionPacket
from mien_shared.trace import read_trace

CROP = CropBox(448, 100, 384)
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SOURCE = Keypoints.from_rows(
    [
        [x, y, 1, 0, 0, 1]
        for x, y in [
            (-0.28, -0.40), (0.28, -0.40), (-0.26, -0.25), (0.26, -0.25), (0.0, 0.02),
            (0.0, 0.20), (0.0, 0.30), (0.0, 0.52), (-0.48, 0.10), (0.48, 0.10),
        ]
    ]
)  # fmt: skip


def still(colour: tuple[int, int, int]) -> RgbArray:
    """A picture of one colour with a grain in it, so that motion shows."""
    grain = np.random.default_rng(0).integers(-20, 20, (720, 1280, 1))
    return np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)


def session_of(name: str) -> GeneratorSession[WarpFace]:
    picture, now_s = still(COLOURS[name]), time.monotonic()
    crop = np.ascontiguousarray(picture[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size])
    return GeneratorSession(
        SessionRecord(session_id=name, avatar_id=name, created_at_ms=0),
        SOURCE,
        WarpGenerator().prepare(AvatarFace(crop, SOURCE)),
        Compositor(picture, CROP),
        H264Encoder(),
        KeyframePolicy(),
        now_s,
    )


class Published:
    """What the pipeline published, by session."""

    def __init__(self) -> None:
        self.frames: dict[str, list[EncodedFrame]] = defaultdict(list)
        self.threads: set[str] = set()

    def __call__(self, session_id: str, frame: EncodedFrame) -> None:
        self.threads.add(threading.current_thread().name)
        self.frames[session_id].append(frame)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def metrics() -> GeneratorMetrics:
    return GeneratorMetrics()


@pytest.fixture
async def engine(published: Published, metrics: GeneratorMetrics) -> AsyncIterator[Engine[WarpFace]]:
    clock = SystemClock()
    engine = Engine(Pipeline(WarpGenerator(), clock, metrics, published), clock, metrics, fps=30, max_batch=8)
    engine.start()
    yield engine
    await asyncio.to_thread(engine.close)


def arrival(sequence: int, dx: float = 0.0) -> Arrival:
    motion = Keypoints.at_rest()
    motion.points[:, 0] += np.float32(dx)
    return Arrival(MotionPacket(sequence, sequence * 33, motion), time.time_ns() // 1000, time.monotonic())


def decode(frames: list[EncodedFrame]) -> list[av.VideoFrame]:
    decoder = av.video.codeccontext.VideoCodecContext.create("h264", "r")
    return [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))] + decoder.decode(None)


async def test_a_session_begins_on_an_idr_and_counts_without_a_gap(
    engine: Engine[WarpFace], published: Published
) -> None:
    await engine.add(lambda: session_of("red"))
    await published.until(lambda: len(published.frames["red"]) >= 12)
    frames = published.frames["red"]
    assert frames[0].is_idr
    assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))
    assert all(later.pts_90k > earlier.pts_90k for earlier, later in itertools.pairwise(frames))
    assert published.threads == {"device"}
    assert len(decode(frames)) == len(frames)


async def test_faces_never_mix(engine: Engine[WarpFace], published: Published) -> None:
    """Three sessions of three colours, moved together in the same batches: each decodes to its own colour alone."""
    for name in COLOURS:
        await engine.add(lambda name=name: session_of(name))  # type: ignore[misc]
    for number in range(30):
        for name in COLOURS:
            engine.offer(name, arrival(number, 0.05 * np.sin(number)))
        await asyncio.sleep(1 / 30)
    for name, colour in COLOURS.items():
        for picture in decode(published.frames[name]):
            mean = picture.to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0)
            np.testing.assert_allclose(mean, colour, atol=12)


async def test_a_frame_carries_the_motion_it_shows(engine: Engine[WarpFace], published: Published) -> None:
    await engine.add(lambda: session_of("red"))
    await published.until(lambda: bool(published.frames["red"]))
    engine.offer("red", arrival(77))

    def shown() -> bool:
        trace = read_trace(published.frames["red"][-1].data)
        return trace is not None and trace.sequence == 77 and not trace.is_stalled

    await published.until(shown)
    trace = read_trace(published.frames["red"][-1].data)
    assert trace is not None
    assert trace.capture_ms == 77 * 33
    assert min(trace.face_us, trace.compose_us, trace.encode_us) > 0


async def test_an_idr_comes_when_it_is_asked_for(engine: Engine[WarpFace], published: Published) -> None:
    await engine.add(lambda: session_of("red"))
    await published.until(lambda: len(published.frames["red"]) >= 20)  # past the half second between two IDRs
    for _ in range(5):
        engine.request_keyframe("red", KeyframeReason.PLI)
    asked_at = len(published.frames["red"])
    await published.until(lambda: len(published.frames["red"]) >= asked_at + 10)
    idrs = [index for index, frame in enumerate(published.frames["red"]) if frame.is_idr]
    assert len(idrs) == 2, "five requests, one IDR"
    assert idrs[1] <= asked_at + 2, "within two frames"


async def test_the_bitrate_follows_its_target(engine: Engine[WarpFace], published: Published) -> None:
    async def bytes_in(seconds: float) -> int:
        before = len(published.frames["red"])
        for number in range(int(30 * seconds)):
            engine.offer("red", arrival(number, 0.08 * np.sin(number / 2)))
            await asyncio.sleep(1 / 30)
        return sum(len(frame.data) for frame in published.frames["red"][before:])

    await engine.add(lambda: session_of("red"))
    engine.set_bitrate("red", 4_000_000)
    await bytes_in(0.7)
    much = await bytes_in(1.0)
    engine.set_bitrate("red", 200_000)
    await bytes_in(1.5)
    little = await bytes_in(1.0)
    assert little < 0.5 * much


async def test_a_session_that_leaves_harms_no_other(
    engine: Engine[WarpFace], published: Published, metrics: GeneratorMetrics
) -> None:
    for name in COLOURS:
        await engine.add(lambda name=name: session_of(name))  # type: ignore[misc]
    await published.until(lambda: all(len(published.frames[name]) >= 5 for name in COLOURS))
    engine.remove("green", "stopped")
    engine.remove("green", "expired")
    engine.remove("nobody", "stopped")
    count = len(published.frames["red"])
    await published.until(lambda: len(published.frames["red"]) >= count + 10)
    gone = len(published.frames["green"])
    await published.until(lambda: len(published.frames["blue"]) >= count + 20)
    assert len(published.frames["green"]) == gone
    assert {record.session_id for record in engine.records()} == {"red", "blue"}
    ended = "mien_generator_sessions_ended_total"
    counts = [metrics.registry.get_sample_value(ended, {"reason": reason}) for reason in ("stopped", "expired")]
    assert counts == [1, 0], "it ended once, and nobody did not"


class FailingEncoder(H264Encoder):
    """Breaks with its fifth frame, as a codec may."""

    frames = 0

    def encode(self, frame: av.VideoFrame, pts_90k: int, force_idr: bool = False) -> EncodedPicture:
        self.frames += 1
        if self.frames >= 5:
            raise EncoderError("libx264 failed on a frame")
        return super().encode(frame, pts_90k, force_idr)


async def test_a_session_whose_encoder_fails_costs_no_other_a_frame(
    engine: Engine[WarpFace], published: Published
) -> None:
    def failing() -> GeneratorSession[WarpFace]:
        session = session_of("green")
        session.encoder = FailingEncoder()
        return session

    await engine.add(lambda: session_of("red"))
    await engine.add(failing)
    await published.until(lambda: {record.session_id for record in engine.records()} == {"red"})
    assert len(published.frames["green"]) == 4
    count = len(published.frames["red"])
    await published.until(lambda: len(published.frames["red"]) >= count + 10)
    assert engine.failure is None


class FailingFaces(WarpGenerator):
    """A device that is lost."""

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        raise RuntimeError("the device is lost")


async def test_a_device_that_is_lost_is_said_and_holds_no_session(published: Published) -> None:
    clock, metrics = SystemClock(), GeneratorMetrics()
    engine = Engine(Pipeline(FailingFaces(), clock, metrics, published), clock, metrics, fps=30, max_batch=8)
    engine.start()
    await engine.add(lambda: session_of("red"))
    await published.until(lambda: engine.failure is not None)
    assert engine.failure == "the device thread has failed: the device is lost"
    await published.until(lambda: engine.records() == [])
    await asyncio.to_thread(engine.close)


async def test_a_session_that_cannot_be_built_says_why_and_nothing_else_stops(
    engine: Engine[WarpFace], published: Published
) -> None:
    def broken() -> GeneratorSession[WarpFace]:
        raise ValueError("no such picture")

    with pytest.raises(ValueError, match=r"^no such picture$"):
        await engine.add(broken)
    await engine.add(lambda: session_of("red"))
    await published.until(lambda: len(published.frames["red"]) >= 3)
    assert engine.failure is None


async def test_statistics_of_a_session(engine: Engine[WarpFace]) -> None:
    await engine.add(lambda: session_of("red"))
    for number in range(45):
        engine.offer("red", arrival(number))
        await asyncio.sleep(1 / 30)
    stats = engine.stats()["red"]
    assert stats.engine == "warp"
    assert stats.tier == "warp-384"
    assert 0 < stats.fps <= 31
    assert stats.bitrate_bps > 0
    assert stats.uplink_bps > 5_000
    assert stats.motion_to_packet_ms_p50 is not None
    assert not stats.idle
