"""WHEP over real HTTP: every answer it can give, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest
from aioice import stun
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from fastapi import FastAPI
from integration.media_ports import free_port

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.clock import SystemClock
from mien_shared.http.principal import Grant
from mien_shared.http.problems import Code, Problem
from mien_shared.http.tokens import LEEWAY_S, TokenIssuer
from mien_shared.http.turn import turn_credentials
from mien_shared.settings import IceServer
from mien_signaling.app import create_app
from mien_signaling.audience import Audience
from mien_signaling.broadcasts import Broadcasts
from mien_signaling.ice import end_consent_checks_with
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.offer import parse_offer
from mien_signaling.peer_session import ClosedWhileAnswering
from mien_signaling.sdp_http import joining_problems
from mien_signaling.seats import Seats
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of thirty-two bytes or more"
SDP, FRAGMENT = {"Content-Type": "application/sdp"}, {"Content-Type": "application/trickle-ice-sdpfrag"}
PAGE = "http://page.example"

RunApp = Callable[[FastAPI], Awaitable[str]]
Start = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def registry(redis_server: EmbeddedRedis) -> AsyncIterator[Registry]:
    """Knows a session that is live, and one that nobody publishes."""
    redis = open_redis(redis_server.url)
    registry = Registry(redis)
    for session_id in ("live", "silent"):
        await registry.keep_alive(SessionRecord(session_id=session_id, avatar_id="nobody", created_at_ms=0))
    await registry.hold("generator", "live", ttl_ms=60_000)
    yield registry
    await redis.aclose()


@pytest.fixture
async def start(redis_server: EmbeddedRedis, registry: Registry, run_app: RunApp) -> AsyncIterator[Start]:
    """Start signaling with these settings changed; gives a client whose requests bear a good token."""
    clients = []

    async def start(**changes: object) -> httpx.AsyncClient:
        values: dict[str, object] = {"redis_url": redis_server.url, "token_secret": SECRET, "linger_s": 0.1, **changes}
        url = await run_app(create_app(SignalingSettings(**values)))  # type: ignore[arg-type]
        client = httpx.AsyncClient(base_url=url, headers=bearer("live"), timeout=15)
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.aclose()


def bearer(
    session_id: str, grants: frozenset[Grant] = frozenset({Grant.WATCH}), lifetime_s: int = 60
) -> dict[str, str]:
    return {"Authorization": f"Bearer {TokenIssuer(SECRET).issue(session_id, grants, lifetime_s)}"}


@pytest.fixture
async def peer() -> AsyncIterator[RTCPeerConnection]:
    """A viewer with its offer made."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    yield peer
    await peer.close()


@pytest.fixture
def offer(peer: RTCPeerConnection) -> str:
    return str(peer.localDescription.sdp)


def without(text: str, *parts: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not any(part in line for part in parts))


async def metric(client: httpx.AsyncClient, line: str) -> float:
    rows = (await client.get("/metrics")).text.splitlines()
    return next((float(row.rpartition(" ")[2]) for row in rows if row.startswith(line + " ")), 0.0)


async def until_metric(client: httpx.AsyncClient, line: str, value: float) -> None:
    async with asyncio.timeout(60):
        while await metric(client, line) != value:
            await asyncio.sleep(0.05)


async def test_an_offer_is_answered_with_h264_and_all_candidates(
    start: Start, peer: RTCPeerConnection, offer: str
) -> None:
    client = await start()
    answer = await client.post(
        "/v1/whep/live", content=offer, headers={"Content-Type": "application/sdp; charset=utf-8"}
    )
    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("application/sdp")
    prefix, _, viewer_id = answer.headers["location"].rpartition("/")
    assert prefix == "/v1/whep/live"
    assert len(viewer_id) >= 32
    assert answer.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
    assert "etag" not in answer.headers
    assert "link" not in answer.headers
    assert "a=candidate:" in answer.text and "a=end-of-candidates" in answer.text
    video = answer.text[answer.text.index("m=video") :]
    assert "H264/90000" in video and "VP8" not in video and "a=sendonly" in video
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    async with asyncio.timeout(10):
        while peer.connectionState != "connected":
            await asyncio.sleep(0.01)
    assert await metric(client, 'mien_viewers{state="connected"}') == 1
    assert await metric(client, "mien_join_seconds_count") == 1


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    spoil: Callable[[str], str]


