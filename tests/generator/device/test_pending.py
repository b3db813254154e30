"""Which requests make the next batch of the device: the newest of each session, the earliest deadline first."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mien_generator.device.contract import Ask
from mien_generator.device.pending import Pending
from mien_shared.keypoints import Keypoints

REST = Keypoints.at_rest()
_tickets = itertools.count(1)


def ask(session: int, deadline_s: float, tier: int = 0) -> Ask:
    return Ask(session, next(_tickets), tier, None, REST, deadline_s)


def pending(*asks: Ask) -> Pending[int]:
    waiting = Pending[int]()
    for one in asks:
        waiting.put(one.session, one)
    return waiting


def sessions(batch: list[tuple[int, Ask]]) -> list[int]:
    return [session for session, _ in batch]


def test_nothing_waits_at_first() -> None:
    waiting = Pending[int]()
    assert not waiting
    assert waiting.take({0: 8}) == []


def test_the_newest_request_of_a_session_replaces_its_older_one() -> None:
    older, newer, other = ask(1, 5.0), ask(1, 5.0), ask(2, 6.0)
    waiting = pending(older, newer, other)
    assert len(waiting) == 2
    assert waiting.take({0: 8}) == [(1, newer), (2, other)]
    assert len(waiting) == 0


def test_the_earliest_deadlines_go_first_and_no_more_than_the_tier_s_most() -> None:
    waiting = pending(*(ask(session, deadline_s) for session, deadline_s in enumerate([5.0, 1.0, 4.0, 2.0, 3.0])))
    assert sessions(waiting.take({0: 2})) == [1, 3]
    assert sessions(waiting.take({0: 2})) == [4, 2]
    assert sessions(waiting.take({0: 2})) == [0]
    assert waiting.take({0: 2}) == []


def test_a_batch_has_one_tier_that_of_the_earliest_deadline() -> None:
    waiting = pending(ask(1, 3.0, tier=0), ask(2, 1.0, tier=1), ask(3, 2.0, tier=0), ask(4, 4.0, tier=1))
    assert sessions(waiting.take({0: 8, 1: 8})) == [2, 4]
    assert sessions(waiting.take({0: 8, 1: 8})) == [3, 1]


def test_each_tier_has_a_most_of_its_own() -> None:
    waiting = pending(*(ask(session, session, tier=session % 2) for session in range(8)))
    assert sessions(waiting.take({0: 1, 1: 3})) == [0]
    assert sessions(waiting.take({0: 1, 1: 3})) == [1, 3, 5]


def test_a_dropped_request_makes_no_face() -> None:
    waiting = pending(ask(1, 1.0), ask(2, 2.0))
    waiting.drop(1)
    waiting.drop(1)
    waiting.drop(9)
    assert list(waiting) == [2]
    assert sessions(waiting.take({0: 8})) == [2]


def test_sessions_of_two_engines_with_the_same_number_are_two() -> None:
    waiting = Pending[tuple[str, int]]()
    waiting.put(("a", 1), ask(1, 1.0))
    waiting.put(("b", 1), ask(1, 2.0))
    assert [key for key, _ in waiting.take({0: 8})] == [("a", 1), ("b", 1)]


def test_nobody_starves() -> None:
    """Twenty sessions of two tiers ask again in every round, with newer motion and the deadline of their last face."""
    rounds, interval_s = 400, 0.066
    drawn: dict[int, list[int]] = {session: [] for session in range(20)}
    deadlines = dict.fromkeys(drawn, interval_s)
    waiting = Pending[int]()
    for number in range(rounds):
        for session in drawn:
            waiting.put(session, ask(session, deadlines[session], tier=session % 2))
        for session, _ in waiting.take({0: 2, 1: 3}):
            drawn[session].append(number)
            deadlines[session] = number * 0.02 + interval_s
    # Ten sessions in batches of two and ten in batches of three: nine batches, five of them of the first tier.
    gaps = [later - earlier for of in drawn.values() for earlier, later in itertools.pairwise([-1, *of, rounds])]
    assert max(gaps) <= 15
    counts = [len(of) for of in drawn.values()]
    assert min(counts) >= 0.6 * max(counts)


STEP = st.one_of(
    st.builds(ask, st.integers(0, 9), st.floats(0, 100), st.integers(0, 2)),
    st.integers(0, 9),
    st.just("take"),
)


@given(st.lists(STEP, max_size=50), st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_a_batch_is_the_most_urgent_of_its_tier(steps: list[Ask | int | str], sizes: list[int]) -> None:
    most, waiting, known = dict(enumerate(sizes)), Pending[int](), dict[int, Ask]()
    for step in [*steps, *["take"] * 31]:
        if isinstance(step, Ask):
            waiting.put(step.session, step)
            known[step.session] = step
        elif isinstance(step, int):
            waiting.drop(step)
            known.pop(step, None)
        else:
            batch = [one for _, one in waiting.take(most)]
            assert bool(batch) == bool(known)
            for one in batch:
                assert known.pop(one.session) is one, "the newest of its session, and each once"
            if batch:
                assert all(batch[0].deadline_s <= left.deadline_s for left in known.values())
                left = [one.deadline_s for one in known.values() if one.tier == batch[0].tier]
                assert {one.tier for one in batch} == {batch[0].tier}
                assert [one.deadline_s for one in batch] == sorted(one.deadline_s for one in batch)
                assert len(batch) == most[batch[0].tier] or not left
                assert all(deadline_s >= batch[-1].deadline_s for deadline_s in left)
        assert set(waiting) == set(known)
    assert not waiting
