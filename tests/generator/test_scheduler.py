"""The scheduler against a simulated device: work-conserving, newest motion per session, nobody starves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien_generator.cost import BatchCost
from mien_generator.engine.scheduler import Batch, FrameTiming, gather, schedule_s

FPS = 30
EIGHT = {0: 8}


@dataclass
class Simulated:
    """A session of the simulation: motion arrives, frames are drawn."""

    name: str
    fresh_since_s: float | None = None
    stalls_at_s: float = 0.2
    last_due_s: float = 0.0
    drawn_s: list[float] = field(default_factory=list)
    tier: int = 0

    @property
    def timing(self) -> FrameTiming:
        return FrameTiming(self.fresh_since_s, self.stalls_at_s, self.last_due_s, len(self.drawn_s))

    def motion(self, now_s: float) -> None:
        self.fresh_since_s = now_s if self.fresh_since_s is None else self.fresh_since_s
        self.stalls_at_s = now_s + 0.2

    def draw(self, now_s: float, due_s: float) -> None:
        self.fresh_since_s, self.last_due_s = None, schedule_s(due_s, now_s)
        self.drawn_s.append(now_s)


def simulate(
    sessions: list[Simulated],
    arrivals: list[tuple[float, Simulated]],
    until_s: float,
    costs: Sequence[BatchCost],
    most: dict[int, int],
) -> list[Batch[Simulated]]:
    """A device with such costs by tier; the batches that it ran."""
    ran = []
    now_s, waiting = 0.0, sorted(arrivals, key=lambda arrival: arrival[0])
    while now_s < until_s:
        while waiting and waiting[0][0] <= now_s:
            at_s, session = waiting.pop(0)
            session.motion(at_s)
        batch = gather(sessions, now_s, FPS, most)
        for session, due_s in batch.due:
            session.draw(now_s, due_s)
        if batch.due:
            ran.append(batch)
            now_s += costs[batch.tier].of(len(batch.due))
        else:
            now_s = min(batch.next_due_s, waiting[0][0] if waiting else until_s)
    return ran


def same_for_any(batch_s: float, most: int = 8) -> list[BatchCost]:
    """A device that takes as long for a batch as for a face."""
    return [BatchCost(((1, batch_s), (most, batch_s)))]


def talking(sessions: list[Simulated], seconds: int, offset_ms: Sequence[int]) -> list[tuple[float, Simulated]]:
    """Motion of every session, 30 times a second, each with an offset of its own."""
    return [
        (offset_ms[number % len(offset_ms)] / 1000 + tick / FPS, session)
        for number, session in enumerate(sessions)
        for tick in range(seconds * FPS)
    ]


def test_motion_is_drawn_the_moment_it_arrives() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.1, one)], until_s=0.15, costs=same_for_any(0.001), most=EIGHT)
    assert one.drawn_s == [0.1]


def test_of_a_burst_only_the_last_is_drawn() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.100, one), (0.105, one), (0.110, one)], until_s=0.14, costs=same_for_any(0.001), most=EIGHT)
    assert one.drawn_s == pytest.approx([0.1, 0.12])


def test_a_stalled_session_is_drawn_at_the_frame_rate() -> None:
    one = Simulated("one")
    simulate([one], [], until_s=1.2, costs=same_for_any(0.004), most=EIGHT)
    assert one.drawn_s[0] == pytest.approx(0.2)
    assert len(one.drawn_s) == pytest.approx(31, abs=1)


def test_a_live_session_is_not_drawn_twice_while_its_next_motion_is_late() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.0, one), (0.15, one)], until_s=0.3, costs=same_for_any(0.004), most=EIGHT)
    assert one.drawn_s == [0.0, 0.15]


def test_sessions_due_together_share_a_batch_longest_without_a_frame_first() -> None:
    late, early = Simulated("late", 0.8, last_due_s=0.7), Simulated("early", 0.9, last_due_s=0.6)
    idle = Simulated("idle", stalls_at_s=5.0)
    batch = gather([late, early, idle], now_s=1.0, fps=FPS, most=EIGHT)
    assert [session.name for session, _ in batch.due] == ["early", "late"]
    assert batch.next_due_s == 5.0


def test_who_does_not_fit_is_first_in_the_next_batch() -> None:
    sessions = [Simulated(f"s{number}", fresh_since_s=0.001 * number, last_due_s=-1.0) for number in range(5)]
    first = gather(sessions, 1.0, FPS, {0: 3})
    assert [session.name for session, _ in first.due] == ["s0", "s1", "s2"]
    assert first.next_due_s <= 1.0
    for session, due_s in first.due:
        session.draw(1.0, due_s)
        session.motion(1.0)
    second = gather(sessions, 1.0 + 0.6 / FPS, FPS, {0: 3})
    assert [session.name for session, _ in second.due][:2] == ["s3", "s4"]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.lists(st.integers(0, 33), min_size=12, max_size=12))
def test_under_overload_every_session_gets_its_share(count: int, most: int, offset_ms: list[int]) -> None:
    """A device that can draw only some of what arrives shares its time out evenly."""
    sessions = [Simulated(f"s{number}", last_due_s=-1.0) for number in range(count)]
    simulate(sessions, talking(sessions, 3, offset_ms), until_s=3.0, costs=same_for_any(0.02), most={0: most})
    drawn = [len(session.drawn_s) for session in sessions]
    assert min(drawn) >= 0.7 * max(drawn)
    gaps = [later - earlier for s in sessions for earlier, later in zip(s.drawn_s, s.drawn_s[1:], strict=False)]
    rounds = -(-count // most)
    assert max(gaps) <= 0.02 * rounds * 2 + 2 / FPS


def test_nobody_is_due_where_there_is_nobody() -> None:
    batch: Batch[Simulated] = gather([], 0.0, FPS, EIGHT)
    assert batch.due == []
    assert batch.next_due_s == batch.deadline_s == float("inf")


def test_a_batch_is_of_one_tier_that_of_the_earliest_deadline() -> None:
    sessions = [
        Simulated("high", 0.9, last_due_s=0.80, tier=0),
        Simulated("low", 0.9, last_due_s=0.70, tier=1),
        Simulated("high too", 0.9, last_due_s=0.75, tier=0),
        Simulated("low too", 0.9, last_due_s=0.85, tier=1),
    ]
    batch = gather(sessions, 1.0, FPS, {0: 8, 1: 8})
    assert (batch.tier, [session.name for session, _ in batch.due]) == (1, ["low", "low too"])
    assert batch.next_due_s == 1.0, "the other tier's wait already"
    assert batch.deadline_s == pytest.approx(0.70 + 2 / FPS)


Times = st.floats(0, 2, allow_nan=False)


@given(st.lists(st.builds(Simulated, st.just("s"), st.none() | Times, Times, Times, st.just([]), st.integers(0, 2))))
def test_what_is_gathered_is_due_most_urgent_and_of_one_tier(sessions: list[Simulated]) -> None:
    most = {0: 1, 1: 2, 2: 4}
    batch = gather(sessions, 1.0, FPS, most)
    due = [session for session in sessions if session.timing.due_at_s(FPS) <= 1.0]
    assert bool(batch.due) == bool(due), "work-conserving: where somebody is due, somebody is drawn"
    taken = [session for session, _ in batch.due]
    assert all(session in due and session.tier == batch.tier for session in taken)
    assert len(taken) <= most[batch.tier]
    left = [session for session in due if session.tier == batch.tier and not any(session is one for one in taken)]
    deadlines = [session.timing.deadline_s(FPS) for session in taken]
    if due:
        assert min(deadlines) == batch.deadline_s == min(session.timing.deadline_s(FPS) for session in due)
    assert not left or max(deadlines) <= min(session.timing.deadline_s(FPS) for session in left)
    assert not left or len(taken) == most[batch.tier], "nobody waits for a place that is free"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=10), st.lists(st.integers(0, 33), min_size=10, max_size=10))
def test_no_tier_starves_another(tiers: list[int], offset_ms: list[int]) -> None:
    """Sessions on three tiers of very different cost on one overloaded device: the wait is bounded for all of them."""
    costs = [BatchCost(((1, 0.06), (4, 0.12))), BatchCost(((1, 0.02), (4, 0.03))), BatchCost.linear(0.003)]
    most = {0: 4, 1: 4, 2: 1}
    sessions = [Simulated(f"s{number}", last_due_s=-1.0, tier=tier) for number, tier in enumerate(tiers)]
    simulate(sessions, talking(sessions, 4, offset_ms), until_s=4.0, costs=costs, most=most)
    # Everybody else's turn, each in a batch of its own at the worst, comes between two of one's own; then a beat.
    others_s = sum(costs[tier].of(1) for tier in tiers) + max(cost.of(most[tier]) for tier, cost in enumerate(costs))
    for session in sessions:
        drawn_s = [0.034, *session.drawn_s]
        gaps = [later - earlier for earlier, later in itertools.pairwise(drawn_s)]
        assert max(gaps) <= 2 * others_s + 2 / FPS


def test_a_batch_is_no_longer_than_what_it_may_cost() -> None:
    cost = BatchCost(((1, 0.0015), (16, 0.004), (32, 0.008)))
    assert cost.most_within(0.5 / FPS, 64) == 64
    assert cost.most_within(0.004, 64) == 16
    assert cost.most_within(0.0001, 64) == 1, "a face that takes longer is made all the same, alone"
    assert BatchCost.linear(0.06).most_within(0.5 / FPS, 16) == 1, "nothing is gained by making two wait for each other"