REFUSALS = {
    "empty": Refusal(400, "unreadable-offer", lambda _: ""),
    "not SDP": Refusal(400, "unreadable-offer", lambda _: "hello"),
    "JSON": Refusal(400, "unreadable-offer", lambda _: '{"sdp": "v=0"}'),
    "broken candidate": Refusal(400, "unreadable-offer", lambda sdp: sdp + "a=candidate:nonsense\r\n"),
    "broken media line": Refusal(400, "unreadable-offer", lambda sdp: sdp.replace("m=video ", "m=video x")),
    "no media": Refusal(422, "unacceptable-offer", lambda sdp: sdp[: sdp.index("m=")]),
    "no video": Refusal(422, "unacceptable-offer", lambda sdp: sdp[: sdp.index("m=video")]),
    "no H264": Refusal(422, "unacceptable-offer", lambda sdp: sdp.replace("H264/", "H265/")),
    "H264 of another mode": Refusal(
        422, "unacceptable-offer", lambda sdp: sdp.replace("packetization-mode=1", "packetization-mode=0")
    ),
    "sends only": Refusal(422, "unacceptable-offer", lambda sdp: sdp.replace("a=recvonly", "a=sendonly")),
    "no ufrag": Refusal(422, "unacceptable-offer", lambda sdp: without(sdp, "a=ice-ufrag")),
    "no fingerprint": Refusal(422, "unacceptable-offer", lambda sdp: without(sdp, "a=fingerprint")),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_an_offer_is_refused(start: Start, offer: str, name: str) -> None:
    client = await start()
    refusal = REFUSALS[name]
    answer = await client.post("/v1/whep/live", content=refusal.spoil(offer), headers=SDP)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["type"]) == (refusal.status, f"urn:mien:problem:{refusal.code}")
    assert await metric(client, 'mien_viewers{state="connecting"}') == 0


async def test_what_stands_before_an_offer(start: Start, offer: str) -> None:
    client = await start(max_body_bytes=4096 * 4)
    cases = [
        ("live", {**SDP, "Content-Type": "application/json"}, offer, 415),
        ("live", {}, offer, 415),
        ("live", SDP, "v=0\r\n" + "a=x\r\n" * 8000, 413),
        ("live", {**SDP, "Authorization": ""}, offer, 401),
        ("live", {**SDP, "Authorization": "Bearer forged"}, offer, 401),
        ("live", {**SDP, **bearer("live", lifetime_s=-3600)}, offer, 401),
        ("live", {**SDP, **bearer("another")}, offer, 403),
        ("live", {**SDP, **bearer("live", frozenset({Grant.PUBLISH}))}, offer, 403),
        ("nowhere", {**SDP, **bearer("nowhere")}, offer, 404),
        ("silent", {**SDP, **bearer("silent")}, offer, 409),
    ]
    for session_id, headers, body, status in cases:
        answer = await client.post(f"/v1/whep/{session_id}", content=body.encode(), headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), headers
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert ("retry-after" in answer.headers) == (status == 409)
        if status == 415:
            assert answer.headers["accept-post"] == "application/sdp"
    assert await metric(client, 'mien_whep_requests_total{method="POST",status="404"}') == 1


async def test_bytes_that_are_no_text(start: Start) -> None:
    answer = await (await start()).post("/v1/whep/live", content=b"v=0\xff", headers=SDP)
    assert answer.status_code == 400


async def test_full_here_and_full_in_a_session(start: Start, offer: str) -> None:
    for limit in ({"max_viewers": 1}, {"max_viewers_per_session": 1}):
        client = await start(**limit)
        assert (await client.post("/v1/whep/live", content=offer, headers=SDP)).status_code == 201
        answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_full_for_a_token(start: Start, offer: str) -> None:
    client = await start(max_viewers_per_token=1)
    first = await client.post("/v1/whep/live", content=offer, headers=SDP)
    assert first.status_code == 201
    answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
    assert (answer.status_code, answer.json()["detail"]) == (503, "this token has as many viewers as allowed")
    assert int(answer.headers["retry-after"]) > 0
    other = {**SDP, **bearer("live", frozenset({Grant.WATCH, Grant.END}))}
    assert (await client.post("/v1/whep/live", content=offer, headers=other)).status_code == 201
    assert (await client.delete(first.headers["location"])).status_code == 200
    assert (await client.post("/v1/whep/live", content=offer, headers=SDP)).status_code == 201


