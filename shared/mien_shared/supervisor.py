"""The loops of a service: started, watched and ended in one place, which also says whether the service is ready.

A loop's step may fail because Redis does; then the loop waits and tries again. A loop that ends in any other way has
hit a bug: it is logged, /readyz names it, and /livez fails, so that the orchestrator restarts the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.masters import REFRESH_INTERVAL_S, MasterPool
from mien_shared.bus.probe import RedisProbe
from mien_shared.bus.rights import Rights
from mien_shared.clock import Clock
from mien_shared.metrics import ServiceMetrics

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
_REDIS_PROBE_INTERVAL_S = 0.5

#: Returns why a check fails, None while it passes.
Reason = Callable[[], str | None]


class Supervisor:
    """The loops of one service, and every reason why it is not ready or not alive."""

    def __init__(self, clock: Clock, metrics: ServiceMetrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._checks: dict[str, Reason] = {"start": lambda: "the service is still starting"}
        self._vital: dict[str, Reason] = {}
        self._loops: list[asyncio.Task[None]] = []

    def check(self, name: str, reason: Reason, *, vital: bool = False) -> None:
        """Add a check: while `reason()` is not None, the service is unready and, if vital, needs a restart."""
        (self._vital if vital else self._checks)[name] = reason

    def started(self) -> None:
        """The start is complete: from now on only checks and loops decide about readiness."""
        self._checks.pop("start", None)

    def run(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Run a loop that handles its own failures."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_crash)
        self._loops.append(task)

    def keep(self, name: str, step: Callable[[], Awaitable[None]], pause_s: float = 0.0) -> None:
        """Run `step` again and again; see keep_trying."""
        self.run(name, keep_trying(name, self._clock, self._metrics, step, pause_s))

    def watch_redis(self, redis: Redis, rights: Rights) -> None:
        """Probe Redis twice a second; the service is unready while Redis does not answer or refuses what it needs."""
        if isinstance(redis.connection_pool, MasterPool):
            self.keep("redis master", redis.connection_pool.refresh, REFRESH_INTERVAL_S)
        probe = RedisProbe(redis, rights, self._clock, self._metrics)
        self.check("redis", probe.why_away)
        self.check("redis_rights", probe.why_unready)
        self.keep("redis probe", probe.step, _REDIS_PROBE_INTERVAL_S)

    def fatal(self) -> dict[str, str]:
        """Failures that only a restart repairs: crashed loops and failing vital checks."""
        crashed = {task.get_name(): "the loop has crashed; the log says why" for task in self._loops if task.done()}
        return crashed | _reasons(self._vital)

    def unready(self) -> dict[str, str]:
        """The failures because of which the service cannot serve; empty while it can."""
        return _reasons(self._checks) | self.fatal()

    async def aclose(self) -> None:
        """End the loops; the service is unready from now on. May be called more than once."""
        self._checks["stop"] = lambda: "the service is stopping"
        loops, self._loops = self._loops, []
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


def _reasons(checks: dict[str, Reason]) -> dict[str, str]:
    found = {name: reason() for name, reason in checks.items()}
    return {name: reason for name, reason in found.items() if reason is not None}


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.critical("a loop has crashed", extra={"loop": task.get_name()}, exc_info=task.exception())


async def keep_trying(
    name: str, clock: Clock, metrics: ServiceMetrics, step: Callable[[], Awaitable[None]], pause_s: float = 0.0
) -> None:
    """Run `step` again and again until cancelled, with `pause_s` in between.

    If Redis fails in a step, wait (0.05 s, doubled up to 1 s) and try again. A step that succeeds does not show that
    Redis answers, because it may have had nothing to ask. Only the probe says so.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            await step()
        except BUS_ERRORS as error:
            _raise_swallowed_cancellation()
            if wait_s == _FIRST_WAIT_S:
                logger.warning("redis failed, trying again", extra={"loop": name, "error": str(error)})
            if isinstance(error, ResponseError):  # it answers, and the probe knows what it refuses
                metrics.redis_refused()
            else:
                metrics.redis_failed()
            await clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        else:
            _raise_swallowed_cancellation()
            if wait_s > _FIRST_WAIT_S:
                logger.info("redis answers again", extra={"loop": name})
            wait_s = _FIRST_WAIT_S
            if pause_s:
                await clock.sleep(pause_s)


def _raise_swallowed_cancellation() -> None:
    """Raise a cancellation that was swallowed.

    redis-py sends through asyncio.wait_for, and Python 3.11's swallows a cancellation that arrives together with its
    result (fixed in 3.12). Without this check the task would run on, and its owner would wait for it forever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
