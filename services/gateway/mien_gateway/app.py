"""The gateway's composition: what there is, what it is given, in which order it comes up and goes down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

from mien_encoder.model_file import EncoderFileError, bundled_path, read_encoder
from mien_gateway import avatars, bundled, page, sessions, uplinks
from mien_gateway.access import Access
from mien_gateway.avatars import Avatars
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.sessions import Sessions
from mien_gateway.settings import GatewaySettings
from mien_gateway.uplinks import Uplinks
from mien_shared.avatars import AvatarNotFound, AvatarStore, AvatarStoreError
from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.connection import BUS_ERRORS, open_redis, ping, redis_url
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.edge import BodyLimit, SecurityHeaders
from mien_shared.http.service import Readiness, create_service
from mien_shared.http.tokens import TokenIssuer
from mien_shared.loops import keep_trying

logger = logging.getLogger(__name__)

_PROBE_INTERVAL_S = 0.5
_STORE_PROBE_INTERVAL_S = 5.0


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway as an ASGI application; nothing runs before its lifespan begins."""
    metrics = GatewayMetrics()
    clock = SystemClock()
    tokens = TokenIssuer.of(settings)
    access = Access(settings, tokens, metrics, clock)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Readiness]:
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                registry = Registry(redis)
                forwarder = MotionForwarder(redis, metrics.forward_dropped)
                store = AvatarStore.open(settings.avatar_store)
                health = Health(redis, store, clock, metrics)
                app.state.avatars = Avatars(settings, store, registry, access, metrics, clock)
                app.state.uplinks = Uplinks(registry, forwarder, access, metrics, clock)
                app.state.sessions = Sessions(settings, registry, store, tokens, app.state.uplinks, metrics, clock)
                loops = Loops(
                    asyncio.create_task(keep_trying(name, clock, metrics, step), name=name)
                    for name, step in {
                        "redis probe": health.probe_redis,
                        "store probe": health.probe_store,
                        "motion": forwarder.flush,
                        "owners": app.state.uplinks.refresh_owners,
                        "keep alive": app.state.uplinks.keep_sessions_alive,
                    }.items()
                )
                try:
                    yield lambda: health.reasons() | loops.reasons()
                finally:
                    await loops.aclose()
                    await app.state.uplinks.aclose()
                    await app.state.avatars.aclose()

    app = create_service("gateway", metrics, run)
    app.state.access = access
    app.include_router(avatars.router)
    app.include_router(sessions.router)
    app.include_router(uplinks.router)
    page.install(app, settings)
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes, streaming=[avatars.router.prefix])
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders)
    return app


class Health:
    """What readiness knows: whether Redis answers, the avatar store does, and the encoder's file is the right one."""

    def __init__(
        self, redis: Redis, store: AvatarStore, clock: Clock, metrics: GatewayMetrics, encoder: Path | None = None
    ) -> None:
        self._redis = redis
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._redis_reason: str | None = "not asked yet"
        self._store_reason: str | None = "not asked yet"
        self._encoder_reason = _wrong_with(encoder or bundled_path())
        self._seeded = False

    def reasons(self) -> dict[str, str]:
        """What is in the way of serving; empty when nothing is."""
        reasons = {"redis": self._redis_reason, "avatar_store": self._store_reason, "encoder": self._encoder_reason}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    async def probe_redis(self) -> None:
        """One step of a loop; raises what Redis raises."""
        try:
            await ping(self._redis, self._clock, self._metrics)
        except BUS_ERRORS:
            self._redis_reason = "Redis does not answer"
            raise
        self._redis_reason = None
        await self._clock.sleep(_PROBE_INTERVAL_S)

    async def probe_store(self) -> None:
        """One step of a loop: seed the bundled avatar once the store takes it, then see that it can be read."""
        try:
            if not self._seeded:
                await bundled.seed(self._store)
                self._seeded = True
            await self._store.record(bundled.BUNDLED_AVATAR_ID)
        except AvatarNotFound:
            self._store_reason = None  # the store answers; this checkout has no drawing
        except AvatarStoreError as error:
            self._store_reason = str(error)
        else:
            self._store_reason = None
        await self._clock.sleep(_STORE_PROBE_INTERVAL_S)


def _wrong_with(encoder: Path) -> str | None:
    """Why uploads would find no keypoints, looked at once: the process that decodes them loads the file later."""
    try:
        read_encoder(encoder)
    except EncoderFileError as error:
        return str(error)
    return None


class Loops:
    """The tasks that run as long as the gateway does. One that ends by itself has met a bug: unready, and logged."""

    def __init__(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        self._tasks = list(tasks)
        for task in self._tasks:
            task.add_done_callback(_log_crash)

    def reasons(self) -> dict[str, str]:
        """Which loops have crashed."""
        return {task.get_name(): "the loop has crashed; the log says why" for task in self._tasks if task.done()}

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("a loop has crashed", extra={"loop": task.get_name()}, exc_info=error)
