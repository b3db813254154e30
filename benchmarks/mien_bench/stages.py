"""`mien bench stages`: the processor time of each stage of one frame, and how much of it holds the interpreter's lock.

The recorded speaker moves the bundled avatar on `warp`, on one thread, through the same objects as in a generator: the
session, the pipeline, and the publisher with a real Redis. Times are processor time of this thread, so that other load
on the machine hardly changes them. One thread at a time holds the interpreter's lock: the time with it limits the
number of speakers in a process, however many cores there are.

With `--lock`, py-spy samples this process twice, for the same time: whenever the thread runs, and whenever it holds the
lock. py-spy is not a dependency of Mien: it must be on the PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import thread_time

import av
import click
import cv2
import numpy as np

from mien_client.speaking import DEMO_TRACK
from mien_gateway.bundled import BUNDLED_AVATAR_ID, seed
from mien_generator.engine.pipeline import Pipeline
from mien_generator.engine.session import Arrival, Cue, DrawnFace, DrivenFace, GeneratorSession, SessionAvatar
from mien_generator.engine.turn import run
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.ladder import Tiers
from mien_generator.face.warp import WarpFace, WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import EncodedPicture, H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import GeneratorMetrics
from mien_generator.service import decode_png
from mien_shared.avatars import AvatarRecord, AvatarStore
from mien_shared.bus.channels import FramePublisher
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.clock import SystemClock
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.track import MotionTrack

#: motion: from the packet's bytes to the face's keypoints. publish: trace, metrics, and what Redis needs.
STAGES = ("motion", "face", "compose", "encode", "publish")
_WARM_UP_FRAMES = 30
_FPS = 30
_SAMPLES_PER_S = 500
_SAMPLED_S = 10


class NoSampler(click.ClickException):
    """py-spy is not installed, or it must not look into this process."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Means over the frames. lock_ms: processor time with the interpreter's lock; None if it was not sampled."""

    cpu_ms: float
    lock_ms: float | None = None


class Times(dict[str, float]):
    """The processor time of each stage of one frame, seconds. processor_s: this thread's clock."""

    processor_s = staticmethod(thread_time)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        begun_s = self.processor_s()
        yield
        self[stage] = self.get(stage, 0.0) + self.processor_s() - begun_s


# A sample of the stack belongs to the innermost method here that has a stage's name (`samples_by_stage`).


class TimedSession(GeneratorSession):
    """A session whose stages are timed."""

    times: Times

    def motion(self, cue: Cue) -> DrivenFace:
        with self.times.of("motion"):
            return super().move(cue)

    def move(self, cue: Cue) -> DrivenFace:
        return self.motion(cue)

    def compose(self, face: DrawnFace) -> av.VideoFrame:
        with self.times.of("compose"):
            return super().compose(face)

    def encode(self, picture: av.VideoFrame, pts_90k: int, now_s: float) -> EncodedPicture:
        with self.times.of("encode"):
            return super().encode(picture, pts_90k, now_s)


