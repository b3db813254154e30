"""Sends voice through aiortc: finished Opus packets, without its encoder, and a check of the private parts it needs.

aiortc's own sender reads a track, builds objects for each packet and keeps a history: about 0.1 ms a packet. Here a
packet costs a header and SRTP. `_run_rtp` is replaced on the instance, as in passthrough.py. There is no queue for each
viewer: sending does not wait for the network.
"""

from __future__ import annotations

import asyncio
import inspect
import struct
from collections.abc import Callable

from aiortc import RTCRtpSender, RTCRtpTransceiver
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecCapability, RTCRtpCodecParameters
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.utils import random32

from mien_signaling.aiortc_parts import BYTES, EXITED, NTP, PACKETS, STARTED, TIMESTAMP, HookPointMissing, forget_time
from mien_signaling.offer import Voice
from mien_signaling.passthrough import receive_nothing, report_no_time_before_it_is_known

__all__ = ["VoiceSender", "check_hook_points", "install", "opus_preferences", "receive_nothing"]
from mien_signaling.rtp_packet import ntp_of
from mien_signaling.voice_timeline import TimedVoice

_HEADER, _EXTENSION_HEADER = struct.Struct("!BBHLL"), struct.Struct("!HH")
_VERSION, _HAS_EXTENSION, _MARKER, _ONE_BYTE_HEADERS = 0x80, 0x10, 0x80, 0xBEDE
#: An element with a one-byte header has at most so many bytes (RFC 8285, section 4.2).
_LONGEST_ELEMENT = 16
#: "Contains voice" of RFC 6464. libwebrtc sets it on every packet, and its receivers look at the level alone.
_CONTAINS_VOICE = 0x80


def check_hook_points(sender: type = RTCRtpSender, transport: type = RTCDtlsTransport) -> None:
    """Raise HookPointMissing unless aiortc has the private parts of this module that passthrough.py does not check."""
    method = getattr(transport, "_send_rtp", None)
    if method is None or list(inspect.signature(method).parameters) != ["self", "data"]:
        raise HookPointMissing("aiortc's RTCDtlsTransport has no _send_rtp(self, data)")
    for name in (STARTED, EXITED, NTP, TIMESTAMP, PACKETS, BYTES, "_ssrc"):
        if name not in sender.__init__.__code__.co_names:  # type: ignore[misc]
            raise HookPointMissing(f"aiortc's RTCRtpSender has no field {name}")


def opus_preferences() -> list[RTCRtpCodecCapability]:
    """Only Opus. Set them before setRemoteDescription."""
    return [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]


class VoiceSender:
    """One viewer's voice. on_ready, on_done: called when packets can be sent, and when they no longer can."""

    def __init__(
        self,
        sender: RTCRtpSender,
        voice: Voice,
        on_ready: Callable[[VoiceSender], None],
        on_done: Callable[[VoiceSender], None],
    ) -> None:
        self._sender = sender
        self._payload_type = voice.format.payload_type
        self._on_ready = on_ready
        self._on_done = on_done
        self._sequence, self._timestamp = random_sequence_number(), random32()
        self._packets = self._octets = 0
        self._is_first = True
        mid = voice.mid.encode() if voice.format.mid_id is not None else b""
        elements = _element(voice.format.mid_id, mid) if 0 < len(mid) <= _LONGEST_ELEMENT else b""
        level_id = voice.format.level_id
        self._plain = _extension(elements)
        self._levels = [_extension(elements + _element(level_id, bytes([_CONTAINS_VOICE | n]))) for n in range(128)]

    async def run(self, codec: RTCRtpCodecParameters) -> None:
        """Replaces `_run_rtp`: aiortc starts it when DTLS is ready, and cancels it."""
        getattr(self._sender, STARTED).set()
        self._on_ready(self)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        finally:
            self._on_done(self)
            self._sender.track.stop()
            self._sender.replaceTrack(None)
            getattr(self._sender, EXITED).set()

    def forget_time(self) -> None:
        """Let the reports name no time until a packet has one."""
        forget_time(self._sender)

    async def send(self, voice: TimedVoice) -> int:
        """Send one packet; returns 1, the number of copies. Raises ConnectionError."""
        sender = self._sender
        marker = _MARKER if voice.marker or self._is_first else 0
        first, extension = self._plain if voice.level is None else self._levels[voice.level & 0x7F]
        sequence = (self._sequence + voice.sequence) & 0xFFFF
        timestamp = (self._timestamp + voice.timestamp) & 0xFFFF_FFFF
        header = _HEADER.pack(first, self._payload_type | marker, sequence, timestamp, sender._ssrc)
        await sender.transport._send_rtp(header + extension + voice.payload)
        self._is_first = False
        self._packets += 1
        self._octets += len(voice.payload)
        # aiortc makes the sender reports and reads these values.
        setattr(sender, PACKETS, self._packets)
        setattr(sender, BYTES, self._octets)
        if voice.capture_s is not None:
            setattr(sender, NTP, ntp_of(voice.capture_s))
            setattr(sender, TIMESTAMP, timestamp)
        return 1


def _element(number: int | None, value: bytes) -> bytes:
    return b"" if number is None else bytes([number << 4 | len(value) - 1]) + value


def _extension(elements: bytes) -> tuple[int, bytes]:
    """The first byte of the RTP header, and the header's extension."""
    if not elements:
        return _VERSION, b""
    padded = elements + bytes(-len(elements) % 4)
    return _VERSION | _HAS_EXTENSION, _EXTENSION_HEADER.pack(_ONE_BYTE_HEADERS, len(padded) // 4) + padded


def install(
    transceiver: RTCRtpTransceiver,
    voice: Voice,
    on_ready: Callable[[VoiceSender], None],
    on_done: Callable[[VoiceSender], None],
) -> VoiceSender:
    """Make a transceiver send what its VoiceSender is given, and receive nothing. Call it before it starts."""
    sender = VoiceSender(transceiver.sender, voice, on_ready, on_done)
    transceiver.sender._run_rtp = sender.run
    report_no_time_before_it_is_known(transceiver.sender)
    transceiver.receiver.receive = receive_nothing
    return sender
