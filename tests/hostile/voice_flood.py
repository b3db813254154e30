"""A speaker that sends anything but a voice: wrong streams and types, huge packets, floods of RTP, RTCP and messages.

Run it with `PYTHONPATH=tests python -m hostile.voice_flood URL --token TOKEN`; the URL is of WHIP.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCDtlsTransport
from hostile.whep import Endpoint, main, new_client

PAYLOAD_TYPE, SSRC = 96, 1
FLOOD_PER_S = 10_000
_STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class Result:
    """sent: of each attack, before the service ended it. ended: attacks that cost the attacker its connection."""

    sent: dict[str, int]
    ended: list[str]
    resident_mb: tuple[float, float]


def rtp(sequence: int, *, ssrc: int = SSRC, payload_type: int = PAYLOAD_TYPE, size: int = 60) -> bytes:
    return struct.pack("!BBHLL", 0x80, payload_type, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, ssrc) + bytes(size)


def _odd(first: int, sequence: int) -> bytes:
    """A header that promises more than follows."""
    return struct.pack("!BBHLL", first, PAYLOAD_TYPE, sequence & 0xFFFF, 0, SSRC)


class _Speaker:
    """One connection of the attacker."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTransceiver("audio", direction="sendonly")
        self.channel: RTCDataChannel = self.peer.createDataChannel("motion", ordered=False, maxRetransmits=0)

    @property
    def transport(self) -> RTCDtlsTransport:
        return self.peer.getTransceivers()[0].sender.transport

    async def connect(self, endpoint: Endpoint) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        async with new_client() as client:
            response = await endpoint.post(client, self.peer.localDescription.sdp)
        response.raise_for_status()
        await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        async with asyncio.timeout(15):
            while self.transport.state != "connected" or self.channel.readyState != "open":
                await asyncio.sleep(0.01)

    async def send(self, data: bytes) -> None:
        await self.transport._send_rtp(data)

    async def send_raw(self, data: bytes) -> None:
        """A datagram as it is, without encryption: what anyone who knows the address can send."""
        await self.transport.transport._send(data)


async def _flood(speaker: _Speaker, one: Callable[[int], bytes | str], seconds: float) -> tuple[int, bool]:
    """Send so many a second; returns how many were sent, and whether the service ended the connection."""
    sent, began_s = 0, time.monotonic()
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        while sent < elapsed_s * FLOOD_PER_S:
            data = one(sent)
            sent += 1
            try:
                if isinstance(data, str):
                    speaker.channel.send(data)
                elif data[:1] == b"\x81":  # not to be encrypted
                    await speaker.send_raw(data)
                else:
                    await speaker.send(data)
            except Exception:  # noqa: BLE001 # aiortc's many ways to say that the connection has ended
                return sent, True
            if sent % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(_STEP_S)
    return sent, speaker.peer.connectionState != "connected"


ATTACKS: dict[str, Callable[[int], bytes | str]] = {
    "voice at 10,000 packets a second": rtp,
    "ten thousand streams": lambda at: rtp(at, ssrc=at + 1),
    "payload types that were not negotiated": lambda at: rtp(at, payload_type=at % 60),
    "packets of 1,300 bytes": lambda at: rtp(at, size=1300),
    "headers that end early": lambda at: _odd(0x8F, at) + bytes(at % 40),
    "extensions of a wrong length": lambda at: _odd(0x90, at) + b"\xbe\xde\x01\x00\xaf\x01\x02\x03" + bytes(20),
    "sender reports": lambda at: b"\x80\xc8\x00\x06" + struct.pack("!LQLLL", SSRC, at, 0, 1, 1),
    "datagrams of 60,000 bytes": lambda at: b"\x81" + bytes(60_000 if at % 50 == 0 else 1600),
    "messages of text": lambda at: "x" * 500,
}


async def attack(endpoint: Endpoint, seconds: float) -> Result:
    """Each attack over a connection of its own, one after the other, for a share of the time."""
    sent: dict[str, int] = {}
    ended: list[str] = []
    async with new_client() as client:
        before_mb = await endpoint.resident_mb(client)
        for name, one in ATTACKS.items():
            speaker = _Speaker()
            try:
                await speaker.connect(endpoint)
                sent[name], was_ended = await _flood(speaker, one, seconds / len(ATTACKS))
                if was_ended:
                    ended.append(name)
            finally:
                await speaker.peer.close()
        after_mb = await endpoint.resident_mb(client)
    return Result(sent, ended, (before_mb, after_mb))


if __name__ == "__main__":
    main("Send anything but a voice.", attack)
