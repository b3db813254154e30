"""One connection to an SFU, over which a session's picture and voice are published: the offering side of WHIP.

It is a viewer that offers instead of answering. The picture is packetised once for it and for all viewers, the voice is
passed through, and the SFU's PLI, NACK, REMB and reports count as a viewer's. All candidates are in the offer and in
the answer: LiveKit's ingress knows no trickle, and an SFU that sends its candidates later cannot be connected to.

It uses ports of the system's choice, and no STUN or TURN: it connects out to a server.
"""

from __future__ import annotations

import asyncio
import logging

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError

from mien_shared.bus.egress import EgressError
from mien_shared.clock import Clock
from mien_signaling import h264_format, ice, passthrough, sfu_voice, voice_passthrough
from mien_signaling.broadcast import Broadcast
from mien_signaling.feedback import BitrateLimits
from mien_signaling.h264_format import H264Format, NoFormat
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import Voice
from mien_signaling.offer_parts import UnacceptableOffer, UnreadableOffer, is_refused, read_description
from mien_signaling.opus_format import opus_of
from mien_signaling.peer_session import AIORTC_RAISES
from mien_signaling.picture_stream import PictureStream
from mien_signaling.sfu_metrics import SfuMetrics
from mien_signaling.sfu_watch import ReportWatch
from mien_signaling.speaker_transport import guard_receive_loop

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
_WATCH_INTERVAL_S = 0.5
_ANSWER_RAISES = (InvalidAccessError, InvalidStateError, OperationError, *AIORTC_RAISES)


class UnusableAnswer(ValueError):
    """The SFU's answer is not one that we can send by; the text says why."""


class VoiceRefused(Exception):
    """The SFU takes the picture and refuses voice: offer the picture alone."""


class _Picture(PictureStream):
    """The picture of a publication. The SFU's reports are watched, and counted apart from those of viewers too."""

    def __init__(self, limits: BitrateLimits, clock: Clock, metrics: SignalingMetrics, sfu_metrics: SfuMetrics) -> None:
        super().__init__(limits, clock, metrics, on_frame=lambda: self.watch.sent(clock.monotonic_s()))
        self._sfu_metrics = sfu_metrics
        self.watch = ReportWatch()

    def on_keyframe_wanted(self) -> None:
        self._sfu_metrics.wants_keyframe()
        super().on_keyframe_wanted()

    def on_report(self, loss: float, rtt_s: float | None) -> None:
        self.watch.reported()
        self._sfu_metrics.reported(loss, rtt_s)
        super().on_report(loss, rtt_s)


class Publication:
    """One attempt. voice: whether voice is offered."""

    def __init__(
        self, broadcast: Broadcast, clock: Clock, metrics: SignalingMetrics, sfu_metrics: SfuMetrics, voice: bool
    ) -> None:
        self._broadcast = broadcast
        self._clock = clock
        self._metrics = metrics
        self._picture = _Picture(broadcast.limits, clock, metrics, sfu_metrics)
        self._lost: EgressError | None = None
        self._is_connected = False
        self._changed = asyncio.Event()  # it is connected, or has ended
        # An empty list, never None: for None, aiortc uses a public STUN server.
        configuration = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self._peer = RTCPeerConnection(configuration)
        self._peer.on("connectionstatechange", self._connection_changed)
        self._video = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        self._video.setCodecPreferences(passthrough.h264_preferences())
        self._voice = None
        if voice:
            self._voice = self._peer.addTransceiver(passthrough.PassthroughTrack("audio"), direction="sendonly")
            self._voice.setCodecPreferences(voice_passthrough.opus_preferences())
            # One MediaStream for both sections (RFC 9725, section 4.4.2).
            self._voice.sender._stream_id = self._video.sender._stream_id

    @property
    def loss_ratio(self) -> float | None:
        """The share of packets lost in the SFU's newest report, 0 to 1."""
        return self._picture.loss

    @property
    def rtt_s(self) -> float | None:
        return self._picture.rtt_s

    async def offer(self) -> str:
        """Our offer, with all candidates."""
        await self._peer.setLocalDescription(await self._peer.createOffer())
        return str(self._peer.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Begin to connect by the SFU's answer. Raises UnusableAnswer or VoiceRefused."""
        video, voice = read_answer(answer, self._voice is not None)
        by_capture = self._voice is not None
        passthrough.install(self._video, video, self._picture.next_frame, self._picture, self._clock, by_capture)
        if self._voice is not None and voice is not None:
            speech = self._broadcast.voice
            sfu_voice.install(self._voice, voice, speech.attach, speech.detach, self._clock)
        ice.end_consent_checks_with(self._peer)
        guard_receive_loop(self._peer, self._metrics.unreadable_datagram)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except _ANSWER_RAISES as error:
            raise UnusableAnswer("the SFU's answer cannot be used") from error

    async def connected(self, timeout_s: float) -> bool:
        """Whether the connection comes up within this time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return self._is_connected and self._lost is None

    async def lost(self) -> EgressError:
        """Wait until the connection has ended, or the SFU is silent; why."""
        while self._lost is None:
            if self._picture.watch.is_silent(self._clock.monotonic_s()):
                return EgressError.SILENT
            await self._clock.sleep(_WATCH_INTERVAL_S)
        return self._lost

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        self._picture.tune(None)
        self._end()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._peer.close()
        except TimeoutError:
            logger.error("the connection to the SFU did not close in time")
        except Exception:  # aiortc raises if the answer left the connection incomplete; the caller must free the rest
            logger.exception("the connection to the SFU failed to close")

    def _connection_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and self._lost is None and not self._is_connected:
            self._is_connected = True
            self._picture.tune(self._broadcast)
            self._changed.set()
        elif state in {"failed", "closed"}:
            self._end()

    def _end(self) -> None:
        self._lost = self._lost or EgressError.CLOSED
        self._changed.set()


def read_answer(answer: str, with_voice: bool) -> tuple[H264Format, Voice | None]:
    """How to send by an answer: its sections are those of our offer, video first."""
    try:
        described = read_description(answer)
    except (UnreadableOffer, UnacceptableOffer) as error:
        raise UnusableAnswer("the SFU's answer is not an SDP description with media sections") from error
    sections = described.sections
    if [section.kind for section in sections] != (["video", "audio"] if with_voice else ["video"]):
        raise UnusableAnswer("the SFU's answer does not have the sections of our offer")
    if not described.receives(sections[0]):
        raise UnusableAnswer("the SFU does not receive video")
    try:
        video = h264_format.choose(sections[0])
    except NoFormat as error:
        raise UnusableAnswer(
            "the SFU takes no H.264 that we send: packetization-mode 1, constrained baseline"
        ) from error
    if not with_voice:
        return video, None
    opus = opus_of(sections[1])
    if is_refused(sections[1]) or not described.receives(sections[1]) or opus is None:
        raise VoiceRefused
    return video, Voice(1, sections[1].mid or "", opus)
