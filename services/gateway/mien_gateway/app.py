"""Builds the gateway: its parts, their arguments, and the order in which they start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from mien_encoder.model_file import EncoderFileError, bundled_path, read_encoder
from mien_gateway import (
    avatar_routes,
    bundled,
    egress,
    page,
    room_hub,
    room_routes,
    sessions,
    uplinks,
    viewers,
    webhook_routes,
)
from mien_gateway.access import Access
from mien_gateway.avatar_upkeep import INTERVAL_S as UPKEEP_INTERVAL_S
from mien_gateway.avatar_upkeep import AvatarUpkeep
from mien_gateway.avatars import Avatars
from mien_gateway.metrics import GatewayMetrics
from mien_gateway.room_hub import RoomHub
from mien_gateway.room_limits import INTERVAL_S as ROOM_LIMITS_INTERVAL_S
from mien_gateway.room_limits import RoomUpkeep
from mien_gateway.rooms import RoomDesk
from mien_gateway.session_limits import INTERVAL_S as LIMITS_INTERVAL_S
from mien_gateway.session_limits import Limits, SessionLimits
from mien_gateway.sessions import Sessions
from mien_gateway.settings import GatewaySettings
from mien_gateway.uplinks import Uplinks
from mien_gateway.webhook_queue import WebhookQueue
from mien_gateway.webhooks import INTERVAL_S as WEBHOOKS_INTERVAL_S
from mien_gateway.webhooks import Webhooks
from mien_shared.avatars import AvatarNotFound, AvatarStore, AvatarStoreError
from mien_shared.bus import rights
from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.connection import open_redis, redis_url
from mien_shared.bus.live_rooms import LiveRooms
from mien_shared.bus.registry import Registry
from mien_shared.bus.rooms import Rooms
from mien_shared.bus.viewers import Viewers
from mien_shared.clock import SystemClock
from mien_shared.http.edge import BodyLimit, SecurityHeaders
from mien_shared.http.loopback import LoopbackOnly
from mien_shared.http.service import create_service
from mien_shared.http.tokens import TokenIssuer
from mien_shared.supervisor import Reason, Supervisor

_STORE_PROBE_INTERVAL_S = 5.0


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway as an ASGI application. Nothing runs before its lifespan begins."""
    metrics = GatewayMetrics()
    clock = SystemClock()
    tokens = TokenIssuer.of(settings)
    access = Access(settings, tokens, metrics, clock)
    limits = Limits(settings.no_speaker_s, settings.max_session_s)

    @asynccontextmanager
    async def run(app: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        with redis_url(settings.redis_url) as url:
            async with open_redis(url) as redis:
                registry = Registry(redis)
                forwarder = MotionForwarder(redis, metrics.forward_dropped)
                store = AvatarStore.open(settings.avatar_store)
                store_probe = StoreProbe(store)
                uplinks_here = Uplinks(registry, forwarder, access, metrics, clock, limits.speaker_ttl_s)
                viewers_all, rooms_all = Viewers(redis), Rooms(redis)
                sessions_all = Sessions(
                    settings, registry, viewers_all, rooms_all, store, tokens, uplinks_here, metrics, clock
                )
                avatars_all = Avatars(settings, store, registry, access, metrics, clock, sessions_all.end_all_with)
                app.state.avatars = avatars_all
                app.state.uplinks = uplinks_here
                app.state.sessions = sessions_all
                session_limits = SessionLimits(registry, sessions_all, limits, clock)
                upkeep = AvatarUpkeep(store, avatars_all, registry, settings.avatar_unused_s, clock)
                supervisor.watch_redis(redis, rights.GATEWAY)
                supervisor.check("avatar_store", store_probe.reason)
                supervisor.check("keypoint_encoder", flaw_of_encoder(bundled_path()))
                supervisor.keep("store probe", store_probe.probe, _STORE_PROBE_INTERVAL_S)
                supervisor.keep("motion", forwarder.flush)
                supervisor.keep("owners", uplinks_here.refresh_owners)
                supervisor.keep("keep alive", uplinks_here.keep_sessions_alive)
                supervisor.keep("session limits", session_limits.step, LIMITS_INTERVAL_S)
                _serve_rooms(app, supervisor, rooms_all, sessions_all, limits)
                supervisor.keep("avatar upkeep", upkeep.step, UPKEEP_INTERVAL_S)
                try:
                    yield
                finally:
                    await supervisor.aclose()
                    await app.state.uplinks.aclose()
                    await app.state.avatars.aclose()

    app = create_service("gateway", metrics, run)
    app.state.access = access
    modules = (avatar_routes, sessions, viewers, egress, uplinks, room_routes, room_hub, webhook_routes)
    for router in (module.router for module in modules):
        app.include_router(router)
    page.install(app, settings)
    _guard(app, settings)
    return app


def _serve_rooms(app: FastAPI, supervisor: Supervisor, rooms: Rooms, sessions_all: Sessions, limits: Limits) -> None:
    """The parts of rooms and webhooks, and their loops."""
    settings, metrics, registry = sessions_all.settings, sessions_all.metrics, sessions_all.registry
    webhooks = Webhooks(WebhookQueue(registry.redis), settings, metrics, sessions_all.clock)
    desk = RoomDesk(settings, rooms, sessions_all, webhooks, metrics, sessions_all.clock)
    hub = RoomHub(desk, registry, LiveRooms(registry.redis), app.state.access, limits.speaker_ttl_s)
    app.state.room_desk, app.state.room_hub, app.state.webhooks = desk, hub, webhooks
    supervisor.keep("room events", hub.step)
    supervisor.keep("room keep alive", hub.keep_alive)
    supervisor.keep("room limits", RoomUpkeep(desk, registry).step, ROOM_LIMITS_INTERVAL_S)
    supervisor.keep("webhooks", webhooks.step, WEBHOOKS_INTERVAL_S)


def _guard(app: FastAPI, settings: GatewaySettings) -> None:
    """What every request passes before it reaches a route, the last one first."""
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes, streaming=[avatar_routes.router.prefix])
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    if settings.demo_open:
        app.add_middleware(LoopbackOnly, origins=[*settings.cors_origins, page.origin(settings.public_url)])
    app.add_middleware(SecurityHeaders)


class StoreProbe:
    """Checks whether the avatar store answers, and stores the bundled avatars in it."""

    def __init__(self, store: AvatarStore) -> None:
        self._store = store
        self._reason: str | None = "the avatar store has not been checked yet"
        self._seeded = False

    def reason(self) -> str | None:
        """Why avatars cannot be read, None while they can be."""
        return self._reason

    async def probe(self) -> None:
        """One step of a loop: store the bundled avatar if this was not done yet, then read it."""
        try:
            if not self._seeded:
                await bundled.seed(self._store)
                self._seeded = True
            await self._store.record(bundled.BUNDLED_AVATAR_ID)
        except AvatarNotFound:
            self._reason = None  # the store answers; this checkout has no bundled avatar
        except AvatarStoreError as error:
            self._reason = str(error)
        else:
            self._reason = None


def flaw_of_encoder(path: Path) -> Reason:
    """A check of the encoder's file, without which uploads get no keypoints. The file is read here, only once."""
    flaw: str | None = None
    try:
        read_encoder(path)
    except EncoderFileError as error:
        flaw = str(error)
    return lambda: flaw
