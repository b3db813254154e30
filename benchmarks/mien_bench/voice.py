"""`mien bench voice`: what one listener's voice costs, alone and with the picture, compared with aiortc's own sender.

The packets are Opus as a speaker makes them, 50 a second. aiortc's way gives them to `RTCRtpSender` as `av.Packet`, so
that neither way encodes. The receivers are those of `mien bench fanout`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import asdict
from fractions import Fraction

import av
import click
from aiortc import MediaStreamTrack, RTCPeerConnection
from av.stream import Stream

from mien_bench.fanout import (
    _FORMAT,
    _INPUT_FRAMES,
    FPS,
    Feed,
    Measurement,
    _median,
    _NoFeedback,
    encode,
    measure,
    moving_pictures,
)
from mien_shared.bus.messages import EncodedFrame
from mien_shared.clock import SystemClock
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling import passthrough, voice_passthrough
from mien_signaling.fanout import Fanout
from mien_signaling.offer import Voice
from mien_signaling.opus_format import OpusFormat
from mien_signaling.voice_passthrough import VoiceSender
from mien_signaling.voice_timeline import TimedVoice

PACKETS_PER_S, FRAME_TICKS = 50, 960
#: aiortc's numbers of Opus and of the header extensions of voice.
_VOICE = Voice(0, "0", OpusFormat(96, mid_id=1, level_id=2))
_random = random.Random(1)
_PAYLOADS = [_random.randbytes(_random.randint(50, 110)) for _ in range(64)]  # 32 kbit/s


class _Packets(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Finished packets at 50 a second, for aiortc to send."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self._start_s: float | None = None

    async def recv(self) -> av.Packet[Stream]:
        if self._start_s is None:
            self._start_s = time.monotonic()
        await asyncio.sleep(self._start_s + self.sent / PACKETS_PER_S - time.monotonic())
        packet = av.Packet(_PAYLOADS[self.sent % len(_PAYLOADS)])
        packet.pts, packet.time_base = self.sent * FRAME_TICKS, Fraction(1, 48_000)
        self.sent += 1
        return packet


async def measure_ours(viewers: int, seconds: float, frames: list[EncodedFrame], *, voice: bool = True) -> Measurement:
    """Our way: one packet for all senders. frames: a picture beside it, empty for none. voice: whether there is any."""
    senders: list[VoiceSender] = []
    fanout, sent, tasks = Fanout(), 0, list[asyncio.Task[None]]()

    def add_sender(peer: RTCPeerConnection) -> None:
        if voice:
            audio = peer.addTransceiver(passthrough.PassthroughTrack("audio"), direction="sendonly")
            audio.setCodecPreferences(voice_passthrough.opus_preferences())
            voice_passthrough.install(audio, _VOICE, senders.append, senders.remove)
        if frames:
            feed = Feed()
            fanout.add(feed.queue)
            video = peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
            video.setCodecPreferences(passthrough.h264_preferences())
            passthrough.install(video, _FORMAT, feed.next_frame, _NoFeedback(), SystemClock())

    async def talk() -> None:
        nonlocal sent
        start_s = time.monotonic()
        while True:
            await asyncio.sleep(start_s + sent / PACKETS_PER_S - time.monotonic())
            payload = _PAYLOADS[sent % len(_PAYLOADS)]
            packet = TimedVoice(sent & 0xFFFF, sent * FRAME_TICKS, False, sent % 127, time.time(), payload)
            for sender in senders:
                await sender.send(packet)
            sent += 1

    async def show() -> None:
        start_s, shown = time.monotonic(), 0
        while True:
            await asyncio.sleep(start_s + shown / FPS - time.monotonic())
            frame = frames[shown % len(frames)]
            fanout.push(EncodedFrame(frame.run, shown, shown * VIDEO_CLOCK_HZ // FPS, frame.is_idr, frame.data))
            shown += 1

    def begin() -> None:
        tasks.extend(asyncio.create_task(work()) for work, is_on in ((talk, voice), (show, bool(frames))) if is_on)

    kinds = (["audio"] if voice else []) + (["video"] if frames else [])
    try:
        return await measure(viewers, seconds, add_sender, lambda: sent, begin, kinds=kinds)
    finally:
        for task in tasks:
            task.cancel()


async def measure_aiortc(viewers: int, seconds: float) -> Measurement:
    """aiortc's way: each listener has a separate track and sender."""
    tracks: list[_Packets] = []

    def add_sender(peer: RTCPeerConnection) -> None:
        tracks.append(_Packets())
        transceiver = peer.addTransceiver(tracks[-1], direction="sendonly")
        transceiver.setCodecPreferences(voice_passthrough.opus_preferences())

    return await measure(
        viewers, seconds, add_sender, lambda: round(sum(track.sent for track in tracks) / viewers), kinds=["audio"]
    )


@click.command()
@click.option("--viewers", default=40, show_default=True, help="Number of listeners.")
@click.option("--seconds", default=5.0, show_default=True, help="Seconds to measure each way.")
@click.option("--turns", default=3, show_default=True, help="Turns in which the ways are measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def voice(viewers: int, seconds: float, turns: int, as_json: bool) -> None:
    """Measure what a listener's voice costs, and how many listeners with voice and picture one core serves."""
    frames = encode(moving_pictures(_INPUT_FRAMES))
    ways: dict[str, list[Measurement]] = {"voice": [], "aiortc": [], "picture": [], "both": []}
    for _ in range(turns):
        ways["voice"].append(asyncio.run(measure_ours(viewers, seconds, [])))
        ways["aiortc"].append(asyncio.run(measure_aiortc(viewers, seconds)))
        ways["picture"].append(asyncio.run(measure_ours(viewers, seconds, frames, voice=False)))
        ways["both"].append(asyncio.run(measure_ours(viewers, seconds, frames)))
    found = {name: _median(measured) for name, measured in ways.items()}
    ratio = round(found["voice"].cpu_ms_per_viewer / found["aiortc"].cpu_ms_per_viewer, 3)
    if as_json:
        click.echo(json.dumps({**{name: asdict(way) for name, way in found.items()}, "ratio": ratio}))
        return
    for name, way in found.items():
        click.echo(
            f"{name:>8}: {way.cpu_ms_per_viewer:.3f} ms a second for each listener, {way.viewers_per_core:.0f} a core"
            f" ({way.packets_per_viewer:.0f} packets/s each)"
        )
    click.echo(f"{'ratio':>8}: our voice costs {ratio} times as much as aiortc's own sender")
