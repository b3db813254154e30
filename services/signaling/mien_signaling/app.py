"""Builds signaling from Redis, the audience with WHEP, and the speakers with WHIP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiortc import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs
from fastapi import FastAPI
from redis.asyncio import Redis

from mien_shared.bus import rights
from mien_shared.bus.connection import open_redis, redis_url
from mien_shared.bus.rooms import Rooms
from mien_shared.clock import Clock, SystemClock
from mien_shared.http.edge import BodyLimit, SecurityHeaders
from mien_shared.http.loopback import LoopbackOnly
from mien_shared.http.service import create_service
from mien_shared.supervisor import Supervisor
from mien_signaling import ice, passthrough, speaker_transport, voice_passthrough, whep, whip
from mien_signaling.audience import PARTICIPANTS_INTERVAL_S, Audience
from mien_signaling.broadcasts import Broadcasts
from mien_signaling.cross_origin import CrossOrigin
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.room_audience import RoomAudience
from mien_signaling.roster import INTERVAL_S, Registrar, merged
from mien_signaling.seats import Seats
from mien_signaling.settings import SignalingSettings
from mien_signaling.sfu_links import INTERVAL_S as SFU_INTERVAL_S
from mien_signaling.sfu_links import SfuLinks
from mien_signaling.sfu_metrics import SfuMetrics
from mien_signaling.speakers import Speakers


def create_app(settings: SignalingSettings, clock: Clock | None = None) -> FastAPI:
    """Signaling as an ASGI application.

    Raises HookPointMissing, MediaPortUnavailable, or ValueError for a wrong URL of an ICE server.
    """
    passthrough.check_hook_points()
    voice_passthrough.check_hook_points()
    speaker_transport.check_hook_points()
    ice.check_hook_points()
    connection_kwargs([RTCIceServer(server.urls) for server in settings.ice_servers])
    clock = clock or SystemClock()
    metrics = SignalingMetrics()
    sfu_metrics = SfuMetrics(metrics.registry)
    media_port = _media_port(settings, metrics)

    @asynccontextmanager
    async def run(app: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                supervisor.watch_redis(redis, rights.SIGNALING)
                broadcasts = Broadcasts(redis, settings, clock, metrics)
                seats = Seats(settings.max_viewers)
                audience = Audience(redis, broadcasts, seats, settings, clock, metrics, media_port)
                rooms = RoomAudience(redis, broadcasts, seats, settings, clock, metrics, media_port)
                metrics.watch_audience(
                    lambda: audience.connecting + rooms.connecting,
                    lambda: audience.connected + rooms.connected,
                    lambda: len(broadcasts),
                )
                if media_port is not None:
                    await media_port.start()
                supervisor.run("token expiry", audience.remove_expired())
                speakers = Speakers(redis, settings, clock, metrics, media_port)
                for name, step in (
                    ("motion", speakers.forwarder.flush),
                    ("voice", speakers.publisher.flush),
                    ("uplinks", speakers.refresh),
                    ("keep alive", speakers.keep_sessions_alive),
                    ("rooms", rooms.step),
                ):
                    supervisor.keep(name, step)

                def end(session_id: str, viewer_id: str) -> None:
                    audience.end(session_id, viewer_id)
                    rooms.end(viewer_id)

                registrar = Registrar(
                    redis,
                    clock,
                    lambda: merged(audience.roster(), rooms.roster()),
                    end,
                )
                supervisor.keep("viewers", registrar.step, INTERVAL_S)
                supervisor.keep("participants", audience.remove_departed, PARTICIPANTS_INTERVAL_S)
                app.include_router(whep.routes(audience, rooms, settings, clock))
                app.include_router(whip.routes(speakers, Rooms(redis), settings, clock))
                try:
                    async with _publishing(settings, supervisor, redis, broadcasts, clock, metrics, sfu_metrics):
                        yield
                finally:
                    await speakers.aclose()
                    await asyncio.gather(audience.aclose(), rooms.aclose())
                    await broadcasts.aclose()
                    if media_port is not None:
                        media_port.close()
                    await supervisor.aclose()

    app = create_service("signaling", metrics, run, clock, own_head=[whep.PREFIX, whip.PREFIX])
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    for prefix, count in ((whep.PREFIX, metrics.whep_request), (whip.PREFIX, metrics.whip_request)):
        app.add_middleware(CrossOrigin, prefix=prefix, origins=settings.cors_origins, count=count)
    if settings.demo_open:
        app.add_middleware(LoopbackOnly, origins=settings.cors_origins)
    app.add_middleware(SecurityHeaders)
    return app


@asynccontextmanager
async def _publishing(
    settings: SignalingSettings,
    supervisor: Supervisor,
    redis: Redis,
    broadcasts: Broadcasts,
    clock: Clock,
    metrics: SignalingMetrics,
    sfu_metrics: SfuMetrics,
) -> AsyncIterator[None]:
    """Publish sessions to the operator's SFU, if there is one. The metrics are exported in any case."""
    if (target := settings.sfu) is None:
        yield
        return
    links = SfuLinks(target, redis, settings, clock, metrics, sfu_metrics, broadcasts)
    supervisor.keep("SFU", links.step, SFU_INTERVAL_S)
    try:
        yield
    finally:
        await links.aclose()


def _media_port(settings: SignalingSettings, metrics: SignalingMetrics) -> MediaPort | None:
    """The port of all viewers, opened here so that a port in use ends the start. None if it is not set."""
    if settings.media_port is None:
        return None
    # A viewer has more than one connection only for moments: while it moves to another network.
    return MediaPort(
        settings.media_port, ice.host_addresses(), 2 * (settings.max_viewers + settings.max_speakers), metrics
    )
