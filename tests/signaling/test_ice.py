from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aioice import Connection
from integration.media_ports import free_port, host_address

from mien_signaling import ice
from mien_signaling.ice import MAX_UNREAD, check_hook_points
from mien_signaling.media_port import LocalPort, MediaPort
from mien_signaling.metrics import SignalingMetrics
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


@pytest.fixture
async def place() -> AsyncIterator[LocalPort]:
    port = MediaPort(free_port(), [host_address()], 1, SignalingMetrics())
    await port.start()
    yield (await port.at([host_address()]))[0]
    port.close()


async def test_what_aiortc_does_not_read_is_dropped_above_a_limit(place: LocalPort) -> None:
    metrics, connection = SignalingMetrics(), Connection(ice_controlling=False)
    agent = ice._UdpAgent(connection, 1, place, metrics)
    for _ in range(MAX_UNREAD + 10):
        agent.datagram_received(b"\x80" + bytes(20), ("192.0.2.9", 9))
    assert connection._queue.qsize() == MAX_UNREAD
    assert 'mien_media_port_dropped_total{reason="unread"} 10.0' in metrics.exposition().decode()
    await agent.close()


async def test_a_closed_agent_leaves_the_port_open_for_the_others(place: LocalPort) -> None:
    one, other = (
        ice._UdpAgent(Connection(ice_controlling=False, local_username=name), 1, place, SignalingMetrics())
        for name in ("aaaa", "bbbb")
    )
    await one.close()
    await one.close()
    assert one.transport.is_closing()
    assert not other.transport.is_closing()
    await other.close()
