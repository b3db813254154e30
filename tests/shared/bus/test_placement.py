"""Which generator is preferred."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mien_shared.bus.messages import GeneratorStatus
from mien_shared.bus.placement import GeneratorLoad, by_preference


def load(generator_id: str, capacity: int, taken: int, draining: bool = False) -> GeneratorLoad:
    status = GeneratorStatus(
        generator_id=generator_id, capacity=capacity, sessions=taken, backend="warp", draining=draining
    )
    return GeneratorLoad(status, taken)


def ids(loads: list[GeneratorLoad]) -> list[str]:
    return [found.status.generator_id for found in loads]


def test_prefers_the_least_loaded_by_its_capacity() -> None:
    assert ids(by_preference([load("a", 2, 1), load("b", 100, 10), load("c", 4, 1)])) == ["b", "c", "a"]


def test_breaks_ties_by_id() -> None:
    assert ids(by_preference([load("b", 4, 2), load("a", 2, 1), load("c", 8, 4)])) == ["a", "b", "c"]


def test_leaves_out_who_is_full_draining_or_without_capacity() -> None:
    assert by_preference([load("a", 1, 1), load("b", 9, 0, draining=True), load("c", 0, 0)]) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.booleans()), max_size=6))
def test_the_order_never_depends_on_the_order_given(rows: list[tuple[int, int, bool]]) -> None:
    loads = [load(f"g{i}", *row) for i, row in enumerate(rows)]
    assert by_preference(loads) == by_preference(reversed(loads))
