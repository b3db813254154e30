"""Which generator a session goes to: a new one, or one whose generator is leaving.

The policy is pure; `place` and `hand_over` carry it out on the registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mien_shared.bus.channels import send_control
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.messages import GeneratorStatus, SessionRecord, StartSession
from mien_shared.bus.registry import RESERVATION_MS, Registry
from mien_shared.spans import span, traceparent


class NoGenerator(Exception):
    """No generator lives, or all that do are draining."""


class AllFull(Exception):
    """Every generator's slots are taken."""


@dataclass(frozen=True, slots=True)
class GeneratorLoad:
    """A live generator and how many of its slots are taken: reserved or in use."""

    status: GeneratorStatus
    taken: int


def by_preference(loads: Iterable[GeneratorLoad]) -> list[GeneratorLoad]:
    """Those with a free slot, the least loaded (taken / capacity) first, ties in the order of their ids."""
    able = [load for load in loads if not load.status.draining and load.taken < load.status.capacity]
    return sorted(able, key=lambda load: (load.taken / load.status.capacity, load.status.generator_id))


async def place(registry: Registry, session: SessionRecord) -> str:
    """Give a session to a generator and return the generator's id; it learns of it by a StartSession.

    Raises NoGenerator, AllFull, or what Redis raises; nothing of the session is left behind then.
    """
    with span("reserve a slot"):
        generator_id = await _reserve(registry, session.session_id)
    try:
        await registry.hold(generator_id, session.session_id, RESERVATION_MS)
        await registry.keep_alive(session)
        await send_control(registry.redis, generator_id, StartSession(session=session, traceparent=traceparent()))
    except BUS_ERRORS:
        await _undo(registry, generator_id, session.session_id)
        raise
    return generator_id


async def hand_over(registry: Registry, session: SessionRecord, holder_id: str) -> str | None:
    """Move a session from its holder, which is draining, to another generator, whose id is returned.

    None if it was not the holder's any more. Raises NoGenerator, AllFull, or what Redis raises.
    """
    generator_id = await _reserve(registry, session.session_id, leaving_id=holder_id)
    if not await registry.transfer(holder_id, generator_id, session.session_id):
        await registry.free_slot(generator_id, session.session_id)
        return None
    await send_control(registry.redis, generator_id, StartSession(session=session, traceparent=traceparent()))
    return generator_id


async def _reserve(registry: Registry, session_id: str, leaving_id: str | None = None) -> str:
    """A slot on the generator that is preferred; raises NoGenerator or AllFull.

    leaving_id: one that drains, whether or not its last heartbeat said so.
    """
    statuses = await registry.generators()
    live = [status for status in statuses if not status.draining and status.generator_id != leaving_id]
    if not live:
        raise NoGenerator
    loads = [GeneratorLoad(status, await registry.taken_slots(status.generator_id)) for status in live]
    for load in by_preference(loads):
        # Somebody else may have taken the last slot since we counted: the reservation alone decides.
        if await registry.reserve(load.status.generator_id, session_id, load.status.capacity):
            return load.status.generator_id
    raise AllFull


async def _undo(registry: Registry, generator_id: str, session_id: str) -> None:
    """Best effort: Redis has just failed us, and what stays behind lapses within RESERVATION_MS or the record's TTL."""
    try:
        await registry.end_session(session_id)
        await registry.release(generator_id, session_id)
    except BUS_ERRORS:
        pass
