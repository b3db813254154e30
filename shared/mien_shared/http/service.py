"""The frame of every service: FastAPI with /livez, /readyz and /metrics, problem documents, logs, a clean shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from types import FrameType

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mien_shared import logs, metrics, spans
from mien_shared.clock import Clock, SystemClock
from mien_shared.http import problems
from mien_shared.http.forms import HeadLikeGet, without_last_slash
from mien_shared.metrics import ServiceMetrics
from mien_shared.settings import ServiceSettings
from mien_shared.supervisor import Supervisor

logger = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_GRACE_S = 2
_PARENT_POLL_S = 0.5


class Service(FastAPI):
    """FastAPI with one behaviour for HEAD and GET, and for a path with and without a last slash."""

    def __init__(self, title: str, lifespan: Lifespan, own_head: Collection[str]) -> None:
        super().__init__(title=title, version=version("mien-shared"), lifespan=lifespan, redirect_slashes=False)
        self._head_like_get = HeadLikeGet(super().__call__, own_head)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._head_like_get(scope if scope["type"] == "lifespan" else without_last_slash(scope), receive, send)


def create_service(
    name: str,
    service_metrics: ServiceMetrics,
    run: Callable[[FastAPI, Supervisor], AbstractAsyncContextManager[None]],
    clock: Clock | None = None,
    own_head: Collection[str] = (),
    exposition: Callable[[], Awaitable[bytes]] | None = None,
) -> FastAPI:
    """A FastAPI application around `run`, which starts the service, yields while it serves, and stops it.

    `run` gives the supervisor its loops and checks. The loops end after `run`. If `run` closes something that the loops
    use, it calls the supervisor's aclose() first. own_head: prefixes of paths whose routes answer HEAD themselves.
    exposition: all metrics of a service with several processes; unset, those of service_metrics.
    """
    clock = clock or SystemClock()
    supervisor = Supervisor(clock, service_metrics)
    service_metrics.watch_readiness(lambda: not supervisor.unready())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        supervisor.run("event loop lag", service_metrics.watch_event_loop(clock))
        try:
            async with run(app, supervisor):
                supervisor.started()
                yield
        finally:
            await supervisor.aclose()

    app = Service(f"Mien {name}", lifespan, own_head)
    problems.install(app)

    @app.get("/livez", tags=["operations"], responses={503: {"description": "What only a restart repairs"}})
    async def livez() -> Response:
        """200 while the process works, 503 after a part of it has crashed. Failures of Redis do not count."""
        return _probe("alive", "dead", supervisor.fatal())

    @app.get("/readyz", tags=["operations"], responses={503: {"description": "The checks that fail"}})
    async def readyz() -> Response:
        """200 while requests can be served, otherwise 503 with the checks that fail."""
        return _probe("ready", "unready", supervisor.unready())

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics_endpoint() -> Response:
        """All metrics in Prometheus' text format."""
        text = await exposition() if exposition is not None else service_metrics.exposition()
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return app


def _probe(good: str, bad: str, reasons: dict[str, str]) -> Response:
    content = {"status": bad, "reasons": reasons} if reasons else {"status": good}
    return JSONResponse(content, status_code=503 if reasons else 200)


def serve(
    name: str,
    app: FastAPI,
    settings: ServiceSettings,
    ws_max_bytes: int = 4096,
    ws_protocol: type[asyncio.Protocol] | None = None,
) -> None:
    """Run a service until SIGTERM or SIGINT; it then drains and ends with status 0.

    A second signal ends it at once, with status 128 + the signal's number. ws_protocol: replaces uvicorn's protocol
    class for WebSockets.
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
        # Only these proxies' headers are trusted. Every other caller is known by the address that connects.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        ws=ws_protocol or "auto",
        ws_max_size=ws_max_bytes,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=4096,
    )
    asyncio.run(_serve(_Server(config), settings.parent_pid))


class _Server(uvicorn.Server):
    """Shuts down in order and ends with status 0 on the first signal; ends at once on the second."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            logger.warning("second signal received: ending at once")
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
    """End when the launcher ends. A killed launcher cannot end its children, but their parent process changes."""
    while os.getppid() == parent_pid:  # noqa: ASYNC110 - there is no event for this that every POSIX system has
        await asyncio.sleep(_PARENT_POLL_S)
    logger.warning("the parent process has ended: ending too")
    signal.raise_signal(signal.SIGTERM)
