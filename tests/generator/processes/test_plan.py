"""How many workers run, which of them ends or gives a session away, and how they share the places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.processes.plan import IDLE_S, Plan, WorkerView, shares

PLAN = Plan(comfort=4, most=3)


def views(*sessions: int, idle_since_s: float = 1000.0) -> list[WorkerView]:
    return [WorkerView(one, None if one else idle_since_s) for one in sessions]


@pytest.mark.parametrize(
    ("sessions", "starts"),
    [
        ([], True),
        ([0], False),
        ([2], False),  # two places are free: half a worker
        ([3], True),
        ([4], True),
        ([9], True),
        ([4, 0], False),
        ([4, 3], True),
        ([9, 1], False),  # what one has too many takes no place of the other
        ([4, 4, 4], False),  # as many as may run
    ],
)
def test_a_worker_starts_before_it_is_needed(sessions: list[int], starts: bool) -> None:
    assert PLAN.starts_worker(views(*sessions)) is starts


def test_a_worker_of_few_sessions_keeps_one_place_free() -> None:
    assert [Plan(comfort, 2).spare for comfort in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert Plan(1, 2).starts_worker(views(1))
    assert not Plan(1, 2).starts_worker(views(0))


def test_an_idle_worker_ends_after_a_while() -> None:
    workers = views(1, 0)
    assert PLAN.ending(workers, 1000.0 + IDLE_S - 0.1) is None
    assert PLAN.ending(workers, 1000.0 + IDLE_S) == 1


def test_a_worker_that_is_idle_since_time_began_ends_too() -> None:
    assert PLAN.ending(views(1, 0, idle_since_s=0.0), IDLE_S) == 1


@pytest.mark.parametrize("sessions", [[0], [3, 0], [4, 4, 0], [1, 1]])
def test_a_worker_that_is_needed_stays(sessions: list[int]) -> None:
    """The last one, one whose places are the spare ones, and one that has a session."""
    assert PLAN.ending(views(*sessions), 1e9) is None


def test_only_the_worker_that_has_been_idle_for_long_ends() -> None:
    workers = [WorkerView(0, 900.0), WorkerView(0, 500.0), WorkerView(1)]
    assert PLAN.ending(workers, 500.0 + IDLE_S) == 1


@pytest.mark.parametrize(
    ("sessions", "giving"),
    [
        ([9], None),
        ([5, 4], None),
        ([5, 3], 0),
        ([3, 6, 5], 1),
        ([4, 0], None),  # comfortable
        ([0, 8], 1),
    ],
)
def test_a_busy_worker_gives_to_one_that_has_clearly_more_room(sessions: list[int], giving: int | None) -> None:
    assert PLAN.giving(views(*sessions)) == giving


def test_a_worker_whose_sessions_miss_frames_gives_below_its_comfort() -> None:
    assert PLAN.giving([WorkerView(3, is_overloaded=True), WorkerView(1)]) == 0
    assert PLAN.giving([WorkerView(2, is_overloaded=True), WorkerView(1)]) is None, "the other would be as busy"
    assert PLAN.giving([WorkerView(3), WorkerView(1, is_overloaded=True)]) is None


WORKERS = st.lists(st.builds(WorkerView, st.integers(0, 12), st.just(None), st.booleans()), max_size=6)
PLANS = st.builds(Plan, st.integers(1, 12), st.integers(1, 6))


@given(PLANS, WORKERS)
def test_a_worker_that_ends_is_not_started_again(plan: Plan, workers: list[WorkerView]) -> None:
    workers = [one if one.sessions else WorkerView(0, 5.0) for one in workers]
    if (index := plan.ending(workers, 1e6)) is not None:
        assert workers[index].sessions == 0
        left = [one for at, one in enumerate(workers) if at != index]
        assert left
        assert not plan.starts_worker(left)


@given(PLANS, WORKERS)
def test_workers_are_started_until_there_is_room_or_no_more_may_run(plan: Plan, workers: list[WorkerView]) -> None:
    workers = workers[: plan.most]
    while plan.starts_worker(workers):
        workers = [*workers, WorkerView(0, 0.0)]
    assert 1 <= len(workers) <= plan.most
    free = sum(max(0, plan.comfort - one.sessions) for one in workers)
    assert free >= plan.spare or len(workers) == plan.most


@given(PLANS, WORKERS)
def test_moving_ends_and_is_never_undone(plan: Plan, workers: list[WorkerView]) -> None:
    sessions = [one.sessions for one in workers]
    for _ in range(sum(sessions) + 1):
        now = [WorkerView(count, None, one.is_overloaded) for count, one in zip(sessions, workers, strict=True)]
        if (giving := plan.giving(now)) is None:
            break
        least = min(sessions)
        sessions[giving] -= 1
        sessions[sessions.index(least)] += 1
        assert min(sessions) >= least, "none has less than the least had"
        assert sessions[giving] >= least + 1, "it takes nothing back"
    else:
        raise AssertionError("sessions move for ever")


@given(st.integers(1, 500), st.integers(1, 40))
def test_workers_share_all_places_evenly(places: int, workers: int) -> None:
    each = shares(places, workers)
    assert len(each) == workers
    assert max(each) - min(each) <= 1
    assert min(each) >= 1
    assert sum(each) == max(places, workers)
