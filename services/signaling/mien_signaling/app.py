"""Signaling put together: Redis, the audience, WHEP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from aiortc import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs
from fastapi import FastAPI

from mien_shared.bus.connection import open_redis, ping, redis_url
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.edge import BodyLimit, SecurityHeaders
from mien_shared.http.service import Readiness, create_service
from mien_shared.loops import keep_trying
from mien_signaling import passthrough, whep
from mien_signaling.audience import Audience
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.settings import SignalingSettings

_PROBE_INTERVAL_S = 1.0


def create_app(settings: SignalingSettings, clock: Clock | None = None) -> FastAPI:
    """The service as ASGI. Raises HookPointMissing or ValueError (an ICE server's URL) before anything starts."""
    passthrough.check_hook_points()
    connection_kwargs([RTCIceServer(server.urls) for server in settings.ice_servers])
    clock = clock or SystemClock()
    metrics = SignalingMetrics()

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Readiness]:
        with redis_url(settings.redis_url) as url:
            redis = open_redis(url)
            probe = partial(ping, redis, clock, metrics)
            watching = keep_trying("probe", clock, metrics, probe, pause_s=_PROBE_INTERVAL_S)
            watch = asyncio.create_task(watching, name="redis probe")
            audience = Audience(redis, settings, clock, metrics)
            app.include_router(whep.routes(audience, settings, clock))
            try:
                yield lambda: {} if metrics.redis_is_up else {"redis": "does not answer"}
            finally:
                await audience.aclose()
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
                await redis.aclose()

    app = create_service("signaling", metrics, run)
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    app.add_middleware(whep.CrossOrigin, origins=settings.cors_origins, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    return app
