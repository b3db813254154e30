"""How many messages of a participant are taken, and who is cut off."""

from __future__ import annotations

import pytest

from mien_gateway.room_talk import MessageBudget


def refused_until_cut_off(per_second: float, seconds: float) -> tuple[int, bool, int]:
    """Messages that were refused, whether the client was cut off, and how often it was told of a refusal."""
    budget, refused, told = MessageBudget(0.0), 0, 0
    for number in range(round(seconds * per_second)):
        if not budget.takes(number / per_second):
            refused += 1
            told += budget.has_begun_to_refuse
        if budget.abusive:
            return refused, True, told
    return refused, False, told


def test_an_ordinary_client_is_never_refused() -> None:
    assert refused_until_cut_off(5, 600) == (0, False, 0)


def test_a_burst_is_taken() -> None:
    budget = MessageBudget(0.0)
    assert [budget.takes(0.0) for _ in range(21)] == [True] * 20 + [False]
    assert budget.has_begun_to_refuse and not budget.abusive
    assert budget.takes(1.0), "the next second has new messages"


@pytest.mark.parametrize("per_second", [20, 60, 200, 1000, 20000])
def test_a_flood_is_cut_off_however_fast_it_is(per_second: float) -> None:
    refused, is_cut_off, told = refused_until_cut_off(per_second, 60)
    assert is_cut_off
    assert 50 <= refused <= 100
    assert told == 1, "it hears of the first refusal, and of no other"


def test_refusals_are_forgotten() -> None:
    budget = MessageBudget(0.0)
    for _ in range(60):
        budget.takes(0.0)
    assert 1 < budget.refused < 50
    budget.takes(60.0)
    assert budget.refused == 0.0
