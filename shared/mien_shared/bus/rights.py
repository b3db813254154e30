"""What each service does in Redis: which commands it uses, each with the keys that it uses it on.

Two things are made from this table. deploy/redis/users gives each service's user these rights and no others
(tools/redis_users.py writes it). And `probe.py` tries every one of them, so that a service with a user that lacks one
is not ready and says why. tests/e2e/test_redis_users.py makes a call with these users: a right that is missing fails
there, and the server's ACL LOG names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mien_shared.bus import keys

_RECORD, _ENDED, _LEASE = keys.record("*"), keys.ended("*"), keys.lease("*")
_STATS, _VIDEO, _VOICE = keys.stats("*"), keys.video("*"), keys.voice("*")
_VIEWER_COUNTS, _VIEWER_LISTS = keys.viewer_counts("*"), keys.viewer_lists("*")
_VIEWER_ENDS = keys.viewer_ends("*")
_UPLINK, _SPEAKER, _SUSPECT = keys.uplink("*"), keys.speaker("*"), keys.suspect("*")
_STATUS, _SLOTS, _INBOX, _CONTROL = keys.status("*"), keys.slots("*"), keys.inbox("*"), keys.control("*")
_SESSIONS, _GENERATORS = keys.SESSIONS, keys.GENERATORS
_ORDER, _EGRESS_OWNER, _EGRESS_STATE = keys.egress_order("*"), keys.egress_owner("*"), keys.egress_state("*")
_EGRESSES, _RESOURCES, _EGRESS_READY = keys.EGRESSES, keys.EGRESS_RESOURCES, keys.EGRESS_READY
_ROOM, _ROOM_ENDED, _ROOM_NAME, _ROOMS = keys.room("*"), keys.room_ended("*"), keys.room_name("*"), keys.ROOMS
_PARTICIPANTS, _PRESENCE, _GONE = keys.room_participants("*"), keys.room_presence("*"), keys.room_gone("*")
_EVENTS, _SEQUENCE, _VERSION = keys.room_events("*"), keys.room_sequence("*"), keys.room_version("*")
_LIVE, _LIVE_VERSION = keys.room_live("*"), keys.room_live_version("*")
_TARGETS, _DUE, _WAITING = keys.WEBHOOKS, keys.WEBHOOKS_DUE, keys.WEBHOOKS_WAITING

#: Commands without keys that every service uses: the scripts' loading, their clock, what the probe needs, and the
#: question of `masters.py` to a Cluster.
KEYLESS = ("ping", "select", "multi", "discard", "script|load", "time", "cluster|slots")

#: How each command looks, KEY standing for the key. The probe sends it, but Redis never executes it.
_FORMS: dict[str, str] = {
    "del": "DEL KEY",
    "evalsha": f"EVALSHA {'0' * 40} 1 KEY",
    "exists": "EXISTS KEY",
    "expire": "EXPIRE KEY 1",
    "get": "GET KEY",
    "hdel": "HDEL KEY probe",
    "hexists": "HEXISTS KEY probe",
    "hget": "HGET KEY probe",
    "hgetall": "HGETALL KEY",
    "hlen": "HLEN KEY",
    "hset": "HSET KEY probe probe",
    "incr": "INCR KEY",
    "mget": "MGET KEY",
    "pexpire": "PEXPIRE KEY 1",
    "sadd": "SADD KEY probe",
    "set": "SET KEY probe EX 1",
    "smembers": "SMEMBERS KEY",
    "srem": "SREM KEY probe",
    "xadd": "XADD KEY * probe probe",
    "xrange": "XRANGE KEY - + COUNT 1",
    "xread": "XREAD STREAMS KEY 0",
    "xrevrange": "XREVRANGE KEY + - COUNT 1",
    "xtrim": "XTRIM KEY MINID 0",
    "zadd": "ZADD KEY 0 probe",
    "zcard": "ZCARD KEY",
    "zrange": "ZRANGE KEY 0 -1",
    "zrangebyscore": "ZRANGEBYSCORE KEY 0 0",
    "zrem": "ZREM KEY probe",
    "zremrangebyscore": "ZREMRANGEBYSCORE KEY 0 0",
    "zscore": "ZSCORE KEY probe",
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What one service does: the patterns of the keys, by command. A script's commands are listed like any others."""

    user: str
    keys_of: dict[str, tuple[str, ...]]

    def rules(self) -> Iterator[str]:
        """Redis' ACL rules: one selector for each set of keys, with the commands that are used on it (Redis 7)."""
        yield from (f"+{command}" for command in KEYLESS)
        commands_on: dict[tuple[str, ...], list[str]] = {}
        for command, patterns in sorted(self.keys_of.items()):
            commands_on.setdefault(tuple(sorted(patterns)), []).append(command)
        for patterns, commands in sorted(commands_on.items()):
            yield f"({' '.join([*(f'+{command}' for command in commands), *(f'~{one}' for one in patterns)])})"

    def samples(self) -> Iterator[tuple[str, ...]]:
        """One command for each right, on a key of a session or generator called "probe"."""
        yield ("SCRIPT", "LOAD", "return 0")
        yield ("TIME",)
        for command, patterns in sorted(self.keys_of.items()):
            form = _FORMS[command].split()
            for pattern in patterns:
                yield tuple(pattern.replace("*", "probe") if word == "KEY" else word for word in form)


