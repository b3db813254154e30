"""A clip's pictures are due at the clip's pace, whatever its time stamps say."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_shared.media.pace import DEFAULT_RATE, Pace, usual_rate

RATE = Fraction(25)
HOUR_S = 3600.0


def due(stamps: list[float | None], said: list[str] | None = None) -> list[float]:
    pace = Pace(RATE, said.append if said is not None else None)
    return [pace.at_s(stamp) for stamp in stamps]


def steady(count: int) -> list[float]:
    return [number * 0.04 for number in range(count)]


@pytest.mark.parametrize("start_s", [0.0, 20.0, HOUR_S, 95_443.7, -1.4])
def test_a_clip_begins_with_its_first_picture(start_s: float) -> None:
    said: list[str] = []
    assert due([start_s + at_s for at_s in steady(5)], said) == pytest.approx(steady(5))
    assert said == []


def test_a_variable_rate_is_kept() -> None:
    stamps: list[float | None] = [0, 0.1, 0.12, 0.9, 1.9, 1.95]
    assert due(stamps) == pytest.approx(stamps)


@pytest.mark.parametrize("jump_s", [1.5, 20.0, HOUR_S, -1.5, -HOUR_S, 2**33 / 90_000])
def test_a_jump_takes_one_interval(jump_s: float) -> None:
    said: list[str] = []
    stamps: list[float | None] = [*steady(3), *(jump_s + at_s for at_s in steady(6)[3:])]
    assert due(stamps, said) == pytest.approx(steady(6))
    assert said == [f"time stamps jump by {jump_s + 0.04:.1f} s; such pictures are played at 25 a second"]


def test_a_short_step_back_takes_one_interval() -> None:
    assert due([0.0, 0.04, 0.08, -0.42, -0.38, -0.34]) == pytest.approx(steady(6))


def test_pictures_without_stamps_come_at_the_usual_rate() -> None:
    said: list[str] = []
    assert due([None] * 5, said) == pytest.approx(steady(5))
    assert said == ["pictures have no time stamps; such pictures are played at 25 a second"]


def test_a_missing_stamp_does_not_delay_the_pictures_after_it() -> None:
    stamps: list[float | None] = [0.0, None, 0.08, 0.12, None, None, 0.24]
    assert due(stamps) == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24])


def test_equal_stamps_and_stamps_in_decoding_order_keep_the_pace() -> None:
    """Some muxers write stamps in the order in which pictures are decoded, or one stamp for two."""
    assert due([0.0, 0.04, 0.04, 0.12, 0.16])[-1] == pytest.approx(0.16)
    assert due([0.0, 0.12, 0.04, 0.08, 0.24, 0.16, 0.2, 0.28])[-1] == pytest.approx(0.28, abs=0.1)


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_time_always_advances_and_no_wait_is_longer_than_a_second(stamps: list[float | None]) -> None:
    times = due(stamps)
    assert times[0] == 0
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.0009 < step <= 1 + 1e-6 for step in steps)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((Fraction(30000, 1001), Fraction(25)), Fraction(30000, 1001)),
        ((None, Fraction(50)), Fraction(50)),
        ((Fraction(1, 60), Fraction(30)), Fraction(30)),
        ((Fraction(90_000), Fraction(0)), DEFAULT_RATE),
        ((None, None), DEFAULT_RATE),
    ],
)
def test_an_implausible_rate_is_passed_over(rates: tuple[Fraction | None, ...], expected: Fraction) -> None:
    assert usual_rate(*rates) == expected
