"""When a list of viewers is written: at once after a change, and again before it expires."""

from __future__ import annotations

from typing import Literal

from mien_shared.bus.messages import ViewerState
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_signaling.roster import Schedule


def viewer(viewer_id: str, state: Literal["connecting", "connected"] = "connected", sent_bps: int = 0) -> ViewerState:
    return ViewerState(viewer_id=viewer_id, state=state, joined_at_ms=0, sent_bps=sent_bps, target_bps=0)


def wrote(schedule: Schedule, roster: dict[str, list[ViewerState]], now_s: float) -> dict[str, list[ViewerState]]:
    """What is due, written."""
    due = schedule.due(roster, now_s)
    schedule.wrote(due, now_s)
    return due


def test_a_viewer_that_joins_connects_or_leaves_is_written_at_once() -> None:
    schedule = Schedule()
    for roster in (
        {"s": [viewer("a", "connecting")]},
        {"s": [viewer("a")]},
        {"s": [viewer("a"), viewer("b")]},
        {"s": [viewer("b")]},
    ):
        assert wrote(schedule, roster, 1.0) == roster
        assert wrote(schedule, roster, 1.0) == {}


def test_only_sessions_that_changed_are_written() -> None:
    schedule = Schedule()
    wrote(schedule, {"s": [viewer("a")], "t": [viewer("b")]}, 1.0)
    assert wrote(schedule, {"s": [viewer("a")], "t": [viewer("c")]}, 2.0) == {"t": [viewer("c")]}


def test_figures_wait_for_the_next_keep_alive() -> None:
    schedule = Schedule()
    wrote(schedule, {"s": [viewer("a")]}, 1.0)
    later = {"s": [viewer("a", sent_bps=900_000)]}
    assert wrote(schedule, later, 0.9 + KEEP_ALIVE_INTERVAL_S) == {}
    assert wrote(schedule, later, 1.0 + KEEP_ALIVE_INTERVAL_S) == later


def test_a_session_without_viewers_is_written_once_more_as_empty() -> None:
    schedule = Schedule()
    assert wrote(schedule, {}, 0.0) == {}
    wrote(schedule, {"s": [viewer("a")]}, 1.0)
    assert wrote(schedule, {}, 2.0) == {"s": []}
    assert wrote(schedule, {}, 100.0) == {}


def test_what_could_not_be_written_stays_due() -> None:
    schedule = Schedule()
    roster = {"s": [viewer("a")]}
    assert schedule.due(roster, 1.0) == schedule.due(roster, 1.5) == roster
    wrote(schedule, roster, 2.0)
    assert schedule.due({}, 3.0) == schedule.due({}, 3.5) == {"s": []}
