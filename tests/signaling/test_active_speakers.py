"""Who of a room is sent: the loudest three, without flicker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mien_signaling.active_speakers import HALF_LIFE_S, LEAST_TURN_S, LOUDEST, ActiveSpeakers, is_audible


def test_an_empty_and_a_silent_room_have_none() -> None:
    room = ActiveSpeakers()
    assert room.chosen(0.0) == []
    room.heard("a", 127, 0.0)
    assert room.chosen(0.0) == []


def test_the_three_loudest_are_chosen_the_loudest_first() -> None:
    room = ActiveSpeakers()
    for name, level in (("a", 50), ("b", 20), ("c", 70), ("d", 30), ("e", 60)):
        room.heard(name, level, 0.0)
    assert room.chosen(0.0) == ["b", "d", "a"]


def test_a_little_louder_is_not_enough() -> None:
    room = ActiveSpeakers(places=1)
    room.heard("a", 40, 0.0)
    assert room.chosen(0.0) == ["a"]
    for step in range(1, 300):
        now_s = step * 0.02
        room.heard("a", 40, now_s)
        room.heard("b", 36, now_s)
        assert room.chosen(now_s) == ["a"]
    room.heard("b", 30, 6.0)
    room.heard("a", 40, 6.0)
    assert room.chosen(6.0) == ["b"]


def test_a_place_is_kept_for_a_moment() -> None:
    room = ActiveSpeakers(places=1)
    room.heard("a", 60, 0.0)
    assert room.chosen(0.0) == ["a"]
    room.heard("b", 10, LEAST_TURN_S / 2)
    assert room.chosen(LEAST_TURN_S / 2) == ["a"]
    room.heard("b", 10, LEAST_TURN_S)
    assert room.chosen(LEAST_TURN_S) == ["b"]


def test_a_pause_between_words_loses_no_place_and_silence_does() -> None:
    room = ActiveSpeakers()
    room.heard("a", 20, 0.0)
    room.heard("a", 127, 0.02)
    assert room.chosen(HALF_LIFE_S) == ["a"]
    assert room.chosen(3 * HALF_LIFE_S) == []


def test_who_has_left_frees_a_place() -> None:
    room = ActiveSpeakers(places=1)
    room.heard("a", 20, 0.0)
    room.heard("b", 30, 0.0)
    assert room.chosen(0.0) == ["a"]
    room.gone("a")
    room.gone("nobody")
    assert room.chosen(0.0) == ["b"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 300), st.floats(0, 2)), max_size=60))
def test_never_more_than_the_places_and_only_who_was_heard(events: list[tuple[int, int, float]]) -> None:
    room, now_s = ActiveSpeakers(), 0.0
    for name, level, after_s in events:
        now_s += after_s
        room.heard(name, level, now_s)
        chosen = room.chosen(now_s)
        assert len(chosen) == len(set(chosen)) <= LOUDEST
        assert set(chosen) <= {one for one, _, _ in events}
        assert chosen == room.chosen(now_s)


def test_how_loud_a_speaker_is() -> None:
    speakers = ActiveSpeakers()
    speakers.heard("a", 0, 1.0)
    assert speakers.share("a", 1.0) == 1.0
    assert 0.2 < speakers.share("a", 2.0) < 0.5, "it decays"
    assert speakers.share("a", 9.0) == 0.0 == speakers.share("nobody", 1.0)
    assert [is_audible(level) for level in (0, 87, 88, 127)] == [True, True, False, False]
