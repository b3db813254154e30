"""Every Redis key in one place, and how long it lives.

Every key begins with the same hash tag, the braces. In a Redis Cluster all of them are therefore in one slot, so on one
node: scripts, blocking reads of several streams and round trips with many keys work as on a single server. What a
Cluster then gives is failover, not scale (docs/decisions/0018-redis-failover.md).

Every key expires by itself after its last write, so that nothing stays of a service that is killed. `LIVES` is the
table; tests/e2e/test_redis_keys.py compares it with the keys of a running system.
"""

from __future__ import annotations

from dataclasses import dataclass

# Lives in seconds, counted from the last write.
RECORD_S = 60
ENDED_S = 3600
LEASE_S = 4.0
STATS_S = 5
VIEWERS_S = 15
VIEWER_ENDS_S = 60
UPLINK_S = 60
SUSPECT_S = 600
VIDEO_S = 5
VOICE_S = 5
STATUS_S = 1.6
SLOTS_S = 60
INBOX_S = 3.0
CONTROL_S = 10.0
LISTS_S = 60
EVENTS_S = 120
ROOM_LIVE_S = 15
WEBHOOKS_S = 24 * 3600
DELIVERIES_S = 3600
EGRESS_ORDER_S = 3600
EGRESS_OWNER_S = 5.0
EGRESS_STATE_S = 15
EGRESS_READY_S = 15
#: Motion that is older than this is deleted from an inbox, even if the stream itself lives on.
MOTION_S = 2.0


_MIEN = "{mien}"
SESSIONS = f"{_MIEN}:sessions"
GENERATORS = f"{_MIEN}:generators"
ROOMS = f"{_MIEN}:rooms"
#: The operators' webhooks, and the deliveries that wait: when each is due, and what it sends.
WEBHOOKS = f"{_MIEN}:webhooks:targets"
WEBHOOKS_DUE = f"{_MIEN}:webhooks:due"
WEBHOOKS_WAITING = f"{_MIEN}:webhooks:waiting"

#: The sessions whose egress an operator has ordered; the Locations that an SFU gave; whether there is an SFU at all.
EGRESSES = f"{_MIEN}:egress:ordered"
EGRESS_RESOURCES = f"{_MIEN}:egress:resources"
EGRESS_READY = f"{_MIEN}:egress:ready"


