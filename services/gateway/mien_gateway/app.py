"""The gateway's composition: what there is, what it is given, in which order it comes up and goes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

from mien_gateway import avatars, bundled, page, sessions, uplinks
from mien_gateway.avatars import Avatars
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.sessions import Sessions
from mien_gateway.settings import GatewaySettings
from mien_gateway.uplinks import Uplinks
from mien_shared.avatars import AvatarNotFound, AvatarStore, AvatarStoreError
from mien_shared.bus import BUS_ERRORS, keep_trying, open_redis, redis_url
from mien_shared.channels import MotionForwarder
from mien_shared.clock import Clock, SystemClock
from mien_shared.registry import Registry
from mien_shared.service import Readiness, create_service
from mien_shared.tokens import TokenIssuer

_PROBE_INTERVAL_S = 0.5
_STORE_PROBE_INTERVAL_S = 5.0


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway as an ASGI application; nothing runs before its lifespan begins."""
    metrics = GatewayMetrics()
    clock = SystemClock()

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Readiness]:
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                registry = Registry(redis)
                forwarder = MotionForwarder(redis, metrics.forward_dropped)
                tokens = TokenIssuer(settings.token_secret.get_secret_value())
                store = AvatarStore.open(settings.avatar_store)
                health = Health(redis, store, clock)
                app.state.avatars = Avatars(settings, store, metrics, clock)
                app.state.uplinks = Uplinks(registry, forwarder, tokens, metrics, clock)
                app.state.sessions = Sessions(settings, registry, store, tokens, app.state.uplinks, metrics, clock)
                steps = {
                    "redis probe": health.probe_redis,
                    "motion": forwarder.flush,
                    "owners": app.state.uplinks.refresh_owners,
                    "keep alive": app.state.uplinks.keep_sessions_alive,
                }
                try:
                    async with asyncio.TaskGroup() as group:
                        loops = [
                            group.create_task(keep_trying(name, clock, metrics, step), name=name)
                            for name, step in steps.items()
                        ]
                        loops.append(group.create_task(health.watch_store(), name="avatar store"))
                        yield health.reasons
                        for loop in loops:
                            loop.cancel()
                finally:
                    await app.state.uplinks.aclose()
                    await app.state.avatars.aclose()

    app = create_service("gateway", metrics, run)
    app.include_router(avatars.router)
    app.include_router(sessions.router)
    app.include_router(uplinks.router)
    page.install(app, settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    return app


class Health:
    """What readiness knows: whether Redis answers, and whether the avatar store does."""

    def __init__(self, redis: Redis, store: AvatarStore, clock: Clock) -> None:
        self._redis = redis
        self._store = store
        self._clock = clock
        self._redis_reason: str | None = "not asked yet"
        self._store_reason: str | None = "not asked yet"

    def reasons(self) -> dict[str, str]:
        """What is in the way of serving; empty when nothing is."""
        reasons = {"redis": self._redis_reason, "avatar_store": self._store_reason}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    async def probe_redis(self) -> None:
        """One step of a loop; raises what Redis raises."""
        try:
            await self._redis.ping()
        except BUS_ERRORS:
            self._redis_reason = "Redis does not answer"
            raise
        self._redis_reason = None
        await self._clock.sleep(_PROBE_INTERVAL_S)

    async def watch_store(self) -> None:
        """Put the bundled avatar into the store as soon as it takes it, then see that it can be read; until cancelled."""
        seeded = False
        while True:
            try:
                if not seeded:
                    await bundled.seed(self._store)
                    seeded = True
                await self._store.record(bundled.BUNDLED_AVATAR_ID)
            except AvatarNotFound:
                self._store_reason = None  # the store answers; this checkout has no drawing
            except AvatarStoreError as error:
                self._store_reason = str(error)
            else:
                self._store_reason = None
            await self._clock.sleep(_STORE_PROBE_INTERVAL_S)
