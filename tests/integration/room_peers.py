"""A room of real WebRTC peers (aiortc) over signaling: everyone speaks by WHIP and watches by one WHEP connection.

A participant is told apart by what arrives of it: the width of its picture, and the bytes of its voice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise

import av
import httpx
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.h264 import h264_depayload
from integration.test_signaling_media import Publisher
from integration.voice_peers import SDP, SECRET, Ears, Heard, Talker, until
from redis.asyncio import Redis

from mien_shared.bus.live_rooms import LiveRoom, LiveRooms
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState, RoomRecord
from mien_shared.bus.rooms import Commit, Rooms
from mien_shared.http.principal import Grant
from mien_shared.http.tokens import TokenIssuer

ROOM = "room"
NAMES = ("ada", "bob", "cy", "dee", "eve")
PATIENCE_S = 30
# Types of NAL units: parameters of a sequence, and several units in one packet (RFC 6184, section 5.7.1).
_SPS, _STAP_A = 7, 24
_LOST_PACKETS, _LATE_PACKETS = 10, 128


def width_of(name: str) -> int:
    return 320 + 16 * NAMES.index(name)


def word_of(name: str) -> Callable[[int], bytes]:
    """What a participant says: bytes that are nobody else's."""
    return lambda number: bytes([NAMES.index(name), number & 0xFF]) * 30


def headers_of(name: str, *grants: Grant, room_id: str = ROOM) -> dict[str, str]:
    chosen = grants or (Grant.PUBLISH, Grant.WATCH)
    return {"Authorization": f"Bearer {TokenIssuer(SECRET).issue(name, chosen, room_id=room_id)}"}


def record_of(name: str, **changes: object) -> ParticipantRecord:
    one = ParticipantRecord(
        participant_id=name,
        identity=name,
        name=name,
        grants=frozenset({Grant.PUBLISH, Grant.WATCH}),
        state=ParticipantState.ACTIVE,
        joined_at_ms=NAMES.index(name),
        avatar_id="someone",
        session_id=f"avatar-of-{name}",
    )
    return one.model_copy(update=changes)


def picture_width(packets: Sequence[Heard]) -> int | None:
    """The width of the last whole picture that these packets decode to, from a picture that needs no other."""
    decoder, width, unit = av.CodecContext.create("h264", "r"), None, b""
    for packet in packets:
        unit += h264_depayload(packet.payload)
        if packet.marker:
            for frame in decoder.decode(av.Packet(unit)):
                width = frame.width
            unit = b""
    return width


def begins_with_idr(packet: Heard) -> bool:
    """Whether a packet holds the parameter sets, which our encoders put before an IDR and nowhere else."""
    kind = packet.payload[0] & 0x1F
    return kind == _SPS or (kind == _STAP_A and packet.payload[3] & 0x1F == _SPS)


def is_one_stream(packets: Sequence[Heard]) -> bool:
    """Whether a receiver takes these packets for one stream: no jump of numbers, and timestamps that go on.

    A few may be missing or late, because a slow machine loses packets on loopback too.
    """
    numbers = [0]
    for before, after in pairwise(packets):
        step = (after.sequence - before.sequence + 0x8000) % 0x10000 - 0x8000
        if not -_LATE_PACKETS <= step <= _LOST_PACKETS:
            return False
        numbers.append(numbers[-1] + step)
    in_order = [packet for _, packet in sorted(zip(numbers, packets, strict=True), key=lambda pair: pair[0])]
    return all((b.timestamp - a.timestamp) % 2**32 < 2**31 for a, b in pairwise(in_order))