def record(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:record"


def ended(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:ended"


def lease(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:lease"


def stats(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:stats"


def viewer_counts(session_id: str) -> str:
    """How many viewers each signaling service has."""
    return f"{_MIEN}:session:{session_id}:viewer-counts"


def viewer_lists(session_id: str) -> str:
    """The viewers of each signaling service, with what it knows of them."""
    return f"{_MIEN}:session:{session_id}:viewer-lists"


def viewer_ends(session_id: str) -> str:
    """The viewers that operators want to end."""
    return f"{_MIEN}:session:{session_id}:viewer-ends"


def video(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:video"


def voice(session_id: str) -> str:
    return f"{_MIEN}:session:{session_id}:voice"


def status(generator_id: str) -> str:
    return f"{_MIEN}:generator:{generator_id}:status"


def slots(generator_id: str) -> str:
    return f"{_MIEN}:generator:{generator_id}:slots"


def inbox(generator_id: str) -> str:
    return f"{_MIEN}:generator:{generator_id}:inbox"


def control(generator_id: str) -> str:
    return f"{_MIEN}:generator:{generator_id}:control"


def uplink(session_id: str) -> str:
    """Which connection owns the session's uplink."""
    return f"{_MIEN}:session:{session_id}:uplink"


def speaker(session_id: str) -> str:
    """When the session last had an uplink, in Unix seconds."""
    return f"{_MIEN}:session:{session_id}:speaker"


def suspect(session_id: str) -> str:
    """With how many generators' devices the session was lost."""
    return f"{_MIEN}:session:{session_id}:suspect"


def egress_order(session_id: str) -> str:
    """Whether an operator wants the session to be published to an SFU."""
    return f"{_MIEN}:session:{session_id}:egress-order"


def egress_owner(session_id: str) -> str:
    """Which signaling service publishes the session."""
    return f"{_MIEN}:session:{session_id}:egress-owner"


def egress_state(session_id: str) -> str:
    """What that service knows of the publication."""
    return f"{_MIEN}:session:{session_id}:egress-state"


def room(room_id: str) -> str:
    """A room's record."""
    return f"{_MIEN}:room:{room_id}:record"


def room_participants(room_id: str) -> str:
    """The records of a room's participants, by id."""
    return f"{_MIEN}:room:{room_id}:participants"


def room_presence(room_id: str) -> str:
    """Which connection owns each participant, and when it was last known to be open."""
    return f"{_MIEN}:room:{room_id}:presence"


def room_gone(room_id: str) -> str:
    """The ids of participants that have left for good, and when."""
    return f"{_MIEN}:room:{room_id}:gone"


def room_ended(room_id: str) -> str:
    return f"{_MIEN}:room:{room_id}:ended"


def room_events(room_id: str) -> str:
    """The log of a room's events. The id of an entry is the event's sequence number."""
    return f"{_MIEN}:room:{room_id}:events"


def room_sequence(room_id: str) -> str:
    """The sequence number of a room's newest event."""
    return f"{_MIEN}:room:{room_id}:sequence"


def room_version(room_id: str) -> str:
    """Changes with every change of a room's record or of its participants' records."""
    return f"{_MIEN}:room:{room_id}:version"


def room_live(room_id: str) -> str:
    """Who speaks in a room, and who is in which slot of whose connection."""
    return f"{_MIEN}:room:{room_id}:live"


def room_live_version(room_id: str) -> str:
    """Changes with every change of a room's live state."""
    return f"{_MIEN}:room:{room_id}:live-version"


def room_name(name: str) -> str:
    """The id of the room that has this name."""
    return f"{_MIEN}:room-name:{name}"


@dataclass(frozen=True, slots=True)
class Life:
    """How long the keys of one kind live at most after their last write.

    keys: a pattern in which * stands for an id. longest_s: None if a setting decides it; such a key expires as well.
    """

    keys: str
    longest_s: float | None
    why: str


LIVES = (
    Life(SESSIONS, LISTS_S, "ids only; as long as the records that it lists"),
    Life(GENERATORS, LISTS_S, "ids only; every heartbeat writes it"),
    Life(record("*"), RECORD_S, "a session without speaker and viewers ends after a minute"),
    Life(ended("*"), ENDED_S, "a service that was paused for less than this cannot bring the session back"),
    Life(lease("*"), LEASE_S, "a generator that is silent loses its sessions; a reservation lives a little longer"),
    Life(stats("*"), STATS_S, "figures of the last seconds"),
    Life(viewer_counts("*"), VIEWERS_S, "three keep-alives of signaling; each count has its own, shorter time in it"),
    Life(viewer_lists("*"), VIEWERS_S, "as long as the counts"),
    Life(viewer_ends("*"), VIEWER_ENDS_S, "ids only; a signaling service that was paused for less than this obeys"),
    Life(uplink("*"), UPLINK_S, "as long as the record"),
    Life(speaker("*"), None, "a time only; MIEN_NO_SPEAKER_S and five minutes, a day if signaling wrote it"),
    Life(suspect("*"), SUSPECT_S, "a count; several generators may be lost one after another in this time"),
    Life(video("*"), VIDEO_S, "live video: a viewer that joins needs the next frames, not old ones"),
    Life(voice("*"), VOICE_S, "two seconds of live voice, still encoded; a viewer that joins needs the next packets"),
    Life(status("*"), STATUS_S, "a generator that is silent gets no sessions"),
    Life(slots("*"), SLOTS_S, "each slot has its own, shorter time in it"),
    Life(inbox("*"), INBOX_S, "a speaker's motion: a generator reads it at once or never"),
    Life(control("*"), CONTROL_S, "orders and requests, no motion; every heartbeat of its generator prolongs it"),
    Life(egress_order("*"), EGRESS_ORDER_S, "an hour after the last signaling service with an SFU has seen it"),
    Life(egress_owner("*"), EGRESS_OWNER_S, "another signaling service publishes the session of one that was killed"),
    Life(egress_state("*"), EGRESS_STATE_S, "written every second"),
    Life(EGRESSES, EGRESS_ORDER_S, "ids only; as long as the orders"),
    Life(EGRESS_RESOURCES, ENDED_S, "URLs at the SFU, maybe secret; a service that takes over deletes them there"),
    Life(EGRESS_READY, EGRESS_READY_S, "a mark; every signaling service with an SFU writes it each second"),
    Life(ROOMS, LISTS_S, "ids only; every gateway writes it again every two seconds"),
    Life(room("*"), None, "MIEN_ROOM_JOIN_S, MIEN_ROOM_DEPARTURE_S or the room's empty timeout, and a minute"),
    Life(room_participants("*"), None, "as long as the room's record; identities and names"),
    Life(room_presence("*"), None, "as long as the room's record; ids and times"),
    Life(room_sequence("*"), None, "as long as the room's record; a number"),
    Life(room_version("*"), None, "as long as the room's record; a number"),
    Life(room_live("*"), ROOM_LIVE_S, "ids and levels; each entry has its own, shorter time in it"),
    Life(room_live_version("*"), ROOM_LIVE_S, "as long as the live state; a number"),
    Life(room_name("*"), None, "as long as the room's record; an id"),
    Life(room_gone("*"), ENDED_S, "ids only; as long as the mark of an ended session"),
    Life(room_ended("*"), ENDED_S, "as long as the mark of an ended session"),
    Life(room_events("*"), EVENTS_S, "chat and what changed: a client that was away for less misses nothing"),
    Life(WEBHOOKS, WEBHOOKS_S, "URLs and signing secrets; every gateway prolongs it"),
    Life(WEBHOOKS_DUE, DELIVERIES_S, "ids only; longer than the last attempt of a delivery"),
    Life(WEBHOOKS_WAITING, DELIVERIES_S, "what webhooks send: ids, identities and names"),
)
