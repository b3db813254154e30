"""What is in Redis during a call and after it: every key expires, and motion is gone seconds after a session's end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from itertools import count

import pytest
from e2e.system import System, watch_for
from integration.voice_peers import OpusTrack
from redis.asyncio import Redis

from mien_client.api import Invitation, MienClient
from mien_client.demo import BUNDLED_AVATAR, new_session
from mien_client.room import Room
from mien_client.viewer import Viewer
from mien_client.whip import WhipUplink
from mien_gateway.webhook_queue import Delivery, Webhook, WebhookQueue
from mien_gateway.webhook_sender import new_secret
from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.bus.egress import Egresses, EgressOrder, EgressState, Held
from mien_shared.bus.live_rooms import LiveChange, LiveRooms
from mien_shared.bus.messages import unpack_motion
from mien_shared.bus.viewers import Viewers

pytestmark = [pytest.mark.e2e, pytest.mark.long]

#: "A few seconds" of docs/security.md.
_MOTION_GONE_S = keys.MOTION_S + keys.INBOX_S


async def lives(redis: Redis) -> dict[str, float]:
    """Every key of the server, and how many seconds it will still live; infinite if it never expires."""
    names = [name async for name in redis.scan_iter("*", count=1000)]
    left_ms = {name.decode(): await redis.pttl(name) for name in names}
    return {name: ms / 1000 if ms >= 0 else float("inf") for name, ms in left_ms.items() if ms != -2}


def flaws(found: dict[str, float]) -> list[str]:
    """What contradicts the table of lives."""
    wrong = []
    for name, left_s in found.items():
        rows = [life for life in keys.LIVES if fnmatchcase(name, life.keys)]
        if len(rows) != 1:
            wrong.append(f"{name} has {len(rows)} rows in keys.LIVES")
        elif left_s > (rows[0].longest_s or 24 * 3600):
            wrong.append(f"{name} lives for another {left_s} s, not for {rows[0].longest_s} s at most")
    return wrong


async def motions(redis: Redis) -> list[str]:
    """The session of every motion packet in Redis."""
    inboxes = [name async for name in redis.scan_iter(keys.inbox("*"))]
    batches = [fields[b"b"] for name in inboxes for _, fields in await redis.xrange(name)]
    return [motion.session_id for batch in batches for motion in unpack_motion(batch)]


async def a_room(url: str) -> Invitation:
    """A room with a participant that may connect. Another room has ended, after a participant has left it."""
    async with MienClient(url) as mien:
        other = await mien.create_room("other")
        async with Room(*_connection(await mien.join_room(other.room_id, "guest"))) as guest:
            await guest.leave()
        return await mien.join_room((await mien.create_room("standup")).room_id, "ada")


def _connection(invitation: Invitation) -> tuple[str, str]:
    return invitation.events_url, invitation.token


async def a_webhook(redis: Redis) -> None:
    """A webhook with a delivery that waits: its receiver does not exist."""
    queue = WebhookQueue(redis)
    webhook = Webhook(webhook_id="w", url="https://receiver.invalid/", secret=new_secret(), created_at_ms=1)
    await queue.add(webhook, 10)
    await queue.put([Delivery(delivery_id="d", webhook_id="w", body="{}")])


async def an_egress(redis: Redis) -> None:
    """A publication to an SFU, as a signaling service with one writes it."""
    egresses, order = Egresses(redis), EgressOrder(wanted=True)
    await egresses.survey(wants_all=False)
    await egresses.order("published", order)
    await egresses.claim("published", "a service")
    held = Held(order, EgressState(state="connected", since_ms=1), "https://sfu.test/1")
    await egresses.renew("a service", {"published": held})


@asynccontextmanager
async def voice(system: System) -> AsyncIterator[str]:
    """A session whose speaker sends voice over WHIP; gives its id."""
    track = OpusTrack()

    async def speak() -> None:
        for number in count():
            track.put(bytes([number & 0xFF]) * 40, 960 * number)
            await asyncio.sleep(0.02)

    async with (
        MienClient(system.stack.url) as mien,
        new_session(mien, BUNDLED_AVATAR) as session,
        WhipUplink(session.whip_url, session.token, track),
    ):
        speaking = asyncio.create_task(speak())
        yield session.session_id
        speaking.cancel()


async def test_every_key_expires_and_an_ended_session_leaves_no_motion(system: System) -> None:
    seen: set[str] = set()
    async with open_redis(system.redis.url) as redis, system.call() as other:
        async with system.call() as call, voice(system) as voice_id:
            session_id = call.session.session_id
            await Viewers(redis).end(session_id, "a viewer that has left")
            await a_webhook(redis)
            await an_egress(redis)
            await LiveRooms(redis).write({"a room": LiveChange(speakers=[])})
            invitation = await a_room(system.stack.url)
            async with (
                Room(*_connection(invitation)),
                Viewer(call.session.whep_url, call.session.watch_token) as viewer,
            ):
                watching = asyncio.create_task(watch_for(viewer, 6.0))  # longer than a keep-alive
                while not watching.done():
                    found = await lives(redis)
                    seen |= found.keys()
                    assert flaws(found) == []
                    oldest = [await redis.xrange(name, count=1) for name in found if fnmatchcase(name, keys.inbox("*"))]
                    now_ms = int((await redis.time())[0]) * 1000
                    assert all(now_ms - int(entry[0][0].split(b"-")[0]) < 1000 * _MOTION_GONE_S for entry in oldest)
                    await asyncio.sleep(0.2)
                await watching
        ended_s = time.monotonic()  # the call's session was ended on leaving its context
        async with asyncio.timeout(_MOTION_GONE_S):
            while session_id in await motions(redis):
                await asyncio.sleep(0.1)
        assert other.session.session_id in await motions(redis), "the other speaker still speaks"
        ends = {keys.ended(session_id), keys.ended(voice_id)}
        async with asyncio.timeout(keys.VIDEO_S + 5):
            while left := {name for name in await lives(redis) if session_id in name or voice_id in name} - ends:
                await asyncio.sleep(0.1)
        assert not left, f"{time.monotonic() - ended_s:.1f} s after its end"
    patterns = {life.keys for life in keys.LIVES}
    unseen = {pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in seen)}
    rare = {keys.ended("*"), keys.suspect("*"), keys.room_ended("*")}
    assert unseen <= rare, "kinds that this call must have written"


async def test_a_generator_that_was_killed_leaves_nothing_behind(system: System) -> None:
    async with open_redis(system.redis.url) as redis, system.call():
        async with asyncio.timeout(20):
            while not await motions(redis):
                await asyncio.sleep(0.05)
        await system.stack.kill("generator")
        async with asyncio.timeout(keys.CONTROL_S + 10):
            while await redis.keys(keys.inbox("*")) or await redis.keys(keys.control("*")):
                await asyncio.sleep(0.2)
        assert await motions(redis) == []
