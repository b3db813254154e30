"""Recorded motion: a file that consists of motion packets of version 1, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mien_shared.wire.motion import MotionPacket, MotionPacketError
from mien_shared.wire.motion_v1 import PACKET_BYTES


class MotionTrackError(ValueError):
    """The file is not a motion track; the text names the file and the flaw."""


@dataclass(frozen=True)
class MotionTrack:
    """At least one packet. Their capture times give the time of each packet in the track."""

    packets: tuple[MotionPacket, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a track. Raises MotionTrackError; for a damaged packet, its cause is the packet's error."""
        data = path.read_bytes()
        if not data or len(data) % PACKET_BYTES:
            raise MotionTrackError(
                f"{path.name} has {len(data)} bytes: a motion track is one or more packets of {PACKET_BYTES} bytes"
            )
        packets = []
        for number, at in enumerate(range(0, len(data), PACKET_BYTES)):
            try:
                packets.append(MotionPacket.unpack(data[at : at + PACKET_BYTES]))
            except MotionPacketError as error:
                raise MotionTrackError(f"{path.name}, packet {number}: {error}") from error
        return cls(tuple(packets))

    @property
    def interval_s(self) -> float:
        """Mean time between two packets. Raises MotionTrackError for a track of one packet, which has no rate."""
        if len(self.packets) < 2:
            raise MotionTrackError("a motion track of one packet has no frame rate")
        return (self.packets[-1].capture_ms - self.packets[0].capture_ms) / 1000 / (len(self.packets) - 1)

    def looped(self) -> Iterator[tuple[float, MotionPacket]]:
        """The track in an endless loop: (seconds from the start, packet), with sequence numbers from 0.

        Raises MotionTrackError for a track of one packet.
        """
        first_ms = self.packets[0].capture_ms
        round_s = (self.packets[-1].capture_ms - first_ms) / 1000 + self.interval_s
        for number in itertools.count():
            packet = self.packets[number % len(self.packets)]
            at_s = number // len(self.packets) * round_s + (packet.capture_ms - first_ms) / 1000
            yield at_s, replace(packet, sequence=number & 0xFFFF)
