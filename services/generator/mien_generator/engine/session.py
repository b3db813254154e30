"""One session inside the generator: its shared avatar, and the state that changes with every frame."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from operator import attrgetter, itemgetter

import av
import numpy as np

from mien_generator.engine.scheduler import FrameTiming, schedule_s
from mien_generator.engine.turn import Stage, Turn
from mien_generator.face.contract import AvatarFace, FacePicture, PreparedFace
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import EncodedPicture, H264Encoder
from mien_generator.h264.keyframes import KeyframePolicy
from mien_generator.motion.shoulders import hold_shoulders
from mien_generator.motion.speaker import SpeakerMotion, UnusableMotion
from mien_shared.bus.messages import EncodedFrame, KeyframeReason, SessionRecord, SessionStats
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.newest import NewestWins

_METER_WINDOW_S = 3.0
#: Window of the frame rates that decide about tiers: short enough to react, long enough for a dozen frames.
_RATE_WINDOW_S = 1.0
#: Faces of two tiers differ in sharpness and slightly in colour. A cross-fade over this many frames hides the change; a
#: cut would be visible.
_FADE_FRAMES = 4

_serials = count(1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A motion packet that arrived at this generator.

    size_bytes: its size on the wire. received_unix_us: when the gateway received it. arrived_s: when this generator
    received it, monotonic.
    """

    packet: MotionPacket
    size_bytes: int
    received_unix_us: int
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Cue:
    """A session's turn to be drawn.

    arrivals: the motion that waited, the newest last. taken_s: when the turn began. tier: the tier that makes the face.
    prepared: the avatar's face on this tier.
    """

    arrivals: Sequence[Arrival]
    taken_s: float
    tier: int
    prepared: PreparedFace


@dataclass(frozen=True, slots=True)
class DrivenFace:
    """The result of stage one for one frame.

    driving: keypoints in the avatar's crop. arrival: the packet that moves the face, None if the default motion does.
    packet: the newest packet, None before the first.
    """

    driving: Keypoints
    arrival: Arrival | None
    packet: MotionPacket | None

    def waited_s(self, unix_s: float) -> float:
        """Seconds since the gateway received the motion shown, by two machines' clocks. 0 for default motion."""
        return max(0.0, unix_s - self.arrival.received_unix_us / 1e6) if self.arrival else 0.0


@dataclass(frozen=True, slots=True)
class DrawnFace:
    """The result of stage two for one frame.

    tier: the tier that made the face; the session may have changed its tier since. wait_s: from the gateway's receipt
    of the motion to the start of the batch. face_s: time of the whole batch. drawn_s: when the face was done,
    monotonic.
    """

    motion: DrivenFace
    picture: FacePicture
    tier: int
    wait_s: float
    face_s: float
    drawn_s: float


class SessionAvatar:
    """An avatar that sessions of this generator share: its face, and the prepared face of each tier so far."""

    def __init__(self, face: AvatarFace) -> None:
        self.face = face
        self.prepared: dict[int, PreparedFace] = {}


