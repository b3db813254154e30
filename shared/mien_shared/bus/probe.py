"""Tries whether Redis would let a service do its work, without doing any of it.

Redis checks the rights of a command, its memory and its role when the command is queued in a transaction, and a
transaction that is discarded executes nothing. So one transaction tries every right of a service and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from mien_shared.bus.masters import MasterPool, RedisMisconfigured
from mien_shared.bus.rights import Rights
from mien_shared.clock import Clock
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

_Command = tuple[str, ...]

#: HELLO without arguments changes nothing. Its answer says what kind of server this is; it needs no right.
_ALIVE: tuple[_Command, ...] = (("HELLO",), ("PING",), ("MULTI",), ("DISCARD",))


class RedisProbe:
    """Asks one Redis as the user of one service, and remembers what it refused."""

    def __init__(self, redis: Redis, rights: Rights, clock: Clock, metrics: ServiceMetrics) -> None:
        # A client without callbacks, on the same connections: they would read an answer, and here all are QUEUED.
        self._redis = Redis(connection_pool=redis.connection_pool)
        self._finds_master = isinstance(redis.connection_pool, MasterPool)
        self._redis.response_callbacks.clear()
        self._samples = list(rights.samples())
        self._clock = clock
        self._metrics = metrics
        self._refused: dict[str, ResponseError] = {}
        self._wrong_kind: str | None = None

    async def step(self) -> None:
        """Measure a round trip, then try every right. Raises the errors of a Redis that does not answer."""
        asked_s = self._clock.monotonic_s()
        try:
            hello, *answers = await self._answers(_ALIVE)
        except RedisMisconfigured as error:
            self._report_kind(str(error))
            raise
        self._metrics.redis_round_trip(self._clock.monotonic_s() - asked_s)
        self._metrics.redis_answered()
        self._report_kind(None if self._finds_master else wrong_kind(hello))
        if self._wrong_kind:
            return
        refused = _refused(_ALIVE[1:], answers)
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

    def _report_kind(self, flaw: str | None) -> None:
        """Log once that REDIS_URL does not fit what answers there."""
        if flaw != self._wrong_kind and flaw:
            logger.error("REDIS_URL does not fit the server", extra={"error": flaw})
        self._wrong_kind = flaw

    def why_away(self) -> str | None:
        """A sentence for /readyz: why Redis cannot be used at all, None while it answers."""
        if self._wrong_kind:
            return self._wrong_kind
        return None if self._metrics.redis_is_up else "Redis does not answer"

    def why_unready(self) -> str | None:
        """A sentence for /readyz, None while nothing is refused. It names commands, never keys or users."""
        if not self._refused:
            return None
        if all(isinstance(error, OutOfMemoryError) for error in self._refused.values()):
            return "Redis is full"
        return f"Redis refuses {', '.join(sorted(self._refused))}; the log has its answer"


def wrong_kind(hello: object) -> str | None:
    """What is wrong if a plain URL leads to a server with this answer to HELLO; None for a single server."""
    pairs = hello.items() if isinstance(hello, dict) else _pairs(hello)
    match dict(pairs).get(b"mode"):
        case b"cluster":
            return "REDIS_URL leads to a node of a Redis Cluster: write redis+cluster:// instead of redis://"
        case b"sentinel":
            return "REDIS_URL leads to a Sentinel: write redis+sentinel://HOST:PORT,HOST:PORT/MASTER"
        case _:
            return None


def _pairs(answer: object) -> Iterable[tuple[object, object]]:
    """A map as RESP2 sends it: a list of names and values in turn."""
    return zip(answer[::2], answer[1::2], strict=False) if isinstance(answer, list) else ()


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
