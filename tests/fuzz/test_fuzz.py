"""Runs each fuzzer for a short time. docs/security.md describes the long runs."""

from __future__ import annotations

import pytest
from fuzz import image, packet, sdp, trickle
from fuzz.harness import Target, inputs

BUDGETS = [(packet.TARGET, 5000), (image.TARGET, 400), (sdp.TARGET, 2000), (trickle.TARGET, 4000)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("target", "count"), BUDGETS, ids=[target.name for target, _ in BUDGETS])
def test_damaged_input_is_taken_or_refused_by_name(target: Target, count: int) -> None:
    if (found := inputs(target, count, seed=7)) is not None:
        target.check(found[0])
        pytest.fail(f"this input fails only after others: {found[0]!r}")


@pytest.mark.parametrize("target", [target for target, _ in BUDGETS], ids=lambda target: target.name)
def test_good_input_is_good(target: Target) -> None:
    for seed in target.seeds:
        target.check(seed)


def test_the_harness_finds_what_is_there() -> None:
    def breaks(data: bytes) -> None:
        assert b"\xff\xff\xff\xff" not in data

    assert inputs(Target("broken", breaks, [b"abcd" * 8]), 1000, seed=1) is not None
