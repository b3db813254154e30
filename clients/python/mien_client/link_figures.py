"""Figures of one link of a meeting: what one participant received of another one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mien_client.recording import captured_unix_s
from mien_client.room_view import RoomView
from mien_client.voice_packets import VoicePacket
from mien_client.whep import ReceivedFrame, ReceivedSound

#: A gap between pictures that is longer than this looks like a frozen face.
_FROZEN_S = 0.2
#: A sound is compared with the picture that was recorded nearest to it, at most this far away.
_NEAREST_S = 0.1
_MOST_REMEMBERED = 3000


@dataclass
class SentVoice:
    """When the mouth of one participant made each packet of its voice, by the packet's bytes.

    Nothing on the way decodes a voice, so a packet that arrives is one of these.
    """

    made_unix_s: dict[bytes, float] = field(default_factory=dict)

    def sent(self, payload: bytes, made_unix_s: float) -> None:
        """Remember a packet; of older ones a minute is remembered."""
        self.made_unix_s[payload] = made_unix_s
        if len(self.made_unix_s) > _MOST_REMEMBERED:
            del self.made_unix_s[next(iter(self.made_unix_s))]


@dataclass
class LinkFigures:
    """Latencies run from the recording to what the receiver has. Times are Unix seconds of one clock.

    sent: of the sender, if it is known here. Otherwise the sender's reports say when a voice was recorded.
    pictures: (recorded, decoded). packets: (mouth, arrived). sounds: (recorded, given out after the jitter buffer).
    """

    sent: SentVoice | None = None
    pictures: list[tuple[float, float]] = field(default_factory=list)
    packets: list[tuple[float, float]] = field(default_factory=list)
    sounds: list[tuple[float, float]] = field(default_factory=list)
    idle_pictures: int = 0
    _mouth_by_timestamp: dict[int, float] = field(default_factory=dict)
    _arrivals: list[float] = field(default_factory=list)
    _sequences: list[tuple[float, int]] = field(default_factory=list)

    def picture(self, recorded_s: float | None, decoded_s: float) -> None:
        """A decoded picture. recorded_s: None if it shows default motion."""
        self._arrivals.append(decoded_s)
        if recorded_s is None:
            self.idle_pictures += 1
        else:
            self.pictures.append((recorded_s, decoded_s))

    def packet(self, packet: VoicePacket) -> None:
        """A packet of the voice, as it arrived."""
        self._sequences.append((packet.received_unix_s, packet.sequence))
        made_s = packet.captured_unix_s if self.sent is None else self.sent.made_unix_s.get(packet.payload)
        if made_s is not None:
            self._mouth_by_timestamp[packet.timestamp] = made_s
            self.packets.append((made_s, packet.received_unix_s))

    def sound(self, timestamp: int | None, given_s: float) -> None:
        """A decoded sound, after the receiver's jitter buffer."""
        made_s = self._mouth_by_timestamp.get(-1 if timestamp is None else timestamp)
        if made_s is not None:
            self.sounds.append((made_s, given_s))

    def as_json(self, since_s: float, until_s: float) -> dict[str, float | int | None]:
        """The figures of what arrived in this time. Offsets: voice ahead of lips is positive."""
        arrivals = [at for at in self._arrivals if since_s <= at <= until_s]
        latencies = [1000 * (at - made) for made, at in self.pictures if since_s <= at <= until_s]
        voices = [1000 * (at - made) for made, at in self.packets if since_s <= at <= until_s]
        offsets = [1000 * offset for at, offset in self._offsets() if since_s <= at <= until_s]
        return {
            "fps": _rate(arrivals),
            "latency_ms_p50": _percentile(latencies, 50),
            "latency_ms_p99": _percentile(latencies, 99),
            "voice_ms_p50": _percentile(voices, 50),
            "av_offset_ms_p50": _percentile(offsets, 50),
            "av_offset_ms_p95": _percentile([abs(offset) for offset in offsets], 95),
            "voice_loss": self._loss(since_s, until_s),
            "frozen_s": round(sum(gap for gap in _gaps([since_s, *arrivals, until_s]) if gap > _FROZEN_S), 3),
        }

    def _offsets(self) -> list[tuple[float, float]]:
        """For each sound: when it was given out, and how much later than it the picture of its moment was shown."""
        found: list[tuple[float, float]] = []
        pictures = sorted(self.pictures)
        at = 0
        for made_s, given_s in sorted(self.sounds):
            while at + 1 < len(pictures) and abs(pictures[at + 1][0] - made_s) <= abs(pictures[at][0] - made_s):
                at += 1
            if pictures and abs(pictures[at][0] - made_s) <= _NEAREST_S:
                recorded_s, decoded_s = pictures[at]
                found.append((given_s, (decoded_s - recorded_s) - (given_s - made_s)))
        return found

    def _loss(self, since_s: float, until_s: float) -> float | None:
        numbers = {number for at, number in self._sequences if since_s <= at <= until_s}
        if len(numbers) < 2:
            return None
        first = next(number for at, number in self._sequences if since_s <= at <= until_s)
        newest = max((number - first + 2**15) % 2**16 - 2**15 for number in numbers)
        return round(max(0.0, 1 - len(numbers) / (newest + 1)), 4)


def _rate(arrivals: Sequence[float]) -> float | None:
    seconds = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return round((len(arrivals) - 1) / seconds, 2) if seconds else None


def _gaps(times_s: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times_s)]


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:
        return None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)


def measure(view: RoomView, links: Mapping[str, LinkFigures]) -> None:
    """Count what a view receives of these participants."""

    def frame(name: str, received: ReceivedFrame) -> None:
        if name in links:
            links[name].picture(captured_unix_s(received), received.received_unix_s)

    def packet(name: str, received: VoicePacket) -> None:
        if name in links:
            links[name].packet(received)

    def sound(name: str, received: ReceivedSound) -> None:
        if name in links:
            links[name].sound(received.timestamp, received.received_unix_s)

    view.on_frame(frame)
    view.on_voice(packet)
    view.on_sound(sound)
