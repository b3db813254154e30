"""One participant's connection to its room: a stream of pictures and one of voice for each slot.

Who is in a slot changes without SDP. The receiver sees streams that go on (slot_timeline.py), each picture beginning
with an IDR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from mien_shared.bus.live_rooms import SlotsState, SlotState
from mien_shared.bus.messages import ViewerState
from mien_shared.clock import Clock
from mien_shared.http.principal import Principal
from mien_shared.settings import IceServer
from mien_signaling import ice, passthrough, voice_passthrough
from mien_signaling.aiortc_parts import STREAM_ID, forget_time
from mien_signaling.broadcast import Broadcast
from mien_signaling.feedback import BitrateLimits
from mien_signaling.media_port import MediaPort
from mien_signaling.metrics import SignalingMetrics, VoiceDropped
from mien_signaling.offer_parts import UnacceptableOffer, UnreadableOffer
from mien_signaling.peer_session import Gone, PeerSession
from mien_signaling.picture_stream import PictureStream
from mien_signaling.room_offer import OfferedSlot, RoomOffer
from mien_signaling.slot_timeline import SlotClock, VoiceContinuity
from mien_signaling.slots import Slots
from mien_signaling.voice_passthrough import VoiceSender
from mien_signaling.voice_timeline import TimedVoice


class Source(Protocol):
    """A participant as a slot shows it."""

    @property
    def broadcast(self) -> Broadcast: ...

    def attach(self, slot: Slot) -> None:
        """Send the participant's voice to this slot, too."""

    def detach(self, slot: Slot) -> None:
        """Send it there no longer; does nothing if the slot is not attached."""


class Slot:
    """One slot: what it shows now, and its two streams."""

    def __init__(
        self,
        offered: OfferedSlot,
        limits: BitrateLimits,
        clock: Clock,
        metrics: SignalingMetrics,
        on_frame: Callable[[], None],
    ) -> None:
        self.offered = offered
        self._clock = clock
        self._metrics = metrics
        self._slot_clock = SlotClock()
        self.picture = PictureStream(limits, clock, metrics, on_frame, self._slot_clock)
        self._voice = VoiceContinuity(self._slot_clock)
        self._sender: VoiceSender | None = None
        self._source: Source | None = None

    @property
    def is_filled(self) -> bool:
        return self._source is not None

    def show(self, source: Source | None) -> None:
        """Show and play this participant from now on, or nobody."""
        if source is self._source:
            return
        if self._source is not None:
            self._source.detach(self)
        self._source = source
        self._slot_clock.begin()
        self._voice.begin()
        if self._sender is not None:
            self._sender.forget_time()
        self.picture.tune(None if source is None else source.broadcast)
        if source is not None:
            source.attach(self)
            self._metrics.slot_changed()

    @property
    def session_id(self) -> str | None:
        """The session that is shown, None if nobody is."""
        return None if self._source is None else self._source.broadcast.session.session_id

    def leave(self, source: Source) -> None:
        """Show this participant no longer."""
        if self._source is source:
            self.show(None)

    async def hear(self, voice: TimedVoice, is_loud: bool) -> int:
        """Send a packet of the participant's voice, if it is among the loudest; returns 1 if it is sent."""
        sender = self._sender
        if sender is None:
            return 0
        if not is_loud:
            self._voice.pause()
            self._metrics.voice_dropped(VoiceDropped.QUIET)
            return 0
        placed = self._voice.place(voice, self._clock.monotonic_s())
        if placed is None:
            self._metrics.voice_dropped(VoiceDropped.RETIRED)
            return 0
        try:
            return await sender.send(placed)
        except ConnectionError:
            self._metrics.voice_dropped(VoiceDropped.CLOSED)
            return 0

    def voice_ready(self, sender: VoiceSender) -> None:
        """Packets can be sent."""
        self._sender = sender

    def voice_done(self, sender: VoiceSender) -> None:
        """They can no longer be sent."""
        self._sender = None


