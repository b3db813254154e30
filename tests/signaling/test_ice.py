from __future__ import annotations

import pytest
from aioice import Connection

from mien_signaling import ice
from mien_signaling.ice import check_hook_points
from mien_signaling.passthrough import HookPointMissing


def test_this_aioice_has_every_hook_point() -> None:
    check_hook_points()


class WithAnotherGather(Connection):  # type: ignore[misc]
    async def get_component_candidates(self, component: int) -> None: ...


class WithoutConsent(Connection):  # type: ignore[misc]
    query_consent = None


class Slotted(Connection):  # type: ignore[misc]
    __slots__ = ()


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (
            WithAnotherGather,
            r"Connection has no get_component_candidates\(self, component, addresses, timeout\)",
        ),
        (WithoutConsent, r"Connection has no query_consent\(self\)"),
        (Slotted, "does not let an instance replace its methods"),
    ],
)
def test_another_aioice_is_refused_by_name(connection: type, message: str) -> None:
    with pytest.raises(HookPointMissing, match=message):
        check_hook_points(connection)


def test_a_field_under_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "_FIELDS", ("_moved",))
    with pytest.raises(HookPointMissing, match="Connection has no field _moved"):
        check_hook_points()
