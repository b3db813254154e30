"""The scheduler against a simulated device: work-conserving, newest motion per session, nobody starves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien_generator.scheduler import Batch, FrameTiming, beat_s, gather

FPS = 30


@dataclass
class Simulated:
    """A session of the simulation: motion arrives, frames are drawn."""

    name: str
    fresh_since_s: float | None = None
    stalls_at_s: float = 0.2
    last_due_s: float = 0.0
    drawn_s: list[float] = field(default_factory=list)

    @property
    def timing(self) -> FrameTiming:
        return FrameTiming(self.fresh_since_s, self.stalls_at_s, self.last_due_s, len(self.drawn_s))

    def motion(self, now_s: float) -> None:
        self.fresh_since_s = now_s if self.fresh_since_s is None else self.fresh_since_s
        self.stalls_at_s = now_s + 0.2

    def draw(self, now_s: float, due_s: float) -> None:
        self.fresh_since_s, self.last_due_s = None, beat_s(due_s, now_s)
        self.drawn_s.append(now_s)


def simulate(
    sessions: list[Simulated], arrivals: list[tuple[float, Simulated]], until_s: float, batch_s: float, most: int
) -> None:
    """A device that takes `batch_s` for a batch of at most `most`, whatever its size."""
    now_s, waiting = 0.0, sorted(arrivals, key=lambda arrival: arrival[0])
    while now_s < until_s:
        while waiting and waiting[0][0] <= now_s:
            at_s, session = waiting.pop(0)
            session.motion(at_s)
        batch = gather(sessions, now_s, FPS, most)
        for session, due_s in batch.due:
            session.draw(now_s, due_s)
        if batch.due:
            now_s += batch_s
        else:
            now_s = min(batch.next_due_s, waiting[0][0] if waiting else until_s)


def test_motion_is_drawn_the_moment_it_arrives() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.1, one)], until_s=0.15, batch_s=0.001, most=8)
    assert one.drawn_s == [0.1]


def test_of_a_burst_only_the_last_is_drawn() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.100, one), (0.105, one), (0.110, one)], until_s=0.14, batch_s=0.001, most=8)
    assert one.drawn_s == pytest.approx([0.1, 0.12])


def test_a_stalled_session_is_drawn_at_the_frame_rate() -> None:
    one = Simulated("one")
    simulate([one], [], until_s=1.2, batch_s=0.004, most=8)
    assert one.drawn_s[0] == pytest.approx(0.2)
    assert len(one.drawn_s) == pytest.approx(31, abs=1)


def test_a_live_session_is_not_drawn_twice_while_its_next_motion_is_late() -> None:
    one = Simulated("one", last_due_s=-1.0)
    simulate([one], [(0.0, one), (0.15, one)], until_s=0.3, batch_s=0.004, most=8)
    assert one.drawn_s == [0.0, 0.15]


def test_sessions_due_together_share_a_batch_longest_without_a_frame_first() -> None:
    late, early = Simulated("late", 0.8, last_due_s=0.7), Simulated("early", 0.9, last_due_s=0.6)
    idle = Simulated("idle", stalls_at_s=5.0)
    batch = gather([late, early, idle], now_s=1.0, fps=FPS, max_batch=8)
    assert [session.name for session, _ in batch.due] == ["early", "late"]
    assert batch.next_due_s == 5.0


def test_who_does_not_fit_is_first_in_the_next_batch() -> None:
    sessions = [Simulated(f"s{number}", fresh_since_s=0.001 * number, last_due_s=-1.0) for number in range(5)]
    first = gather(sessions, 1.0, FPS, max_batch=3)
    assert [session.name for session, _ in first.due] == ["s0", "s1", "s2"]
    assert first.next_due_s <= 1.0
    for session, due_s in first.due:
        session.draw(1.0, due_s)
        session.motion(1.0)
    second = gather(sessions, 1.0 + 0.6 / FPS, FPS, max_batch=3)
    assert [session.name for session, _ in second.due][:2] == ["s3", "s4"]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.lists(st.integers(0, 33), min_size=12, max_size=12))
def test_under_overload_every_session_gets_its_share(count: int, most: int, offset_ms: list[int]) -> None:
    """A device that can draw only some of what arrives shares its time out evenly."""
    sessions = [Simulated(f"s{number}", last_due_s=-1.0) for number in range(count)]
    arrivals = [
        (offset_ms[number] / 1000 + tick / FPS, session)
        for number, session in enumerate(sessions)
        for tick in range(3 * FPS)
    ]
    simulate(sessions, arrivals, until_s=3.0, batch_s=0.02, most=most)
    drawn = [len(session.drawn_s) for session in sessions]
    assert min(drawn) >= 0.7 * max(drawn)
    gaps = [later - earlier for s in sessions for earlier, later in zip(s.drawn_s, s.drawn_s[1:], strict=False)]
    rounds = -(-count // most)
    assert max(gaps) <= 0.02 * rounds * 2 + 2 / FPS


def test_nobody_is_due_where_there_is_nobody() -> None:
    batch: Batch[Simulated] = gather([], 0.0, FPS, 4)
    assert batch.due == []
    assert batch.next_due_s == float("inf")