class RoomViewer(PeerSession):
    """A WHEP session of a room. on_connected, on_gone: called at most once each."""

    def __init__(
        self,
        viewer_id: str,
        bearer: Principal,
        offer: RoomOffer,
        limits: BitrateLimits,
        ice_servers: list[IceServer],
        media_port: MediaPort | None,
        clock: Clock,
        metrics: SignalingMetrics,
        on_connected: Callable[[RoomViewer], None],
        on_gone: Callable[[RoomViewer, Gone], object],
    ) -> None:
        super().__init__(bearer, ice_servers, media_port, clock, metrics)
        self.viewer_id = viewer_id
        #: Whether it has claimed its participant's slots in the room's live state.
        self.has_claimed = False
        self.places = Slots(len(offer.slots))
        self._limits = limits
        self.slots = [self._slot(one) for one in offer.slots]
        self._room_offer = offer
        self._answering = asyncio.Lock()
        self._on_connected = on_connected
        self._on_gone = on_gone
        self._joined_at_ms = round(clock.unix_s() * 1000)
        self._saw_frame = False

    @property
    def participant_id(self) -> str:
        assert self.bearer is not None and self.bearer.scope is not None  # a participant's token
        return self.bearer.scope

    @property
    def load(self) -> int:
        """As how many viewers of sessions it counts."""
        return max(1, sum(slot.is_filled for slot in self.slots))

    @property
    def sent_bps(self) -> float:
        """The rate of all its pictures, bits per second."""
        return sum(slot.picture.stream_bps for slot in self.slots)

    async def answer(self) -> str:
        """aiortc's answer to the reduced offer, with our candidates. Raises UnreadableOffer or ClosedWhileAnswering."""
        return await self._negotiated(self._room_offer)

    async def answer_more(self, offer: RoomOffer) -> str:
        """aiortc's answer to an offer with more slots on the live connection.

        Raises UnacceptableOffer, UnreadableOffer or ClosedWhileAnswering.
        """
        async with self._answering:
            if not self.is_connected:
                raise UnacceptableOffer("the connection is not established yet; offer more slots when it is")
            known, offered = self._room_offer.slots, offer.slots[: len(self.slots)]
            if [one.mids for one in offered] != [one.mids for one in known]:
                raise UnacceptableOffer("the offer does not begin with the slots of the last one")
            if not offer.ufrags <= self._room_offer.ufrags:
                raise UnacceptableOffer("the offer is for another ICE session")
            more = [self._slot(one) for one in offer.slots[len(self.slots) :]]
            for number, slot in enumerate(more, len(self.slots)):
                self._add_slot(number, slot)
            try:
                answer = await self._negotiated_again(offer)
            except UnreadableOffer:
                self.end(Gone.FAILED)
                raise
            self._room_offer = offer
            self.slots += more
            self.places.grow(len(self.slots))
            return answer

    def show(self, sources: Mapping[str, Source]) -> None:
        """Tune the slots to those who have a place, as far as they can be shown; not before it is connected."""
        if self.is_connected:
            for slot, name in zip(self.slots, self.places.places, strict=True):
                slot.show(None if name is None else sources.get(name))

    def end(self, reason: Gone) -> None:
        """End the connection; does nothing if it has ended."""
        self._report_gone(reason)

    async def close(self) -> None:
        """Free all resources. May be called more than once."""
        for slot in self.slots:
            slot.show(None)
        await super().close()

    def slots_state(self) -> SlotsState:
        """Who is in which slot, for the participant's events."""
        states = (
            SlotState(
                slot=number,
                video_mid=slot.offered.mid,
                audio_mid=None if slot.offered.voice is None else slot.offered.voice.mid,
                participant_id=name,
            )
            for number, (slot, name) in enumerate(zip(self.slots, self.places.places, strict=True))
        )
        return SlotsState(viewer_id=self.viewer_id, slots=tuple(states))

    def state_of(self, slot: Slot) -> ViewerState:
        """What an operator may know of this viewer, of one of its slots."""
        picture = slot.picture
        return ViewerState(
            viewer_id=self.viewer_id,
            state="connected" if self.is_connected else "connecting",
            joined_at_ms=self._joined_at_ms,
            sent_bps=round(picture.stream_bps) if self.is_connected else 0,
            target_bps=picture.target_bps,
            loss_ratio=None if picture.loss is None else round(picture.loss, 4),
            rtt_ms=None if picture.rtt_s is None else round(picture.rtt_s * 1000, 1),
        )

    # The connection (PeerSession)

    def _add_sections(self) -> None:
        for number, slot in enumerate(self.slots):
            self._add_slot(number, slot)

    def _slot(self, offered: OfferedSlot) -> Slot:
        return Slot(offered, self._limits, self._clock, self._metrics, self._sends_frame)

    def _add_slot(self, number: int, slot: Slot) -> None:
        video = self._peer.addTransceiver(passthrough.PassthroughTrack(), direction="sendonly")
        video.setCodecPreferences(passthrough.h264_preferences())
        picture, video_format = slot.picture, slot.offered.format
        picture.total_bps = lambda: self.sent_bps
        picture.forget_time = lambda: forget_time(video.sender)
        passthrough.install(video, video_format, picture.next_frame, picture, self._clock, by_capture=True)
        # Each slot is a sync group: otherwise a receiver would tie every voice to every picture.
        setattr(video.sender, STREAM_ID, f"slot-{number}")
        if slot.offered.voice is not None:
            audio = self._peer.addTransceiver(passthrough.PassthroughTrack("audio"), direction="sendonly")
            audio.setCodecPreferences(voice_passthrough.opus_preferences())
            voice_passthrough.install(audio, slot.offered.voice, slot.voice_ready, slot.voice_done)
            setattr(audio.sender, STREAM_ID, f"slot-{number}")

    def _take_over(self) -> None:
        """Nothing: a viewer's reports come through its senders."""

    def _connected(self) -> None:
        self._metrics.viewer_connected(self._clock.monotonic_s() - self._started_s, ice.transport_of(self._peer))
        self._on_connected(self)

    def _gone(self, reason: Gone) -> None:
        self._on_gone(self, reason)

    def _sends_frame(self) -> None:
        if not self._saw_frame:
            self._saw_frame = True
            self._metrics.first_frame(self._clock.monotonic_s() - self._started_s)
