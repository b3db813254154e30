"""Who is in which slot: single rules, and what holds after any series of joins, departures and words."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.slots import Slots


class Places:
    """Slots whose people are single letters; a free place is a dot."""

    def __init__(self, count: int, joined: str) -> None:
        self._slots = Slots(count)
        self.after(joined)

    def after(self, joined: str, speaking: str = "", heard: dict[str, float] | None = None) -> str:
        self.changed = self._slots.arrange(list(joined), list(speaking), heard or {})
        return "".join(name or "." for name in self._slots.places)


def test_places_go_by_the_order_of_joining() -> None:
    places = Places(3, "")
    assert places.after("ab") == "ab."
    assert places.after("abcd") == "abc" and places.changed
    assert places.after("abcd") == "abc" and not places.changed


def test_a_departure_frees_its_place_and_nobody_moves() -> None:
    places = Places(3, "abcd")
    assert places.after("acd") == "adc"
    assert places.after("cd") == ".dc"
    assert places.after("") == "..."


def test_a_speaker_gets_the_place_of_who_has_been_silent_longest() -> None:
    assert Places(3, "abcde").after("abcde", "d", {"a": 1.0, "b": 2.0, "c": 3.0, "d": 9.0}) == "dbc"
    assert Places(3, "abcde").after("abcde", "d", {"a": 1.0, "b": 2.0, "d": 9.0}) == "abd", "who never spoke goes first"
    assert Places(3, "abcde").after("abcde", "e", {"e": 9.0}) == "abe", "of those, the one who joined last"


def test_nobody_who_speaks_loses_a_place() -> None:
    assert Places(2, "abc").after("abc", "cab", {"a": 8.0, "b": 9.0, "c": 9.5}) == "ab"


def test_a_free_place_goes_to_who_speaks_first() -> None:
    assert Places(2, "abcd").after("acd", "d", {"d": 1.0}) == "ad"


_people = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(st.integers(1, 5), st.lists(st.tuples(_people, _people), min_size=1, max_size=12))
def test_what_always_holds(count: int, steps: list[tuple[Sequence[str], Sequence[str]]]) -> None:
    slots, heard = Slots(count), dict[str, float]()
    for now_s, (joined, speaking) in enumerate(steps):
        heard |= dict.fromkeys(speaking, float(now_s))
        before = slots.places
        changed = slots.arrange(joined, speaking, heard)
        after = slots.places
        shown = [name for name in after if name is not None]
        assert changed == (before != after) and len(after) == count
        assert len(shown) == len(set(shown)) and set(shown) <= set(joined), "nobody twice, and nobody who has left"
        assert len(shown) == min(count, len(joined)), "no place is free while someone waits"
        heard_here = [name for name in speaking if name in joined]
        assert set(heard_here) <= set(shown) or all(name in heard_here for name in shown), "who speaks gets in"
        for place, name in enumerate(before):
            if name is None or name not in joined:
                continue
            assert after[place] == name or (name not in shown and name not in heard_here), "nobody moves"
        assert not slots.arrange(joined, speaking, heard), "settled"
