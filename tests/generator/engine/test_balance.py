"""The tiers of all sessions of a generator, at the device's present speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.cost import BatchCost
from mien_generator.engine.balance import Balancer
from mien_generator.engine.tiers import FULL, ROOMY, SessionLoad, Step, needed_share, plan

FPS, FLOOR_FPS = 30, 15.0


def balancer(*face_s: float, shares_cores: bool = False) -> Balancer:
    costs = {tier: BatchCost.linear(cost) for tier, cost in enumerate(face_s)}
    return Balancer(costs, fps=FPS, floor_fps=FLOOR_FPS, max_batch=8, shares_cores=shares_cores)


def loads(*tiers: int, fps: float = 30.0) -> list[SessionLoad]:
    return [SessionLoad(f"s{index}", tier, fps, fps, float(index)) for index, tier in enumerate(tiers)]


def test_the_first_sessions_begin_on_the_best_tier_and_later_ones_where_there_is_room() -> None:
    """A session takes 0.3 of the device's usual time on the best tier, and 0.09 on the second."""
    balance = balancer(0.3 * ROOMY / FLOOR_FPS, 0.09 * ROOMY / FLOOR_FPS)
    begun: list[int] = []
    for _ in range(13):
        begun.append(balance.first_tier(loads(*begun), 1.0))
    assert begun == [0, 0, 0, *[1] * 8, 2, 2]


@given(st.lists(st.floats(0.0001, 0.05), min_size=1, max_size=3), st.floats(0.5, 20.0), st.integers(0, 40))
def test_on_its_first_tier_a_session_leaves_room_for_the_others(
    face_s: list[float], factor: float, others: int
) -> None:
    """The others may have to step down for it. Then the device has time for the floor's frame rate of all on it."""
    costs = sorted(face_s, reverse=True)
    sessions = loads(*[0] * others)
    tier = balancer(*costs).first_tier(sessions, factor)
    present_s = [*(cost * factor for cost in costs), 0.0]
    placed = plan([30.0] * (others + 1), present_s, FLOOR_FPS, ROOMY)
    assert placed[-1] == tier
    assert sum(needed_share(present_s[one], 30.0, FLOOR_FPS) for one in placed) <= ROOMY + 1e-9


def test_under_load_a_session_begins_lower() -> None:
    balance = balancer(0.5 * ROOMY / FLOOR_FPS, 0.1 * ROOMY / FLOOR_FPS)
    assert [balance.first_tier([], factor) for factor in (1.0, 1.9, 2.1, 9.0, 11.0)] == [0, 0, 1, 1, 2]


def test_without_the_device_all_sessions_begin_and_stay_on_the_last_tier() -> None:
    balance = balancer(0.020, 0.005)
    assert balance.first_tier([], None) == 2
    assert balance.steps(100.0, loads(0, 0, 1), None) == []
    alone = balancer()
    assert alone.first_tier(loads(0), 1.0) == 0, "it is the only tier"
    assert alone.steps(100.0, loads(0), 1.0) == []


def test_a_device_that_gets_slower_moves_the_newest_sessions_down_at_once() -> None:
    balance = balancer(0.25 * FULL / FLOOR_FPS)
    sessions = loads(0, 0, 0, 0)
    assert balance.steps(0.0, sessions, 0.99) == []
    assert balance.steps(1.0, sessions, 1.9) == [Step("s2", 1), Step("s3", 1)]


def test_room_must_last_before_a_session_moves_up() -> None:
    balance = balancer(0.010)
    sessions = loads(0, 1)
    assert balance.steps(0.0, sessions, 1.0) == []
    assert balance.steps(3.9, sessions, 1.0) == []
    assert balance.steps(4.0, sessions, 1.0) == [Step("s1", 0)]


@pytest.mark.parametrize(("batch_s", "tier"), [({1: 0.010, 8: 0.016}, 0), ({1: 0.010, 8: 0.080}, 1)])
def test_a_face_costs_what_it_costs_in_the_largest_batch(batch_s: dict[int, float], tier: int) -> None:
    """Ten sessions fit if eight faces of a batch take 16 ms, and not if they take as long as eight batches."""
    costs = {0: BatchCost.measured(batch_s)}
    balance = Balancer(costs, fps=FPS, floor_fps=FLOOR_FPS, max_batch=8, shares_cores=False)
    assert balance.first_tier(loads(*[0] * 9), 1.0) == tier


def test_sessions_that_send_little_motion_leave_room() -> None:
    balance = balancer(0.3 * ROOMY / FLOOR_FPS)
    assert balance.first_tier(loads(0, 0, 0), 1.0) == 1
    assert balance.first_tier(loads(0, 0, 0, fps=2.0), 1.0) == 0
