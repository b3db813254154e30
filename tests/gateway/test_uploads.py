"""What the uploads in progress share: places, and memory."""

from __future__ import annotations

import pytest

from mien_gateway.uploads import UploadBudget
from mien_shared.http.problems import Code, Problem


def test_memory_is_shared_and_given_back() -> None:
    budget = UploadBudget(places=3, memory_bytes=100)
    with budget.upload() as one, budget.upload() as other:
        one.need(60)
        other.need(40)
        with pytest.raises(Problem, match="the uploads in progress need all memory for uploads") as refused:
            other.need(41)
        assert refused.value.code is Code.UPLOADS_BUSY
        assert other.taken_bytes == 40
        other.need(10)
        assert other.taken_bytes == 40, "what has arrived needs its memory"
    with budget.upload() as next_one:
        next_one.need(100)


def test_places_are_shared_and_given_back_after_a_failure_too() -> None:
    budget = UploadBudget(places=1, memory_bytes=100)

    def fail() -> None:
        with budget.upload() as one:
            one.need(100)
            with pytest.raises(Problem, match="too many uploads are in progress"), budget.upload():
                pass
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with budget.upload() as next_one:
        next_one.need(100)
