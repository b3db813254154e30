"""Ends sessions that have no speaker or that last too long. Every gateway does so for all sessions.

A viewer keeps a session's record alive as a speaker does, so without these limits one viewer could keep a place on a
generator for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from mien_gateway.sessions import Sessions
from mien_shared.bus.messages import EndReason, SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock

INTERVAL_S = 2.0
#: How long Redis keeps the time of a speaker after the limit. Longer than any pause between two steps of this loop.
_MARGIN_S = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds; 0: there is no limit."""

    no_speaker_s: int
    max_session_s: int

    @property
    def speaker_ttl_s(self) -> int:
        """How long Redis must keep the time at which a session last had a speaker."""
        return self.no_speaker_s + _MARGIN_S


def overdue(session: SessionRecord, idle_s: float, now_unix_s: float, limits: Limits) -> EndReason | None:
    """Which limit a session has reached, None if none. idle_s: how long it has had no speaker."""
    if 0 < limits.max_session_s < now_unix_s - session.created_at_ms / 1000:
        return EndReason.DURATION
    if 0 < limits.no_speaker_s < idle_s:
        return EndReason.NO_SPEAKER
    return None


class SessionLimits:
    """One step of a loop. Several gateways may run it at once."""

    def __init__(self, registry: Registry, sessions: Sessions, limits: Limits, clock: Clock) -> None:
        self._registry = registry
        self._sessions = sessions
        self._limits = limits
        self._clock = clock

    async def step(self) -> None:
        """End every session that has reached a limit; raises the errors of Redis."""
        live = await self._registry.sessions()
        if not live:
            return
        now_unix_s = self._clock.unix_s()
        ids = [session.session_id for session in live]
        idle_s = await self._registry.without_speaker_s(ids, self._limits.speaker_ttl_s)
        for session in live:
            reason = overdue(session, idle_s[session.session_id], now_unix_s, self._limits)
            if reason is not None:
                await self._sessions.end_for_limit(session.session_id, reason)