class Watcher:
    """A participant's WHEP connection with so many slots."""

    def __init__(self, client: httpx.AsyncClient, name: str, slots: int) -> None:
        self._client = client
        self.name = name
        self.headers = headers_of(name)
        # With its default policy aiortc would leave the later sections on transports that it has discarded.
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.pictures, self.voices = list[Ears](), list[Ears]()
        for _ in range(slots):
            self.add_slot()
        self.url = self.answer = ""

    @property
    def viewer_id(self) -> str:
        return self.url.rpartition("/")[2]

    def add_slot(self) -> None:
        """Offer one more slot in the next offer."""
        for kind, ears in (("video", self.pictures), ("audio", self.voices)):
            ears.append(Ears())
            ears[-1].listen(self.peer.addTransceiver(kind, direction="recvonly").receiver)

    async def offer_again(self) -> httpx.Response:
        """Send a new offer to the connection's URL, and take the answer."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = self.peer.localDescription.sdp
        response = await self._client.post(self.url, content=offer, headers=SDP | self.headers)
        if response.status_code == 200:
            await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        return response

    async def post(self) -> httpx.Response:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = self.peer.localDescription.sdp
        return await self._client.post(f"/v1/whep/rooms/{ROOM}", content=offer, headers=SDP | self.headers)

    async def join(self) -> None:
        response = await self.post()
        assert response.status_code == 201, response.text
        self.url, self.answer = response.headers["location"], response.text
        await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await until(lambda: self.peer.connectionState == "connected", PATIENCE_S)

    def sees(self, slot: int, name: str) -> bool:
        """Whether the last pictures of this slot are those of this participant."""
        packets = self.pictures[slot].packets
        starts = [number for number, packet in enumerate(packets) if begins_with_idr(packet)]
        return bool(starts) and picture_width(packets[starts[-1] :]) == width_of(name)

    def hears(self, slot: int, name: str, since: int = 0) -> bool:
        """Whether this slot got the participant's voice, among the packets from this one on."""
        return any(packet.payload[0] == NAMES.index(name) for packet in self.voices[slot].packets[since:])

    async def close(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.peer.close()


@dataclass
class RoomWorld:
    """A room with these participants, whose sessions a generator publishes."""

    redis: Redis
    stack: AsyncExitStack
    client: httpx.AsyncClient
    publishers: dict[str, Publisher] = field(default_factory=dict)
    people: dict[str, ParticipantRecord] = field(default_factory=dict)

    async def enter(self, name: str, **changes: object) -> None:
        """A participant with an avatar joins."""
        record = record_of(name, **changes)
        session = SessionRecord(
            session_id=record.session_id or "", avatar_id="a", created_at_ms=0, room_id=ROOM, participant_id=name
        )
        publisher = Publisher(self.redis, session=session, width=width_of(name))
        self.publishers[name] = publisher
        await self.stack.enter_async_context(publisher.live())
        await self.write(record)

    async def write(self, *records: ParticipantRecord, gone: Sequence[str] = (), end: str | None = None) -> None:
        """What a gateway commits."""
        self.people |= {one.participant_id: one for one in records}
        for name in gone:
            self.people.pop(name)
        rooms = Rooms(self.redis)
        version = (await rooms.read(ROOM)).version
        record = RoomRecord(room_id=ROOM, owner="x", created_at_ms=0, max_participants=9, empty_timeout_s=9, life_s=600)
        assert await rooms.commit(ROOM, version, Commit(600, record, records, gone, (), {}, end)) is not None

    async def talker(self, name: str, client: httpx.AsyncClient | None = None) -> Talker:
        talker = Talker(client or self.client, f"rooms/{ROOM}", headers=headers_of(name))
        self.stack.push_async_callback(talker.close)
        await talker.join()
        return talker

    async def watcher(self, name: str, slots: int, client: httpx.AsyncClient | None = None) -> Watcher:
        watcher = Watcher(client or self.client, name, slots)
        self.stack.push_async_callback(watcher.close)
        await watcher.join()
        return watcher

    async def live(self) -> LiveRoom:
        return (await LiveRooms(self.redis).read([ROOM]))[ROOM]

    async def shown_to(self, name: str) -> list[str | None]:
        """Who is in the slots of a participant, by the live state."""
        found = (await self.live()).slots.get(name)
        return [] if found is None else [slot.participant_id for slot in found.slots]

    async def shows(self, name: str, expected: Sequence[str | None]) -> None:
        """Wait until these are in a participant's slots."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.shown_to(name) != list(expected):
                await asyncio.sleep(0.05)

    async def metric(self, line: str) -> float:
        text = (await self.client.get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
        return float(values[0]) if values else 0.0
