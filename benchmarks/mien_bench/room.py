"""`mien bench room`: what a room costs signaling, where everyone sees everyone, with real packets.

Signaling is a process of its own, with Redis. This process publishes every participant's picture and the voices of
those who speak, as generators and uplinks do. A third process has a connection for each participant and counts what
arrives. It decrypts nothing and reports nothing: two cores could not receive what a room of twelve sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

import click
import httpx
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from redis.asyncio import Redis

from mien_bench.fanout import _INPUT_FRAMES, FPS, _connected, encode, moving_pictures
from mien_bench.process import cpu_seconds, free_port
from mien_shared.bus.channels import FramePublisher
from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import EncodedFrame, SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.bus.voice import VoicePacket, VoicePublisher
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import TokenIssuer
from mien_shared.media.clock import to_90k
from mien_signaling.ice import end_consent_checks_with

SPEAKERS = 3
_ROOM, _SECRET = "bench", "a secret for a benchmark on one machine"
_VOICE_BYTES, _PACKETS_PER_S, _TICKS, _LOUD = 80, 50, 960, 30
_SETTLE_S, _PATIENCE_S = 3.0, 60.0
_LIFE_S = 600
_LINE_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class RoomCost:
    """What a room of so many participants costs. cores: of signaling. The other figures are per participant."""

    participants: int
    cores: float
    cpu_ms_per_stream: float
    downlink_kbit_s: float
    packets_per_s: float


async def measure(participants: int, seconds: float, frames: list[EncodedFrame]) -> RoomCost:
    """Connect everyone, then measure for so many seconds."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        redis = await stack.enter_async_context(open_redis(server.url))
        names = [f"p{number}" for number in range(participants)]
        await _furnish(redis, names)
        sending = [asyncio.create_task(work) for work in (_show(redis, names, frames), _talk(redis, names))]
        for task in sending:
            stack.callback(task.cancel)
        pid, url = await stack.enter_async_context(_signaling(server.url))
        receivers = await stack.enter_async_context(_receivers(url, names))
        await asyncio.sleep(_SETTLE_S)
        got, cpu_s, wall_s = await _ask(receivers), cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(seconds)
        more, cpu_s, wall_s = await _ask(receivers), cpu_seconds(pid) - cpu_s, time.monotonic() - wall_s
    packets, size = (after - before for before, after in zip(got, more, strict=True))
    cores, streams = cpu_s / wall_s, participants * (participants - 1)
    return RoomCost(
        participants,
        cores=round(cores, 3),
        cpu_ms_per_stream=round(1000 * cores / streams, 2),
        downlink_kbit_s=round(size * 8 / wall_s / participants / 1000),
        packets_per_s=round(packets / wall_s / participants),
    )


async def _furnish(redis: Redis, names: Sequence[str]) -> None:
    """The room, its participants and their sessions."""
    registry, people = Registry(redis), []
    for number, name in enumerate(names):
        session = SessionRecord(session_id=name, avatar_id="a", created_at_ms=0, room_id=_ROOM, participant_id=name)
        await registry.keep_alive(session)
        people.append(
            ParticipantRecord(
                participant_id=name,
                identity=name,
                name=name,
                grants=frozenset({Grant.WATCH}),
                state=ParticipantState.ACTIVE,
                joined_at_ms=number,
                session_id=name,
            )
        )
    record = RoomRecord(
        room_id=_ROOM, owner="x", created_at_ms=0, max_participants=99, empty_timeout_s=99, life_s=_LIFE_S
    )
    await Rooms(redis).commit(_ROOM, "", Commit(_LIFE_S, record, people, (), (), {}, None))


async def _show(redis: Redis, names: Sequence[str], frames: list[EncodedFrame]) -> None:
    """Publish every participant's picture."""
    publisher, start_s, sent = FramePublisher(redis, lambda _session, _frames: None), time.monotonic(), 0
    while True:
        await asyncio.sleep(start_s + sent / FPS - time.monotonic())
        frame = frames[sent % len(frames)]
        for name in names:
            publisher.push(name, EncodedFrame(name, sent, to_90k(time.time()), frame.is_idr, frame.data))
        await publisher.flush()
        sent += 1


