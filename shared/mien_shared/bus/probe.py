"""Tries whether Redis would let a service do its work, without doing any of it.

Redis checks the rights of a command, its memory and its role when the command is queued in a transaction, and a
transaction that is discarded executes nothing. So one transaction tries every right of a service and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from mien_shared.bus.rights import Rights
from mien_shared.clock import Clock
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

_Command = tuple[str, ...]

_ALIVE: tuple[_Command, ...] = (("PING",), ("MULTI",), ("DISCARD",))


class RedisProbe:
    """Asks one Redis as the user of one service, and remembers what it refused."""

    def __init__(self, redis: Redis, rights: Rights, clock: Clock, metrics: ServiceMetrics) -> None:
        # A client without callbacks, on the same connections: they would read an answer, and here all are QUEUED.
        self._redis = Redis(connection_pool=redis.connection_pool)
        self._redis.response_callbacks.clear()
        self._samples = list(rights.samples())
        self._clock = clock
        self._metrics = metrics
        self._refused: dict[str, ResponseError] = {}

    async def step(self) -> None:
        """Measure a round trip, then try every right. Raises the errors of a Redis that does not answer."""
        asked_s = self._clock.monotonic_s()
        refused = _refused(_ALIVE, await self._answers(_ALIVE))
        self._metrics.redis_round_trip(self._clock.monotonic_s() - asked_s)
        self._metrics.redis_answered()
        if not refused:  # without a transaction Redis would execute the samples
            answers = await self._answers([("MULTI",), *self._samples, ("DISCARD",)])
            refused = _refused(self._samples, answers[1:-1])
        self._report(refused)

    async def _answers(self, commands: Sequence[_Command]) -> list[object]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[object] = await pipe.execute(raise_on_error=False)
        return answers

    def _report(self, refused: dict[str, ResponseError]) -> None:
        """Log what is refused when it changes."""
        if refused.keys() != self._refused.keys():
            if refused:
                extra = {"commands": sorted(refused), "error": _said(next(iter(refused.values())))}
                logger.error("redis refuses what this service needs", extra=extra)
            else:
                logger.info("redis refuses nothing more that this service needs")
        self._refused = refused

    def why_unready(self) -> str | None:
        """A sentence for /readyz, None while nothing is refused. It names commands, never keys or users."""
        if not self._refused:
            return None
        if all(isinstance(error, OutOfMemoryError) for error in self._refused.values()):
            return "Redis is full"
        return f"Redis refuses {', '.join(sorted(self._refused))}; the log has its answer"


def _said(error: ResponseError) -> str:
    """Redis' answer as redis-cli shows it: the client removes this code."""
    return f"NOPERM {error}" if isinstance(error, NoPermissionError) else str(error)


def _refused(commands: Iterable[_Command], answers: Iterable[object]) -> dict[str, ResponseError]:
    """The first error of each command that has one, by the command's name."""
    found: dict[str, ResponseError] = {}
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, ResponseError):
            found.setdefault(command[0], answer)
    return found
