"""The engine with real generators, compositor and encoder: sessions in, decodable frames out."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import av
import cv2
import numpy as np
import pytest
from boxes import face_box
from engines import BalancedEngine, running_engine

from mien_generator.cost import BatchCost
from mien_generator.engine.session import Arrival, SessionAvatar
from mien_generator.face.contract import AvatarFace, FaceRefused, FaceRequest, RgbArray
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpFace, WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import EncodedPicture, H264Encoder, H264Error
from mien_generator.metrics import EndedBy, GeneratorMetrics
from mien_shared.bus.messages import EncodedFrame, KeyframeReason, SessionRecord
from mien_shared.keypoints import Keypoints
from mien_shared.media.frame_trace import read_trace
from mien_shared.wire.motion import MotionPacket

CROP = face_box(448, 100, 384)
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


def avatar_of(name: str) -> SessionAvatar:
    picture = still(COLOURS[name])
    crop = np.ascontiguousarray(picture[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size])
    return SessionAvatar(AvatarFace(crop, SOURCE))


async def add(engine: BalancedEngine, name: str, encoder: H264Encoder | None = None) -> SessionAvatar:
    record = SessionRecord(session_id=name, avatar_id=name, created_at_ms=0)
    avatar = avatar_of(name)
    await engine.add(record, avatar, Compositor(still(COLOURS[name]), CROP), encoder or H264Encoder())
    return avatar


class Network(WarpGenerator):
    """Stands for a network on a device: the warped face at a size of its own, tinted, so that its work shows.

    face_s: what the device takes for each, on top.
    """

    def __init__(self, size: int, tint: int = 0, face_s: float = 0.0) -> None:
        super().__init__()
        self.name, self.size, self.tint, self.face_s = "network", size, tint, face_s
        self.avatars = 0
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        self.avatars += 1
        self.threads.add(threading.current_thread().name)
        rgb = cv2.resize(avatar.rgb, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return super().prepare(AvatarFace(np.asarray(rgb, np.uint8), avatar.keypoints))

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(requests))
        time.sleep(self.face_s * len(requests))
        return [cv2.add(face, np.full_like(face, self.tint)) for face in super().animate(requests)]


WARP = Rung("warp", WarpGenerator(), on_device=False)


@asynccontextmanager
async def running(
    published: Published,
    metrics: GeneratorMetrics,
    *networks: WarpGenerator,
    costs: Sequence[float] = (),
    threads: int = 2,
    shares_cores: bool = True,
) -> AsyncIterator[BalancedEngine]:
    """An engine with these networks above warp; costs: what it believes that a face of each takes."""
    rungs = [Rung(f"{one.name}-{getattr(one, 'size', 384)}", one, on_device=True) for one in networks]
    ladder = Ladder((*rungs, WARP), shares_cores=shares_cores)
    believed = dict(enumerate(BatchCost.linear(cost) for cost in costs or [0.001] * len(rungs)))
    async with running_engine(ladder, believed, published, metrics, threads=threads) as engine:
        yield engine


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
async def engine(published: Published, metrics: GeneratorMetrics) -> AsyncIterator[BalancedEngine]:
    async with running(published, metrics) as engine:
        yield engine


def arrival(sequence: int, dx: float = 0.0) -> Arrival:
    motion = Keypoints.at_rest()
    motion.points[:, 0] += np.float32(dx)
    return Arrival(MotionPacket(sequence, sequence * 33, motion), 128, time.time_ns() // 1000, time.monotonic())


def decode(frames: list[EncodedFrame]) -> list[av.VideoFrame]:
    decoder = av.video.codeccontext.VideoCodecContext.create("h264", "r")
    return [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))] + decoder.decode(None)


async def test_a_session_begins_on_an_idr_and_counts_without_a_gap(
    engine: BalancedEngine, published: Published
) -> None:
    await add(engine, "red")
    await published.until(lambda: len(published.frames["red"]) >= 12)
    frames = list(published.frames["red"])
    assert frames[0].is_idr
    assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))
    assert all(later.pts_90k > earlier.pts_90k for earlier, later in itertools.pairwise(frames))
    assert published.threads <= {"pool 1", "pool 2"}
    assert len(decode(frames)) == len(frames)


class OverlappingNetwork(Network):
    """A device that works on its own: it notes what was submitted while something else was not collected yet."""

    under_way = 0
    most_under_way = 0

    def submit(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        return self.animate(requests)

    def collect(self, ticket: list[RgbArray]) -> list[RgbArray]:
        time.sleep(0.02)  # as long as the device would still need
        self.under_way -= 1
        return ticket


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["warp", "batches", "overlapping batches", "stepping"])
async def test_faces_never_mix(published: Published, metrics: GeneratorMetrics, kind: str) -> None:
    """Three sessions of three colours, moved together in the same batches: each decodes to its own colour alone."""
    networks: list[Network] = [] if kind == "warp" else [OverlappingNetwork(128)]
    async with running(published, metrics, *networks, shares_cores="overlapping" not in kind) as engine:
        for name in COLOURS:
            await add(engine, name)
        for number in range(30):
            for name in COLOURS:
                engine.offer(name, arrival(number, 0.05 * np.sin(number)))
                if "overlapping" in kind:  # the next batch is asked for while the device still works on the last one
                    await asyncio.sleep(1 / 120)
            if kind == "stepping":
                for session in engine.records():
                    engine.step(session.session_id, number // 3 % 2)
            await asyncio.sleep(1 / 30)
        await published.until(lambda: all(len(published.frames[name]) >= 8 for name in COLOURS))
    for name, colour in COLOURS.items():
        for picture in decode(published.frames[name]):
            middle = picture.to_ndarray(format="rgb24")[CROP.y : CROP.y + CROP.size, CROP.x : CROP.x + CROP.size]
            np.testing.assert_allclose(middle.reshape(-1, 3).mean(axis=0), colour, atol=12)
            np.testing.assert_allclose(picture.to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0), colour, atol=12)
        assert all(later.follows(earlier) for earlier, later in itertools.pairwise(published.frames[name]))
    for network in networks:
        assert max(network.batches) > 1, "they were made together"
        assert getattr(network, "most_under_way", 0) == (2 if "overlapping" in kind else 0)


async def test_a_frame_carries_the_motion_it_shows(engine: BalancedEngine, published: Published) -> None:
    await add(engine, "red")
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


async def test_an_idr_comes_when_it_is_asked_for(engine: BalancedEngine, published: Published) -> None:
    await add(engine, "red")
    await published.until(lambda: len(published.frames["red"]) >= 20)  # past the half second between two IDRs
    for _ in range(5):
        engine.request_keyframe("red", KeyframeReason.PLI)
    asked_at = len(published.frames["red"])
    await published.until(lambda: len(published.frames["red"]) >= asked_at + 10)
    idrs = [index for index, frame in enumerate(published.frames["red"]) if frame.is_idr]
    assert len(idrs) == 2, "five requests, one IDR"
    assert idrs[1] <= asked_at + 2, "within two frames"


@pytest.mark.slow
async def test_the_bitrate_follows_its_target(engine: BalancedEngine, published: Published) -> None:
    async def bytes_in(seconds: float) -> int:
        before = len(published.frames["red"])
        for number in range(int(30 * seconds)):
            engine.offer("red", arrival(number, 0.08 * np.sin(number / 2)))
            await asyncio.sleep(1 / 30)
        return sum(len(frame.data) for frame in published.frames["red"][before:])

    await add(engine, "red")
    engine.set_bitrate("red", 4_000_000)
    await bytes_in(0.7)
    much = await bytes_in(1.0)
    engine.set_bitrate("red", 200_000)
    await bytes_in(1.5)
    little = await bytes_in(1.0)
    assert little < 0.5 * much


async def test_a_session_that_leaves_harms_no_other(
    engine: BalancedEngine, published: Published, metrics: GeneratorMetrics
) -> None:
    for name in COLOURS:
        await add(engine, name)
    await published.until(lambda: all(len(published.frames[name]) >= 5 for name in COLOURS))
    engine.remove("green", EndedBy.STOPPED)
    engine.remove("green", EndedBy.EXPIRED)
    engine.remove("nobody", EndedBy.STOPPED)
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
            raise H264Error("libx264 failed on a frame")
        return super().encode(frame, pts_90k, force_idr)


async def test_a_session_whose_encoder_fails_costs_no_other_a_frame(
    engine: BalancedEngine, published: Published
) -> None:
    await add(engine, "red")
    await add(engine, "green", FailingEncoder())
    await published.until(lambda: {record.session_id for record in engine.records()} == {"red"})
    assert len(published.frames["green"]) == 4
    assert engine.take_failed() == ["green"]
    count = len(published.frames["red"])
    await published.until(lambda: len(published.frames["red"]) >= count + 10)
    assert engine.failure is None


class FailingFaces(Network):
    """A device that is lost."""

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        raise RuntimeError("the device is lost")


async def test_a_device_that_is_lost_costs_its_sessions_nothing_but_quality(
    published: Published, metrics: GeneratorMetrics
) -> None:
    async with running(published, metrics, FailingFaces(384)) as engine:
        assert engine.device is not None
        await add(engine, "red")
        await published.until(lambda: len(published.frames["red"]) > 3)
        assert engine.device.failure == "the device has failed: the device is lost"
        assert engine.stats()["red"].tier == "warp"
        assert engine.take_suspects() == ["red"], "its face was under way"
        await add(engine, "green")
        await published.until(lambda: len(published.frames["green"]) > 3)
        assert engine.failure is None
    assert ended(metrics, "failed") == 0


class PoisonedFaces(OverlappingNetwork):
    """A device on which the faces of one colour fail, and with them every batch that holds one.

    failures: how often they fail before they work.
    """

    def __init__(self, colour: tuple[int, int, int], failures: float = float("inf")) -> None:
        super().__init__(128)
        self.colour, self.failures = colour, failures
        self.poisoned: list[WarpFace] = []

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        prepared = super().prepare(avatar)
        if np.abs(avatar.rgb.reshape(-1, 3).mean(axis=0) - self.colour).max() < 10:
            self.poisoned.append(prepared)
        return prepared

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        if any(request.prepared is poisoned for request in requests for poisoned in self.poisoned) and self.failures:
            self.failures -= 1
            raise RuntimeError("a face cannot be made")
        return super().animate(requests)


def ended(metrics: GeneratorMetrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("mien_generator_sessions_ended_total", {"reason": reason})


@pytest.mark.parametrize("names", [["red", "green", "blue"], ["green"]])
@pytest.mark.parametrize("overlap", [False, True])
async def test_a_face_that_fails_ends_its_own_session_and_no_other(
    published: Published, metrics: GeneratorMetrics, names: list[str], overlap: bool
) -> None:
    async with running(published, metrics, PoisonedFaces(COLOURS["green"]), shares_cores=not overlap) as engine:
        others = set(names) - {"green"}
        for name in names:
            await add(engine, name)
        await published.until(lambda: {record.session_id for record in engine.records()} == others)
        await speak(engine, names, 0.3)
        counts = {name: len(published.frames[name]) for name in others}
        await speak(engine, names, 0.3)
        assert all(len(published.frames[name]) > counts[name] for name in others)
        assert engine.failure is None
        assert engine.take_failed() == ["green"]
        assert engine.take_failed() == [], "each is reported once"
        assert ended(metrics, "failed") == 1
        await add(engine, "red" if "red" not in names else "blue")  # the device takes sessions as before


@pytest.mark.parametrize("overlap", [False, True])
async def test_a_batch_that_fails_once_is_made_again(
    published: Published, metrics: GeneratorMetrics, overlap: bool
) -> None:
    network = PoisonedFaces(COLOURS["green"], failures=1)
    async with running(published, metrics, network, shares_cores=not overlap) as engine:
        for name in COLOURS:
            await add(engine, name)
        await published.until(
            lambda: network.failures == 0 and all(len(published.frames[name]) > 5 for name in COLOURS)
        )
        assert {record.session_id for record in engine.records()} == set(COLOURS)
        assert engine.take_failed() == []
    for frames in published.frames.values():
        assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))
    assert metrics.registry.get_sample_value("mien_device_batches_failed_total") == 1


class PickyFaces(Network):
    """Takes no avatar in: full, or unable to read it."""

    error: Exception = ValueError("no such picture")

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        raise self.error


async def test_a_session_that_cannot_be_built_says_why_and_nothing_else_stops(
    published: Published, metrics: GeneratorMetrics
) -> None:
    picky = PickyFaces(384)
    async with running(published, metrics, picky) as engine:
        with pytest.raises(ValueError, match=r"^no such picture$"):
            await add(engine, "red")
        assert engine.records() == []
        picky.error = FaceRefused("the device's memory is full")
        await add(engine, "red")
        await published.until(lambda: len(published.frames["red"]) >= 3)
        assert engine.stats()["red"].tier == "warp", "where one tier is full the next takes it"
        assert engine.failure is None


async def test_who_gives_up_waiting_for_a_session_leaves_nothing_behind(
    published: Published, metrics: GeneratorMetrics
) -> None:
    async with running(published, metrics, Network(384)) as engine:
        for _ in range(20):
            waiting = asyncio.create_task(add(engine, "red"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await add(engine, "green")
        await published.until(lambda: len(published.frames["green"]) >= 3)
        assert [record.session_id for record in engine.records()] == ["green"]


async def test_statistics_of_a_session(engine: BalancedEngine) -> None:
    await add(engine, "red")
    for number in range(45):
        engine.offer("red", arrival(number))
        await asyncio.sleep(1 / 30)
    stats = engine.stats()["red"]
    assert stats.backend == "warp"
    assert stats.tier == "warp"
    assert 0 < stats.fps <= 31
    assert stats.bitrate_bps > 0
    assert stats.uplink_bps > 5_000
    assert stats.motion_to_packet_ms_p50 is not None
    assert not stats.idle


async def speak(engine: BalancedEngine, names: Sequence[str], seconds: float, balance: bool = True) -> None:
    """Motion for all of them, 30 times a second, and the engine's balance as the service calls it."""
    for number in range(round(30 * seconds)):
        for name in names:
            engine.offer(name, arrival(number, 0.05 * np.sin(number / 4)))
        if balance and number % 8 == 0:
            engine.balance()
        await asyncio.sleep(1 / 30)


