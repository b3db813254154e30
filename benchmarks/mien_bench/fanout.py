"""`mien bench fanout`: how many viewers one core can serve, compared with aiortc encoding separately for each viewer.

Frames are passed through once with a UDP socket for each viewer and once with one media port for all of them, in turns.
All ways run in this process, one after the other. The receivers are the same: real peer connections with ICE, DTLS
and SRTP in a second process, connected over loopback. The source is 720p at 30 frames a second. The bench measures the
CPU time of this process while all viewers are connected; the receivers only count packets and do not decode.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from fractions import Fraction

import av
import click
import numpy as np
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av.video.frame import PictureType

from mien_shared.bus.messages import EncodedFrame
from mien_shared.clock import SystemClock
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling import ice, passthrough
from mien_signaling.fanout import Fanout, PacketisedFrame, ViewerQueue
from mien_signaling.h264_format import H264Format
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.retransmission import Ignored

WIDTH, HEIGHT, FPS, BITRATE_BPS = 1280, 720, 30, 1_200_000
#: aiortc's payload types of constrained baseline and of its retransmission.
_FORMAT = H264Format(101, "", (), 102)
_INPUT_FRAMES = 3 * FPS
_SETTLE_S = 1.0
_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Measurement:
    """The result of one way of sending. cpu_ms_per_viewer: CPU milliseconds per second and viewer."""

    viewers: int
    cpu_ms_per_viewer: float
    viewers_per_core: float
    packets_per_viewer: float
    fps: float


class Feed:
    """What one sender is fed from: the frames that the fan-out queues for it."""

    def __init__(self) -> None:
        self._ready = asyncio.Event()
        self.queue = ViewerQueue(self._ready.set)

    async def next_frame(self) -> PacketisedFrame:
        while (frame := self.queue.pop()) is None:
            self._ready.clear()
            await self._ready.wait()
        return frame


class _NoFeedback:
    """Ignores all feedback: the receivers of this bench ask for nothing."""

    def on_keyframe_wanted(self) -> None: ...

    def on_nack(self, packets: int) -> None: ...

    def on_nack_ignored(self, reason: Ignored, packets: int) -> None: ...

    def on_sent_again(self) -> None: ...

    @property
    def stream_bps(self) -> float:
        return BITRATE_BPS

    def on_report(self, loss: float, rtt_s: float | None) -> None: ...

    def on_remb(self, bitrate_bps: int) -> None: ...


class _Pictures(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Raw pictures at 30 frames a second, for aiortc to encode."""

    kind = "video"

    def __init__(self, pictures: list[av.VideoFrame]) -> None:
        super().__init__()
        # aiortc modifies the frames that it encodes, in a separate thread for each viewer: copy them.
        self._pictures = [av.VideoFrame.from_ndarray(picture.to_ndarray(), "yuv420p") for picture in pictures]
        self.sent = 0
        self._start_s: float | None = None

    async def recv(self) -> av.VideoFrame:
        if self._start_s is None:
            self._start_s = time.monotonic()
        await asyncio.sleep(self._start_s + self.sent / FPS - time.monotonic())
        frame = self._pictures[self.sent % len(self._pictures)]
        frame.pts, frame.time_base = self.sent * VIDEO_CLOCK_HZ // FPS, Fraction(1, VIDEO_CLOCK_HZ)
        self.sent += 1
        return frame


