"""One way to make a service: FastAPI with /livez, /readyz and /metrics, problem documents, JSON logs, a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response

from mien_shared import logs, metrics, spans
from mien_shared.clock import SystemClock
from mien_shared.http import problems
from mien_shared.metrics import ServiceMetrics
from mien_shared.settings import ServiceSettings

logger = logging.getLogger(__name__)

#: What stands between a service and its work, each with its reason; empty when it is ready.
Readiness = Callable[[], dict[str, str]]

_GRACE_S = 2
_PARENT_POLL_S = 0.5


def create_service(
    name: str,
    service_metrics: ServiceMetrics,
    run: Callable[[FastAPI], AbstractAsyncContextManager[Readiness]],
) -> FastAPI:
    """A FastAPI application around `run`, which brings the service up, yields its readiness and takes it down."""
    app_readiness: list[Readiness] = []

    def unready_reasons() -> dict[str, str]:
        return app_readiness[0]() if app_readiness else {"start": "the service is still starting"}

    service_metrics.watch_readiness(lambda: not unready_reasons())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lag = asyncio.create_task(service_metrics.watch_event_loop(SystemClock()), name="event loop lag")
        try:
            async with run(app) as readiness:
                app_readiness.append(readiness)
                yield
        finally:
            app_readiness.clear()
            lag.cancel()

    app = FastAPI(title=f"Mien {name}", version=version("mien-shared"), lifespan=lifespan)
    problems.install(app)

    @app.get("/livez", tags=["operations"])
    async def livez() -> dict[str, str]:
        """The process answers. Nothing else: a restart would not bring Redis back."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operations"], responses={503: {"description": "What stands in the way, and why"}})
    async def readyz() -> Response:
        """200 when requests can be served, else 503 with what stands in the way."""
        reasons = unready_reasons()
        return JSONResponse(
            {"status": "unready", "reasons": reasons} if reasons else {"status": "ready"},
            status_code=503 if reasons else 200,
        )

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics_endpoint() -> Response:
        """Prometheus exposition."""
        return Response(service_metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    return app


def serve(
    name: str,
    app: FastAPI,
    settings: ServiceSettings,
    ws_max_bytes: int = 4096,
    ws_protocol: type[asyncio.Protocol] | None = None,
) -> None:
    """Run a service until SIGTERM or SIGINT, which drain it: status 0. A second signal forces: 128 + its number.

    ws_protocol: takes the place of uvicorn's own for WebSockets.
    """
    logs.configure(name, settings.log_level)
    spans.configure(name)
    logger.info("service starting", extra={"host": settings.host, "port": settings.port})
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever is not named here is judged by the address that connects, whatever its headers say.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        ws=ws_protocol or "auto",
        ws_max_size=ws_max_bytes,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=4096,
    )
    asyncio.run(_serve(_Server(config), settings.parent_pid))


class _Server(uvicorn.Server):
    """Ends with status 0 on the first signal, once everything has been put down, and at once on the second."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            logger.warning("second signal: ending at once")
            os._exit(128 + sig)
        self.should_exit = True


async def _serve(server: uvicorn.Server, parent_pid: int | None) -> None:
    watch = asyncio.create_task(_end_with_parent(parent_pid)) if parent_pid else None
    try:
        await server.serve()
    finally:
        if watch:
            watch.cancel()


async def _end_with_parent(parent_pid: int) -> None:
    """A launcher that was killed cannot end its children; they see that they were handed to another parent."""
    while os.getppid() == parent_pid:  # noqa: ASYNC110 - there is no event for this that every POSIX system has
        await asyncio.sleep(_PARENT_POLL_S)
    logger.warning("the parent process has ended: ending too")
    signal.raise_signal(signal.SIGTERM)
