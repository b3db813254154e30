"""Takes what a speaker sends out of aiortc before aiortc reads it, with a check of the private parts that this needs.

RTP and RTCP are taken after decryption, as bytes: no receiver, jitter buffer or decoder of aiortc ever runs. Messages
of data channels are taken from SCTP, so that a stranger cannot make aiortc create channels.

`guard_receive_loop` is for viewers too. In aiortc 1.16 an exception in anything that reads a datagram ends the receive
loop of the connection without a word, and a datagram of more than 1,500 bytes is enough: pylibsrtp refuses it by a
ValueError that aiortc does not expect.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Protocol

from aiortc import RTCPeerConnection, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import InboundStream
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from mien_signaling.aiortc_parts import HookPointMissing
from mien_signaling.data_channel import ACK, DCEP
from mien_signaling.reception import Report

#: What one speaker may leave in SCTP's buffers: messages of motion fit into one chunk, so nothing has to wait there.
MAX_STREAMS, MAX_CHUNKS, MAX_GAPS = 16, 64, 512

_METHODS = {
    (RTCDtlsTransport, "_recv_next"): ["self"],
    (RTCDtlsTransport, "_handle_rtp_data"): ["self", "data", "arrival_time_ms"],
    (RTCDtlsTransport, "_handle_rtcp_data"): ["self", "data"],
    (RTCDtlsTransport, "_send_rtp"): ["self", "data"],
    (RTCSctpTransport, "_handle_data"): ["self", "data"],
    (RTCSctpTransport, "_data_channel_receive"): ["self", "stream_id", "pp_id", "data"],
    (RTCSctpTransport, "_send"): ["self", "stream_id", "pp_id", "user_data", "expiry", "max_retransmits", "ordered"],
}
_FIELDS = (
    (RTCSctpTransport, "_inbound_streams"),
    (RTCSctpTransport, "_sack_misordered"),
    (InboundStream, "reassembly"),
)


def check_hook_points(sctp: type = RTCSctpTransport) -> None:
    """Raise HookPointMissing unless aiortc has every private part that this module uses."""
    for (owner, name), expected in _METHODS.items():
        place = sctp if owner is RTCSctpTransport else owner
        method = getattr(place, name, None)
        if method is None or list(inspect.signature(method).parameters) != expected:
            raise HookPointMissing(f"aiortc's {owner.__name__} has no {name}({', '.join(expected)})")
    for owner, name in _FIELDS:
        place = sctp if owner is RTCSctpTransport else owner
        if name not in place.__init__.__code__.co_names:  # type: ignore[misc]
            raise HookPointMissing(f"aiortc's {owner.__name__} has no field {name}")
    for place in (RTCDtlsTransport, sctp):
        if "__slots__" in vars(place):
            raise HookPointMissing(f"aiortc's {place.__name__} does not let an instance replace its methods")


class SpeakerTraffic(Protocol):
    """Takes what a speaker sends. No method waits."""

    def on_rtp(self, data: bytes) -> None:
        """One RTP packet, decrypted."""

    def on_rtcp(self, data: bytes) -> None:
        """One compound RTCP packet, decrypted."""

    def on_message(self, stream_id: int, protocol: int, data: bytes) -> bool:
        """One SCTP message; True if it opens a channel that must be acknowledged. protocol: see data_channel.py."""

    def on_sctp(self) -> bool:
        """One SCTP packet arrived; False if it must be dropped."""

    def on_buffered(self) -> None:
        """SCTP holds more than a speaker of motion leaves there."""


def transports_of(peer: RTCPeerConnection) -> list[RTCDtlsTransport]:
    """The DTLS transports of a connection: one, where everything is bundled."""
    found = {transceiver.receiver.transport for transceiver in peer.getTransceivers()}
    if peer.sctp is not None:
        found.add(peer.sctp.transport)
    return list(found)


def guard_receive_loop(peer: RTCPeerConnection, on_flaw: Callable[[], None]) -> None:
    """Let no datagram end the receive loop. Call it when all transports exist. on_flaw: called for a bad datagram."""
    for transport in transports_of(peer):
        transport._recv_next = _guarded(transport, on_flaw)


def _guarded(transport: RTCDtlsTransport, on_flaw: Callable[[], None]) -> Callable[[], object]:
    receive_next = transport._recv_next

    async def receive() -> None:
        try:
            await receive_next()
        except ConnectionError:
            raise  # the connection has ended
        except Exception:  # noqa: BLE001 # the boundary of a stranger's datagram; the next one is read
            on_flaw()
            await asyncio.sleep(0)

    return receive


def install(peer: RTCPeerConnection, traffic: SpeakerTraffic) -> None:
    """Give what the speaker sends to `traffic`. Call it after setRemoteDescription, before the connection starts."""
    for transport in transports_of(peer):

        async def handle_rtp(data: bytes, arrival_time_ms: int) -> None:
            traffic.on_rtp(data)

        async def handle_rtcp(data: bytes) -> None:
            traffic.on_rtcp(data)

        transport._handle_rtp_data = handle_rtp
        transport._handle_rtcp_data = handle_rtcp
    if peer.sctp is not None:
        _take_messages(peer.sctp, traffic)


def _take_messages(sctp: RTCSctpTransport, traffic: SpeakerTraffic) -> None:
    handle_data = sctp._handle_data

    async def handle(data: bytes) -> None:
        if traffic.on_sctp():
            await handle_data(data)
            if _holds_too_much(sctp):
                traffic.on_buffered()

    async def receive(stream_id: int, pp_id: int, data: bytes) -> None:
        if traffic.on_message(stream_id, pp_id, data):
            await sctp._send(stream_id, DCEP, ACK)

    sctp._handle_data = handle
    sctp._data_channel_receive = receive


def _holds_too_much(sctp: RTCSctpTransport) -> bool:
    streams = sctp._inbound_streams
    if len(streams) > MAX_STREAMS or len(sctp._sack_misordered) > MAX_GAPS:
        return True
    return any(len(stream.reassembly) > MAX_CHUNKS for stream in streams.values())


async def send_receiver_report(
    transport: RTCDtlsTransport, ssrc: int, report: Report, lsr: int, delay_s: float
) -> None:
    """Send a receiver report (RFC 3550, section 6.4.2). lsr, delay_s: the last sender report and its age; 0, 0 if none.

    Raises ConnectionError.
    """
    block = RtcpReceiverInfo(
        ssrc=report.ssrc,
        fraction_lost=report.lost_q8,
        packets_lost=report.lost,
        highest_sequence=report.highest,
        jitter=report.jitter,
        lsr=lsr,
        dlsr=min(round(delay_s * 65_536), 0xFFFF_FFFF),
    )
    await transport._send_rtp(bytes(RtcpRrPacket(ssrc=ssrc, reports=[block])))
