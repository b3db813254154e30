"""Signaling's metrics: one method for each fact."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

from mien_shared.bus.channels import DropReason
from mien_shared.bus.messages import KeyframeReason
from mien_shared.metrics import LATENCY_BUCKETS_S, ServiceMetrics
from mien_shared.wire.packet_filter import PacketVerdict
from mien_signaling.fanout import FanoutReport
from mien_signaling.media_paths import Dropped
from mien_signaling.media_tcp import TcpEnd
from mien_signaling.retransmission import Ignored
from mien_signaling.voice_filter import VoiceVerdict

_JOIN_BUCKETS_S = (*LATENCY_BUCKETS_S, 5.0, 10.0)
_LOSS_BUCKETS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BITRATE_BUCKETS_BPS = (150e3, 300e3, 500e3, 800e3, 1.2e6, 1.6e6, 2.0e6, 2.5e6)

# rate() does not see a counter's first increase unless the counter was exported at zero before.
_FRAME_RESULTS = ("sent", "dropped_overflow", "dropped_waiting")
_GONE_REASONS = (
    *("left", "closed", "failed", "timed_out", "refused", "session_ended", "operator", "expired", "departed"),
    *("shutdown", "replaced", "abusive"),
)
_HOLD_BUCKETS_S = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


class VoiceDropped(StrEnum):
    """Why a packet of voice that a speaker's filter accepted did not reach a viewer."""

    REDIS = "redis"  # it failed, or did not answer in time
    UNREADABLE = "unreadable"  # in the voice channel
    RETIRED = "retired"  # of an uplink that another one has replaced
    OVERFLOW = "overflow"  # of the packets that are held back
    CLOSED = "closed"  # the viewer's connection
    QUIET = "quiet"  # in a room: the participant was not among the three loudest


class SpeakerRefusal(StrEnum):
    """Why something that a speaker sent is refused, apart from packets of voice and motion."""

    RTCP = "rtcp"  # a report that is not the stream's, or one too many
    CHANNEL = "channel"  # a data channel other than "motion", or a message in it
    SCTP = "sctp"  # a packet too many


