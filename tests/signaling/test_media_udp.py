"""The shared UDP socket when the kernel takes nothing for a while."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from mien_signaling.media_paths import Dropped
from mien_signaling.media_udp import MAX_WAITING_BYTES, SharedUdp, bound_socket

_DATAGRAM = bytes(1200)


class Blocking(socket.socket):
    """A socket that the kernel refuses to send for while `error` is set."""

    error: OSError | None = None

    def sendto(self, *arguments: object) -> int:
        if self.error is not None:
            raise self.error
        return super().sendto(*arguments)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
async def sending() -> AsyncIterator[tuple[SharedUdp, Blocking, Counter[Dropped]]]:
    bound = Blocking(socket.AF_INET, socket.SOCK_DGRAM)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", 0))
    dropped: Counter[Dropped] = Counter()
    shared = SharedUdp(bound, lambda reason: dropped.update([reason]))
    shared.start()
    yield shared, bound, dropped
    shared.close()


async def test_what_the_kernel_does_not_take_waits_in_order_and_within_a_limit(
    sending: tuple[SharedUdp, Blocking, Counter[Dropped]],
) -> None:
    shared, bound, dropped = sending
    with bound_socket("127.0.0.1", 0, socket.SOCK_DGRAM) as receiver:
        address = receiver.getsockname()
        bound.error = BlockingIOError()
        for number in range(3):
            shared.send(bytes([number]), address)
        for _ in range(MAX_WAITING_BYTES // len(_DATAGRAM) + 10):
            shared.send(_DATAGRAM, ("127.0.0.1", 9))
        assert set(dropped) == {Dropped.SEND_QUEUE_FULL}
        assert 10 <= dropped.total() <= 11
        bound.error = None
        async with asyncio.timeout(20):
            loop = asyncio.get_running_loop()
            assert [await loop.sock_recv(receiver, 10) for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]
            while shared.waiting_bytes:
                await asyncio.sleep(0.01)
        shared.send(b"later", address)
        assert await loop.sock_recv(receiver, 10) == b"later"


async def test_an_address_without_a_route_costs_one_datagram(
    sending: tuple[SharedUdp, Blocking, Counter[Dropped]],
) -> None:
    shared, bound, dropped = sending
    bound.error = OSError(errno.ENETUNREACH, "no route")
    shared.send(_DATAGRAM, ("192.0.2.9", 9))
    assert dropped == {Dropped.SEND_FAILED: 1}
    assert shared.waiting_bytes == 0