async def test_the_device_makes_faces_on_its_own_thread_in_batches_and_the_pool_finishes_them(
    published: Published, metrics: GeneratorMetrics
) -> None:
    network = Network(128)
    async with running(published, metrics, network) as engine:
        for name in COLOURS:
            await add(engine, name)
        await speak(engine, list(COLOURS), 0.7)
        assert network.threads == {"device"}
        assert published.threads <= {"pool 1", "pool 2"}
        assert max(network.batches) > 1
        assert engine.stats()["red"].tier == "network-128"
    for frames in published.frames.values():
        assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))


@pytest.mark.slow
async def test_a_step_changes_the_face_and_nothing_else_of_the_stream(
    published: Published, metrics: GeneratorMetrics
) -> None:
    """Down and up again in mid-call: no frame is lost or out of order, no encoder begins anew, the face fades over."""
    network = Network(256, tint=40)
    async with running(published, metrics, network) as engine:
        avatar = await add(engine, "blue")
        await speak(engine, ["blue"], 0.6)
        await published.until(lambda: 1 in avatar.prepared)  # made ahead, while the device had time
        engine.step("blue", 1)
        await speak(engine, ["blue"], 0.8, balance=False)
        assert engine.stats()["blue"].tier == "warp"
        engine.step("blue", 0)
        engine.step("nobody", 0)
        await speak(engine, ["blue"], 0.8, balance=False)
        assert engine.stats()["blue"].tier == "network-256"
    frames = published.frames["blue"]
    assert [frame.is_idr for frame in frames] == [True, *[False] * (len(frames) - 1)]
    assert len({frame.run for frame in frames}) == 1
    assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))
    middle = slice(CROP.y + 150, CROP.y + 230), slice(CROP.x + 150, CROP.x + 230)
    red = [picture.to_ndarray(format="rgb24")[middle][..., 0].mean() for picture in decode(frames)]
    assert max(red) - min(red) == pytest.approx(40, abs=8)
    jumps = np.abs(np.diff(red))
    assert jumps.max() < 0.5 * (max(red) - min(red)), "no cut: over several frames"
    value = metrics.registry.get_sample_value
    assert [value("mien_tier_steps_total", {"direction": way}) for way in ("down", "up")] == [1, 1]


