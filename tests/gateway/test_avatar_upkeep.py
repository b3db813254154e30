"""Which avatars are deleted without an operator."""

from __future__ import annotations

import pytest

from mien_gateway.avatar_upkeep import INTERVAL_S, UNFINISHED_S, is_due
from mien_shared.avatars import StoredAvatar

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("used_s", "unused_s", "due"),
    [(1000.0, DAY_S, False), (1000.0 - 1, DAY_S, True), (0.0, 0.0, False), (1000.0 + DAY_S, DAY_S, False)],
)
def test_an_avatar_expires_after_its_last_use(used_s: float, unused_s: float, due: bool) -> None:
    assert is_due(StoredAvatar("a", 0.0, used_s, is_whole=True), 1000.0 + DAY_S, unused_s) is due


@pytest.mark.parametrize("unused_s", [0.0, DAY_S])
def test_what_was_never_whole_goes_after_an_hour_whether_avatars_expire_or_not(unused_s: float) -> None:
    half = StoredAvatar("a", 1000.0, 1000.0, is_whole=False)
    assert not is_due(half, 1000.0 + UNFINISHED_S, unused_s), "an upload may be under way"
    assert is_due(half, 1001.0 + UNFINISHED_S, unused_s)


def test_uses_are_noted_more_often_than_the_shortest_limit() -> None:
    assert 3 * INTERVAL_S < 3600
