"""Distributes one session's frames to its viewers. Queues are bounded, and a viewer gets only frames it can decode.

A viewer's queue holds at most a second. If it overflows, all its frames are dropped and the viewer waits for the next
IDR: the newest frame wins, and a frame whose reference was dropped is not sent. Viewers do not affect each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mien_shared.bus.messages import EncodedFrame, KeyframeReason
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_signaling.rtp_h264 import packetise

MAX_QUEUED_FRAMES = 30
MAX_QUEUED_90K = VIDEO_CLOCK_HZ  # one second
#: If the first frame of neither run was seen, the current run stays until it has been silent for this long.
RUN_SILENCE_S = 0.5
_REMEMBERED_RUNS = 8


@dataclass(frozen=True, slots=True)
class PacketisedFrame:
    """One access unit as RTP payloads. All viewers share the list, so it must not be changed.

    capture_s: when its motion was recorded, Unix seconds by the speaker's clock; None if that is not known.
    """

    payloads: list[bytes]
    pts_90k: int
    is_idr: bool
    capture_s: float | None = None


class ViewerQueue:
    """The frames that one viewer has not been sent yet."""

    def __init__(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """on_ready: called after a frame is queued."""
        self._frames: deque[PacketisedFrame] = deque()
        self._on_ready = on_ready
        self.waits_for_idr = True

    def __len__(self) -> int:
        return len(self._frames)

    def wants(self, *, is_idr: bool) -> bool:
        """Whether this viewer can decode the next frame."""
        return is_idr or not self.waits_for_idr

    def push(self, frame: PacketisedFrame) -> int:
        """Queue a frame that this viewer `wants`. Returns how many were dropped; the frame itself may be among them."""
        dropped = 0
        if self._is_full(frame):
            dropped = len(self._frames)
            self._frames.clear()
            if not frame.is_idr:
                self.waits_for_idr = True
                return dropped + 1
        self.waits_for_idr = False
        self._frames.append(frame)
        self._on_ready()
        return dropped

    def skip_to_idr(self) -> None:
        """Wait for the next IDR after a missing frame. Queued frames can be decoded; later ones cannot."""
        self.waits_for_idr = True

    def pop(self) -> PacketisedFrame | None:
        return self._frames.popleft() if self._frames else None

    def _is_full(self, frame: PacketisedFrame) -> bool:
        if not self._frames:
            return False
        return len(self._frames) >= MAX_QUEUED_FRAMES or abs(frame.pts_90k - self._frames[0].pts_90k) > MAX_QUEUED_90K


@dataclass(slots=True)
class FanoutReport:
    """The results of one frame for all viewers. wants_idr: the reason if an IDR is needed now."""

    queued: int = 0
    dropped_overflow: int = 0
    dropped_waiting: int = 0
    wants_idr: KeyframeReason | None = None


class RunFence:
    """Accepts frames of only one encoder run at a time.

    During a handover, two generators encode the session: the old one continues until the new one's frames arrive. A run
    that begins is newer than all others. The run that it replaces is not accepted again.
    """

    def __init__(self) -> None:
        self._run: str | None = None
        self._heard_at_s = 0.0
        self._retired: deque[str] = deque(maxlen=_REMEMBERED_RUNS)

    def admits(self, frame: EncodedFrame, now_s: float) -> bool:
        """Whether viewers get this frame. now_s: its arrival, monotonic seconds."""
        if frame.run != self._run:
            begins = frame.index == 0
            is_silent = self._run is None or now_s - self._heard_at_s > RUN_SILENCE_S
            if frame.run in self._retired or not (begins or is_silent):
                return False
            if begins and self._run is not None:
                self._retired.append(self._run)
            self._run = frame.run
        self._heard_at_s = now_s
        return True


class Fanout:
    """The viewers of one session and its last frame."""

    def __init__(self) -> None:
        self._queues: list[ViewerQueue] = []
        self._previous: EncodedFrame | None = None

    @property
    def someone_waits(self) -> bool:
        return any(queue.waits_for_idr for queue in self._queues)

    def add(self, queue: ViewerQueue) -> None:
        self._queues.append(queue)

    def remove(self, queue: ViewerQueue) -> None:
        """Remove a queue; does nothing if it is not there."""
        if queue in self._queues:
            self._queues.remove(queue)

    def push(self, frame: EncodedFrame, capture_s: float | None = None) -> FanoutReport:
        """Queue one frame for every viewer that can decode it. Raises NotAnnexB; that frame then counts as missing."""
        payloads = packetise(frame.data) if self._queues else []
        report = FanoutReport()
        gap = self._previous is not None and not frame.is_idr and not frame.follows(self._previous)
        self._previous = frame
        if gap:
            for queue in self._queues:
                queue.skip_to_idr()
            if self._queues:
                report.wants_idr = KeyframeReason.GAP
        takers = [queue for queue in self._queues if queue.wants(is_idr=frame.is_idr)]
        report.dropped_waiting = len(self._queues) - len(takers)
        packetised = PacketisedFrame(payloads, frame.pts_90k, frame.is_idr, capture_s)
        for queue in takers:
            dropped = queue.push(packetised)
            report.dropped_overflow += dropped
            if queue.waits_for_idr:
                report.wants_idr = KeyframeReason.GAP
            else:
                report.queued += 1
        return report
