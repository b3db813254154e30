"""Stage one, motion: turns the packets that arrived into the motion to show. Pure: every call passes the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien_shared.default_motion import DefaultMotion, Ease
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MAX_JACOBIAN, MotionFlags, MotionPacket

#: An uplink without packets for this long has stalled.
STALL_S = 0.2
_EASE_OUT_S = 0.4  # transition to the default motion
_EASE_IN_S = 0.15  # transition back to the speaker, or to another initial frame


@dataclass(frozen=True, slots=True)
class ShownMotion:
    """The motion of one frame.

    relative: motion relative to the avatar's picture. packet: the newest packet, None before the first.
    idle: True while the default motion plays, because no packet has arrived yet or the uplink has stalled.
    """

    relative: Keypoints
    packet: MotionPacket | None
    idle: bool


class UnusableMotion(ValueError):
    """Absolute keypoints that give no usable relative motion.

    The initial frame's Jacobians have no inverse, or a relative Jacobian is out of range.
    """


class SpeakerMotion:
    """One speaker's motion. The newest packet wins. Stalls and new initial frames lead to smooth transitions."""

    def __init__(self, source: Keypoints, now_s: float) -> None:
        self._idle_motion = DefaultMotion(source)
        self._idle_since_s: float | None = now_s
        self._initial: Keypoints | None = None
        self._packet: MotionPacket | None = None
        self._relative = Keypoints.at_rest()
        self._arrived_s = now_s
        self._ease = Ease(now_s)

    @property
    def stalls_at_s(self) -> float:
        """When the uplink counts as stalled unless another packet arrives."""
        return self._arrived_s + STALL_S

    def is_idle(self, now_s: float) -> bool:
        return self._packet is None or now_s >= self.stalls_at_s

    def push(self, packet: MotionPacket, now_s: float) -> None:
        """Use the newest packet. Raises UnusableMotion and keeps the previous packet if it gives no usable motion."""
        relative = self._relative_motion(packet)
        if self.is_idle(now_s) or packet.flags & MotionFlags.NEW_INITIAL_FRAME:
            self._ease.begin(now_s, _EASE_IN_S)
        self._idle_since_s = None
        self._packet, self._relative, self._arrived_s = packet, relative, now_s

    def at(self, now_s: float) -> ShownMotion:
        """The motion to show now."""
        idle = self.is_idle(now_s)
        if idle and self._idle_since_s is None:
            self._idle_since_s = now_s
            self._ease.begin(now_s, _EASE_OUT_S)
        target = self._idle_motion.at(now_s - self._idle_since_s) if self._idle_since_s is not None else self._relative
        return ShownMotion(self._ease.show(target, now_s), self._packet, idle)

    def _relative_motion(self, packet: MotionPacket) -> Keypoints:
        if not packet.flags & MotionFlags.ABSOLUTE:
            return packet.keypoints
        if self._initial is None or packet.flags & MotionFlags.NEW_INITIAL_FRAME:
            self._initial = packet.keypoints
        try:
            relative = packet.keypoints.relative_to(self._initial)
        except np.linalg.LinAlgError as error:
            self._initial = None
            raise UnusableMotion("the initial frame's Jacobians have no inverse") from error
        if np.abs(relative.jacobians).max() > MAX_JACOBIAN:
            raise UnusableMotion(f"a relative Jacobian entry lies outside [-{MAX_JACOBIAN:g}, {MAX_JACOBIAN:g}]")
        return relative