async def test_a_viewer_is_closed_when_its_token_expires(
    redis_server: EmbeddedRedis, registry: Registry, run_app: RunApp, peer: RTCPeerConnection, offer: str
) -> None:
    clock = ShiftedClock()
    settings = SignalingSettings(redis_url=redis_server.url, token_secret=SECRET, linger_s=0.1)
    url = await run_app(create_app(settings, clock))
    async with httpx.AsyncClient(base_url=url, headers=bearer("live", lifetime_s=60), timeout=15) as client:
        answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
        lasting = bearer("live", lifetime_s=3600)
        assert (await client.post("/v1/whep/live", content=offer, headers={**SDP, **lasting})).status_code == 201
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await until_metric(client, 'mien_viewers{state="connected"}', 1)
        clock.ahead_s = 60 + LEEWAY_S - 10
        await asyncio.sleep(1.5)  # longer than the check's interval
        assert await metric(client, 'mien_viewers{state="connected"}') == 1
        clock.ahead_s = 60 + LEEWAY_S + 10
        await until_metric(client, 'mien_viewers_gone_total{reason="expired"}', 1)
        assert await metric(client, 'mien_viewers{state="connecting"}') == 1  # the other token is good
    async with asyncio.timeout(20):
        while peer.connectionState != "closed":
            await asyncio.sleep(0.05)


class ShiftedClock(SystemClock):
    """The machine's clock, set forward."""

    ahead_s = 0.0

    def unix_s(self) -> float:
        return super().unix_s() + self.ahead_s


async def test_redis_away(start: Start, redis_server: EmbeddedRedis, offer: str) -> None:
    client = await start()
    redis_server.stop()
    answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:mien:problem:redis-unavailable"
    assert int(answer.headers["retry-after"]) > 0


async def test_redis_away_at_the_start(redis_server: EmbeddedRedis, start: Start) -> None:
    redis_server.stop()
    client = await start()
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    redis_server.start()
    async with asyncio.timeout(10):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_too_many_requests(start: Start, offer: str) -> None:
    client = await start(joins_per_minute=8, updates_per_minute=4)
    for method, path, burst in (
        ("POST", "/v1/whep/live", 2),
        ("PATCH", "/v1/whep/live/x", 1),
        ("DELETE", "/v1/whep/live/x", 1),
    ):
        for _ in range(burst):
            assert (await client.request(method, path)).status_code != 429
        answer = await client.request(method, path)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0


async def test_trickle(start: Start, peer: RTCPeerConnection, offer: str) -> None:
    client = await start()
    # An offer without candidates: the connection comes about through what is trickled.
    bare = without(offer, "a=candidate", "a=end-of-candidates")
    answer = await client.post("/v1/whep/live", content=bare, headers=SDP)
    url = answer.headers["location"]
    media = offer[offer.index("m=") :].splitlines()
    fragment = "\r\n".join(
        line for line in media[: media.index(next(line for line in media[1:] if line.startswith("m=")))]
        if line.startswith(("m=", "a=mid", "a=ice-", "a=candidate", "a=end-of-candidates"))
    )  # fmt: skip
    ufrag = next(line for line in media if line.startswith("a=ice-ufrag"))
    cases: list[tuple[str, dict[str, str], int]] = [
        (fragment, SDP, 415),
        ("nonsense", FRAGMENT, 400),
        ("a=mid:0\r\n", FRAGMENT, 400),
        (fragment + "\r\na=candidate:what\r\n", FRAGMENT, 400),
        (fragment, {**FRAGMENT, "If-Match": '"an-etag"'}, 412),
        (fragment.replace(ufrag, "a=ice-ufrag:other"), {**FRAGMENT, "If-Match": "*"}, 422),
        (fragment, {**FRAGMENT, **bearer("another")}, 403),
        (fragment, {**FRAGMENT, "If-Match": "*"}, 204),
        (fragment, FRAGMENT, 204),
    ]
    for body, headers, status in cases:
        patched = await client.patch(url, content=body, headers=headers)
        assert patched.status_code == status, body
        if status != 204:
            assert patched.headers["content-type"] == "application/problem+json"
        assert "etag" not in patched.headers
    assert (await client.patch("/v1/whep/live/unknown", content=fragment, headers=FRAGMENT)).status_code == 404
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    await until_metric(client, 'mien_viewers{state="connected"}', 1)


