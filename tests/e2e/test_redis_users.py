"""Whole services as the users of deploy/redis/users: their rights suffice, and one that is missing is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from e2e.system import watch_for
from integration.voice_peers import Listener, OpusTrack, until
from limited_redis import LimitedRedis, limited_redis
from redis.asyncio import Redis

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR, new_session, speaking_session
from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK, play
from mien_client.viewer import Viewer
from mien_client.whip import WhipUplink
from mien_shared.bus.connection import open_redis
from mien_shared.wire.track import MotionTrack

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.fixture
def server() -> Iterator[LimitedRedis]:
    with limited_redis() as found:
        yield found


@asynccontextmanager
async def services(server: LimitedRedis, generators: int = 1) -> AsyncIterator[Stack]:
    """The services, each as its user of Redis."""
    names = ["gateway", "signaling", "generator", *(f"generator-{number}" for number in range(2, generators + 1))]
    options = StackOptions(
        gateway_port=0,
        signaling_port=0,
        redis_url=server.url("gateway"),
        generators=generators,
        generator_env={"MIEN_CAPACITY": "4", "MIEN_FACE_BACKEND": "warp", "MIEN_DRAIN_S": "20"},
        env_of={name: {"REDIS_URL": server.url(name.partition("-")[0])} for name in names},
    )
    async with Stack(options) as stack:
        yield stack


async def refusals(admin: Redis) -> list[str]:
    """What the server refused: the user, the reason (command or key), and the command or key."""
    answers = await admin.execute_command("ACL", "LOG")
    found = []
    for answer in answers:
        entry = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
        text = {str(_text(name)): str(_text(value)) for name, value in entry.items()}
        found.append(f"{text['username']}: {text['reason']} {text['object']}")
    return found


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


async def test_a_voice_needs_no_right_that_the_users_lack(server: LimitedRedis) -> None:
    async with open_redis(server.url("admin")) as admin, services(server) as stack:
        async with MienClient(stack.url) as mien, new_session(mien, BUNDLED_AVATAR) as session:
            track = OpusTrack()
            origin = session.whep_url.partition("/v1/")[0]
            async with (
                WhipUplink(session.whip_url, session.token, track) as uplink,
                httpx.AsyncClient(base_url=origin, timeout=15, trust_env=False) as client,
            ):
                speaker = asyncio.create_task(play(MotionTrack.load(DEMO_TRACK), uplink))
                listener = Listener(client, session.session_id)
                await listener.join()
                for number in range(350):  # long enough for every keep-alive
                    track.put(bytes([number & 0xFF]) * 40, 960 * number)
                    await asyncio.sleep(0.02)
                await listener.hear(300)
                # The motion of the data channel reaches the generator: the picture's reports name a recording.
                await until(lambda: bool(listener.picture.reports) and bool(listener.voice.reports))
                await listener.close()
                assert not speaker.done()
                speaker.cancel()
                await asyncio.gather(speaker, return_exceptions=True)
        assert await refusals(admin) == []


async def test_a_call_needs_no_right_that_the_users_lack(server: LimitedRedis) -> None:
    async with open_redis(server.url("admin")) as admin, services(server, generators=2) as stack:
        async with (
            MienClient(stack.url) as mien,
            speaking_session(mien, BUNDLED_AVATAR) as (session, uplink),
        ):
            speaker = asyncio.create_task(play(MotionTrack.load(DEMO_TRACK), uplink))
            async with Viewer(session.whep_url, session.watch_token) as viewer:
                assert await watch_for(viewer, 1.0)
                held = {name: await _sessions(stack, name) for name in ("generator", "generator-2")}
                (holder,) = (name for name, sessions in held.items() if sessions)
                await stack.kill(holder, signal.SIGTERM)  # it hands its session to the other one
                assert await watch_for(viewer, 6.0), "long enough for every keep-alive"
            assert (await mien.session(session.session_id)).state == "live"
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)
        assert await refusals(admin) == []


async def _sessions(stack: Stack, name: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{stack.service_url(name)}/metrics")).text
    values = [line.split()[1] for line in text.splitlines() if line.startswith("mien_generator_sessions ")]
    return int(float(values[0]))


@pytest.mark.parametrize(
    ("service", "taken"), [("gateway", "evalsha"), ("generator", "xread"), ("signaling", "xrevrange")]
)
async def test_a_service_whose_user_lost_a_right_is_unready_and_names_the_command(
    server: LimitedRedis, service: str, taken: str
) -> None:
    async with (
        open_redis(server.url("admin")) as admin,
        services(server) as stack,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        await _take_right(admin, service, taken)
        async with asyncio.timeout(10):
            while (answer := await http.get(f"{stack.service_url(service)}/readyz")).status_code != 503:
                await asyncio.sleep(0.05)
        assert answer.json()["reasons"] == {"redis_rights": f"Redis refuses {taken.upper()}; the log has its answer"}
        async with asyncio.timeout(10):
            while "NOPERM" not in stack.log_tail(service) or taken.upper() not in stack.log_tail(service):
                await asyncio.sleep(0.05)
        assert (await http.get(f"{stack.service_url(service)}/livez")).status_code == 200, "a restart does not help"

        await admin.execute_command("ACL", "LOAD")
        async with asyncio.timeout(10):
            while (await http.get(f"{stack.service_url(service)}/readyz")).status_code != 200:
                await asyncio.sleep(0.05)


async def _take_right(admin: Redis, user: str, command: str) -> None:
    """Give the user its rights again without one command."""
    line = next(line for line in await admin.execute_command("ACL", "LIST") if f"user {user} ".encode() in line)
    # Selectors are one rule each: "(... )".
    rules, _, selectors = line.decode().partition(" (")
    kept = [part.strip().rstrip(")") for part in selectors.split("(")]
    without = [" ".join(word for word in part.split() if word != f"+{command}") for part in kept]
    await admin.execute_command("ACL", "SETUSER", user, "reset", *rules.split()[2:], *(f"({part})" for part in without))
