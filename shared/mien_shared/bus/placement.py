"""Which generator gets a session: a new session, or a session whose generator is draining.

The policy is pure. `place` and `hand_over` apply it to the registry.
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
    """No generator is live, or all live generators are draining."""


class AllFull(Exception):
    """All slots of all generators are taken."""


@dataclass(frozen=True, slots=True)
class GeneratorLoad:
    """A live generator and the number of its slots that are reserved or in use."""

    status: GeneratorStatus
    taken: int


def by_preference(loads: Iterable[GeneratorLoad]) -> list[GeneratorLoad]:
    """The generators with a free slot, the least loaded (taken / capacity) first, then in the order of their ids."""
    able = [load for load in loads if not load.status.draining and load.taken < load.status.capacity]
    return sorted(able, key=lambda load: (load.taken / load.status.capacity, load.status.generator_id))


async def place(registry: Registry, session: SessionRecord) -> str:
    """Assign a session to a generator, send it a StartSession and return its id.

    Raises NoGenerator, AllFull or an error of Redis; the registry then keeps nothing of the session.
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
    """Move a session from its draining holder to another generator and return that generator's id.

    None if the holder no longer held the session. Raises NoGenerator, AllFull or an error of Redis.
    """
    generator_id = await _reserve(registry, session.session_id, leaving_id=holder_id)
    if not await registry.transfer(holder_id, generator_id, session.session_id):
        await registry.free_slot(generator_id, session.session_id)
        return None
    await send_control(registry.redis, generator_id, StartSession(session=session, traceparent=traceparent()))
    return generator_id


async def _reserve(registry: Registry, session_id: str, leaving_id: str | None = None) -> str:
    """Reserve a slot on the most preferred generator and return its id; raises NoGenerator or AllFull.

    leaving_id: a generator that is draining, even if its last heartbeat did not say so.
    """
    statuses = await registry.generators()
    live = [status for status in statuses if not status.draining and status.generator_id != leaving_id]
    if not live:
        raise NoGenerator
    loads = [GeneratorLoad(status, await registry.taken_slots(status.generator_id)) for status in live]
    for load in by_preference(loads):
        # Another gateway may have taken the last slot since the count: only the reservation decides.
        if await registry.reserve(load.status.generator_id, session_id, load.status.capacity):
            return load.status.generator_id
    raise AllFull


async def _undo(registry: Registry, generator_id: str, session_id: str) -> None:
    """Undo a placement, best effort: Redis has just failed. The rest expires within RESERVATION_MS or keys.RECORD_S."""
    try:
        await registry.end_session(session_id)
        await registry.release(generator_id, session_id)
    except BUS_ERRORS:
        pass
