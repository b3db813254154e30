"""All speakers whose uplink is a WHIP connection of this process.

The rules are those of the gateway's uplinks: a session has at most one uplink, on all services together, and the newest
one owns it. A new one claims the session in Redis; gateways and signaling services compare four times a second and end
an uplink that was replaced.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict

from redis.asyncio import Redis

from mien_shared.bus.channels import MotionForwarder
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import KEEP_ALIVE_INTERVAL_S, OpenUplink, Registry, UplinkState
from mien_shared.bus.rooms import Rooms
from mien_shared.bus.voice import VoicePublisher
from mien_shared.clock import Clock
from mien_shared.http.principal import Grant, Principal
from mien_signaling.answer import announced, speaker_answer_to
from mien_signaling.audience import Full, announcement_of
from mien_signaling.background import BackgroundTasks
from mien_signaling.broadcasts import UnknownSession
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics, VoiceDropped
from mien_signaling.participants import demand_participant
from mien_signaling.peer_session import Gone
from mien_signaling.settings import SignalingSettings
from mien_signaling.speaker import MAX_MESSAGE_BYTES, SpeakerConnection
from mien_signaling.speaker_offer import SpeakerOffer

#: How soon an uplink learns that its session has moved or ended, or that another uplink has replaced it.
OWNER_REFRESH_INTERVAL_S = 0.25
#: How long Redis keeps the time at which a session had a speaker here: longer than any limit on sessions without one.
_SPEAKER_TTL_S = 24 * 3600
#: How many ended uplinks are remembered. Their session URLs say why they were ended.
_ENDED_REMEMBERED = 1000
#: What a session URL says of an uplink that this service has ended.
ENDED = {
    Gone.REPLACED: "another uplink of this session has replaced this one",
    Gone.SESSION_ENDED: "the session has ended",
    Gone.EXPIRED: "the token has expired",
    Gone.ABUSIVE: "most of what this uplink sent was refused",
    Gone.SHUTDOWN: "the service is shutting down",
}


class Speakers:
    """Owns the speakers of this process. `aclose` ends all of them."""

    def __init__(
        self,
        redis: Redis,
        settings: SignalingSettings,
        clock: Clock,
        metrics: SignalingMetrics,
        media_port: MediaPort | None = None,
    ) -> None:
        self._registry = Registry(redis)
        self._rooms = Rooms(redis)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._media_port = media_port
        self.forwarder = MotionForwarder(redis, metrics.motion_dropped)
        self.publisher = VoicePublisher(redis, lambda packets: metrics.voice_dropped(VoiceDropped.REDIS, packets))
        self._speakers: dict[str, SpeakerConnection] = {}
        self._ended: OrderedDict[str, tuple[SessionRecord, Gone]] = OrderedDict()
        self._tasks = BackgroundTasks("removing a speaker failed")
        self._announcement = announcement_of(settings)
        metrics.watch_speakers(lambda: len(self._speakers) - self._connected(), self._connected)

    async def join(self, session_id: str, offer: SpeakerOffer, bearer: Principal) -> tuple[str, str]:
        """Make this connection the session's uplink; returns its unguessable id and our answer.

        Raises UnknownSession, Full, UnreadableOffer, ClosedWhileAnswering, Problem 403 or 404 for a participant, or an
        error of Redis.
        """
        self._demand_room(session_id)
        session = await self._registry.session(session_id)
        if session is None:
            raise UnknownSession(session_id)
        participant = await demand_participant(self._rooms, session, bearer, Grant.PUBLISH)
        self._demand_room(session_id)
        owner = (await self._registry.uplink_states([session_id]))[session_id].owner
        speaker = SpeakerConnection(
            secrets.token_urlsafe(24),
            session,
            owner,
            bearer,
            self.forwarder,
            self.publisher,
            self._settings.ice_servers,
            self._media_port,
            self._clock,
            self._metrics,
            self._gone,
        )
        speaker.is_muted = participant is not None and participant.muted
        replaced = self._of_session(session_id)
        self._speakers[speaker.speaker_id] = speaker
        try:
            accepted = await speaker.answer(offer)
            await self._registry.claim_uplink(session_id, speaker.connection_id)
        except BaseException:
            await self._remove(speaker, Gone.REFUSED)
            raise
        for older in replaced:
            older.end(Gone.REPLACED)
        speaker.expect_connection(self._settings.connect_timeout_s)
        if self._announcement is not None:
            accepted = announced(accepted, self._announcement)
        return speaker.speaker_id, speaker_answer_to(offer, accepted, MAX_MESSAGE_BYTES)

    def find(self, speaker_id: str) -> SpeakerConnection | None:
        return self._speakers.get(speaker_id)

    def ended(self, speaker_id: str) -> tuple[SessionRecord, str] | None:
        """An uplink that this service has ended, among the newest thousand: its session, and why."""
        found = self._ended.get(speaker_id)
        return None if found is None else (found[0], ENDED[found[1]])

    async def leave(self, speaker: SpeakerConnection) -> None:
        """Remove an uplink that its speaker ends."""
        await self._remove(speaker, Gone.LEFT)

    async def refresh(self) -> None:
        """Read the state of all uplinks' sessions; one step of a loop. Raises the errors of Redis.

        While Redis does not answer, uplinks stay open and owners the same: they may still be right when it answers.
        """
        await self._clock.sleep(OWNER_REFRESH_INTERVAL_S)
        now_unix_s = self._clock.unix_s()
        for speaker in list(self._speakers.values()):
            if speaker.has_expired(now_unix_s):
                speaker.end(Gone.EXPIRED)
        speakers = list(self._speakers.values())
        if speakers:
            states = await self._registry.uplink_states([speaker.session.session_id for speaker in speakers])
            for speaker in speakers:
                self._apply(speaker, states[speaker.session.session_id])
            await self._mute(speakers)

    async def _mute(self, speakers: list[SpeakerConnection]) -> None:
        """Mute the voices of the participants that are muted in their rooms, and no others."""
        of_rooms = [one for one in speakers if one.bearer is not None and one.bearer.room is not None]
        pairs = [(one.bearer.room or "", one.bearer.scope or "") for one in of_rooms if one.bearer is not None]
        for speaker, participant in zip(of_rooms, await self._rooms.participants(pairs), strict=True):
            if participant is not None:  # None: it has left, and its session ends; or Redis came back empty
                speaker.is_muted = participant.muted

    def _apply(self, speaker: SpeakerConnection, state: UplinkState) -> None:
        speaker.motion.owner = state.owner
        if state.end_reason is not None:
            speaker.end(Gone.SESSION_ENDED)
        elif speaker.is_connected and state.connection_id not in {None, speaker.connection_id}:  # None: Redis came back
            speaker.end(Gone.REPLACED)

    async def keep_sessions_alive(self) -> None:
        """Renew the sessions of all connected uplinks; one step of a loop. Raises the errors of Redis."""
        await self._clock.sleep(KEEP_ALIVE_INTERVAL_S)
        speakers = [speaker for speaker in self._speakers.values() if speaker.is_connected]
        if speakers:
            held = [OpenUplink(speaker.session, speaker.connection_id) for speaker in speakers]
            kept = await self._registry.keep_uplinks(held, _SPEAKER_TTL_S)
            for speaker in speakers:
                if session := kept[speaker.session.session_id]:
                    speaker.session = session
                else:
                    speaker.end(Gone.SESSION_ENDED)

    async def aclose(self) -> None:
        """Close every connection, so that speakers notice it at once."""
        await asyncio.gather(*(self._remove(speaker, Gone.SHUTDOWN) for speaker in list(self._speakers.values())))
        await self._tasks.finish()

    def _demand_room(self, session_id: str) -> None:
        if len(self._speakers) - len(self._of_session(session_id)) >= self._settings.max_speakers:
            raise Full("this service has as many speakers as allowed")

    def _of_session(self, session_id: str) -> list[SpeakerConnection]:
        return [speaker for speaker in self._speakers.values() if speaker.session.session_id == session_id]

    def _connected(self) -> int:
        return sum(speaker.is_connected for speaker in self._speakers.values())

    async def _remove(self, speaker: SpeakerConnection, reason: Gone) -> None:
        if self._speakers.pop(speaker.speaker_id, None) is None:
            return
        if reason in ENDED:
            self._ended[speaker.speaker_id] = speaker.session, reason
            while len(self._ended) > _ENDED_REMEMBERED:
                self._ended.popitem(last=False)
        self._metrics.speaker_gone(reason)
        await speaker.close()

    def _gone(self, speaker: SpeakerConnection, reason: Gone) -> None:
        self._tasks.spawn(self._remove(speaker, reason))