def moving_pictures(count: int) -> list[av.VideoFrame]:
    """A noisy brightness gradient and a head-sized patch of changing noise that moves over it: (720, 1280), yuv420p."""
    random = np.random.default_rng(1)
    across = np.linspace(60, 180, WIDTH, dtype=np.float32)[None, :].repeat(HEIGHT, 0)
    wall = np.clip(across + random.normal(0, 4, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
    pictures = []
    for index in range(count):
        luma = wall.copy()
        x = 448 + round(100 * np.sin(index / 12))
        luma[168:552, x : x + 384] = np.clip(random.normal(128, 12, (48, 48)), 0, 255).repeat(8, 0).repeat(8, 1)
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        planes[:HEIGHT] = luma
        pictures.append(av.VideoFrame.from_ndarray(planes, "yuv420p"))
    return pictures


def encode(pictures: list[av.VideoFrame]) -> list[EncodedFrame]:
    """The pictures as H.264, like a generator's output: constrained baseline, the first picture is an IDR."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(FPS, 1), Fraction(1, FPS)
    encoder.bit_rate, encoder.gop_size = BITRATE_BPS, len(pictures)
    rate = {"maxrate": str(BITRATE_BPS), "bufsize": str(BITRATE_BPS // 10)}
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", **rate}
    frames = []
    for index, picture in enumerate(pictures):
        picture.pts = index
        picture.pict_type = PictureType.I if index == 0 else PictureType.NONE
        data = b"".join(bytes(packet) for packet in encoder.encode(picture))
        frames.append(EncodedFrame("bench", index, 0, index == 0, data))
    return frames


async def measure(
    viewers: int,
    seconds: float,
    add_sender: Callable[[RTCPeerConnection], None],
    frames_sent: Callable[[], int],
    begin: Callable[[], None] = lambda: None,
    prepare: Callable[[RTCPeerConnection], None] = lambda peer: None,
    kinds: Sequence[str] = ("video",),
) -> Measurement:
    """Connect `viewers` receivers to the senders that `add_sender` makes, call `begin`, then measure for `seconds`.

    prepare: called with each peer that has taken its offer. kinds: of the sections in a receiver's offer.
    """
    peers: list[RTCPeerConnection] = []
    try:
        async with _receivers(viewers, kinds) as receivers:
            assert receivers.stdin is not None and receivers.stdout is not None
            offers = json.loads(await receivers.stdout.readline())
            answers = []
            for offer in offers:
                peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
                peers.append(peer)
                add_sender(peer)
                await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
                prepare(peer)
                await peer.setLocalDescription()
                answers.append(peer.localDescription.sdp)
            await _tell(receivers, answers)
            await asyncio.gather(*(_connected(peer) for peer in peers))
            begin()
            await asyncio.sleep(_SETTLE_S)
            packets = await _ask_packets(receivers)
            frames, cpu_s, wall_s = frames_sent(), time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            frames, cpu_s, wall_s = frames_sent() - frames, time.process_time() - cpu_s, time.monotonic() - wall_s
            packets = await _ask_packets(receivers) - packets
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))
    share = cpu_s / wall_s
    return Measurement(
        viewers,
        cpu_ms_per_viewer=round(1000 * share / viewers, 3),
        viewers_per_core=round(viewers / share, 1),
        packets_per_viewer=round(packets / wall_s / viewers, 1),
        fps=round(frames / wall_s, 1),
    )


async def measure_passthrough(
    frames: list[EncodedFrame], viewers: int, seconds: float, port: int | None = None
) -> Measurement:
    """Our way: each frame is packetised once and passed to the sender of every viewer.

    port: the media port of all viewers, None for a socket for each.
    """
    fanout, metrics = Fanout(), SignalingMetrics()
    media_port = None if port is None else MediaPort(port, ice.host_addresses(), viewers, metrics)
    if media_port is not None:
        await media_port.start()
    sent = 0

    def add_sender(peer: RTCPeerConnection) -> None:
        feed = Feed()
        fanout.add(feed.queue)
        transceiver = peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        transceiver.setCodecPreferences(passthrough.h264_preferences())
        passthrough.install(transceiver, _FORMAT, feed.next_frame, _NoFeedback(), SystemClock())

    def prepare(peer: RTCPeerConnection) -> None:
        if media_port is not None:
            ice.use_media_port(peer, media_port, metrics)

    async def pump() -> None:
        nonlocal sent
        start_s = time.monotonic()
        while True:
            await asyncio.sleep(start_s + sent / FPS - time.monotonic())
            frame = frames[sent % len(frames)]
            fanout.push(EncodedFrame(frame.run, sent, sent * VIDEO_CLOCK_HZ // FPS, frame.is_idr, frame.data))
            sent += 1

    # Start only when all viewers are connected: they would miss the first IDR and wait for the second.
    pumping: list[asyncio.Task[None]] = []
    try:
        return await measure(
            viewers, seconds, add_sender, lambda: sent, lambda: pumping.append(asyncio.create_task(pump())), prepare
        )
    finally:
        for task in pumping:
            task.cancel()
        if media_port is not None:
            media_port.close()


def measure_ports(
    frames: list[EncodedFrame], viewers: int, seconds: float, turns: int
) -> tuple[Measurement, Measurement]:
    """Passing through with a socket for each viewer, and with one media port: the medians of turns.

    The machine's speed changes by more than the ways differ, so they are measured in turns.
    """
    both = [
        [asyncio.run(measure_passthrough(frames, viewers, seconds, port)) for port in (None, _free_port())]
        for _ in range(turns)
    ]
    own, shared = ([turn[way] for turn in both] for way in (0, 1))
    return _median(own), _median(shared)


def _median(turns: list[Measurement]) -> Measurement:
    cpu_ms = statistics.median_low(turn.cpu_ms_per_viewer for turn in turns)
    return next(turn for turn in turns if turn.cpu_ms_per_viewer == cpu_ms)


def _free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


async def measure_encoding(pictures: list[av.VideoFrame], viewers: int, seconds: float) -> Measurement:
    """aiortc's way: the sender of every viewer encodes the same pictures again."""
    tracks: list[_Pictures] = []

    def add_sender(peer: RTCPeerConnection) -> None:
        tracks.append(_Pictures(pictures))
        transceiver = peer.addTransceiver(tracks[-1], direction="sendonly")
        transceiver.setCodecPreferences(passthrough.h264_preferences())

    return await measure(viewers, seconds, add_sender, lambda: round(sum(track.sent for track in tracks) / viewers))


async def _connected(peer: RTCPeerConnection) -> None:
    connected = asyncio.Event()

    def changed() -> None:
        if peer.connectionState == "connected":
            connected.set()

    peer.on("connectionstatechange", changed)
    changed()
    await connected.wait()


@asynccontextmanager
async def _receivers(viewers: int, kinds: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(viewers), *kinds, stdin=pipe, stdout=pipe, limit=_LINE_BYTES
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _tell(process: asyncio.subprocess.Process, message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def _ask_packets(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    await _tell(process, "packets")
    return int(await process.stdout.readline())


@click.command()
@click.option("--viewers", default=60, show_default=True, help="Number of viewers for passthrough.")
@click.option("--encode-viewers", default=2, show_default=True, help="Number of viewers for which aiortc encodes.")
@click.option("--seconds", default=6.0, show_default=True, help="Seconds to measure each way.")
@click.option("--turns", default=3, show_default=True, help="Turns in which the two kinds of ports are measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def fanout(viewers: int, encode_viewers: int, seconds: float, turns: int, as_json: bool) -> None:
    """Measure how many viewers one core serves, passing encoded frames through or encoding for each viewer."""
    pictures = moving_pictures(_INPUT_FRAMES)
    frames = encode(pictures)
    kbps = sum(len(frame.data) for frame in frames) * 8 * FPS / len(frames) / 1000
    through, one_port = measure_ports(frames, viewers, seconds, turns)
    encoding = asyncio.run(measure_encoding(pictures[:FPS], encode_viewers, seconds))
    ratio = round(encoding.cpu_ms_per_viewer / through.cpu_ms_per_viewer, 1)
    port_ratio = round(one_port.cpu_ms_per_viewer / through.cpu_ms_per_viewer, 3)
    if as_json:
        ways = {"passthrough": asdict(through), "one_port": asdict(one_port), "encoding": asdict(encoding)}
        click.echo(json.dumps({"kbps": round(kbps), **ways, "ratio": ratio, "port_ratio": port_ratio}))
        return
    click.echo(f"{WIDTH}x{HEIGHT}, {FPS} frames a second, {kbps:.0f} kbit/s")
    for name, way in (("passed through", through), ("at one port", one_port), ("encoded for each", encoding)):
        click.echo(
            f"{name:>16}: {way.viewers_per_core:.1f} viewers a core, {way.cpu_ms_per_viewer:.3f} ms a second each"
            f" ({way.viewers} viewers, {way.fps:.1f} fps, {way.packets_per_viewer:.0f} packets/s each)"
        )
    click.echo(f"{'ratio':>16}: encoding for each viewer costs {ratio} times as much as passing through")
    click.echo(f"{'':>16}  one port costs {port_ratio} times as much as a port for each viewer")


async def _receive(viewers: int, kinds: Sequence[str]) -> None:
    """The second process: writes offers to standard output, then reads answers and queries from standard input."""
    packets = 0

    async def count(data: bytes, arrival_time_ms: int) -> None:
        nonlocal packets
        packets += 1

    async def line() -> str:
        return await asyncio.to_thread(sys.stdin.readline)

    peers = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(viewers)]
    for peer in peers:
        for kind in kinds:
            receiver = peer.addTransceiver(kind, direction="recvonly").receiver
            receiver.transport._handle_rtp_data = count
        await peer.setLocalDescription(await peer.createOffer())
    click.echo(json.dumps([peer.localDescription.sdp for peer in peers]))
    for peer, answer in zip(peers, json.loads(await line()), strict=True):
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    while await line():
        click.echo(packets)
    await asyncio.gather(*(peer.close() for peer in peers))


if __name__ == "__main__":
    asyncio.run(_receive(int(sys.argv[1]), sys.argv[2:]))