class TimedWarp(WarpGenerator):
    """`warp`, timed."""

    def __init__(self, times: Times) -> None:
        super().__init__()
        self._times = times

    def face(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        with self._times.of("face"):
            return super().animate(requests)

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        return self.face(requests)


class Speaker:
    """One session and its recorded speaker."""

    def __init__(self, record: AvatarRecord, png: bytes, publisher: FramePublisher) -> None:
        still, box, self._clock = decode_png(png), record.face_box, SystemClock()
        crop = np.ascontiguousarray(still[box.y : box.y + box.size, box.x : box.x + box.size])
        self._times = Times()
        generator, avatar = TimedWarp(self._times), SessionAvatar(AvatarFace(crop, record.source_keypoints()))
        avatar.prepared[0] = generator.prepare(avatar.face)
        tiers = Tiers(("warp",), ("warp",), generator)
        self._pipeline = Pipeline(tiers, self._clock, GeneratorMetrics(), publisher.push)
        self._session = TimedSession(
            SessionRecord(session_id="bench", avatar_id=record.avatar_id, created_at_ms=0),
            avatar,
            0,
            Compositor(still, box),
            H264Encoder(),
            KeyframePolicy(),
            self._clock.monotonic_s(),
        )
        self._session.times = self._times
        self._publisher = publisher
        self._packets = self._recorded()

    async def frame(self) -> dict[str, float]:
        """Make the next frame. Returns the processor seconds of each stage; what is in no stage counts to publish."""
        self._times.clear()
        begun_s = self._times.processor_s()
        cue = self.motion(next(self._packets))
        if run(self._pipeline.frame(self._session, cue)) is not None:
            raise click.ClickException("warp needs no device")
        await self.publish()
        whole_s = self._times.processor_s() - begun_s
        self._times["publish"] = whole_s - sum(self._times.get(name, 0.0) for name in STAGES if name != "publish")
        return {name: self._times.get(name, 0.0) for name in STAGES}

    def motion(self, packet: bytes) -> Cue:
        """What a generator does for one packet, until its session's turn."""
        with self._times.of("motion"):
            now_s = self._clock.monotonic_s()
            arrived_us = round(self._clock.unix_s() * 1e6)
            self._session.offer(Arrival(MotionPacket.unpack(packet), len(packet), arrived_us, now_s))
            return self._session.begin(now_s, now_s, _FPS)

    def stop_timing(self) -> None:
        """Make frames without reading the clock: on some systems that takes long, and it holds the lock."""
        self._times.processor_s = lambda: 0.0

    async def publish(self) -> None:
        await self._publisher.flush()

    @staticmethod
    def _recorded() -> Iterator[bytes]:
        for _, packet in MotionTrack.load(DEMO_TRACK).looped():
            yield packet.pack()


async def measure(frames: int, with_lock: bool) -> dict[str, StageFigures]:
    """The figures of each stage. Raises NoSampler if the lock cannot be sampled."""
    sampler = shutil.which("py-spy")
    if with_lock and sampler is None:
        raise NoSampler("--lock needs py-spy: pip install py-spy")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = AvatarStore.open(f"file://{folder}")
        await seed(store)
        url = stack.enter_context(EmbeddedRedis()).url
        redis = await stack.enter_async_context(open_redis(url))
        publisher = FramePublisher(redis, lambda session, lost: None)
        record, png = await store.record(BUNDLED_AVATAR_ID), await store.picture(BUNDLED_AVATAR_ID)
        speaker = Speaker(record, png, publisher)
        for _ in range(_WARM_UP_FRAMES):
            await speaker.frame()
        found = [await speaker.frame() for _ in range(frames)]
        cpu_ms = {name: 1000 * sum(frame[name] for frame in found) / frames for name in STAGES}
        if not with_lock or sampler is None:
            return {name: StageFigures(cpu_ms[name]) for name in STAGES}
        speaker.stop_timing()
        active = await _sampled(sampler, speaker, folder / "active")
        holding = await _sampled(sampler, speaker, folder / "holding", "--gil")
    # Samples of all stages together are many enough for a common scale: milliseconds per sample.
    scale = sum(cpu_ms.values()) / max(active.total(), 1)
    return {name: StageFigures(cpu_ms[name], scale * holding[name]) for name in STAGES}


async def _sampled(sampler: str, speaker: Speaker, out: Path, *options: str) -> Counter[str]:
    """The number of samples in each stage while the speaker's frames are made."""
    process = await asyncio.create_subprocess_exec(
        *(sampler, "record", "--pid", str(os.getpid()), "--format", "raw", "--output", str(out)),
        *("--rate", str(_SAMPLES_PER_S), "--duration", str(_SAMPLED_S), *options),
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    ended = asyncio.create_task(process.wait())
    while not ended.done():
        await speaker.frame()
        await asyncio.sleep(0)
    if await ended or not out.is_file():
        raise NoSampler("py-spy could not sample this process: it may need the right to trace (CAP_SYS_PTRACE)")
    return samples_by_stage(out.read_text())


def samples_by_stage(samples: str) -> Counter[str]:
    """Samples by stage. samples: lines of `Class.function (file:line);...;function (file:line) count`."""
    found: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        ours = [frame.split(" ", 1)[0].rpartition(".")[2] for frame in stack.split(";") if "stages.py" in frame]
        named = [name for name in ours if name in STAGES]
        if named or "frame" in ours:  # the rest of a frame is its trace and its metrics
            found[named[-1] if named else "publish"] += int(count)
    return found


@click.command()
@click.option("--frames", default=600, show_default=True, type=click.IntRange(min=10), help="Frames to measure.")
@click.option("--lock", "with_lock", is_flag=True, help="Sample the interpreter's lock, too. Needs py-spy on the PATH.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def stages(frames: int, with_lock: bool, as_json: bool) -> None:
    """Measure the processor time of each stage of a frame on warp."""
    cv2.setNumThreads(1)  # as in a generator, whose sessions share the cores
    figures = asyncio.run(measure(frames, with_lock))
    total = sum(stage.cpu_ms for stage in figures.values())
    locked = sum(stage.lock_ms or 0.0 for stage in figures.values()) if with_lock else None
    if as_json:
        rows = {name: asdict(stage) for name, stage in figures.items()}
        rows["all"] = {"cpu_ms": total, "lock_ms": locked}
        click.echo(json.dumps({"frames": frames, "stages": _rounded(rows)}))
        return
    click.echo(
        f"{frames} frames, mean processor time a frame" + (", of it with the interpreter's lock" if locked else "")
    )
    for name, stage in figures.items():
        click.echo(
            f"  {name:<10}{stage.cpu_ms:7.3f} ms" + ("" if stage.lock_ms is None else f"{stage.lock_ms:9.3f} ms")
        )
    click.echo(f"  {'all':<10}{total:7.3f} ms" + ("" if locked is None else f"{locked:9.3f} ms"))


def _rounded(rows: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: None if value is None else round(value, 4) for key, value in row.items()}
        for name, row in rows.items()
    }
