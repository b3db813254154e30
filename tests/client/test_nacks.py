"""Lost packets are requested again, also when nothing else is lost after them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiortc.rtcrtpreceiver import NackGenerator, RTCRtpReceiver
from aiortc.rtp import RtpPacket

from mien_client import nacks
from mien_client.nacks import RepeatedNacks

SSRC = 1234


class Receiver:
    """The two parts of aiortc's receiver that RepeatedNacks uses, around aiortc's own record of missing packets."""

    def __init__(self) -> None:
        self.generator = NackGenerator()
        setattr(self, nacks._GENERATOR, self.generator)
        self.sent: list[list[int]] = []

    async def _send_rtcp_nack(self, media_ssrc: int, lost: list[int]) -> None:
        assert media_ssrc == SSRC
        self.sent.append(lost)

    async def receive(self, *sequences: int) -> None:
        """What aiortc does with packets as they arrive."""
        for sequence in sequences:
            packet = RtpPacket(sequence_number=sequence, ssrc=SSRC)
            if self.generator.add(packet):
                await self._send_rtcp_nack(SSRC, sorted(self.generator.missing))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setattr(nacks, "_INTERVAL_S", 0.001)
    return Receiver()


async def run_for(repeated: RepeatedNacks, seconds: float) -> None:
    task = asyncio.create_task(repeated.run())
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_installed_aiortc_has_the_private_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        state = "new"
        _stats_id = "transport"

    transport: Any = Transport()
    receiver = RTCRtpReceiver("video", transport)
    assert hasattr(receiver, nacks._GENERATOR)
    assert asyncio.iscoroutinefunction(receiver._send_rtcp_nack)


async def test_a_lost_packet_is_requested_until_it_arrives(receiver: Receiver) -> None:
    repeated = RepeatedNacks(receiver)
    await receiver.receive(1, 2, 4)
    task = asyncio.create_task(repeated.run())
    while len(receiver.sent) < 4:
        await asyncio.sleep(0.001)
    await receiver.receive(3)
    requests = len(receiver.sent)
    await asyncio.sleep(0.02)
    task.cancel()
    assert receiver.sent == [[3]] * requests


async def test_a_packet_that_never_comes_is_given_up(receiver: Receiver) -> None:
    repeated = RepeatedNacks(receiver)
    await receiver.receive(1, 3)
    await run_for(repeated, 0.1)
    assert receiver.sent == [[2]] * (1 + nacks._MOST_REQUESTS)


async def test_nothing_is_requested_while_nothing_is_missing(receiver: Receiver) -> None:
    repeated = RepeatedNacks(receiver)
    await receiver.receive(*range(10))
    await run_for(repeated, 0.02)
    assert receiver.sent == []


async def test_without_the_private_parts_nothing_fails() -> None:
    class Elsewhere:
        pass

    other: Any = Elsewhere()
    await run_for(RepeatedNacks(other), 0.02)
