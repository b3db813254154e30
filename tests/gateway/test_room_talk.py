"""How many messages a participant may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mien_gateway.room_connection import CloseCode
from mien_gateway.room_talk import MessageBudget


def test_a_burst_passes_and_a_flood_is_abuse() -> None:
    budget = MessageBudget(0.0)
    assert [budget.takes(0.0) for _ in range(21)] == [True] * 20 + [False]
    for _ in range(48):
        budget.takes(0.0)
    assert budget.refused_in_a_row == 49
    was_abusive = budget.abusive
    budget.takes(0.0)
    assert (was_abusive, budget.abusive) == (False, True)
    assert MessageBudget(0.0, tokens=0).takes(0.2)


@given(st.lists(st.floats(0, 3), max_size=200))
def test_never_more_than_the_rate(pauses_s: list[float]) -> None:
    budget, now_s, taken = MessageBudget(0.0), 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        taken += budget.takes(now_s)
    assert taken <= 20 + 5 * now_s + 1e-6


def test_which_closes_a_client_may_answer_by_reconnecting() -> None:
    assert {code for code in CloseCode if code.may_reconnect} == {
        CloseCode.TOO_BIG,
        CloseCode.FAILED,
        CloseCode.RESTART,
        CloseCode.NOT_READ,
    }