class GeneratorSession:
    """State of one session.

    The engine's lock guards `tier` and the state of scheduling: `offer`, `begin`, `turn`, `framing`. Of the rest, the
    thread that begins the session's turn owns its motion, and the thread that frames it owns its compositor and its
    H.264 encoder. The engine never lets two threads begin, or two threads frame, the same session at once. Any thread
    may request an IDR or another bitrate.
    """

    def __init__(
        self,
        record: SessionRecord,
        avatar: SessionAvatar,
        tier: int,
        compositor: Compositor,
        h264: H264Encoder,
        keyframes: KeyframePolicy,
        now_s: float,
    ) -> None:
        self.record = record
        self.avatar = avatar
        self.tier = tier
        #: The tier to change to. It differs from `tier` while its face is being prepared.
        self.target_tier = tier
        self.compositor = compositor
        self.h264 = h264
        self.meter = Meter(now_s)
        #: The session's number within its engine; the device knows it by this number.
        self.serial = next(_serials)
        #: The turn whose face is being made, and the turn whose frame a thread is making. So a session has at most one
        #: face and one frame in progress, and the next face can be made while a frame is encoded.
        self.turn: Turn | None = None
        self.framing: Turn | None = None
        self.is_beginning = False
        #: Stays on the last tier.
        self.is_pinned = False
        self.gone = False
        self._keyframes = keyframes
        self._motion = SpeakerMotion(avatar.face.keypoints, now_s)
        self._bitrate_bps = h264.bitrate_bps
        self._waiting: NewestWins[Arrival] = NewestWins(attrgetter("packet.may_be_dropped"))
        self._waiting_since_s: float | None = None
        self._moving: Arrival | None = None
        self._shown_tier: int | None = None
        self._fading_frames = 0
        self._last_due_s = now_s
        # Identifies one run of an H.264 encoder. Every run starts with an IDR; signaling tells runs apart by this id.
        self._run = secrets.token_hex(4)
        self._index = 0

    @property
    def session_id(self) -> str:
        return self.record.session_id

    @property
    def prepared(self) -> PreparedFace:
        """The avatar's face on the session's tier."""
        return self.avatar.prepared[self.tier]

    @property
    def timing(self) -> FrameTiming:
        return FrameTiming(self._waiting_since_s, self._motion.stalls_at_s, self._last_due_s, self._index)

    def may_begin(self, on_device: bool) -> bool:
        """Whether a turn may begin now: if the device has taken no request of this session that is not framed yet.

        on_device: whether the device makes the session's faces. Newer motion replaces a request that only waits.
        """
        if self.is_beginning or (self.framing is not None and not on_device) or self.tier not in self.avatar.prepared:
            return False
        return self.turn is None or (self.turn.stage is Stage.ASKED and self._waiting_since_s is not None)

    def offer(self, arrival: Arrival) -> int:
        """Queue the newest motion to be drawn. Returns the number of undrawn packets that it replaced."""
        if not self._waiting:  # newer motion keeps the waiting time of the motion that it replaces
            self._waiting_since_s = arrival.arrived_s
        self.meter.arrived(arrival.arrived_s, arrival.size_bytes)
        return self._waiting.push(arrival)

    def begin(self, now_s: float, due_s: float, fps: int) -> Cue:
        """Begin this session's turn to be drawn."""
        self._last_due_s = schedule_s(due_s, now_s)
        self._waiting_since_s = None
        return Cue(self._waiting.take(), now_s, self.tier, self.prepared)

    def move(self, cue: Cue) -> DrivenFace:
        """Stage one for this session: the motion to show now. Raises UnusableMotion and then keeps the last motion."""
        unusable = None
        for arrival in cue.arrivals:
            try:
                self._motion.push(arrival.packet, arrival.arrived_s)
                self._moving, unusable = arrival, None
            except UnusableMotion as error:
                unusable = error
        shown = self._motion.at(cue.taken_s)
        if unusable is not None:
            raise unusable
        source = self.avatar.face.keypoints
        driving = hold_shoulders(source, shown.relative.applied_to(source))
        return DrivenFace(driving, None if shown.idle else self._moving, shown.packet)

    def compose(self, face: DrawnFace) -> av.VideoFrame:
        """Stage three for this session. The first faces of another tier are faded in."""
        if face.tier != self._shown_tier:
            self._fading_frames = 0 if self._shown_tier is None else _FADE_FRAMES - 1
            self._shown_tier = face.tier
        share = 1 / (self._fading_frames + 1)  # 1/4, 1/3, 1/2, 1 of the remaining difference: a linear cross-fade
        self._fading_frames = max(0, self._fading_frames - 1)
        return self.compositor.compose(face.picture, share)

    def encode(self, picture: av.VideoFrame, pts_90k: int, now_s: float) -> EncodedPicture:
        """Stage four for this session. Makes an IDR if one is due."""
        if self.h264.bitrate_bps != self._bitrate_bps:
            self.h264.set_bitrate(self._bitrate_bps)
            self._bitrate_bps = self.h264.bitrate_bps  # the encoder clamps the target to its limits
        encoded = self.h264.encode(picture, pts_90k, self._keyframes.is_due(now_s))
        if encoded.is_idr:
            self._keyframes.was_sent(now_s)
        return encoded

    def request_keyframe(self, reason: KeyframeReason) -> None:
        self._keyframes.request(reason)

    def request_bitrate(self, bitrate_bps: int) -> None:
        """Set another bitrate target for the next frame. The thread that encodes the frame applies it."""
        self._bitrate_bps = bitrate_bps

    def number(self, data: bytes, is_idr: bool, pts_90k: int) -> EncodedFrame:
        """Number an access unit as the next frame of this session's run."""
        frame = EncodedFrame(self._run, self._index, pts_90k, is_idr, data)
        self._index += 1
        return frame


class Meter:
    """A session's figures over the last seconds. Threads may append to and copy a deque at the same time."""

    def __init__(self, now_s: float) -> None:
        self.since_s = now_s
        self._frames: deque[tuple[float, int, float | None]] = deque(maxlen=256)
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=256)

    def arrived(self, now_s: float, size_bytes: int) -> None:
        self._arrivals.append((now_s, size_bytes))

    def encoded(self, now_s: float, size_bytes: int, motion_to_packet_s: float | None) -> None:
        self._frames.append((now_s, size_bytes, motion_to_packet_s))

    def rates_fps(self, now_s: float) -> tuple[float, float]:
        """(motion packets that arrived, frames that were made) in the last second."""
        since_s, arrivals, frames = now_s - _RATE_WINDOW_S, list(self._arrivals), list(self._frames)
        arrived = len(arrivals) - bisect_left(arrivals, since_s, key=itemgetter(0))
        made = len(frames) - bisect_left(frames, since_s, key=itemgetter(0))
        return arrived / _RATE_WINDOW_S, made / _RATE_WINDOW_S

    def stats(self, now_s: float, backend: str, tier: str) -> SessionStats:
        """The figures over the last seconds."""
        window_s = max(min(_METER_WINDOW_S, now_s - self.since_s), 0.1)  # shorter for a session that has just begun
        since_s = now_s - window_s
        frames = [entry for entry in list(self._frames) if entry[0] >= since_s]
        arrived_bytes = sum(size for at_s, size in list(self._arrivals) if at_s >= since_s)
        latencies_ms = [latency_s * 1000 for *_, latency_s in frames if latency_s is not None]
        p50, p99 = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (None, None)
        return SessionStats(
            fps=round(len(frames) / window_s, 1),
            bitrate_bps=round(sum(size for _, size, _ in frames) * 8 / window_s),
            uplink_bps=round(arrived_bytes * 8 / window_s),
            motion_to_packet_ms_p50=None if p50 is None else round(float(p50), 2),
            motion_to_packet_ms_p99=None if p99 is None else round(float(p99), 2),
            backend=backend,
            tier=tier,
            idle=not latencies_ms,
        )