@pytest.mark.slow
async def test_overload_steps_sessions_down_and_refuses_nobody(published: Published, metrics: GeneratorMetrics) -> None:
    """A device that takes 40 and 20 ms for a face, whatever else runs: three do not fit on its best tier."""
    networks = Network(384, face_s=0.04), Network(256, face_s=0.02)
    async with running(published, metrics, *networks, costs=(0.04, 0.02)) as engine:
        for name in COLOURS:
            await add(engine, name)
            await speak(engine, list(COLOURS), 0.2)

        def are_lower() -> bool:
            engine.balance()
            return all(stats.tier in {"network-256", "warp"} for stats in engine.stats().values())

        await published.until(are_lower)
        counts = {name: len(published.frames[name]) for name in COLOURS}
        await speak(engine, list(COLOURS), 0.5)
        assert all(len(published.frames[name]) > counts[name] for name in COLOURS)
        assert (metrics.registry.get_sample_value("mien_tier_steps_total", {"direction": "down"}) or 0) >= 1


async def test_sessions_of_one_avatar_share_what_was_prepared_of_it(
    published: Published, metrics: GeneratorMetrics
) -> None:
    network = Network(256)
    async with running(published, metrics, network) as engine:
        avatar = avatar_of("red")
        for name in ("one", "two"):
            record = SessionRecord(session_id=name, avatar_id="red", created_at_ms=0)
            await engine.add(record, avatar, Compositor(still(COLOURS["red"]), CROP), H264Encoder())
        assert network.avatars == 1


