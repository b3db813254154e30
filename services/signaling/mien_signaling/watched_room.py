"""One room as this process serves it: who is in it, who is heard, and the connections of its viewers here.

Each participant with an avatar is a source: its broadcast is watched here even while no slot shows it, because its
voice decides whether one will. A packet of voice is judged once for all viewers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from mien_shared.bus.live_rooms import ActiveSpeaker
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S
from mien_shared.bus.room_messages import ParticipantRecord, ParticipantState
from mien_shared.clock import Clock
from mien_signaling.active_speakers import ActiveSpeakers, is_audible
from mien_signaling.broadcast import Broadcast
from mien_signaling.broadcasts import Broadcasts, UnknownSession
from mien_signaling.room_viewer import RoomViewer, Slot
from mien_signaling.voice_timeline import TimedVoice

#: The level of a packet whose sender tells none: it counts as speech, a little quieter than usual. A shorter packet
#: is silence: Opus sends up to two bytes then (RFC 6716, section 3.1), and comfort noise takes a few more.
UNTOLD_LEVEL, SILENT_LEVEL, SILENT_BYTES = 50, 127, 8
#: For so long a participant stays whose record Redis has lost: three times as long as gateways take to write it again.
LOST_S = 3 * KEEP_ALIVE_INTERVAL_S
#: For so long the choice of the loudest is kept, unless one speaks that was not among them.
CHOICE_S = 0.1
#: How often the order of the speakers is told, if nothing else changes.
ORDER_S = 1.0


class RoomSource:
    """A participant whose session is watched here (room_viewer.Source, voice_broadcast.VoiceTaker)."""

    def __init__(self, participant_id: str, broadcast: Broadcast, room: WatchedRoom) -> None:
        self.participant_id = participant_id
        self.broadcast = broadcast
        self._room = room
        self._slots: list[Slot] = []

    def attach(self, slot: Slot) -> None:
        self._slots.append(slot)

    def detach(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)

    async def send(self, voice: TimedVoice) -> int:
        """Take one packet of the participant's voice, when it is due."""
        is_loud = self._room.hears(self.participant_id, voice)
        sent = 0
        for slot in list(self._slots):
            sent += await slot.hear(voice, is_loud)
        return sent


