"""One speaker's WHIP connection: voice comes in as RTP, motion over a data channel. Nothing is decoded."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.uplink import MotionUplink
from mien_shared.bus.voice import VoicePublisher
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_shared.wire.checks import MAX_PACKET_BYTES
from mien_shared.wire.packet_filter import PacketFilter
from mien_signaling import speaker_transport, voice_passthrough
from mien_signaling.data_channel import BINARY, BINARY_EMPTY, DCEP, parse_open
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics, SpeakerRefusal
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.reception import Reception
from mien_signaling.rtp_packet import SenderReport, sender_reports
from mien_signaling.speaker_offer import SpeakerOffer
from mien_signaling.voice_filter import (
    ALLOWED_REFUSALS,
    ALLOWED_REFUSALS_PER_S,
    VOICE_CLOCK_HZ,
    Allowance,
    VoiceFilter,
    VoiceVerdict,
)

#: The longest message of a data channel that we announce. Up to here, a packet that is too long counts as `length`.
MAX_MESSAGE_BYTES = 4 * MAX_PACKET_BYTES
#: SCTP packets a second: one for each of 120 motion packets, and as many acknowledgements.
_SCTP_PER_S, _SCTP_BURST = 300.0, 600.0
_REPORT_INTERVAL_S = 1.0


class SpeakerConnection(PeerSession):
    """A WHIP session. on_gone: called at most once, when the connection ends or does not come up."""

    def __init__(
        self,
        speaker_id: str,
        session: SessionRecord,
        owner: str | None,
        bearer: Principal,
        forwarder: MotionForwarder,
        publisher: VoicePublisher,
        ice_servers: list[IceServer],
        media_port: MediaPort | None,
        clock: Clock,
        metrics: SignalingMetrics,
        on_gone: Callable[[SpeakerConnection, Gone], None],
    ) -> None:
        super().__init__(bearer, ice_servers, media_port, clock, metrics)
        self.speaker_id = speaker_id
        self.connection_id = secrets.token_hex(8)
        self.session = session
        #: Whether its participant is muted in the room: its voice goes no further.
        self.is_muted = False
        self._on_gone = on_gone
        self._forwarder = forwarder
        self._publisher = publisher
        now_s = clock.monotonic_s()
        self.motion = MotionUplink(session.session_id, owner, PacketFilter(now_s))
        self._sctp = Allowance(_SCTP_PER_S, _SCTP_BURST, now_s)
        self._refusals = Allowance(ALLOWED_REFUSALS_PER_S, ALLOWED_REFUSALS, now_s)
        self._channel: int | None = None
        self._voice: VoiceFilter | None = None
        self._reception: Reception | None = None
        self._last_report: tuple[SenderReport, float] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._sections: SpeakerOffer | None = None

    async def answer(self, offer: SpeakerOffer) -> str:
        """aiortc's answer to the reduced offer, with our candidates. Raises UnreadableOffer or ClosedWhileAnswering."""
        self._sections = offer
        if offer.opus is not None:
            connection, now_s = secrets.token_bytes(6), self._clock.monotonic_s()
            self._voice = VoiceFilter(offer.opus.payload_type, offer.opus.level_id, connection, now_s)
        return await self._negotiated(offer)

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        if self._reporting is not None:
            self._reporting.cancel()
        await super().close()

    def end(self, reason: Gone) -> None:
        """End the uplink; does nothing if it has ended."""
        self._report_gone(reason)

    # What the speaker sends (speaker_transport.SpeakerTraffic)

    def on_rtp(self, data: bytes) -> None:
        if self._closing:
            return
        now_s = self._clock.monotonic_s()
        if self._voice is None:
            verdict, packet = VoiceVerdict.PAYLOAD_TYPE, None
        else:
            verdict, packet = self._voice.packet(data, now_s)
        if packet is not None and self.is_muted:
            verdict = VoiceVerdict.MUTED
        self._metrics.voice_received(verdict)
        if packet is None:
            self._refuse(now_s)
            return
        assert self._voice is not None and self._voice.ssrc is not None  # the filter has accepted a packet
        if self._reception is None or self._reception.ssrc != self._voice.ssrc:
            self._reception, self._last_report = Reception(self._voice.ssrc, VOICE_CLOCK_HZ), None
        self._reception.packet(packet.sequence, packet.timestamp, now_s)
        if not self.is_muted:
            self._publisher.push(self.session.session_id, packet)

    def on_rtcp(self, data: bytes) -> None:
        if self._closing:
            return
        now_s = self._clock.monotonic_s()
        reports = sender_reports(data, self._clock.unix_s())
        if self._voice is not None and reports and self._voice.report(reports[0], now_s):
            self._last_report = reports[0], now_s
        else:
            self._metrics.speaker_refused(SpeakerRefusal.RTCP)
            self._refuse(now_s)

    def on_sctp(self) -> bool:
        now_s = self._clock.monotonic_s()
        if self._closing or not self._sctp.take(now_s):
            self._metrics.speaker_refused(SpeakerRefusal.SCTP)
            self._refuse(now_s)
            return False
        return True

    def on_buffered(self) -> None:
        self._report_gone(Gone.ABUSIVE)

    def on_message(self, stream_id: int, protocol: int, data: bytes) -> bool:
        if self._closing:
            return False
        now_s = self._clock.monotonic_s()
        if protocol == DCEP:
            opened = parse_open(data)
            if opened is not None and opened.is_motion and self._channel in {None, stream_id}:
                self._channel = stream_id
                return True
        if protocol == DCEP or stream_id != self._channel:
            self._metrics.speaker_refused(SpeakerRefusal.CHANNEL)
            self._refuse(now_s)
            return False
        is_binary = protocol in {BINARY, BINARY_EMPTY}
        message = (data if protocol == BINARY else b"") if is_binary else None
        self._metrics.motion_packet(self.motion.take(message, now_s, self._clock.unix_s(), self._forwarder))
        if self.motion.filter.abusive:
            self._report_gone(Gone.ABUSIVE)
        return False

    def _refuse(self, now_s: float) -> None:
        if not self._refusals.take(now_s):
            self._report_gone(Gone.ABUSIVE)

    # The connection (PeerSession)

    def _add_sections(self) -> None:
        assert self._sections is not None
        if self._sections.voice is not None:
            transceiver = self._peer.addTransceiver("audio", direction="recvonly")
            transceiver.setCodecPreferences(voice_passthrough.opus_preferences())
            transceiver.receiver.receive = voice_passthrough.receive_nothing

    def _take_over(self) -> None:
        speaker_transport.install(self._peer, self)

    def _connected(self) -> None:
        self._reporting = asyncio.create_task(self._send_reports(), name="receiver reports")

    def _gone(self, reason: Gone) -> None:
        self._on_gone(self, reason)

    async def _send_reports(self) -> None:
        transport = speaker_transport.transports_of(self._peer)[0]
        ssrc = secrets.randbits(32)
        while True:
            await self._clock.sleep(_REPORT_INTERVAL_S)
            report = None if self._reception is None else self._reception.report()
            if report is None:
                continue
            last, at_s = self._last_report or (None, 0.0)
            delay_s = 0.0 if last is None else self._clock.monotonic_s() - at_s
            lsr = 0 if last is None else last.ntp_middle
            try:
                await speaker_transport.send_receiver_report(transport, ssrc, report, lsr, delay_s)
            except ConnectionError:
                return