class SignalingMetrics(ServiceMetrics):
    """Metrics of WHEP, of the fan-out and of viewers' reports, in addition to those of every service."""

    def __init__(self) -> None:
        super().__init__("signaling")
        self._viewers = Gauge(
            "mien_viewers", "Viewers of this process, by state of their connection", ["state"], registry=self.registry
        )
        self._sessions = Gauge(
            "mien_watched_sessions", "Sessions whose video this process is subscribed to", registry=self.registry
        )
        self._requests = Counter(
            "mien_whep_requests_total",
            "Answered WHEP requests, by method and status",
            ["method", "status"],
            registry=self.registry,
        )
        self._join = Histogram(
            "mien_join_seconds",
            "Time from a viewer's POST until its connection is established",
            buckets=_JOIN_BUCKETS_S,
            registry=self.registry,
        )
        self._first_frame = Histogram(
            "mien_first_frame_seconds",
            "Time from a viewer's POST until its first frame is sent",
            buckets=_JOIN_BUCKETS_S,
            registry=self.registry,
        )
        self._viewers_gone = Counter(
            "mien_viewers_gone_total", "Viewers that were removed, by reason", ["reason"], registry=self.registry
        )
        self._frames = Counter(
            "mien_fanout_frames_total",
            "Frames handled in the fan-out, by result; each frame counts once for each viewer",
            ["result"],
            registry=self.registry,
        )
        self._bad_frames = Counter(
            "mien_fanout_bad_frames_total",
            "Frames from generators dropped because they are not in Annex B format",
            registry=self.registry,
        )
        self._retired_frames = Counter(
            "mien_fanout_retired_frames_total",
            "Frames dropped because they came from a session's previous encoder run after the next run had begun",
            registry=self.registry,
        )
        self._keyframes = Counter(
            "mien_keyframe_requests_total",
            "IDR requests sent to generators, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._pli = Counter(
            "mien_viewer_pli_total", "PLI and FIR messages received from viewers", registry=self.registry
        )
        self._nack = Counter(
            "mien_viewer_nack_packets_total", "Packets that viewers requested again by NACK", registry=self.registry
        )
        self._sent_again = Counter(
            "mien_viewer_packets_sent_again_total", "Packets sent again to viewers after a NACK", registry=self.registry
        )
        self._nack_ignored = Counter(
            "mien_viewer_nack_packets_ignored_total",
            "Packets that viewers requested by NACK and that were not sent again, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._loss = Histogram(
            "mien_viewer_loss_ratio",
            "Share of packets lost, 0 to 1, from viewers' receiver reports",
            buckets=_LOSS_BUCKETS,
            registry=self.registry,
        )
        self._rtt = Histogram(
            "mien_viewer_rtt_seconds",
            "Round-trip time to viewers, from their receiver reports",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._bitrate = Histogram(
            "mien_bitrate_target_bits_per_second",
            "Bitrate targets sent to generators",
            buckets=_BITRATE_BUCKETS_BPS,
            registry=self.registry,
        )
        self._transports = Counter(
            "mien_viewers_connected_total",
            "Viewers whose connection was established, by the transport of their media; TURN counts as udp",
            ["transport"],
            registry=self.registry,
        )
        self._media_dropped = Counter(
            "mien_media_port_dropped_total",
            "Datagrams dropped at the media port, received or to be sent, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._media_tcp = Gauge(
            "mien_media_tcp_connections",
            "Open TCP connections at the media port; unknown ones have not yet shown which viewer they belong to",
            ["state"],
            registry=self.registry,
        )
        self._media_tcp_ended = Counter(
            "mien_media_tcp_ended_total",
            "TCP connections at the media port that ended, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._whip_requests = Counter(
            "mien_whip_requests_total",
            "Answered WHIP requests, by method and status",
            ["method", "status"],
            registry=self.registry,
        )
        self._speakers = Gauge(
            "mien_whip_uplinks",
            "Speakers whose uplink is a WHIP connection of this process, by state of the connection",
            ["state"],
            registry=self.registry,
        )
        self._speakers_gone = Counter(
            "mien_whip_uplinks_gone_total", "WHIP uplinks that ended, by reason", ["reason"], registry=self.registry
        )
        self._motion = Counter(
            "mien_whip_motion_packets_total",
            "Motion packets received over data channels, by result; the results are those of the gateway's uplinks",
            ["result"],
            registry=self.registry,
        )
        self._motion_dropped = Counter(
            "mien_whip_motion_dropped_total",
            "Accepted motion packets that did not reach a generator's inbox, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._voice_received = Counter(
            "mien_voice_packets_received_total",
            "RTP packets received from speakers, by result",
            ["result"],
            registry=self.registry,
        )
        self._voice_sent = Counter(
            "mien_voice_packets_sent_total",
            "Voice packets sent; each packet counts once for each viewer",
            registry=self.registry,
        )
        self._voice_dropped = Counter(
            "mien_voice_packets_dropped_total",
            "Accepted voice packets that did not reach a viewer, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._voice_held = Histogram(
            "mien_voice_hold_seconds",
            "How long voice packets are held back so that they agree with the picture",
            buckets=_HOLD_BUCKETS_S,
            registry=self.registry,
        )
        self._speaker_refused = Counter(
            "mien_whip_refused_total",
            "Things that speakers sent over WHIP and that are neither voice nor motion, by reason of their refusal",
            ["reason"],
            registry=self.registry,
        )
        self._unreadable = Counter(
            "mien_unreadable_datagrams_total",
            "Datagrams of viewers and speakers that aiortc failed to read",
            registry=self.registry,
        )
        self._watched_rooms = Gauge(
            "mien_watched_rooms", "Rooms that participants watch over this process", registry=self.registry
        )
        self._slots = Gauge(
            "mien_room_slots",
            "Slots of participants' connections to their rooms, by whether someone is in them",
            ["state"],
            registry=self.registry,
        )
        self._slot_changes = Counter(
            "mien_room_slot_changes_total", "Participants that were put into a slot", registry=self.registry
        )
        self.watch_media_tcp(lambda: 0, lambda: 0)
        self.watch_rooms(lambda: 0, lambda: 0, lambda: 0)
        self.watch_speakers(lambda: 0, lambda: 0)
        self._whip_requests.labels("POST", "201")
        for family, labels in (
            (self._transports, ("udp", "tcp")),
            (self._media_dropped, tuple(Dropped)),
            (self._media_tcp_ended, tuple(TcpEnd)),
            (self._frames, _FRAME_RESULTS),
            (self._viewers_gone, _GONE_REASONS),
            (self._nack_ignored, tuple(Ignored)),
            (self._keyframes, tuple(KeyframeReason)),
            (self._speakers_gone, _GONE_REASONS),
            (self._motion, tuple(PacketVerdict)),
            (self._motion_dropped, tuple(DropReason)),
            (self._voice_received, tuple(VoiceVerdict)),
            (self._voice_dropped, tuple(VoiceDropped)),
            (self._speaker_refused, tuple(SpeakerRefusal)),
        ):
            for label in labels:
                family.labels(label)

    def watch_audience(
        self, connecting: Callable[[], int], connected: Callable[[], int], sessions: Callable[[], int]
    ) -> None:
        """Read the number of viewers by state and of watched sessions from these functions at every scrape."""
        self._viewers.labels("connecting").set_function(connecting)
        self._viewers.labels("connected").set_function(connected)
        self._sessions.set_function(sessions)

    def watch_rooms(self, rooms: Callable[[], int], filled: Callable[[], int], free: Callable[[], int]) -> None:
        """Read the number of watched rooms and of slots from these functions at every scrape."""
        self._watched_rooms.set_function(rooms)
        self._slots.labels("filled").set_function(filled)
        self._slots.labels("free").set_function(free)

    def slot_changed(self) -> None:
        self._slot_changes.inc()

    def whep_request(self, method: str, status: int) -> None:
        self._requests.labels(method, str(status)).inc()

    def watch_media_tcp(self, unknown: Callable[[], int], known: Callable[[], int]) -> None:
        """Read the number of TCP connections at the media port from these functions at every scrape."""
        self._media_tcp.labels("unknown").set_function(unknown)
        self._media_tcp.labels("viewer").set_function(known)

    def media_dropped(self, reason: Dropped) -> None:
        self._media_dropped.labels(reason.value).inc()

    def media_tcp_ended(self, reason: TcpEnd) -> None:
        self._media_tcp_ended.labels(reason.value).inc()

    def viewer_connected(self, join_s: float, transport: str) -> None:
        """Count a viewer whose connection is established, after this time, over "udp" or "tcp"."""
        self._join.observe(join_s)
        self._transports.labels(transport).inc()

    def first_frame(self, wait_s: float) -> None:
        self._first_frame.observe(wait_s)

    def viewer_gone(self, reason: str) -> None:
        self._viewers_gone.labels(reason).inc()

    def frame_fanned_out(self, report: FanoutReport) -> None:
        """Count the frames dropped before or in the queues. `frame_sent` counts the frames that leave the queues."""
        self._frames.labels("dropped_overflow").inc(report.dropped_overflow)
        self._frames.labels("dropped_waiting").inc(report.dropped_waiting)

    def frame_sent(self) -> None:
        """Count a frame that was handed to a viewer's sender."""
        self._frames.labels("sent").inc()

    def bad_frame(self) -> None:
        self._bad_frames.inc()

    def retired_frame(self) -> None:
        """Count a frame of an encoder run that another run has replaced. No viewer gets it."""
        self._retired_frames.inc()

    def keyframe_requested(self, reason: KeyframeReason) -> None:
        self._keyframes.labels(reason.value).inc()

    def viewer_wants_keyframe(self) -> None:
        self._pli.inc()

    def viewer_nacked(self, packets: int) -> None:
        self._nack.inc(packets)

    def nack_ignored(self, reason: Ignored, packets: int) -> None:
        self._nack_ignored.labels(reason.value).inc(packets)

    def packet_sent_again(self) -> None:
        self._sent_again.inc()

    def viewer_reported(self, loss: float, rtt_s: float | None) -> None:
        self._loss.observe(loss)
        if rtt_s is not None:
            self._rtt.observe(rtt_s)

    def bitrate_set(self, bitrate_bps: int) -> None:
        self._bitrate.observe(bitrate_bps)

    # Speakers and voice

    def watch_speakers(self, connecting: Callable[[], int], connected: Callable[[], int]) -> None:
        """Read the number of speakers by state from these functions at every scrape."""
        self._speakers.labels("connecting").set_function(connecting)
        self._speakers.labels("connected").set_function(connected)

    def whip_request(self, method: str, status: int) -> None:
        self._whip_requests.labels(method, str(status)).inc()

    def speaker_gone(self, reason: str) -> None:
        self._speakers_gone.labels(reason).inc()

    def motion_packet(self, verdict: PacketVerdict) -> None:
        self._motion.labels(verdict.value).inc()

    def motion_dropped(self, reason: DropReason, packets: int) -> None:
        self._motion_dropped.labels(reason.value).inc(packets)

    def voice_received(self, verdict: VoiceVerdict) -> None:
        self._voice_received.labels(verdict.value).inc()

    def voice_sent(self, viewers: int) -> None:
        self._voice_sent.inc(viewers)

    def voice_dropped(self, reason: VoiceDropped, packets: int = 1) -> None:
        self._voice_dropped.labels(reason.value).inc(packets)

    def voice_held(self, hold_s: float) -> None:
        self._voice_held.observe(hold_s)

    def speaker_refused(self, reason: SpeakerRefusal) -> None:
        self._speaker_refused.labels(reason.value).inc()

    def unreadable_datagram(self) -> None:
        self._unreadable.inc()