#: Placing a session on a generator: gateways place new ones, and generators that drain hand theirs over.
_PLACEMENT_SLOTS = ("evalsha", "pexpire", "zadd", "zcard", "zrem", "zremrangebyscore", "zscore")


#: What an end deletes: gateways end sessions, and generators end those whose face cannot be made.
_OF_A_SESSION = (
    *(_RECORD, _LEASE, _STATS, _VIDEO, _VOICE, _UPLINK, _SPEAKER, _SUSPECT),
    *(_VIEWER_COUNTS, _VIEWER_LISTS, _VIEWER_ENDS, _ORDER, _EGRESS_STATE),
)


def _with_slots(keys_of: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return keys_of | {command: (*keys_of.get(command, ()), _SLOTS) for command in _PLACEMENT_SLOTS}


#: Keys of a room that a gateway writes and lets expire.
_OF_A_ROOM = (_ROOM, _PARTICIPANTS, _PRESENCE, _SEQUENCE, _VERSION)

GATEWAY = Rights(
    "gateway",
    _with_slots(
        {
            "del": (*_OF_A_SESSION, *_OF_A_ROOM, _ROOM_NAME),
            "evalsha": (
                *(*_OF_A_SESSION, _ENDED, _INBOX),
                *(*_OF_A_ROOM, _ROOM_ENDED, _ROOM_NAME, _GONE, _EVENTS),
                *(_TARGETS, _DUE, _WAITING),
            ),
            "exists": (_RECORD, _ENDED, _ROOM, _ROOM_ENDED, _TARGETS, _EGRESS_READY),
            "expire": (_UPLINK, _SESSIONS, _ROOMS, *_OF_A_ROOM, _EVENTS, _TARGETS, _DUE, _WAITING, _EGRESSES),
            "get": (
                *(_RECORD, _ENDED, _LEASE, _STATS, _STATUS, _SPEAKER),
                *(_ROOM, _ROOM_ENDED, _ROOM_NAME, _SEQUENCE, _VERSION),
            ),
            "hdel": (_PARTICIPANTS, _PRESENCE, _TARGETS, _WAITING),
            "hexists": (_PARTICIPANTS, _WAITING),
            "hget": (_PARTICIPANTS, _PRESENCE, _WAITING),
            "hgetall": (_VIEWER_COUNTS, _VIEWER_LISTS, _PARTICIPANTS, _PRESENCE, _LIVE, _TARGETS),
            "hlen": (_TARGETS,),
            "hset": (_PARTICIPANTS, _PRESENCE, _TARGETS, _WAITING),
            "mget": (_LEASE, _UPLINK, _ENDED, _SEQUENCE, _LIVE_VERSION, _ORDER, _EGRESS_STATE),
            "pexpire": (_INBOX, _CONTROL, _VIEWER_ENDS, _GONE),
            "sadd": (_SESSIONS, _ROOMS, _EGRESSES),
            "set": (
                *(_RECORD, _ENDED, _LEASE, _UPLINK, _SPEAKER, _ORDER),
                *(_ROOM, _ROOM_ENDED, _ROOM_NAME, _SEQUENCE, _VERSION),
            ),
            "smembers": (_SESSIONS, _GENERATORS, _ROOMS),
            "srem": (_SESSIONS, _GENERATORS, _ROOMS, _EGRESSES),
            "xadd": (_INBOX, _CONTROL, _EVENTS),
            "xrange": (_EVENTS,),
            "xtrim": (_INBOX, _EVENTS),
            "zadd": (_VIEWER_ENDS, _GONE, _DUE),
            "zcard": (_DUE,),
            "zrangebyscore": (_DUE,),
            "zrem": (_DUE,),
            "zremrangebyscore": (_VIEWER_ENDS, _GONE),
            "zscore": (_GONE,),
        }
    ),
)

GENERATOR = Rights(
    "generator",
    _with_slots(
        {
            "del": (*_OF_A_SESSION, _STATUS, _SLOTS, _INBOX, _CONTROL),
            "evalsha": (*_OF_A_SESSION, _ENDED),
            "exists": (_RECORD, _ENDED),
            "expire": (_VIDEO, _SUSPECT, _GENERATORS),
            "get": (_RECORD, _LEASE, _STATUS),
            "incr": (_SUSPECT,),
            "pexpire": (_CONTROL,),
            "sadd": (_GENERATORS,),
            "set": (_LEASE, _STATS, _STATUS, _ENDED),
            "smembers": (_SESSIONS, _GENERATORS),
            "srem": (_SESSIONS, _GENERATORS),
            "xadd": (_VIDEO, _CONTROL),
            "xread": (_INBOX, _CONTROL),
            "xrevrange": (_INBOX, _CONTROL),
        }
    ),
)

SIGNALING = Rights(
    "signaling",
    {
        "del": (_EGRESS_OWNER, _EGRESS_STATE),
        "evalsha": (
            *(_RECORD, _ENDED, _VIEWER_COUNTS, _VIEWER_LISTS, _INBOX, _SPEAKER),
            *(_LIVE, _LIVE_VERSION, _ROOM_ENDED),
            *(_EGRESS_OWNER, _ORDER, _EGRESS_STATE, _EGRESSES, _RESOURCES),
        ),
        "exists": (_RECORD, _ENDED, _ROOM_ENDED),
        "expire": (_SESSIONS, _UPLINK, _VOICE, _ORDER, _EGRESSES, _RESOURCES),
        "get": (_RECORD, _ENDED, _LEASE, _SPEAKER, _LIVE_VERSION, _EGRESS_OWNER, _ORDER),
        "hget": (_PARTICIPANTS, _RESOURCES),
        "hdel": (_VIEWER_COUNTS, _VIEWER_LISTS, _LIVE, _RESOURCES),
        "hgetall": (_VIEWER_COUNTS, _PARTICIPANTS, _LIVE, _RESOURCES),
        "hset": (_VIEWER_COUNTS, _VIEWER_LISTS, _LIVE, _RESOURCES),
        "mget": (
            *(_LEASE, _UPLINK, _ENDED, _VERSION, _ROOM_ENDED, _LIVE_VERSION),
            *(_RECORD, _ORDER, _EGRESS_OWNER),
        ),
        "pexpire": (_CONTROL, _VIEWER_COUNTS, _VIEWER_LISTS, _INBOX, _LIVE),
        "sadd": (_SESSIONS, _EGRESSES),
        "set": (
            *(_RECORD, _UPLINK, _SPEAKER, _LIVE_VERSION),
            *(_EGRESS_OWNER, _ORDER, _EGRESS_STATE, _EGRESS_READY),
        ),
        "smembers": (_SESSIONS, _EGRESSES),
        "srem": (_EGRESSES,),
        "xadd": (_CONTROL, _VOICE, _INBOX),
        "xread": (_VIDEO, _VOICE),
        "xrevrange": (_VIDEO, _VOICE),
        "xtrim": (_INBOX,),
        "zrange": (_VIEWER_ENDS,),
        "zscore": (_GONE,),
    },
)

SERVICES = (GATEWAY, GENERATOR, SIGNALING)
