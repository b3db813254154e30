"""Decides who is in which slot of one viewer's connection. Pure: who is there, and who speaks, in; the places out.

The rules:

- Nobody is in two places, and nobody moves: a participant keeps its place until it leaves or gives it up.
- Free places go to those who speak, the loudest first, then to the others in the order in which they joined.
- If there are more participants than places, one who speaks gets the place of the one who has been silent longest.
  Nobody who speaks loses a place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_NEVER = float("-inf")


class Slots:
    """The places of one viewer. A participant is named by any text."""

    def __init__(self, count: int) -> None:
        self._places: list[str | None] = [None] * count

    @property
    def places(self) -> tuple[str | None, ...]:
        """Who is in each place, None for a free one."""
        return tuple(self._places)

    def grow(self, count: int) -> None:
        """Have so many places in all."""
        self._places += [None] * (count - len(self._places))

    def arrange(self, joined: Sequence[str], speaking: Sequence[str], heard_s: Mapping[str, float]) -> bool:
        """Fill the places; returns whether something changed.

        joined: those who can be shown, in the order in which they joined. speaking: those who are heard now, the
        loudest first. heard_s: when each was last heard; those who never spoke are left out.
        """
        before = self.places
        self._places = [name if name in joined else None for name in self._places]
        speaking = [name for name in speaking if name in joined]
        waiting = [name for name in dict.fromkeys([*speaking, *joined]) if name not in self._places]
        for place, name in enumerate(self._places):
            if name is None and waiting:
                self._places[place] = waiting.pop(0)
        for name in waiting:
            if name in speaking:
                self._let_in(name, joined, speaking, heard_s)
        return self.places != before

    def _let_in(self, name: str, joined: Sequence[str], speaking: Sequence[str], heard_s: Mapping[str, float]) -> None:
        """Give a speaker the place of the one who has been silent longest; of those who never spoke, the newest."""
        silent = [place for place, one in enumerate(self._places) if one is not None and one not in speaking]
        if not silent:
            return

        def since(place: int) -> tuple[float, int]:
            one = self._places[place]
            assert one is not None
            return heard_s.get(one, _NEVER), -joined.index(one)

        self._places[min(silent, key=since)] = name
