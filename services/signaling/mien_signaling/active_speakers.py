"""Picks the loudest speakers of a room, with hysteresis. Pure: levels and the time in, the chosen speakers out.

A level is that of RFC 6464: 0 is the loudest, 127 is silence. What is compared is the loudness, 127 less the level,
smoothed: it rises at once and decays, so that a pause between two words loses no place.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

#: How many speakers a room sends at most.
LOUDEST = 3
#: Half of the loudness above which a speaker counts decays in about this time.
HALF_LIFE_S = 1.0
#: Below this smoothed loudness a speaker is silent: -87 dBov, a quiet room.
AUDIBLE = 40.0
#: A speaker takes another's place only if it is louder by this much, decibels.
LEAD = 6.0
#: A chosen speaker keeps its place for at least this long.
LEAST_TURN_S = 1.0

_SILENCE = 127


def is_audible(level: int) -> bool:
    """Whether a packet of this level is more than a quiet room."""
    return _SILENCE - level >= AUDIBLE


@dataclass(slots=True)
class _Speaker:
    loudness: float
    at_s: float
    chosen_s: float | None = None

    def now(self, now_s: float) -> float:
        return self.loudness * math.exp2(-(now_s - self.at_s) / HALF_LIFE_S)


class ActiveSpeakers:
    """One room. A speaker is any hashable name."""

    def __init__(self, places: int = LOUDEST) -> None:
        self._places = places
        self._speakers: dict[Hashable, _Speaker] = {}

    def heard(self, name: Hashable, level: int, now_s: float) -> None:
        """Note the level of a packet of this speaker. now_s: monotonic seconds."""
        loudness = float(_SILENCE - min(max(level, 0), _SILENCE))
        speaker = self._speakers.setdefault(name, _Speaker(0.0, now_s))
        speaker.loudness, speaker.at_s = max(loudness, speaker.now(now_s)), now_s

    def gone(self, name: Hashable) -> None:
        """Forget a speaker that has left; does nothing for one that is not known."""
        self._speakers.pop(name, None)

    def chosen(self, now_s: float) -> list[Hashable]:
        """The speakers that are sent now, the loudest first."""
        loud = {name: one.now(now_s) for name, one in self._speakers.items()}
        for name, speaker in self._speakers.items():
            if loud[name] < AUDIBLE:
                speaker.chosen_s = None
        waiting = [name for name, one in self._speakers.items() if one.chosen_s is None and loud[name] >= AUDIBLE]
        for name in sorted(waiting, key=lambda one: -loud[one]):
            self._place(name, loud, now_s)
        taken = [name for name, one in self._speakers.items() if one.chosen_s is not None]
        return sorted(taken, key=lambda one: -loud[one])

    def share(self, name: Hashable, now_s: float) -> float:
        """How loud a speaker is: 0 at the limit of what counts, 1 at full scale."""
        speaker = self._speakers.get(name)
        return 0.0 if speaker is None else max(0.0, (speaker.now(now_s) - AUDIBLE) / (_SILENCE - AUDIBLE))

    def _place(self, name: Hashable, loud: dict[Hashable, float], now_s: float) -> None:
        """Give a speaker a free place, or that of the quietest one that it is clearly louder than."""
        taken = {one: found.chosen_s for one, found in self._speakers.items() if found.chosen_s is not None}
        if len(taken) >= self._places:
            replaceable = [one for one, since_s in taken.items() if now_s - since_s >= LEAST_TURN_S]
            quietest = min(replaceable, key=lambda one: loud[one], default=None)
            if quietest is None or loud[name] < loud[quietest] + LEAD:
                return
            self._speakers[quietest].chosen_s = None
        self._speakers[name].chosen_s = now_s
