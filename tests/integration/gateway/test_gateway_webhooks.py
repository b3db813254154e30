"""Webhooks over real HTTP: a receiver that fails first, a signature that is right, and targets that are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from integration.gateway.room_calls import PATIENCE_S, events_of, joined, new_room, next_event
from outages import stopped

from mien_gateway.webhook_queue import Delivery, WebhookQueue
from mien_gateway.webhook_sender import BadWebhookUrl, new_secret, request_bytes, send, signature, target_of
from mien_shared.bus import keys
from mien_shared.bus.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.integration


@dataclass
class Receiver:
    """An HTTP server that answers as it is told, and keeps what it got."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[int], bytes] = lambda number: b"HTTP/1.1 204 No Content\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((headers, body))
        writer.write(self.answer(len(self.got)))
        writer.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    async def gets(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.got) < count:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?from=mien"
        yield receiver


async def subscribed(gateway: Any, url: str) -> dict[str, Any]:
    answer = await gateway.http.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_receiver_hears_of_a_whole_meeting_in_signed_requests(start_gateway: Any) -> None:
    gateways = [await start_gateway(webhook_private=True), await start_gateway(webhook_private=True)]
    async with receiving() as receiver:
        webhook = await subscribed(gateways[0], receiver.url)
        room_id = await new_room(gateways[1], name="standup", metadata="mine")
        ada = await joined(gateways[0], room_id, "ada", name="Ada")
        async with events_of(gateways[1], room_id, ada["token"]) as socket:
            await next_event(socket, "room")
            await receiver.gets(2)
            assert (await gateways[0].http.delete(f"/v1/rooms/{room_id}")).status_code == 204
            await receiver.gets(4)
        await asyncio.sleep(2.5)  # two steps of both gateways: nothing is sent twice
        told = {event["type"]: event["data"] for event in receiver.events}
        assert len(receiver.got) == 4
        assert set(told) == {"room_started", "participant_joined", "participant_left", "room_finished"}
        assert all(
            data["room"] == {"room_id": room_id, "name": "standup", "metadata": "mine"} for data in told.values()
        )
        person = {"participant_id": ada["participant_id"], "identity": "ada", "name": "Ada"}
        assert told["participant_joined"]["participant"] == told["participant_left"]["participant"] == person
        assert (told["participant_left"]["reason"], told["room_finished"]["reason"]) == ("room-ended", "ended")
        for headers, body in receiver.got:
            delivery_id, at_s = headers["webhook-id"], int(headers["webhook-timestamp"])
            assert headers["webhook-signature"] == signature(webhook["secret"], delivery_id, at_s, body)
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 4


FAILURES = {
    "500": b"HTTP/1.1 500 Oops\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/secret\r\n\r\n",
    "nothing": b"",
    "an endless header": b"x" * 100_000,
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_delivery_is_tried_again_with_the_same_id(start_gateway: Any, failure: str) -> None:
    gateway = await start_gateway(webhook_private=True)
    async with receiving() as receiver:
        receiver.answer = lambda number: FAILURES[failure] if number < 3 else b"HTTP/1.1 200 OK\r\n\r\n"
        await subscribed(gateway, receiver.url)
        await new_room(gateway)
        await receiver.gets(3)
        await gateway.reaches(1, "mien_webhooks_total", result="delivered")
        assert await gateway.metric("mien_webhooks_total", result="retried") == 2
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        assert len({body for _, body in receiver.got}) == 1


async def test_a_gateway_that_was_killed_with_a_delivery_loses_none(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway(webhook_private=True)
    async with receiving() as receiver:
        webhook = await subscribed(gateway, receiver.url)
        queue = WebhookQueue(redis)
        lost = Delivery(delivery_id="evt_x", webhook_id=webhook["webhook_id"], body="{}")
        await redis.hset(keys.WEBHOOKS_WAITING, "evt_x", lost.model_dump_json())
        await redis.zadd(keys.WEBHOOKS_DUE, {"evt_x": 1})  # another gateway's lease, which has ended
        await receiver.gets(1)
        assert receiver.got[0][0]["webhook-id"] == "evt_x"
        assert await queue.take() == []


async def test_rooms_do_not_wait_for_a_receiver_that_hangs(start_gateway: Any) -> None:
    gateway = await start_gateway(webhook_private=True)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        await subscribed(gateway, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(new_room(gateway) for _ in range(30)))
        await gateway.becomes_ready()


async def test_webhooks_are_listed_without_secrets_limited_and_deleted(start_gateway: Any, redis: Any) -> None:
    gateway = await start_gateway(webhook_private=True, max_webhooks=2)
    made = [await subscribed(gateway, f"http://127.0.0.1:9/{number}") for number in range(2)]
    full = await gateway.http.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
    assert (full.status_code, full.json()["type"]) == (409, "urn:mien:problem:webhook-limit")
    listed = (await gateway.http.get("/v1/webhooks")).json()["webhooks"]
    assert sorted(one["webhook_id"] for one in listed) == sorted(one["webhook_id"] for one in made)
    assert all(set(one) == {"webhook_id", "url", "created_at_ms"} for one in listed)
    path = f"/v1/webhooks/{made[0]['webhook_id']}"
    assert [(await gateway.http.delete(path)).status_code for _ in range(2)] == [204, 404]
    await subscribed(gateway, "http://127.0.0.1:9/")
    assert 0 < await redis.ttl(keys.WEBHOOKS) <= keys.WEBHOOKS_S


async def test_redis_comes_back_empty_and_the_webhooks_are_still_known(
    start_gateway: Any, redis_server: EmbeddedRedis
) -> None:
    gateway = await start_gateway(webhook_private=True)
    async with receiving() as receiver:
        kept, deleted = await subscribed(gateway, receiver.url), await subscribed(gateway, receiver.url)
        await gateway.http.delete(f"/v1/webhooks/{deleted['webhook_id']}")
        assert len((await gateway.http.get("/v1/webhooks")).json()["webhooks"]) == 1
        async with stopped(redis_server):
            pass
        await gateway.becomes_ready()
        listed = (await gateway.http.get("/v1/webhooks")).json()["webhooks"]
        assert [one["webhook_id"] for one in listed] == [kept["webhook_id"]]
        await gateway.http.delete(f"/v1/webhooks/{kept['webhook_id']}")
        assert (await gateway.http.get("/v1/webhooks")).json() == {"webhooks": []}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "http://93.184.216.34/",
        "https://does-not-exist.invalid/",
        "gopher://93.184.216.34/",
    ],
)
async def test_targets_inside_the_network_are_refused(start_gateway: Any, url: str) -> None:
    gateway = await start_gateway()
    answer = await gateway.http.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:mien:problem:webhook-refused")


async def test_a_target_is_checked_again_when_it_is_sent_to() -> None:
    """A name that was public when it was registered may mean loopback now."""
    async with receiving() as receiver:
        target = target_of(receiver.url, private_allowed=True)
        request = request_bytes(target, new_secret(), "evt_1", 1, b"{}")
        with pytest.raises(BadWebhookUrl, match="loopback"):
            await send(target, request, private_allowed=False)
        assert receiver.got == []
        await send(target, request, private_allowed=True)
        assert len(receiver.got) == 1
