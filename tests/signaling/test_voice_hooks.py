"""The private parts of aiortc that voice needs: checked at the start, and guarded against what strangers send."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport

from mien_signaling import speaker_transport, voice_passthrough
from mien_signaling.offer import Voice
from mien_signaling.opus_format import OpusFormat
from mien_signaling.passthrough import HookPointMissing, PassthroughTrack
from mien_signaling.voice_timeline import TimedVoice


def test_this_aiortc_has_every_part() -> None:
    voice_passthrough.check_hook_points()
    speaker_transport.check_hook_points()


def test_a_part_that_is_missing_is_named() -> None:
    class Changed(RTCSctpTransport):  # type: ignore[misc] # aiortc is untyped for mypy here
        async def _data_channel_receive(self, stream_id: int, data: bytes) -> None: ...

    class Renamed(RTCRtpSender):  # type: ignore[misc]
        def __init__(self) -> None: ...

    class Other(RTCDtlsTransport):  # type: ignore[misc]
        async def _send_rtp(self, packet: bytes) -> None: ...

    with pytest.raises(HookPointMissing, match="RTCSctpTransport has no _data_channel_receive"):
        speaker_transport.check_hook_points(Changed)
    with pytest.raises(HookPointMissing, match="RTCRtpSender has no field _RTCRtpSender__rtp_started"):
        voice_passthrough.check_hook_points(Renamed)
    with pytest.raises(HookPointMissing, match=r"RTCDtlsTransport has no _send_rtp\(self, data\)"):
        voice_passthrough.check_hook_points(RTCRtpSender, Other)


async def test_no_datagram_ends_the_receive_loop() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("audio")
    transport, flaws = transceiver.receiver.transport, []
    arrived = iter([ValueError("too long"), AssertionError(), None, ConnectionError()])

    async def receive() -> None:
        if (error := next(arrived)) is not None:
            raise error

    transport._recv_next = receive
    speaker_transport.guard_receive_loop(peer, lambda: flaws.append(1))
    for _ in range(3):
        await transport._recv_next()
    with pytest.raises(ConnectionError):
        await transport._recv_next()
    assert len(flaws) == 2
    await peer.close()


async def test_a_sender_writes_the_negotiated_numbers_and_extensions() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver(PassthroughTrack("audio"), direction="sendonly")
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    transceiver.sender.transport._send_rtp = send
    ready: list[object] = []
    voice = Voice(0, "au", OpusFormat(109, mid_id=3, level_id=7))
    sender = voice_passthrough.install(transceiver, voice, ready.append, ready.remove)
    running = asyncio.create_task(transceiver.sender._run_rtp(None))
    await asyncio.sleep(0)
    assert ready == [sender]
    await sender.send(TimedVoice(0, 0, False, 30, None, b"first"))
    await sender.send(TimedVoice(1, 960, False, None, None, b"second"))
    running.cancel()
    await running
    assert ready == []
    first, second = sent
    assert first[0] == second[0] == 0x90
    assert (first[1], second[1]) == (0x80 | 109, 109)  # a viewer's first packet is marked
    assert first[12:] == bytes.fromhex("bede0002") + b"\x31au" + b"\x70" + bytes([0x80 | 30, 0, 0, 0]) + b"first"
    assert second[12:] == bytes.fromhex("bede0001") + b"\x31au\0" + b"second"
    assert int.from_bytes(second[2:4], "big") - int.from_bytes(first[2:4], "big") == 1
    assert (int.from_bytes(second[4:8], "big") - int.from_bytes(first[4:8], "big")) % 2**32 == 960
    await peer.close()