class WatchedRoom:
    """It ends with `aclose`, when its last viewer here has left."""

    def __init__(self, room_id: str, broadcasts: Broadcasts, clock: Clock) -> None:
        self.room_id = room_id
        self.viewers: dict[str, RoomViewer] = {}
        #: The version of the room's records when they were last read, and of its live state when it was last written.
        self.version = self.live_version = b""
        #: When the live state was last told everything, monotonic seconds.
        self.written_s = float("-inf")
        self._told: tuple[str, ...] = ()
        self._told_s = float("-inf")
        self._broadcasts = broadcasts
        self._clock = clock
        self._people: tuple[ParticipantRecord, ...] = ()
        self._lost_s: dict[str, float] = {}
        self._sources: dict[str, RoomSource] = {}
        self._voices = ActiveSpeakers()
        self._chosen: tuple[str, ...] = ()
        self._chosen_s = float("-inf")
        self._heard_s: dict[str, float] = {}
        self._opening = asyncio.Lock()

    # Who is there

    def missing(self, people: Iterable[str]) -> list[str]:
        """Those who were there and are not among these."""
        return sorted({one.participant_id for one in self._people} - set(people))

    def learn(self, people: Iterable[ParticipantRecord], lost: Iterable[str] = ()) -> None:
        """Take the room's participants, as its records are now.

        lost: those whose record is missing although they have not left. Redis has lost it, and a gateway will write it
        again, so they stay for a while.
        """
        now_s = self._clock.monotonic_s()
        self._lost_s = {name: self._lost_s.get(name, now_s) for name in lost}
        kept = [one for one in self._people if one.participant_id in self._lost_s]
        shown = [one for one in people if one.state is ParticipantState.ACTIVE and one.session_id is not None]
        self._people = tuple(sorted([*shown, *kept], key=lambda one: (one.joined_at_ms, one.identity)))

    def forget_lost(self) -> None:
        """Give up those whose records nobody has written again."""
        now_s = self._clock.monotonic_s()
        if late := {name for name, since_s in self._lost_s.items() if now_s - since_s > LOST_S}:
            self._people = tuple(one for one in self._people if one.participant_id not in late)
            self._lost_s = {name: since_s for name, since_s in self._lost_s.items() if name not in late}

    @property
    def is_complete(self) -> bool:
        """Whether every participant with an avatar is a source."""
        return {one.participant_id: one.session_id for one in self._people} == {
            name: source.broadcast.session.session_id for name, source in self._sources.items()
        }

    async def open_sources(self) -> None:
        """Watch the sessions of those who are there, and no others. Raises the errors of Redis."""
        async with self._opening:
            wanted = {one.participant_id: one.session_id for one in self._people}
            for name, source in list(self._sources.items()):
                if wanted.get(name) != source.broadcast.session.session_id:
                    self._drop(name)
            for name, session_id in wanted.items():
                if name not in self._sources and session_id is not None:
                    await self._open(name, session_id)

    async def _open(self, name: str, session_id: str) -> None:
        try:
            broadcast = await self._broadcasts.use(session_id, needs_video=False)
        except UnknownSession:
            return  # it has ended, or Redis came back empty: the next look tells
        if not self.viewers:  # the last one has left meanwhile
            self._broadcasts.done(broadcast)
            return
        source = RoomSource(name, broadcast, self)
        self._sources[name] = source
        broadcast.voice.attach(source)

    def lose(self, broadcast: Broadcast) -> None:
        """A session has ended: its participant is shown no longer."""
        for name, source in list(self._sources.items()):
            if source.broadcast is broadcast:
                self._drop(name)
                self.show()

    def _drop(self, name: str) -> None:
        source = self._sources.pop(name)
        for viewer in self.viewers.values():
            for slot in viewer.slots:
                slot.leave(source)
        source.broadcast.voice.detach(source)
        self._broadcasts.done(source.broadcast)
        if not any(one.participant_id == name for one in self._people):
            self._voices.gone(name)
            self._heard_s.pop(name, None)

    # Who is heard

    def hears(self, name: str, voice: TimedVoice) -> bool:
        """Note a packet of this participant; returns whether it is sent: whether it is among the loudest."""
        now_s = self._clock.monotonic_s()
        level = voice.level
        if level is None:
            level = SILENT_LEVEL if len(voice.payload) < SILENT_BYTES else UNTOLD_LEVEL
        self._voices.heard(name, level, now_s)
        if now_s - self._chosen_s >= CHOICE_S or (name not in self._chosen and is_audible(level)):
            self._choose(now_s)
        return name in self._chosen

    def _choose(self, now_s: float) -> None:
        self._chosen = tuple(str(name) for name in self._voices.chosen(now_s))
        self._chosen_s = now_s
        self._heard_s |= dict.fromkeys(self._chosen, now_s)

    def speakers(self) -> tuple[ActiveSpeaker, ...]:
        """Who is heard now, the loudest first."""
        now_s = self._clock.monotonic_s()
        self._choose(now_s)
        return tuple(
            ActiveSpeaker(participant_id=name, level=round(self._voices.share(name, now_s), 2)) for name in self._chosen
        )

    def has_news(self, speakers: Sequence[ActiveSpeaker]) -> bool:
        """Whether these differ from those that the live state was last told. Their order alone can wait a second."""
        names = tuple(one.participant_id for one in speakers)
        if names == self._told:
            return False
        return set(names) != set(self._told) or self._clock.monotonic_s() - self._told_s >= ORDER_S

    def tells(self, speakers: Sequence[ActiveSpeaker]) -> None:
        """The live state is told these."""
        self._told = tuple(one.participant_id for one in speakers)
        self._told_s = self._clock.monotonic_s()

    # Who is shown

    def newest(self) -> list[RoomViewer]:
        """The newest connection of each participant, once it has claimed the participant's slots."""
        return list({one.participant_id: one for one in self.viewers.values() if one.has_claimed}.values())

    def arrange(self) -> list[RoomViewer]:
        """Fill the slots of all viewers; returns those in whose slots something has changed."""
        changed = []
        for viewer in self.viewers.values():
            others = [one.participant_id for one in self._people if one.participant_id != viewer.participant_id]
            if viewer.places.arrange(others, self._chosen, self._heard_s):
                changed.append(viewer)
        self.show()
        return changed

    def show(self) -> None:
        """Tune all slots to those who have a place in them."""
        for viewer in self.viewers.values():
            viewer.show(self._sources)

    def aclose(self) -> None:
        for name in list(self._sources):
            self._drop(name)