async def _talk(redis: Redis, names: Sequence[str]) -> None:
    """Publish the voices of those who speak; the others' encoders are silent (DTX)."""
    publisher, start_s, sent = VoicePublisher(redis, lambda _packets: None), time.monotonic(), 0
    payload = os.urandom(_VOICE_BYTES)
    while True:
        await asyncio.sleep(start_s + sent / _PACKETS_PER_S - time.monotonic())
        for number, name in enumerate(names[:SPEAKERS]):
            run, timestamp = name.encode().ljust(8), sent * _TICKS & 0xFFFF_FFFF
            publisher.push(name, VoicePacket(run, sent & 0xFFFF, timestamp, False, _LOUD + number, None, payload))
        await publisher.flush()
        sent += 1


@asynccontextmanager
async def _signaling(redis_url: str) -> AsyncIterator[tuple[int, str]]:
    """Start signaling in its own process; yields the process id and the URL."""
    port = free_port()
    settings = {
        "REDIS_URL": redis_url,
        "MIEN_TOKEN_SECRET": _SECRET,
        "MIEN_PORT": str(port),
        "MIEN_MAX_ROOM_SLOTS": "24",
        "MIEN_JOINS_PER_MINUTE": "1000",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mien_signaling", env=os.environ | settings, stdout=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(_PATIENCE_S), httpx.AsyncClient(base_url=url, trust_env=False) as client:
            while not await _is_ready(client):
                if process.returncode is not None:
                    raise click.ClickException("signaling did not start")
                await asyncio.sleep(0.1)
        yield process.pid, url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def _receivers(url: str, names: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a connection for each participant, as soon as all are connected."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, url, *names, stdin=pipe, stdout=pipe, limit=_LINE_BYTES
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            if await process.stdout.readline() != b"connected\n":
                raise click.ClickException("not everyone could connect")
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def _ask(process: asyncio.subprocess.Process) -> tuple[int, int]:
    """Packets and bytes that have arrived."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"how many\n")
    packets, size = json.loads(await process.stdout.readline())
    return packets, size


async def _receive(url: str, names: Sequence[str]) -> None:
    """The third process: connects everyone, then answers how much has arrived."""
    packets = size = 0

    async def line() -> str:
        return await asyncio.to_thread(sys.stdin.readline)

    async def connect(client: httpx.AsyncClient, name: str) -> RTCPeerConnection:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        for kind in ("video", "audio"):
            for _ in names[1:]:
                transport = peer.addTransceiver(kind, direction="recvonly").receiver.transport
        await peer.setLocalDescription(await peer.createOffer())
        token = TokenIssuer(_SECRET).issue(name, [Grant.WATCH], room_id=_ROOM)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        offer = peer.localDescription.sdp
        answer = await client.post(f"/v1/whep/rooms/{_ROOM}", content=offer, headers=headers)
        answer.raise_for_status()
        end_consent_checks_with(peer)
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await _connected(peer)

        async def count() -> None:
            nonlocal packets, size
            data = await transport.transport._recv()
            size += len(data)
            packets += 1

        transport._recv_next = count
        return peer

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=_PATIENCE_S) as client:
        peers = [await connect(client, name) for name in names]
        click.echo("connected")
        while await line():
            click.echo(json.dumps([packets, size]))
        await asyncio.gather(*(peer.close() for peer in peers))


@click.command()
@click.option("--participants", multiple=True, default=(6, 12), show_default=True, help="Sizes of the room.")
@click.option("--seconds", default=10.0, show_default=True, help="Seconds to measure each size.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def room(participants: tuple[int, ...], seconds: float, as_json: bool) -> None:
    """Measure what a room costs signaling where everyone sees everyone and three speak."""
    frames = encode(moving_pictures(_INPUT_FRAMES))
    found = [asyncio.run(measure(size, seconds, frames)) for size in participants]
    if as_json:
        click.echo(json.dumps({"rooms": [asdict(one) for one in found]}))
        return
    for one in found:
        click.echo(
            f"{one.participants:>3} participants: {one.cores:.2f} cores of signaling, {one.cpu_ms_per_stream:.2f} ms a"
            f" second for each stream, {one.downlink_kbit_s} kbit/s and {one.packets_per_s} packets/s down to each"
        )


if __name__ == "__main__":
    asyncio.run(_receive(sys.argv[1], sys.argv[2:]))
