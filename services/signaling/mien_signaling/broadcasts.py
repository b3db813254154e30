"""The broadcasts of this process: one for each session that is watched here, by one viewer or by many.

A broadcast begins with its first use. It lives a little longer than its last one (linger_s), so that a viewer that
connects again finds it running.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock
from mien_signaling.background import BackgroundTasks
from mien_signaling.broadcast import Broadcast
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.settings import SignalingSettings

#: Called when a session has ended, or its broadcast has failed: its users must stop using it.
OnEnded = Callable[[Broadcast], Awaitable[None]]


class UnknownSession(LookupError):
    """No live session has this id."""


class NoPublication(Exception):
    """The session is live, but no generator holds it."""


class Broadcasts:
    """Owns the broadcasts. `aclose` ends all of them."""

    def __init__(self, redis: Redis, settings: SignalingSettings, clock: Clock, metrics: SignalingMetrics) -> None:
        self._redis = redis
        self._registry = Registry(redis)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._live: dict[str, Broadcast] = {}
        self._uses: Counter[str] = Counter()
        self._lingering: dict[str, asyncio.Task[None]] = {}
        self._tasks = BackgroundTasks("ending a broadcast failed")
        self._listeners: list[OnEnded] = []

    def __len__(self) -> int:
        return len(self._live)

    def on_ended(self, listener: OnEnded) -> None:
        """Call this for every broadcast that ends before its users have given it back."""
        self._listeners.append(listener)

    async def use(self, session_id: str, *, needs_video: bool = True) -> Broadcast:
        """The broadcast of a session; give it back by `done`. Asks Redis only if it does not run yet.

        needs_video: whether a generator must hold the session. Raises UnknownSession, NoPublication, or an error of
        Redis.
        """
        broadcast = self._live.get(session_id) or await self._open(session_id, needs_video)
        self._uses[session_id] += 1
        if lingering := self._lingering.pop(session_id, None):
            lingering.cancel()
        return broadcast

    def done(self, broadcast: Broadcast) -> None:
        """Give a broadcast back; does nothing if it has ended."""
        session_id = broadcast.session.session_id
        if self._live.get(session_id) is not broadcast:
            return
        self._uses[session_id] -= 1
        if not self._uses[session_id]:
            self._lingering[session_id] = self._tasks.spawn(self._linger(session_id))

    async def aclose(self) -> None:
        await self._tasks.cancel()
        await asyncio.gather(*(broadcast.aclose() for broadcast in self._live.values()))
        self._live.clear()

    async def _open(self, session_id: str, needs_video: bool) -> Broadcast:
        session = await self._registry.session(session_id)
        if session is None:
            raise UnknownSession(session_id)
        if needs_video and await self._registry.owner(session_id) is None:
            raise NoPublication(session_id)
        if session_id not in self._live:  # another viewer may have joined while Redis was asked
            limits = self._settings.bitrate_limits
            broadcast = Broadcast(session, self._redis, limits, self._clock, self._metrics, self._ended)
            broadcast.start()
            self._live[session_id] = broadcast
        return self._live[session_id]

    async def _linger(self, session_id: str) -> None:
        await self._clock.sleep(self._settings.linger_s)
        del self._lingering[session_id]
        await self._forgotten(session_id).aclose()

    def _forgotten(self, session_id: str) -> Broadcast:
        del self._uses[session_id]
        return self._live.pop(session_id)

    def _ended(self, broadcast: Broadcast) -> None:
        self._tasks.spawn(self._end(broadcast))

    async def _end(self, broadcast: Broadcast) -> None:
        """End a broadcast whose session has ended; nobody can use it any more."""
        session_id = broadcast.session.session_id
        if self._live.get(session_id) is not broadcast:
            return
        self._forgotten(session_id)
        if lingering := self._lingering.pop(session_id, None):
            lingering.cancel()
        await asyncio.gather(*(listener(broadcast) for listener in self._listeners))
        await broadcast.aclose()
