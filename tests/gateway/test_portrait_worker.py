"""The limits of the process that decodes uploads. What it does with pictures is tested through the gateway."""

from __future__ import annotations

import resource

import pytest

from mien_gateway import portrait_worker


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, int]]]:
    """The limits that are set, instead of setting them for the tests' process."""
    found: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: found.append((which, limit)))
    return found


def test_linux_limits_memory(limits: list[tuple[int, tuple[int, int]]]) -> None:
    portrait_worker._limit_memory(1 << 30, "linux")
    assert limits == [(resource.RLIMIT_AS, (1 << 30, 1 << 30))]


def test_macos_is_not_asked_for_a_limit_that_it_refuses(limits: list[tuple[int, tuple[int, int]]]) -> None:
    portrait_worker._limit_memory(1 << 30, "darwin")
    assert limits == []
