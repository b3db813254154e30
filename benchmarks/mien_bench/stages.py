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
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from time import thread_time

import av
import click
import cv2
import numpy as np

from mien_client.speaking import DEMO_TRACK
from mien_gateway.bundled import BUNDLED_AVATAR_ID, seed
from mien_generator.face.contract import AvatarFace
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpGenerator
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import EncodedPicture, H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.metrics import GeneratorMetrics
from mien_generator.pipeline import Pipeline
from mien_generator.service import decode_png
from mien_generator.session import Arrival, DrawnFace, DrivenFace, GeneratorSession, SessionAvatar
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


class TimedSession(GeneratorSession):
    """A session that notes the processor time of composing and encoding. processor_s: this thread's clock."""

    processor_s = staticmethod(thread_time)
    compose_s = 0.0
    encode_s = 0.0

    def compose(self, face: DrawnFace) -> av.VideoFrame:
        begun_s = self.processor_s()
        picture = super().compose(face)
        self.compose_s = self.processor_s() - begun_s
        return picture

    def encode(self, picture: av.VideoFrame, pts_90k: int, now_s: float) -> EncodedPicture:
        begun_s = self.processor_s()
        encoded = super().encode(picture, pts_90k, now_s)
        self.encode_s = self.processor_s() - begun_s
        return encoded


class Speaker:
    """One session and its recorded speaker."""

    def __init__(self, record: AvatarRecord, png: bytes, publisher: FramePublisher) -> None:
        still, box, self._clock = decode_png(png), record.face_box, SystemClock()
        crop = np.ascontiguousarray(still[box.y : box.y + box.size, box.x : box.x + box.size])
        generator, avatar = WarpGenerator(), SessionAvatar(AvatarFace(crop, record.source_keypoints()))
        avatar.prepared[0] = generator.prepare(avatar.face)
        ladder = Ladder((Rung("warp", generator, on_device=False),))
        self._pipeline = Pipeline(ladder, self._clock, GeneratorMetrics(), publisher.push)
        self._session = TimedSession(
            SessionRecord(session_id="bench", avatar_id=record.avatar_id, created_at_ms=0),
            avatar,
            0,
            Compositor(still, box),
            H264Encoder(),
            KeyframePolicy(),
            self._clock.monotonic_s(),
        )
        self._publisher = publisher
        self._packets = self._recorded()

    async def frame(self) -> dict[str, float]:
        """Make the next frame. Returns the processor seconds of each stage."""
        packet, session = next(self._packets), self._session
        times_s = [session.processor_s()]
        motion = self.motion(packet)
        times_s.append(session.processor_s())
        face = self.face(motion)
        times_s.append(session.processor_s())
        self._pipeline.frame(session, face)
        await self.publish()
        times_s.append(session.processor_s())
        motion_s, face_s, rest_s = np.diff(times_s).tolist()
        publish_s = rest_s - session.compose_s - session.encode_s
        return dict(zip(STAGES, (motion_s, face_s, session.compose_s, session.encode_s, publish_s), strict=True))

    def motion(self, packet: bytes) -> DrivenFace:
        """What a generator does for one packet, up to the keypoints."""
        now_s = self._clock.monotonic_s()
        arrived_us = round(self._clock.unix_s() * 1e6)
        self._session.offer(Arrival(MotionPacket.unpack(packet), len(packet), arrived_us, now_s))
        motion = self._pipeline.motion(self._session, self._session.begin(now_s, now_s, _FPS))
        self._session.drawing = False
        if motion is None:
            raise click.ClickException("the recorded motion cannot be used")
        return motion

    def face(self, motion: DrivenFace) -> DrawnFace:
        return self._pipeline.faces(self._pipeline.begin_faces(0, [(self._session, motion)]))[0]

    def stop_timing(self) -> None:
        """Make frames without reading the clock: on some systems that takes long, and it holds the lock."""
        self._session.processor_s = lambda: 0.0

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
