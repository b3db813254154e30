"""`mien bench sessions` and `mien bench memory`: how many sessions a generator serves, and the memory that they take.

The generator runs in a separate process, with an embedded Redis. This process plays the gateway and the signaling
service: it places sessions with the registry, sends motion through the inbox and reads frames from the video streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
from redis.asyncio import Redis

from mien_bench.process import cpu_seconds, free_port, memory_bytes
from mien_generator.face.contract import RgbArray
from mien_generator.specimen import CROP, draw_speaker, source_keypoints, talking
from mien_shared.avatars import AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus.channels import MotionForwarder, VideoSubscription, send_control
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import InboundMotion, SessionRecord, StopSession
from mien_shared.bus.placement import place
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, Registry
from mien_shared.media.frame_trace import read_trace
from mien_shared.wire.motion import MotionPacket

#: A level holds while the 99th percentile of motion-to-packet stays below this ...
MAX_P99_MS = 100.0
#: ... and every session gets this share of the frames it sends motion for.
HELD_SHARE = 0.95
_START_TIMEOUT_S = 60.0
_MOTION_FRAMES = 300
_LOOK_UP_INTERVAL_S = 0.25
#: After this time a generator has returned the memory of ended sessions to the system.
_MEMORY_RETURNED_S = 15.0


class GeneratorLost(RuntimeError):
    """The generator ended, or sent no frames in time; the text holds its status or the end of its log."""


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """The measurements with one number of speakers.

    fps_median, fps_least: frame rates of the median and of the worst session. cores: the generator's CPU time per
    second. tiers: number of sessions on each tier.
    """

    speakers: int
    fps_median: float
    fps_least: float
    motion_to_packet_ms_p50: float
    motion_to_packet_ms_p99: float
    cores: float
    memory_bytes: int
    tiers: dict[str, int]
    holds: bool


@dataclass(frozen=True, slots=True)
class SessionsFigures:
    """holds: the largest number of speakers that held. fps: packets a second of each speaker."""

    fps: int
    holds: int
    levels: list[LevelFigures]


@dataclass
class _Received:
    """Frames of one session received since the measurement started."""

    frames: int = 0
    latencies_s: list[float] = field(default_factory=list)


class Rig:
    """A running generator and its speakers."""

    def __init__(self, redis: Redis, avatars: AvatarStore, process: asyncio.subprocess.Process, fps: int) -> None:
        self._registry = Registry(redis)
        self._avatars = avatars
        self._process = process
        self._fps = fps
        self._forwarder = MotionForwarder(redis, lambda reason, count: None)
        self._records: dict[str, SessionRecord] = {}
        self._seen: dict[str, _Received] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._generator_of: dict[str, str | None] = {}
        at_rest = source_keypoints()
        self._motion = [
            driving.relative_to(at_rest) for driving, _ in zip(talking(at_rest), range(_MOTION_FRAMES), strict=False)
        ]

    async def ready(self) -> None:
        """Wait for the generator's first heartbeat; raises GeneratorLost."""
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await self._registry.generators():
                if self._process.returncode is not None:
                    raise GeneratorLost(f"the generator process ended with status {self._process.returncode}")
                await asyncio.sleep(0.05)

    async def store_avatar(self, avatar_id: str, still: RgbArray) -> None:
        box = FaceBox(x=CROP.x, y=CROP.y, size=CROP.size)
        rows = [tuple(map(float, row)) for row in source_keypoints().rows()]
        record = AvatarRecord(
            avatar_id=avatar_id, width=still.shape[1], height=still.shape[0], face_box=box, keypoints=rows
        )
        png = cv2.imencode(".png", cv2.cvtColor(still, cv2.COLOR_RGB2BGR))[1].tobytes()
        await self._avatars.put(record, png)

    async def raise_to(self, speakers: int, avatar_ids: Sequence[str]) -> None:
        """Start or stop speakers until there are `speakers` of them; returns when all of them get frames.

        The n-th speaker uses the n-th avatar; after the last avatar the first one follows again.
        """
        for number in range(len(self._records), speakers):
            await self._speak(f"s{secrets.token_hex(6)}", avatar_ids[number % len(avatar_ids)], number)
        while len(self._records) > speakers:
            await self._stop_speaking(next(reversed(self._records)))
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not all(seen.frames for seen in self._seen.values()):  # noqa: ASYNC110 - several tasks count
                await asyncio.sleep(0.05)

    async def measure(self, seconds: float) -> LevelFigures:
        """Measure what the present speakers get during the next `seconds`."""
        for session_id in self._seen:
            self._seen[session_id] = _Received()
        cpu_s, begun_s = cpu_seconds(self._process.pid), time.monotonic()
        await asyncio.sleep(seconds)
        elapsed_s, cpu_s = time.monotonic() - begun_s, cpu_seconds(self._process.pid) - cpu_s
        seen = list(self._seen.values())
        fps = sorted(one.frames / elapsed_s for one in seen)
        latencies_ms = [1000 * latency_s for one in seen for latency_s in one.latencies_s]
        p50, p99 = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (float("inf"), float("inf"))
        return LevelFigures(
            speakers=len(seen),
            fps_median=round(fps[len(fps) // 2], 2),
            fps_least=round(fps[0], 2),
            motion_to_packet_ms_p50=round(float(p50), 2),
            motion_to_packet_ms_p99=round(float(p99), 2),
            cores=round(cpu_s / elapsed_s, 3),
            memory_bytes=memory_bytes(self._process.pid),
            tiers=await self._tiers(),
            holds=bool(p99 <= MAX_P99_MS and fps[0] >= HELD_SHARE * self._fps),
        )

    def memory_bytes(self) -> int:
        return memory_bytes(self._process.pid)

    async def aclose(self) -> None:
        for session_id in list(self._records):
            await self._stop_speaking(session_id)

    async def _speak(self, session_id: str, avatar_id: str, number: int) -> None:
        record = SessionRecord(session_id=session_id, avatar_id=avatar_id, created_at_ms=time.time_ns() // 1_000_000)
        self._records[session_id], self._seen[session_id] = record, _Received()
        self._generator_of[session_id] = await place(self._registry, record)
        self._tasks[session_id] = [
            asyncio.create_task(self._send(session_id, number)),
            asyncio.create_task(self._keep_alive(record)),
            asyncio.create_task(self._watch(session_id)),
        ]

    async def _stop_speaking(self, session_id: str) -> None:
        for task in self._tasks.pop(session_id):
            task.cancel()
        del self._records[session_id], self._seen[session_id]
        await self._registry.end_session(session_id)
        if generator_id := self._generator_of.pop(session_id):
            await self._registry.free_slot(generator_id, session_id)
            await send_control(self._registry.redis, generator_id, StopSession(session_id=session_id))

    async def _send(self, session_id: str, number: int) -> None:
        """Send motion at the frame rate, with a different phase for each speaker, as real cameras are not in step."""
        begun_s, sequence = time.monotonic() + (number * 0.618) % 1 / self._fps, 0
        while True:
            await asyncio.sleep(max(0.0, begun_s + sequence / self._fps - time.monotonic()))
            motion = self._motion[(sequence * 30 // self._fps + 37 * number) % _MOTION_FRAMES]
            packet = MotionPacket(sequence & 0xFFFF, time.time_ns() // 1_000_000 & 0xFFFF_FFFF, motion)
            if generator_id := self._generator_of[session_id]:
                self._forwarder.push(generator_id, InboundMotion(session_id, packet.pack(), time.time_ns() // 1000))
            sequence += 1

    async def forward(self) -> None:
        """Forward motion to the generator, as the gateway does, until cancelled."""
        while True:
            await self._forwarder.flush()

    async def look_up(self) -> None:
        """Look up four times a second which generator holds each session, as the gateway does, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_UP_INTERVAL_S)
            owners = await self._registry.owners(list(self._records))
            self._generator_of |= {one: owner for one, owner in owners.items() if one in self._records}

    async def _keep_alive(self, record: SessionRecord) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_INTERVAL_S)
            await self._registry.keep_alive(record)

    async def _watch(self, session_id: str) -> None:
        async for frame in VideoSubscription(self._registry.redis, session_id):
            seen = self._seen[session_id]
            seen.frames += 1
            trace = read_trace(frame.data)
            if trace is not None and not trace.is_stalled:
                total_us = trace.uplink_wait_us + trace.face_us + trace.compose_us + trace.encode_us
                seen.latencies_s.append(total_us / 1e6)

    async def _tiers(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for session_id in self._records:
            if stats := await self._registry.stats(session_id):
                found[stats.tier] = found.get(stats.tier, 0) + 1
        return found


@asynccontextmanager
async def rig(fps: int, environment: dict[str, str]) -> AsyncIterator[Rig]:
    """A ready generator process with practically unlimited capacity; ends with the context. Raises GeneratorLost."""
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log_path = Path(folder) / "generator.log"
        own = {
            "REDIS_URL": server.url,
            "MIEN_HOST": "127.0.0.1",
            "MIEN_PORT": str(port),
            "MIEN_TOKEN_SECRET": secrets.token_urlsafe(48),
            "MIEN_AVATAR_STORE": f"file:{folder}/avatars",
            "MIEN_CAPACITY": "100000",
            "MIEN_DRAIN_S": "0",
            "MIEN_PARENT_PID": str(os.getpid()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        }
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mien_generator"), env=os.environ | own | environment, stdout=log, stderr=log
            )
        try:
            async with open_redis(server.url) as redis:
                running = Rig(redis, AvatarStore.open(own["MIEN_AVATAR_STORE"]), process, fps)
                forwarding = asyncio.gather(running.forward(), running.look_up())
                try:
                    await running.ready()
                    yield running
                finally:
                    await running.aclose()
                    forwarding.cancel()
                    await asyncio.gather(forwarding, return_exceptions=True)
        except TimeoutError as error:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-15:])
            raise GeneratorLost(f"the generator did not start or sent no frames in time:\n{tail}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def find_limit(
    fps: int, seconds: float, settle_s: float, least: int, most: int, environment: dict[str, str]
) -> SessionsFigures:
    """Double the number of speakers, from `least`, until a level does not hold; then search between the last two."""
    levels: list[LevelFigures] = []
    async with rig(fps, environment) as running:
        await running.store_avatar("a", draw_speaker())

        async def holds(speakers: int) -> bool:
            await running.raise_to(speakers, ["a"])
            await asyncio.sleep(settle_s)
            levels.append(await running.measure(seconds))
            click.echo(json.dumps(asdict(levels[-1])), err=True)
            return levels[-1].holds

        held, broken = 0, least
        while broken <= most and await holds(broken):
            held, broken = broken, 2 * broken
        broken = min(broken, most + 1)
        while broken - held > 1:
            middle = (held + broken) // 2
            if await holds(middle):
                held = middle
            else:
                broken = middle
    return SessionsFigures(fps, held, levels)


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Memory of a generator's processes in bytes; pages that they share count once.

    empty: without a session, after a first session has ended. session: one more session of an avatar that is already
    loaded. avatar: what a new avatar adds to that. left: growth over `empty` after all sessions have ended.
    """

    empty: int
    session: int
    avatar: int
    left: int


async def measure_memory(sessions: int, environment: dict[str, str]) -> MemoryFigures:
    """Measure the process when empty, with sessions of one avatar, with one avatar per session, and empty again."""
    async with rig(30, environment) as running:
        ids = [f"a{number}" for number in range(sessions)]
        for number, avatar_id in enumerate(ids):
            await running.store_avatar(avatar_id, np.roll(draw_speaker(), number, axis=2))

        async def settled(speakers: int, avatar_ids: Sequence[str]) -> int:
            await running.raise_to(speakers, avatar_ids)
            await asyncio.sleep(4.0)
            return running.memory_bytes()

        async def emptied() -> int:
            await running.raise_to(0, ids)
            await asyncio.sleep(_MEMORY_RETURNED_S)
            return running.memory_bytes()

        await settled(1, ids[:1])  # warm-up: the first session loads libraries and thread buffers, which stay
        empty = await emptied()
        one = await settled(1, ids[:1])
        of_one_avatar = await settled(sessions, ids[:1])
        await emptied()
        of_many_avatars = await settled(sessions, ids)
        left = await emptied()
    each = (of_one_avatar - one) / (sessions - 1)
    return MemoryFigures(empty, round(each), round((of_many_avatars - of_one_avatar) / (sessions - 1)), left - empty)


_BACKEND = click.option(
    "--backend",
    "--engine",  # the former name, still accepted
    "backend",
    type=click.Choice(["auto", "onnx", "torch", "warp"]),
    default="auto",
    show_default=True,
    help="Backend that makes the faces. auto means onnx, or warp if the weights or onnxruntime are missing.",
)
_DEVICE = click.option(
    "--device", default="cpu", show_default=True, help="Device that runs the network: cpu, cuda, cuda:1."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")


@click.command()
@click.option(
    "--fps",
    default="30,15",
    show_default=True,
    help="Packets a second of each speaker. Several rates, separated by commas, are searched one after the other.",
)
@click.option("--seconds", default=5.0, show_default=True, help="Seconds to measure each number of speakers.")
@click.option("--settle", default=4.0, show_default=True, help="Seconds to wait before each measurement.")
@click.option("--least", default=1, show_default=True, help="Number of speakers to begin with.")
@click.option("--most", default=256, show_default=True, help="Largest number of speakers to try.")
@click.option("--workers", type=click.IntRange(min=1), help="Most worker processes. Default: one for each core.")
@_BACKEND
@_DEVICE
@_JSON
def sessions(
    fps: str,
    seconds: float,
    settle: float,
    least: int,
    most: int,
    workers: int | None,
    backend: str,
    device: str,
    as_json: bool,
) -> None:
    """Find how many speakers one generator serves.

    The generator serves a number of speakers (the level "holds") if the p99 of motion-to-packet is at most 100 ms and
    every speaker gets at least 95 % of its frames.
    """
    environment = {"MIEN_FACE_BACKEND": backend, "MIEN_DEVICE": device}
    if workers is not None:
        environment["MIEN_WORKERS"] = str(workers)
    found = [asyncio.run(find_limit(int(rate), seconds, settle, least, most, environment)) for rate in fps.split(",")]
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        click.echo(f"{one.holds} speakers at {one.fps} frames a second")
        for level in sorted(one.levels, key=lambda level: level.speakers):
            click.echo(
                f"  {level.speakers:4d}: {level.fps_median:5.1f} fps (least {level.fps_least:.1f}), motion to packet"
                f" {level.motion_to_packet_ms_p50:.1f} / {level.motion_to_packet_ms_p99:.1f} ms"
                f", {level.cores:.2f} cores, {level.memory_bytes / 1e6:.0f} MB, {level.tiers}"
                f" {'holds' if level.holds else 'breaks'}"
            )


@click.command()
@click.option(
    "--sessions",
    "count",
    default=8,
    show_default=True,
    type=click.IntRange(min=2),
    help="Number of sessions to run at once.",
)
@_BACKEND
@_DEVICE
@_JSON
def memory(count: int, backend: str, device: str, as_json: bool) -> None:
    """Measure the memory that a session and an avatar take in a generator, and what remains after they have ended."""
    figures = asyncio.run(measure_memory(count, {"MIEN_FACE_BACKEND": backend, "MIEN_DEVICE": device}))
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    for name, value in asdict(figures).items():
        click.echo(f"{name:8s} {value / 1e6:8.1f} MB")
