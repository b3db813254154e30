"""Signaling with real Redis, a real publisher and real viewers: what is encoded once arrives at everybody."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import av
import httpx
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtpPacket,
    pack_remb_fci,
)
from av.video.frame import PictureType
from fastapi import FastAPI
from redis.asyncio import Redis

from mien_shared.bus.channels import FramePublisher, GeneratorInbox
from mien_shared.bus.connection import BUS_ERRORS, open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import (
    EncodedFrame,
    GeneratorStatus,
    KeyframeReason,
    RequestKeyframe,
    SessionRecord,
    SetBitrate,
)
from mien_shared.bus.registry import HEARTBEAT_INTERVAL_S, Registry
from mien_shared.media.clock import to_90k
from mien_shared.media.frame_trace import FrameTrace, insert_trace
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

WIDTH, HEIGHT, FPS = 320, 180, 30
SESSION = SessionRecord(session_id="live", avatar_id="nobody", created_at_ms=0)

RunApp = Callable[[FastAPI], Awaitable[str]]


@dataclass
class Publisher:
    """A generator as signaling sees one: holds the session, encodes a moving picture, does what it is told."""

    redis: Redis
    generator_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    encoded: int = 0
    idrs: int = 0
    requests: list[tuple[float, KeyframeReason]] = field(default_factory=list)
    bitrates_bps: list[int] = field(default_factory=list)
    skip_frames: int = 0
    session: SessionRecord = SESSION
    width: int = WIDTH
    #: How old the motion of each frame is, and whether it is a default motion. None: the frames have no trace.
    latency_s: float | None = None
    is_stalled: bool = False
    _wants_idr: bool = True

    def __post_init__(self) -> None:
        self.registry = Registry(self.redis)
        self._publisher = FramePublisher(self.redis, lambda _session, _frames: self.force_idr())
        self._inbox = GeneratorInbox(self.redis, self.generator_id)
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = self.width, HEIGHT, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS, 1)
        encoder.bit_rate, encoder.gop_size = 1_000_000, 10_000
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1"}
        self._encoder = encoder
        self._random = np.random.default_rng(0)

    def force_idr(self) -> None:
        self._wants_idr = True

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Publish until the block ends."""
        await self.registry.keep_alive(self.session)
        await self.registry.hold(self.generator_id, self.session.session_id)
        loops = (self._beat, self._publisher.flush, self._obey, self._encode)
        tasks = [asyncio.create_task(self._forever(step)) for step in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():  # redis-py may swallow a cancellation (mien_shared.bus)
            try:
                await step()
            except BUS_ERRORS:
                await asyncio.sleep(0.05)

    async def _beat(self) -> None:
        await self.registry.heartbeat(
            GeneratorStatus(generator_id=self.generator_id, capacity=1, sessions=1, backend="test")
        )
        await self.registry.hold(self.generator_id, self.session.session_id)
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _obey(self) -> None:
        for message in await self._inbox.read():
            if isinstance(message, RequestKeyframe):
                self.requests.append((time.monotonic(), message.reason))
                self.force_idr()
            elif isinstance(message, SetBitrate):
                self.bitrates_bps.append(message.bitrate_bps)

    async def _encode(self) -> None:
        # A grainy patch that wanders: enough to fill the bitrate.
        picture = np.full((HEIGHT, self.width, 3), 96, np.uint8)
        x = self.encoded * 4 % (self.width - 160)
        picture[20:160, x : x + 160] = self._random.integers(0, 255, (140, 160, 1), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = self.encoded
        frame.pict_type = PictureType.I if self._wants_idr else PictureType.NONE
        is_idr, self._wants_idr = self._wants_idr, False
        data = b"".join(bytes(packet) for packet in self._encoder.encode(frame))
        index = self.encoded
        self.encoded += 1
        self.idrs += is_idr
        if self.skip_frames > 0:
            self.skip_frames -= 1
        else:
            now_s = time.time()
            pts_90k = to_90k(now_s)
            if self.latency_s is not None:
                wait_us, capture_ms = round(self.latency_s * 1e6), round((now_s - self.latency_s) * 1000)
                data = insert_trace(data, FrameTrace(capture_ms, index, self.is_stalled, wait_us, 0, 0, 0))
            self._publisher.push(self.session.session_id, EncodedFrame(self.generator_id, index, pts_90k, is_idr, data))
        await asyncio.sleep(1 / FPS)


class Watcher:
    """An ordinary WebRTC viewer that counts the frames it has decoded.

    route: changes the answer before the viewer takes it. The offer then has no candidates, so that no check of
    signaling reaches the viewer on another way.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        session_id: str = SESSION.session_id,
        route: Callable[[str], str] | None = None,
    ) -> None:
        self.frames = 0
        self.answer = ""
        self._session_id = session_id
        self._route = route
        self.size: tuple[int, int] | None = None
        self.url = ""
        self._client = client
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.receiver = self.peer.addTransceiver("video", direction="recvonly").receiver
        self._decoding: asyncio.Task[None] | None = None

    async def join(self) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        lines = self.peer.localDescription.sdp.splitlines(keepends=True)
        offer = "".join(line for line in lines if self._route is None or not line.startswith("a=candidate:"))
        answer = await self._client.post(
            f"/v1/whep/{self._session_id}",
            content=offer,
            headers={"Content-Type": "application/sdp"},
        )
        assert answer.status_code == 201, answer.text
        self.url, self.answer = answer.headers["location"], answer.text
        taken = self.answer if self._route is None else self._route(self.answer)
        await self.peer.setRemoteDescription(RTCSessionDescription(taken, "answer"))
        self._decoding = asyncio.create_task(self._decode())

    async def _decode(self) -> None:
        while True:
            try:
                frame = await self.receiver.track.recv()
            except MediaStreamError:
                return
            self.frames += 1
            self.size = (frame.width, frame.height)

    async def see(self, frames: int) -> None:
        """Return once so many more frames were decoded."""
        goal = self.frames + frames
        await eventually(lambda: self.frames >= goal)

    async def say(self, *packets: RtcpPsfbPacket | RtcpRrPacket | RtcpRtpfbPacket) -> None:
        """Send RTCP of the test's own making."""
        for packet in packets:
            await self.receiver.transport._send_rtp(bytes(packet))

    async def keep_saying(self, packet: RtcpPsfbPacket | RtcpRrPacket, until: Callable[[], bool]) -> None:
        """Say it ten times a second, as aiortc's own reports come in between."""
        async with asyncio.timeout(20):
            while not until():
                await self.say(packet)
                await asyncio.sleep(0.1)

    @property
    def ssrc(self) -> int:
        """Of the stream that arrives."""
        return int(next(iter(self.receiver._RTCRtpReceiver__remote_streams)))

    async def close(self) -> None:
        if self._decoding is not None:
            self._decoding.cancel()
        async with asyncio.timeout(20):
            await self.peer.close()


@dataclass
class World:
    """Signaling, a publisher and whoever watches."""

    client: httpx.AsyncClient
    publisher: Publisher
    stack: AsyncExitStack

    async def watcher(self, session_id: str = SESSION.session_id, route: Callable[[str], str] | None = None) -> Watcher:
        watcher = Watcher(self.client, session_id, route)
        self.stack.push_async_callback(watcher.close)
        await watcher.join()
        return watcher

    async def metric(self, line: str) -> float:
        text = (await self.client.get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
        return float(values[0]) if values else 0.0


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once it holds; a test that waits in vain fails by this."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def settings(redis_server: EmbeddedRedis, **changes: object) -> SignalingSettings:
    values: dict[str, object] = {
        "redis_url": redis_server.url,
        "token_secret": "a secret of thirty-two bytes or more",
        "demo_open": True,
        "joins_per_minute": 6000,
        **changes,
    }
    return SignalingSettings(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def world_of(redis_server: EmbeddedRedis, run_app: RunApp, **changes: object) -> AsyncIterator[World]:
    """A world with these settings of signaling changed."""
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        publisher = Publisher(redis)
        await stack.enter_async_context(publisher.live())
        url = await run_app(create_app(settings(redis_server, **changes)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))
        yield World(client, publisher, stack)


@pytest.fixture
async def world(redis_server: EmbeddedRedis, run_app: RunApp) -> AsyncIterator[World]:
    async with world_of(redis_server, run_app) as world:
        yield world


async def test_three_viewers_decode_what_was_encoded_once(world: World) -> None:
    watchers = [await world.watcher() for _ in range(3)]
    await asyncio.gather(*(watcher.see(10) for watcher in watchers))
    before, shown = world.publisher.encoded, [watcher.frames for watcher in watchers]
    await asyncio.gather(*(watcher.see(45) for watcher in watchers))
    encoded = world.publisher.encoded - before
    for watcher, count in zip(watchers, shown, strict=True):
        assert watcher.size == (WIDTH, HEIGHT)
        # Each viewer sees every frame, and the encoder ran once a frame, not once a viewer.
        assert abs((watcher.frames - count) - encoded) <= 5


async def test_viewers_that_join_together_cost_one_keyframe_request(world: World) -> None:
    watchers = await asyncio.gather(*(world.watcher() for _ in range(4)))
    await asyncio.gather(*(watcher.see(5) for watcher in watchers))
    reasons = Counter(reason for _, reason in world.publisher.requests)
    assert 1 <= reasons[KeyframeReason.JOIN] <= 3
    assert reasons.total() == reasons[KeyframeReason.JOIN]


async def test_plis_of_all_viewers_become_one_request_and_an_idr(world: World) -> None:
    watchers = [await world.watcher() for _ in range(3)]
    await asyncio.gather(*(watcher.see(10) for watcher in watchers))
    idrs, world.publisher.requests[:] = world.publisher.idrs, []
    for watcher in watchers:
        pli = RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=watcher.ssrc)
        await watcher.say(pli, pli)
    await eventually(lambda: world.publisher.idrs > idrs)
    await asyncio.gather(*(watcher.see(10) for watcher in watchers))
    assert [reason for _, reason in world.publisher.requests] == [KeyframeReason.PLI]
    assert await world.metric("mien_viewer_pli_total") == 6


async def test_a_lost_packet_is_sent_again(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(5)
    take, first, again = watcher.receiver._handle_rtp_packet, dict[int, bytes](), dict[int, bytes]()

    async def record(packet: RtpPacket, arrival_time_ms: int) -> None:
        if packet.ssrc == watcher.ssrc:
            first[packet.sequence_number] = packet.payload
        else:  # RTX (RFC 4588): the payload begins with the number of the packet it repeats
            again[int.from_bytes(packet.payload[:2], "big")] = packet.payload[2:]
        await take(packet, arrival_time_ms)

    watcher.receiver._handle_rtp_packet = record
    await eventually(lambda: len(first) >= 10)
    lost = list(first)[-4:-1]
    never_sent = (lost[0] + 30_000) % 65_536
    for numbers in (lost, [never_sent]):
        await watcher.say(RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=watcher.ssrc, lost=numbers))
    await eventually(lambda: len(again) >= len(lost))
    assert again == {number: first[number] for number in lost}
    assert await world.metric("mien_viewer_nack_packets_total") == len(lost) + 1


async def test_requests_keep_their_distance(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(5)
    for _ in range(20):
        await watcher.say(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=watcher.ssrc))
        await asyncio.sleep(0.04)
    times = [when for when, _ in world.publisher.requests]
    assert len(times) >= 2
    assert all(later - earlier > 0.25 for earlier, later in pairwise(times))


async def test_a_late_joiner_starts_on_an_idr_of_its_own(world: World) -> None:
    first = await world.watcher()
    await first.see(30)
    idrs = world.publisher.idrs
    late = await world.watcher()
    await late.see(1)
    assert world.publisher.idrs == idrs + 1
    assert world.publisher.requests[-1][1] is KeyframeReason.JOIN
    await late.see(20)


async def test_a_gap_upstream_is_answered_by_an_idr(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(10)
    world.publisher.requests.clear()
    world.publisher.skip_frames = 2
    await eventually(lambda: bool(world.publisher.requests))
    assert world.publisher.requests[0][1] is KeyframeReason.GAP
    await watcher.see(20)
    assert await world.metric('mien_fanout_frames_total{result="dropped_waiting"}') >= 1


async def test_remb_and_loss_move_the_encoder(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(5)
    await eventually(lambda: bool(world.publisher.bitrates_bps))  # a new encoder is told where to begin
    assert world.publisher.bitrates_bps[0] == pytest.approx(1_200_000, rel=0.3)
    await watcher.see(45)
    remb = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=pack_remb_fci(250_000, [watcher.ssrc]))
    await watcher.keep_saying(remb, until=lambda: world.publisher.bitrates_bps[-1] == pytest.approx(225_000, rel=0.1))
    lossy = RtcpReceiverInfo(
        ssrc=watcher.ssrc, fraction_lost=128, packets_lost=9, highest_sequence=1, jitter=0, lsr=0, dlsr=0
    )
    report = RtcpRrPacket(ssrc=1, reports=[lossy])
    await watcher.keep_saying(report, until=lambda: world.publisher.bitrates_bps[-1] < 170_000)


async def test_redis_stops_and_comes_back(world: World, redis_server: EmbeddedRedis) -> None:
    watcher = await world.watcher()
    await watcher.see(10)
    redis_server.stop()
    await eventually_async(lambda: unready(world))
    assert watcher.peer.connectionState == "connected"
    late = await world.watcher()  # a session that is watched here can still be joined
    elsewhere = await world.client.post(
        "/v1/whep/other", content=watcher.peer.localDescription.sdp, headers={"Content-Type": "application/sdp"}
    )
    assert (elsewhere.status_code, elsewhere.headers["retry-after"]) == (503, "2")
    redis_server.start()
    await asyncio.gather(watcher.see(20), late.see(20))
    assert watcher.peer.connectionState == "connected"
    # The server came back empty; the session's users have written it again.
    await eventually_async(lambda: registered(world))


async def unready(world: World) -> bool:
    return (await world.client.get("/readyz")).status_code == 503


async def registered(world: World) -> bool:
    return await world.publisher.registry.sessions() == [SESSION]


async def eventually_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_another_generator_takes_over(redis_server: EmbeddedRedis, run_app: RunApp) -> None:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        client = httpx.AsyncClient(base_url=await run_app(create_app(settings(redis_server))), timeout=15)
        await stack.enter_async_context(client)
        first, second = Publisher(redis), Publisher(redis)
        world = World(client, first, stack)
        async with first.live():
            watcher = await world.watcher()
            await watcher.see(10)
        async with second.live():
            await watcher.see(20)
            # It is told what its viewers can take, as soon as it holds the session.
            await eventually(lambda: bool(second.bitrates_bps))
        assert watcher.peer.connectionState == "connected"


async def test_an_ended_session_lets_its_viewers_go(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(5)
    await world.publisher.registry.end_session(SESSION.session_id)
    await eventually(lambda: watcher.peer.connectionState == "closed")
    assert (await world.client.delete(watcher.url)).status_code == 404


async def test_leaving_frees_the_viewer_and_then_the_subscription(world: World) -> None:
    watcher = await world.watcher()
    await watcher.see(5)
    assert (await world.client.delete(watcher.url)).status_code == 200
    await eventually(lambda: watcher.peer.connectionState == "closed")
    assert await world.metric('mien_viewers{state="connected"}') == 0

    async def unsubscribed() -> bool:
        return await world.metric("mien_watched_sessions") == 0

    await eventually_async(unsubscribed)
