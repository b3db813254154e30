"""What a batch costs, between the sizes that were measured, and under load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.cost import BatchCost, Load


def test_between_two_sizes_it_is_linear_and_beyond_the_last_batches_follow_one_another() -> None:
    cost = BatchCost(((1, 0.002), (4, 0.005), (8, 0.009)))
    assert [cost.of(faces) for faces in (1, 2, 4, 6, 8, 16)] == pytest.approx(
        [0.002, 0.003, 0.005, 0.007, 0.009, 0.018]
    )


def test_a_larger_batch_is_never_believed_to_be_cheaper() -> None:
    assert BatchCost.measured({1: 0.002, 4: 0.001, 2: 0.003}).points == ((1, 0.002), (2, 0.003), (4, 0.003))


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-5, 1.0), min_size=1), st.floats(1e-5, 2.0), st.integers(1, 64))
def test_what_is_said_to_fit_fits(seconds_of: dict[int, float], limit_s: float, most: int) -> None:
    cost = BatchCost.measured(seconds_of)
    faces = cost.most_within(limit_s, most)
    assert 1 <= faces <= most
    assert faces == 1 or cost.of(faces) <= limit_s
    assert faces == most or cost.of(faces + 1) > limit_s


@pytest.mark.parametrize("points", [(), ((0, 0.1),), ((1, 0.0),), ((2, 0.1), (1, 0.2)), ((1, 0.2), (2, 0.1))])
def test_costs_that_no_device_has_are_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="batch costs must be above 0 and rise with the number of faces"):
        BatchCost(points)


def test_the_load_follows_what_is_seen_and_one_hiccup_is_none() -> None:
    load = Load()
    load.observe(0.01, 5.0)
    assert load.factor < 1.4
    for _ in range(100):
        load.observe(0.01, 0.025)
    assert load.factor == pytest.approx(2.5, rel=0.01)
    for _ in range(100):
        load.observe(0.01, 0.01)
    assert load.factor == pytest.approx(1.0, rel=0.01)