async def test_delete(start: Start, offer: str) -> None:
    client = await start()
    url = (await client.post("/v1/whep/live", content=offer, headers=SDP)).headers["location"]
    assert (await client.delete(url.replace("live", "silent"), headers=bearer("silent"))).status_code == 404
    assert (await client.delete(url, headers={"Authorization": ""})).status_code == 401
    assert (await client.delete(url)).status_code == 200
    assert (await client.delete(url)).status_code == 404
    await until_metric(client, "mien_watched_sessions", 0)


async def test_the_other_methods(start: Start) -> None:
    client = await start()
    for path, accept, allow in (
        ("/v1/whep/live", "accept-post", "POST, OPTIONS, HEAD"),
        ("/v1/whep/live/viewer", "accept-patch", "PATCH, DELETE, OPTIONS, HEAD"),
    ):
        options = await client.options(path)
        assert options.status_code in {200, 204}
        assert accept in options.headers
        assert (await client.head(path)).status_code == 200
        for method in ("GET", "PUT"):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allow)
            assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/whep/live", "/v1/whip/live"])
async def test_cors(start: Start, path: str) -> None:
    turn = IceServer(urls=["turn:turn.example:3478"], username='a"b', credential="c")
    client = await start(cors_origins=[PAGE], ice_servers=[turn])
    preflight_of = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH"}
    preflight = await client.options(path, headers=preflight_of)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert preflight.headers["access-control-allow-methods"] == "POST, PATCH, DELETE, OPTIONS"
    assert preflight.headers["access-control-allow-headers"] == "Authorization, Content-Type, If-Match"
    assert preflight.headers["accept-post"] == "application/sdp"
    assert "link" not in preflight.headers
    stranger = await client.options(path, headers={**preflight_of, "Origin": "http://evil.example"})
    assert not [name for name in stranger.headers if name.startswith("access-control")]
    refused = await client.post(path, content="x", headers={**SDP, "Origin": PAGE})
    assert refused.status_code == (400 if "whep" in path else 403)
    assert refused.headers["access-control-allow-origin"] == PAGE
    exposed = refused.headers["access-control-expose-headers"].split(", ")
    assert set(exposed) == {"Location", "ETag", "Link", "Accept-Patch", "Retry-After"}
    assert "origin" in refused.headers["vary"].lower()


class StunServer(asyncio.DatagramProtocol):
    """Tells a client which address it comes from (RFC 8489), once `may_answer` is set."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = True

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.set()
        if not self.may_answer:
            return
        asked = stun.parse_message(data)
        answer = stun.Message(asked.message_method, stun.Class.RESPONSE, asked.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        self.transport.sendto(bytes(answer), addr)


async def test_ice_servers_are_told_in_links(start: Start, offer: str) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
    url = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    client = await start(ice_servers=[IceServer(urls=[url])])
    answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
    assert answer.headers.get_list("link") == [f'<{url}>; rel="ice-server"']
    transport.close()


async def test_turn_is_told_with_credentials_of_its_own(start: Start, offer: str) -> None:
    client = await start(turn_urls=["turn:127.0.0.1:9"], turn_secret=SECRET)
    answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
    (link,) = answer.headers.get_list("link")
    told = re.fullmatch(
        r'<turn:127\.0\.0\.1:9>; rel="ice-server"; username="(\d+):([\w-]+)"; credential="(.+?)"; .*', link
    )
    assert told is not None
    assert turn_credentials(SECRET, told[2], int(told[1])).credential == told[3]
    # TURN is for viewers: we ask for no relay ourselves.
    assert " typ relay" not in answer.text


async def test_the_public_address_alone_is_announced(start: Start, offer: str) -> None:
    client = await start(public_ip="203.0.113.9")
    answer = await client.post("/v1/whep/live", content=offer, headers=SDP)
    candidates = [line.split(" ") for line in answer.text.splitlines() if line.startswith("a=candidate:")]
    assert candidates
    assert {fields[4] for fields in candidates} == {"203.0.113.9"}


async def test_a_viewer_that_never_connects_is_freed(start: Start, offer: str) -> None:
    client = await start(connect_timeout_s=0.3)
    assert (await client.post("/v1/whep/live", content=offer, headers=SDP)).status_code == 201
    await until_metric(client, 'mien_viewers_gone_total{reason="timed_out"}', 1)
    await until_metric(client, "mien_watched_sessions", 0)
    assert await metric(client, 'mien_viewers{state="connecting"}') == 0


async def test_the_time_to_connect_begins_with_the_answer(start: Start, peer: RTCPeerConnection, offer: str) -> None:
    """On a slow machine an answer takes longer than the time to connect. It must not be cut off."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        StunServer, local_addr=("127.0.0.1", 0)
    )
    server.may_answer = False
    url = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    client = await start(ice_servers=[IceServer(urls=[url])], connect_timeout_s=0.2)
    joining = asyncio.create_task(client.post("/v1/whep/live", content=offer, headers=SDP))
    await server.asked.wait()
    await asyncio.sleep(0.5)  # longer than the time to connect; the STUN client asks again and again
    assert not joining.done()
    assert await metric(client, 'mien_viewers_gone_total{reason="timed_out"}') == 0
    server.may_answer = True
    assert (await joining).status_code == 201
    await until_metric(client, 'mien_viewers_gone_total{reason="timed_out"}', 1)
    transport.close()


