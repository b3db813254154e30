"""The users that deploy/prepare makes, on a real server: each service can do its work and not the work of another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from limited_redis import LimitedRedis, limited_redis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from mien_gateway.webhook_queue import Delivery, Webhook, WebhookQueue
from mien_shared.bus import keys, rights
from mien_shared.bus.channels import GeneratorInbox, MotionForwarder, send_control
from mien_shared.bus.connection import open_redis
from mien_shared.bus.egress import Egresses, EgressOrder, EgressState, Held
from mien_shared.bus.egress import Renewal as EgressRenewal
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.live_rooms import ActiveSpeaker, LiveChange, LiveRooms, SlotsState
from mien_shared.bus.messages import GeneratorStatus, InboundMotion, SessionRecord, StopSession, ViewerState
from mien_shared.bus.probe import RedisProbe
from mien_shared.bus.registry import Registry, Renewal
from mien_shared.bus.rights import Rights
from mien_shared.bus.room_messages import EventType, ParticipantRecord, ParticipantState, RoomEvent, RoomRecord
from mien_shared.bus.rooms import Commit, Connected, Kept, Rooms
from mien_shared.bus.viewers import Viewers
from mien_shared.clock import SystemClock
from mien_shared.metrics import ServiceMetrics

SESSION = SessionRecord(session_id="s1", avatar_id="a1", created_at_ms=1)
STATUS = GeneratorStatus(generator_id="g1", capacity=4, sessions=0, backend="warp")
USERS = ("gateway", "generator", "signaling", "operator")


@pytest.fixture(scope="module")
def server() -> Iterator[LimitedRedis]:
    with limited_redis() as found:
        yield found


@pytest_asyncio.fixture
async def clients(server: LimitedRedis) -> AsyncIterator[dict[str, Redis]]:
    opened = {user: open_redis(server.url(user)) for user in (*USERS, "admin")}
    await opened["admin"].flushall()
    yield opened
    for client in opened.values():
        await client.aclose()


def probe_of(client: Redis, needed: Rights) -> RedisProbe:
    return RedisProbe(client, needed, SystemClock(), ServiceMetrics("trial"))


async def test_a_session_is_placed_held_and_ended_by_the_users_of_its_services(clients: dict[str, Redis]) -> None:
    gateway, generator, signaling = (Registry(clients[user]) for user in ("gateway", "generator", "signaling"))
    await generator.heartbeat(STATUS)
    assert await gateway.generators() == [STATUS]
    assert await gateway.keep_alive(SESSION)
    assert await gateway.reserve("g1", "s1", 4)
    assert await gateway.hold("g1", "s1")
    assert await generator.heartbeat(STATUS, ["s1"]) == {"s1": Renewal.HELD}
    assert await signaling.keep_alive(SESSION)
    assert await signaling.owner("s1") == "g1"
    await send_control(clients["signaling"], "g1", StopSession(session_id="s1"))
    forwarder = MotionForwarder(clients["gateway"], lambda reason, count: None)
    motion = InboundMotion("s1", b"packet", 1)
    forwarder.push("g1", motion)
    await forwarder.flush()
    inbox = GeneratorInbox(clients["generator"], "g1")
    assert sorted(map(str, await inbox.read())) == sorted(map(str, [motion, StopSession(session_id="s1")]))
    viewers = Viewers(clients["gateway"])
    await viewers.end("s1", "v1")
    viewer = ViewerState(viewer_id="v1", state="connected", joined_at_ms=1, sent_bps=1, target_bps=1)
    ends = await Viewers(clients["signaling"]).exchange("signaling", {"s1": [viewer]}, ["s1"])
    assert ends == {"s1": frozenset({"v1"})}
    assert (await viewers.of_session("s1"), await viewers.count("s1")) == ([viewer], 1)
    await gateway.end_session("s1")
    assert not await signaling.keep_alive(SESSION)


async def test_a_room_lives_and_ends_by_the_users_of_its_services(clients: dict[str, Redis]) -> None:
    rooms = Rooms(clients["gateway"])
    record = RoomRecord(
        room_id="r1", name="n", owner="x", created_at_ms=1, max_participants=9, empty_timeout_s=9, life_s=60
    )
    ada = ParticipantRecord(
        participant_id="p1",
        identity="ada",
        name="Ada",
        grants=frozenset(),
        state=ParticipantState.ACTIVE,
        joined_at_ms=1,
    )
    event = RoomEvent(type=EventType.PARTICIPANT_JOINED, participant=ada)
    assert await rooms.commit("r1", "", Commit(60, record, [ada], (), [event], {"p1": "c1"}, None))
    assert await rooms.claim_name(record) == await rooms.named("n") == "r1"
    sequence = await rooms.say(record, RoomEvent(type=EventType.MESSAGE, participant_id="p1", text="hello"))
    slots = SlotsState(viewer_id="v", slots=())
    live = LiveRooms(clients["signaling"])
    assert await live.write({"r1": LiveChange([ActiveSpeaker(participant_id="p1", level=1.0)], {"p1": slots})})
    assert await live.write({"r1": LiveChange(kept={"p1": slots}, dropped=[("p1", "v")])})
    newest = (await rooms.newest(["r1"]))["r1"]
    assert newest.sequence == sequence and newest.live_version
    assert (await LiveRooms(clients["gateway"]).read(["r1"]))["r1"].speakers[0].participant_id == "p1"
    assert len((await rooms.events_after({"r1": 0}))["r1"]) == 2
    connected = Connected(record, ada, "c1", (await rooms.read("r1")).now_ms)
    assert [one.kept for one in await rooms.keep([connected])] == [Kept.KEPT]
    await clients["admin"].delete(keys.room("r1"), keys.room_participants("r1"), keys.room_presence("r1"))
    assert [one.kept for one in await rooms.keep([connected])] == [Kept.RESTORED]
    await rooms.disconnect("r1", "p1", "c1")
    assert await rooms.listed() == ["r1"]
    await rooms.list_again(["r1"], ["another"])
    signaling = Rooms(clients["signaling"])
    assert await signaling.participant("r1", "p1") == ada
    assert (await signaling.people(["r1"]))["r1"] == {"p1": ada}
    assert not (await signaling.marks(["r1"]))["r1"].has_ended
    version = (await rooms.read("r1")).version
    bye = RoomEvent(type=EventType.BYE)
    assert await rooms.commit("r1", version, Commit(60, None, (), ["p1"], [bye], {}, "ended"))
    await rooms.free_name(record)
    assert await signaling.has_left([("r1", "p1"), ("r2", "p1")]) == [True, False]
    assert (await rooms.read("r1")).end_reason == "ended"
    assert [one.kept for one in await rooms.keep([connected])] == [Kept.ENDED]


async def test_an_egress_is_ordered_published_and_ended_by_the_users_of_its_services(clients: dict[str, Redis]) -> None:
    gateway, signaling = Egresses(clients["gateway"]), Egresses(clients["signaling"])
    await Registry(clients["gateway"]).keep_alive(SESSION)
    await signaling.survey(wants_all=True)
    assert await gateway.has_sfu()
    order, state = EgressOrder(wanted=True), EgressState(state="connected", since_ms=1)
    await gateway.order("s1", order)
    survey = await signaling.survey(wants_all=True)
    assert [one.is_free(wants_all=False) for one in await signaling.look(survey.session_ids, survey.ordered)] == [True]
    assert await signaling.claim("s1", "signaling")
    await signaling.keep_resource("s1", "https://sfu.test/1")
    held = Held(order, state, "https://sfu.test/1")
    await clients["admin"].delete(keys.egress_order("s1"))
    assert await signaling.renew("signaling", {"s1": held}) == {"s1": (EgressRenewal.HELD, order)}
    assert await gateway.of_session("s1") == (order, state)
    await gateway.order("s1", EgressOrder(wanted=False))
    await Registry(clients["gateway"]).end_session("s1")
    await signaling.look(["s1"], ordered=["s1"])
    assert await signaling.resource("s1") == "https://sfu.test/1"
    await signaling.forget_resource("s1", "https://sfu.test/1")
    await signaling.release("s1", "signaling")


async def test_webhooks_wait_and_are_delivered_by_the_gateways_user(clients: dict[str, Redis]) -> None:
    queue = WebhookQueue(clients["gateway"])
    webhook = Webhook(webhook_id="w", url="https://a.example/", secret="whsec_", created_at_ms=1)
    assert [await queue.add(webhook, 1), await queue.add(webhook.model_copy(update={"webhook_id": "v"}), 1)] == [
        True,
        False,
    ]
    assert await queue.refill([]) == [webhook]
    delivery = Delivery(delivery_id="d", webhook_id="w", body="{}")
    assert await queue.put([delivery, delivery.model_copy(update={"delivery_id": "e"})]) == 0
    assert len(await queue.take()) == 2 and await queue.take() == [], "each is taken once"
    await queue.later(delivery, 0)
    assert await queue.take() == [delivery]
    await queue.done("d")
    await queue.later(delivery, 0)
    assert await queue.take() == [], "what was delivered does not come back"
    assert [await queue.remove("w"), await queue.remove("w")] == [True, False]


@pytest.mark.parametrize("needed", rights.SERVICES, ids=lambda needed: needed.user)
async def test_every_right_that_a_service_needs_is_its_user_s(clients: dict[str, Redis], needed: Rights) -> None:
    probe = probe_of(clients[needed.user], needed)
    await probe.step()
    assert probe.why_unready() is None


FOREIGN = [
    ("signaling", ("SET", keys.status("g1"), "x"), "the record of a generator"),
    ("signaling", ("SET", keys.lease("s1"), "x"), "who holds a session"),
    ("signaling", ("XREAD", "STREAMS", keys.inbox("g1"), "0"), "a speaker's motion"),
    ("signaling", ("XADD", keys.video("s1"), "*", "d", "x"), "the video"),
    ("signaling", ("SET", keys.stats("s1"), "x"), "the figures of a session"),
    ("gateway", ("XREAD", "STREAMS", keys.voice("s1"), "0"), "the voice"),
    ("gateway", ("XADD", keys.voice("s1"), "*", "v", "x"), "the voice"),
    ("generator", ("XREAD", "STREAMS", keys.voice("s1"), "0"), "the voice"),
    ("signaling", ("DEL", keys.record("s1")), "the record of a session"),
    ("signaling", ("ZADD", keys.viewer_ends("s1"), "0", "v1"), "who ends viewers"),
    ("signaling", ("HGETALL", keys.viewer_lists("s1")), "the viewers of other signaling services"),
    ("generator", ("HGETALL", keys.viewer_lists("s1")), "who watches"),
    ("gateway", ("HSET", keys.viewer_lists("s1"), "s", "x"), "who watches"),
    ("gateway", ("XREAD", "STREAMS", keys.video("s1"), "0"), "the video"),
    ("gateway", ("XREAD", "STREAMS", keys.inbox("g1"), "0"), "motion of other gateways"),
    ("gateway", ("XADD", keys.video("s1"), "*", "d", "x"), "the video"),
    ("gateway", ("SET", keys.status("g1"), "x"), "the record of a generator"),
    ("generator", ("SET", keys.record("s1"), "x"), "the record of a session"),
    ("generator", ("XADD", keys.inbox("g2"), "*", "b", "x"), "another generator's motion"),
    ("generator", ("XREAD", "STREAMS", keys.video("s1"), "0"), "another generator's video"),
    ("operator", ("GET", keys.record("s1")), "the record of a session"),
    ("signaling", ("HSET", keys.room_participants("r1"), "p", "x"), "who is in a room"),
    ("signaling", ("XRANGE", keys.room_events("r1"), "-", "+"), "what is said in a room"),
    ("signaling", ("HGETALL", keys.WEBHOOKS), "the secrets of webhooks"),
    ("generator", ("HGET", keys.room_participants("r1"), "p"), "who is in a room"),
    ("generator", ("XRANGE", keys.room_events("r1"), "-", "+"), "what is said in a room"),
]


@pytest.mark.parametrize(
    ("user", "command", "what"), FOREIGN, ids=[f"{row[0]} {row[1][0]} {row[2]}" for row in FOREIGN]
)
async def test_a_user_cannot_do_another_s_work(
    clients: dict[str, Redis], user: str, command: tuple[str, ...], what: str
) -> None:
    with pytest.raises(NoPermissionError):
        await clients[user].execute_command(*command)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "ACL LIST",
        "ACL SETUSER x",
        "MONITOR",
        "SHUTDOWN",
        "SCRIPT FLUSH",
        "REPLICAOF NO ONE",
        "PUBLISH x y",
        "CLIENT KILL ID 1",
        "GET another-application",
        "EVAL return 0",
    ],
)
async def test_nobody_can_do_what_no_service_does(clients: dict[str, Redis], user: str, command: str) -> None:
    with pytest.raises(NoPermissionError):
        await clients[user].execute_command(*command.split())


async def test_a_script_has_no_more_rights_than_its_user(clients: dict[str, Redis]) -> None:
    """Signaling's scripts get the record's key; they still cannot delete it."""
    script = clients["signaling"].register_script("return redis.call('DEL', KEYS[1])")
    with pytest.raises(ResponseError, match="permission"):
        await script(keys=[keys.record("s1")])


async def test_without_a_password_there_is_no_access(server: LimitedRedis) -> None:
    async with Redis(unix_socket_path=str(server.folder / "redis.sock")) as anybody:
        with pytest.raises(Exception, match="uthenticat"):
            await anybody.ping()


async def test_the_probe_executes_nothing_and_names_what_is_refused(clients: dict[str, Redis]) -> None:
    harmless = probe_of(clients["admin"], rights.GATEWAY)
    await harmless.step()
    assert harmless.why_unready() is None
    assert await clients["admin"].dbsize() == 0

    curious = probe_of(clients["signaling"], rights.GATEWAY)
    await curious.step()
    reason = curious.why_unready()
    assert reason is not None
    assert reason.startswith("Redis refuses DEL, EVALSHA, EXISTS, EXPIRE, GET, HDEL, HEXISTS, HGET, HGETALL")
    assert await clients["admin"].dbsize() == 0


async def test_a_user_without_transactions_executes_no_sample(clients: dict[str, Redis]) -> None:
    await clients["admin"].execute_command("ACL", "SETUSER", "all-but-multi", "on", ">x", "~*", "+@all", "-multi")
    url = clients["admin"].connection_pool.connection_kwargs["path"]
    async with Redis(unix_socket_path=url, username="all-but-multi", password="x") as client:
        probe = probe_of(client, rights.GATEWAY)
        await probe.step()
        assert probe.why_unready() == "Redis refuses DISCARD, MULTI; the log has its answer"
    assert await clients["admin"].dbsize() == 0
    await clients["admin"].execute_command("ACL", "DELUSER", "all-but-multi")


async def test_a_full_redis_is_told_and_so_is_its_recovery(redis_server: EmbeddedRedis) -> None:
    async with open_redis(redis_server.url) as redis:
        probe = probe_of(redis, rights.GENERATOR)
        await redis.config_set("maxmemory", "1")
        await probe.step()
        assert probe.why_unready() == "Redis is full"
        await redis.config_set("maxmemory", "0")
        await probe.step()
        assert probe.why_unready() is None
