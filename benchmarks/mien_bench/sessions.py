"""`mien bench sessions` and `mien bench memory`: what a whole generator holds, with real packets through a real Redis.

A generator process of its own, an embedded Redis, and in this process what a gateway and a signaling service would be
to it: sessions are placed by the registry, motion goes through the inbox, frames are read from the video streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
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

from mien_generator.face.contract import RgbArray
from mien_generator.specimen import CROP, draw_speaker, source_keypoints, talking
from mien_shared.avatars import AvatarRecord, AvatarStore, FaceBox
from mien_shared.bus.channels import MotionForwarder, VideoSubscription, send_control
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import InboundMotion, SessionRecord, StartSession, StopSession
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, RESERVATION_MS, Registry
from mien_shared.media.frame_trace import read_trace
from mien_shared.wire.motion import MotionPacket

#: A level holds while the 99th percentile of motion-to-packet stays below this ...
MAX_P99_MS = 100.0
#: ... and every session gets this share of the frames it sends motion for.
HELD_SHARE = 0.95
_START_TIMEOUT_S = 60.0
_MOTION_FRAMES = 300
#: By then a generator has given back what ended sessions took.
_TIDIED_S = 15.0


class GeneratorLost(RuntimeError):
    """The generator ended, or did not begin; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """So many speakers, and what they got.

    fps: of the median and of the worst session. cores: the generator's CPU time a second. tiers: sessions on each.
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
    """holds: the most speakers that held, at so many packets a second each."""

    fps: int
    holds: int
    levels: list[LevelFigures]


@dataclass
class _Seen:
    """What came of one session since it was last looked at."""

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
        self._seen: dict[str, _Seen] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._generator_id = ""
        at_rest = source_keypoints()
        self._motion = [
            driving.relative_to(at_rest) for driving, _ in zip(talking(at_rest), range(_MOTION_FRAMES), strict=False)
        ]

    async def ready(self) -> None:
        """Wait until the generator's heart beats; raises GeneratorLost."""
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not (found := await self._registry.generators()):
                if self._process.returncode is not None:
                    raise GeneratorLost(f"the generator ended with status {self._process.returncode}")
                await asyncio.sleep(0.05)
        self._generator_id = found[0].generator_id

    async def store_avatar(self, avatar_id: str, still: RgbArray) -> None:
        box = FaceBox(x=CROP.x, y=CROP.y, size=CROP.size)
        rows = [tuple(map(float, row)) for row in source_keypoints().rows()]
        record = AvatarRecord(
            avatar_id=avatar_id, width=still.shape[1], height=still.shape[0], face_box=box, keypoints=rows
        )
        png = cv2.imencode(".png", cv2.cvtColor(still, cv2.COLOR_RGB2BGR))[1].tobytes()
        await self._avatars.put(record, png)

    async def raise_to(self, speakers: int, avatar_ids: Sequence[str]) -> None:
        """Be so many speakers, the n-th with the n-th avatar, in turn; returns when all of them get frames."""
        for number in range(len(self._records), speakers):
            await self._speak(f"s{secrets.token_hex(6)}", avatar_ids[number % len(avatar_ids)], number)
        while len(self._records) > speakers:
            await self._hush(next(reversed(self._records)))
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not all(seen.frames for seen in self._seen.values()):  # noqa: ASYNC110 - several tasks count
                await asyncio.sleep(0.05)

    async def measure(self, seconds: float) -> LevelFigures:
        """What the speakers there are get, in the next `seconds`."""
        for session_id in self._seen:
            self._seen[session_id] = _Seen()
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
            memory_bytes=resident_bytes(self._process.pid),
            tiers=await self._tiers(),
            holds=bool(p99 <= MAX_P99_MS and fps[0] >= HELD_SHARE * self._fps),
        )

    def memory_bytes(self) -> int:
        return resident_bytes(self._process.pid)

    async def aclose(self) -> None:
        for session_id in list(self._records):
            await self._hush(session_id)

    async def _speak(self, session_id: str, avatar_id: str, number: int) -> None:
        record = SessionRecord(session_id=session_id, avatar_id=avatar_id, created_at_ms=time.time_ns() // 1_000_000)
        self._records[session_id], self._seen[session_id] = record, _Seen()
        await self._registry.hold(self._generator_id, session_id, RESERVATION_MS)
        await self._registry.keep_alive(record)
        await send_control(self._registry.redis, self._generator_id, StartSession(session=record))
        self._tasks[session_id] = [
            asyncio.create_task(self._send(session_id, number)),
            asyncio.create_task(self._keep_alive(record)),
            asyncio.create_task(self._watch(session_id)),
        ]

    async def _hush(self, session_id: str) -> None:
        for task in self._tasks.pop(session_id):
            task.cancel()
        del self._records[session_id], self._seen[session_id]
        await self._registry.end_session(session_id)
        await send_control(self._registry.redis, self._generator_id, StopSession(session_id=session_id))

    async def _send(self, session_id: str, number: int) -> None:
        """Motion at its own pace; cameras do not run in step."""
        begun_s, sequence = time.monotonic() + (number * 0.618) % 1 / self._fps, 0
        while True:
            await asyncio.sleep(max(0.0, begun_s + sequence / self._fps - time.monotonic()))
            motion = self._motion[(sequence * 30 // self._fps + 37 * number) % _MOTION_FRAMES]
            packet = MotionPacket(sequence & 0xFFFF, time.time_ns() // 1_000_000 & 0xFFFF_FFFF, motion)
            self._forwarder.push(self._generator_id, InboundMotion(session_id, packet.pack(), time.time_ns() // 1000))
            sequence += 1

    async def forward(self) -> None:
        """The gateway's loop; runs until cancelled."""
        while True:
            await self._forwarder.flush()

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
    """A generator process with an unlimited capacity, ready; gone afterwards. Raises GeneratorLost."""
    with EmbeddedRedis() as server, tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
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
                forwarding = asyncio.create_task(running.forward())
                try:
                    await running.ready()
                    yield running
                finally:
                    await running.aclose()
                    forwarding.cancel()
        except TimeoutError as error:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-15:])
            raise GeneratorLost(f"the generator makes no frames:\n{tail}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def find_limit(
    fps: int, seconds: float, settle_s: float, most: int, environment: dict[str, str]
) -> SessionsFigures:
    """Twice as many speakers each time until a level does not hold, then the place between the last two."""
    levels: list[LevelFigures] = []
    async with rig(fps, environment) as running:
        await running.store_avatar("a", draw_speaker())

        async def holds(speakers: int) -> bool:
            await running.raise_to(speakers, ["a"])
            await asyncio.sleep(settle_s)
            levels.append(await running.measure(seconds))
            click.echo(json.dumps(asdict(levels[-1])), err=True)
            return levels[-1].holds

        held, broken = 0, 1
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
    """Resident bytes of a generator process.

    empty: without a session, once the first has come and gone. session: one more session of an avatar that is there
    already. avatar: what another avatar adds to that. left: what all of them leave behind when they have ended.
    """

    empty: int
    session: int
    avatar: int
    left: int


async def measure_memory(sessions: int, environment: dict[str, str]) -> MemoryFigures:
    """The process before, with sessions of one avatar, with as many of avatars of their own, and after."""
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
            await asyncio.sleep(_TIDIED_S)
            return running.memory_bytes()

        await settled(1, ids[:1])  # what the first one brings along stays: libraries, working memory of the threads
        empty = await emptied()
        one = await settled(1, ids[:1])
        of_one_avatar = await settled(sessions, ids[:1])
        await emptied()
        of_their_own = await settled(sessions, ids)
        left = await emptied()
    each = (of_one_avatar - one) / (sessions - 1)
    return MemoryFigures(empty, round(each), round((of_their_own - of_one_avatar) / (sessions - 1)), left - empty)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


_ENGINE = click.option(
    "--engine", type=click.Choice(["auto", "onnx", "torch", "warp"]), default="auto", show_default=True
)
_DEVICE = click.option("--device", default="cpu", show_default=True, help="Of the network.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")


@click.command()
@click.option("--fps", default="30,15", show_default=True, help="Packets a second of each speaker, one search each.")
@click.option("--seconds", default=5.0, show_default=True, help="How long a level is measured.")
@click.option("--settle", default=4.0, show_default=True, help="How long it runs before that.")
@click.option("--most", default=256, show_default=True, help="Speakers to stop at.")
@_ENGINE
@_DEVICE
@_JSON
def sessions(fps: str, seconds: float, settle: float, most: int, engine: str, device: str, as_json: bool) -> None:
    """How many speakers hold: p99 of motion-to-packet below 100 ms, no frames lost."""
    environment = {"MIEN_ENGINE": engine, "MIEN_DEVICE": device}
    found = [asyncio.run(find_limit(int(rate), seconds, settle, most, environment)) for rate in fps.split(",")]
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
@click.option("--sessions", "count", default=8, show_default=True, type=click.IntRange(min=2))
@_ENGINE
@_DEVICE
@_JSON
def memory(count: int, engine: str, device: str, as_json: bool) -> None:
    """What a session and an avatar take of a generator's memory, and what is left when they have gone."""
    figures = asyncio.run(measure_memory(count, {"MIEN_ENGINE": engine, "MIEN_DEVICE": device}))
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    for name, value in asdict(figures).items():
        click.echo(f"{name:8s} {value / 1e6:8.1f} MB")