class SlowEncoder(H264Encoder):
    """Takes longer than two frames last, and notes whether two threads ever had it in hand."""

    in_hand = 0
    most_in_hand = 0

    def encode(self, frame: av.VideoFrame, pts_90k: int, force_idr: bool = False) -> EncodedPicture:
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        time.sleep(0.08)
        try:
            return super().encode(frame, pts_90k, force_idr)
        finally:
            self.in_hand -= 1


@pytest.mark.parametrize("on_device", [True, False])
async def test_a_slow_encoder_has_one_frame_in_hand_and_then_shows_the_newest_motion(
    published: Published, metrics: GeneratorMetrics, on_device: bool
) -> None:
    encoder, networks = SlowEncoder(), [Network(128)] if on_device else []
    async with running(published, metrics, *networks, threads=4) as engine:
        await add(engine, "red", encoder)
        for number in range(45):
            engine.offer("red", arrival(number))
            await asyncio.sleep(1 / 30)
        await published.until(lambda: len(published.frames["red"]) >= 5)
    frames = published.frames["red"]
    assert encoder.most_in_hand == 1
    assert all(later.follows(earlier) for earlier, later in itertools.pairwise(frames))
    shown = [trace.sequence for frame in frames if (trace := read_trace(frame.data)) and not trace.is_stalled]
    assert shown == sorted(set(shown)), "each motion once, none after a newer one"
    assert len(shown) < 30, "motion that came too fast was overtaken, not kept"
    for network in networks:
        assert sum(network.batches) <= len(frames) + 2, "no face is drawn to be thrown away"
