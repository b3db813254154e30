"""Recorded motion: a file of motion packets, one after the other, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mien_shared.wire.motion import PACKET_BYTES, MotionPacket


class MotionTrackError(ValueError):
    """A file that is no motion track."""


@dataclass(frozen=True)
class MotionTrack:
    """Packets with their capture times in milliseconds from the track's beginning; at least two."""

    packets: tuple[MotionPacket, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a track; raises MotionTrackError, or the packet's own error."""
        data = path.read_bytes()
        if len(data) % PACKET_BYTES or len(data) < 2 * PACKET_BYTES:
            raise MotionTrackError(
                f"{path.name} has {len(data)} bytes: a motion track is two or more packets of {PACKET_BYTES} bytes"
            )
        return cls(tuple(MotionPacket.unpack(data[at : at + PACKET_BYTES]) for at in range(0, len(data), PACKET_BYTES)))

    @property
    def interval_s(self) -> float:
        """Mean time between two packets."""
        return (self.packets[-1].capture_ms - self.packets[0].capture_ms) / 1000 / (len(self.packets) - 1)

    def looped(self) -> Iterator[tuple[float, MotionPacket]]:
        """The track over and over: (seconds from the start, packet), numbered on from 0 without end."""
        first_ms = self.packets[0].capture_ms
        round_s = (self.packets[-1].capture_ms - first_ms) / 1000 + self.interval_s
        for number in itertools.count():
            packet = self.packets[number % len(self.packets)]
            at_s = number // len(self.packets) * round_s + (packet.capture_ms - first_ms) / 1000
            yield at_s, replace(packet, sequence=number & 0xFFFF)
