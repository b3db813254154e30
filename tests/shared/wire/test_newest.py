"""The newest packet wins, but for one that later packets depend on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mien_shared.wire.newest import NewestWins


def slot() -> NewestWins[str]:
    """Entries in capitals may not be dropped."""
    return NewestWins(str.islower)


def test_the_newest_wins() -> None:
    waiting = slot()
    assert not waiting
    assert [waiting.push(entry) for entry in "abc"] == [0, 1, 1]
    assert waiting
    assert waiting.take() == ["c"]
    assert not waiting
    assert waiting.take() == []


def test_an_entry_that_others_depend_on_waits_beside_the_newest() -> None:
    waiting = slot()
    assert [waiting.push(entry) for entry in "aBcd"] == [0, 1, 0, 1]
    assert waiting.take() == ["B", "d"]


def test_a_newer_one_of_its_kind_replaces_both() -> None:
    waiting = slot()
    assert [waiting.push(entry) for entry in "AbC"] == [0, 0, 2]
    assert waiting.take() == ["C"]


@given(st.lists(st.sampled_from("abcXYZ"), max_size=30))
def test_nothing_is_lost_uncounted_and_order_is_kept(entries: list[str]) -> None:
    waiting = slot()
    replaced = sum(waiting.push(entry) for entry in entries)
    left = waiting.take()
    assert replaced + len(left) == len(entries)
    assert left[-1:] == entries[-1:]
    assert len(left) <= 2
    last = [index for index, entry in enumerate(entries) if entry.isupper()][-1:]
    assert [entry for entry in left if entry.isupper()] == [entries[index] for index in last]