async def test_a_viewer_that_is_removed_while_it_is_answered(
    redis_server: EmbeddedRedis, registry: Registry, offer: str
) -> None:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        StunServer, local_addr=("127.0.0.1", 0)
    )
    server.may_answer = False
    url = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    settings = SignalingSettings(token_secret=SECRET, ice_servers=[IceServer(urls=[url])])
    async with open_redis(redis_server.url) as redis:
        clock, metrics = SystemClock(), SignalingMetrics()
        broadcasts = Broadcasts(redis, settings, clock, metrics)
        audience = Audience(redis, broadcasts, Seats(9), settings, clock, metrics)
        joining = asyncio.create_task(audience.join("live", parse_offer(offer)))
        await server.asked.wait()
        closing = asyncio.create_task(audience.aclose())
        server.may_answer = True
        with pytest.raises(ClosedWhileAnswering):
            await joining
        await closing
    transport.close()
    with pytest.raises(Problem) as caught, joining_problems():
        raise ClosedWhileAnswering
    assert (caught.value.status, caught.value.code) == (503, Code.VIEWER_CLOSED)
    assert int(caught.value.headers["Retry-After"]) > 0


async def test_demo_open_needs_no_token(start: Start, offer: str) -> None:
    client = await start(demo_open=True)
    answer = await client.post("/v1/whep/live", content=offer, headers={**SDP, "Authorization": ""})
    assert answer.status_code == 201


@pytest.mark.parametrize("has_media_port", [False, True])
async def test_a_hundred_connects_and_aborts_leave_nothing_behind(start: Start, has_media_port: bool) -> None:
    media_port = free_port() if has_media_port else None
    client = await start(joins_per_minute=6000, updates_per_minute=6000, connect_timeout_s=5, media_port=media_port)
    await client.get("/livez")

    async def cycle(abort: str) -> None:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        answer = await client.post("/v1/whep/live", content=peer.localDescription.sdp, headers=SDP)
        if abort != "silence":
            end_consent_checks_with(peer)  # the viewers' ends live in this process too
            await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        if abort == "delete":
            assert (await client.delete(answer.headers["location"])).status_code == 200
        elif abort == "hang up":
            async with asyncio.timeout(60):
                while peer.connectionState != "connected":
                    await asyncio.sleep(0.005)
        await peer.close()

    await cycle("delete")  # whatever is made once is made now
    await until_metric(client, "mien_watched_sessions", 0)
    tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    for number in range(100):
        await cycle(("delete", "hang up", "silence")[number % 3])
    await until_metric(client, "mien_watched_sessions", 0)
    for state in ("connecting", "connected"):
        assert await metric(client, f'mien_viewers{{state="{state}"}}') == 0
    gc.collect()
    # Connections to Redis may have been added to the pool, and keep-alives to HTTP: a few, not one for each cycle.
    assert len(asyncio.all_tasks()) <= tasks + 5
    assert len(os.listdir("/proc/self/fd")) <= files + 10
    gone = {"ViewerConnection", "Broadcast", "_UdpAgent", "_TcpAgent"}
    alive = [thing for thing in gc.get_objects() if type(thing).__name__ in gone]
    assert alive == []
