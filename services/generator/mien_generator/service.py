"""The generator's work on Redis: inbox, leases, heartbeat and drain. It starts and ends this generator's sessions.

The heartbeat does nothing but renew, in one round trip, so that leases hold on a slow network. Every start first takes
the session's slot and lease (`Registry.take`): an order may be old, and the session ended or held by another generator.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

import cv2
import numpy as np

from mien_generator.engine.engine import Engine, EngineStopped
from mien_generator.engine.session import Arrival, SessionAvatar
from mien_generator.face.contract import AvatarFace, FaceRefused, RgbArray
from mien_generator.frame.compositor import Compositor
from mien_generator.h264.encoder import H264Encoder, NoH264Encoder
from mien_generator.metrics import EndedBy, GeneratorMetrics, StartResult
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarKind, AvatarNotFound, AvatarRecord, AvatarStore, AvatarStoreError
from mien_shared.bus.channels import GeneratorInbox
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.messages import (
    EndReason,
    GeneratorStatus,
    InboundMotion,
    RequestKeyframe,
    SessionRecord,
    SetBitrate,
    StartSession,
    StopSession,
)
from mien_shared.bus.placement import AllFull, NoGenerator, hand_over
from mien_shared.bus.registry import Registry, Renewal
from mien_shared.clock import Clock
from mien_shared.spans import span
from mien_shared.wire.motion import MotionPacket, MotionPacketError

logger = logging.getLogger(__name__)

#: A session expires when its record has been missing for this long while Redis answers. The gateway and signaling write
#: the record again every five seconds, so a Redis that restarts empty does not end the session.
_EXPIRED_AFTER_S = 15.0
#: This generator continues a handed-over session for this long, while the other generator prepares it.
_OVERLAP_S = 1.0
_DRAIN_POLL_S = 0.1
#: After Redis was away no session is claimed for this long: leases have expired, and holders may renew theirs first. A
#: heartbeat is tried again within a second.
_HOLDERS_FIRST_S = 1.6
#: An answer that takes this long comes from a Redis that hung.
_REDIS_HUNG_S = 1.0
#: A session that failed to start is not claimed again for this long.
_REFUSED_S = 30.0
#: After sessions have missed frames for this long, the generator offers no free place.
_OVERLOADED_S = 3.0


class AvatarKindUnsupported(RuntimeError):
    """This generator has no tier for avatars of this kind."""


#: The errors with which a session may fail to start.
_NOT_STARTED = (
    AvatarKindUnsupported,
    AvatarNotFound,
    AvatarStoreError,
    EngineStopped,
    FaceRefused,
    NoH264Encoder,
    ValueError,
)


class Generator:
    """Reads orders and motion from Redis and passes them to the Engine, which makes the frames."""

    def __init__(
        self,
        settings: GeneratorSettings,
        registry: Registry,
        avatars: AvatarStore,
        engine: Engine,
        backends: Mapping[AvatarKind, str],
        places: int,
        h264_name: str,
        clock: Clock,
        metrics: GeneratorMetrics,
    ) -> None:
        """backends: for each kind of avatar that this generator draws, its best tier's. places: most sessions."""
        self.generator_id = f"g-{secrets.token_hex(6)}"
        self._settings = settings
        self._registry = registry
        self._avatars = avatars
        self._engine = engine
        self._backends = backends
        self._places = self._offered = places
        self._h264_name = h264_name
        self._clock = clock
        self._metrics = metrics
        self._inbox = GeneratorInbox(registry.redis, self.generator_id)
        # Sessions of the same avatar share its prepared faces. These are freed with the last of those sessions.
        self._prepared_avatars: WeakValueDictionary[str, SessionAvatar] = WeakValueDictionary()
        self._starting: dict[str, asyncio.Task[None]] = {}
        #: Sessions of which a start is in progress and has taken the lease.
        self._taken: set[str] = set()
        self._failed: list[str] = []
        self._suspects: list[str] = []
        self._missing_since_s: dict[str, float] = {}
        self._refused_until_s: dict[str, float] = {}
        self._redis_was_away = False
        self._claims_from_s = 0.0
        self._overloaded_since_s: float | None = None
        self._draining = False
        self._beating = asyncio.Lock()
        self._has_left = False
        self._handed_over: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self) -> None:
        """Read the inbox once. Motion goes to the engine; orders are carried out."""
        for message in await self._inbox.read():
            match message:
                case InboundMotion(session_id, data, received_unix_us):
                    try:
                        packet = MotionPacket.unpack(data)
                    except MotionPacketError as error:
                        self._metrics.unreadable(error)
                        continue
                    self._metrics.channel_lag("motion", self._clock.unix_s() - received_unix_us / 1e6)
                    arrival = Arrival(packet, len(data), received_unix_us, self._clock.monotonic_s())
                    self._engine.offer(session_id, arrival)
                case StartSession(session=session, traceparent=parent):
                    self._start(session, claimed=False, parent=parent)
                case StopSession(session_id=session_id):
                    self._end(session_id, EndedBy.STOPPED)
                case RequestKeyframe(session_id=session_id, reason=reason):
                    self._engine.request_keyframe(session_id, reason)
                case SetBitrate(session_id=session_id, bitrate_bps=bitrate_bps):
                    self._engine.set_bitrate(session_id, bitrate_bps)

    async def beat(self) -> None:
        """One heartbeat: report the status, renew leases, and end sessions that were lost or have failed."""
        async with self._beating:
            if not self._has_left:
                await self._beat()

    async def _beat(self) -> None:
        if not self._engine.failure:  # otherwise let the leases lapse, so that other generators claim the sessions
            await self._renew()
        await self._end_failed()

    async def _renew(self) -> None:
        sessions = self._engine.records()
        status = GeneratorStatus(
            generator_id=self.generator_id,
            capacity=self._capacity(len(sessions)),
            sessions=len(sessions),
            backend=self._backends[AvatarKind.PORTRAIT],
            draining=self._draining,
        )
        ours = [*(session.session_id for session in sessions), *self._taken]
        kept = [session_id for session_id in dict.fromkeys(ours) if session_id not in self._handed_over]
        for session_id, renewal in (await self._registry.heartbeat(status, kept, self._engine.stats())).items():
            self._apply_renewal(session_id, renewal)

    async def _end_failed(self) -> None:
        """End the sessions whose frames failed for good: they would fail on every generator.

        A session with which two devices were lost is not ended, but no device draws it any more.
        """
        self._failed += self._engine.take_failed()
        while self._failed:
            await self._registry.end_session(self._failed[0], EndReason.FAILED)
            await self._registry.free_slot(self.generator_id, self._failed.pop(0))
        self._suspects += self._engine.take_suspects()
        if self._suspects:
            for session_id in await self._registry.accuse(self._suspects):
                self._engine.pin(session_id)
            self._suspects.clear()

    async def claim(self) -> None:
        """Start sessions that no generator holds, as far as there is room; one step of a loop."""
        if self._draining or self._has_left or self._engine.failure:
            return
        now_s = self._clock.monotonic_s()
        self._refused_until_s = {name: until_s for name, until_s in self._refused_until_s.items() if until_s > now_s}
        orphans = await self._orphans()
        if self._clock.monotonic_s() < self._claims_from_s:
            return
        for session in orphans:
            has_room = len(self._known()) < self._places and not self._draining
            if has_room and session.session_id not in self._refused_until_s:
                self._start(session, claimed=True)

    async def _orphans(self) -> Iterable[SessionRecord]:
        asked_s = self._clock.monotonic_s()
        try:
            orphans = await self._registry.orphans()
        except BUS_ERRORS:
            self._redis_was_away = True
            raise
        now_s = self._clock.monotonic_s()
        if self._redis_was_away or now_s - asked_s > _REDIS_HUNG_S:
            self._redis_was_away = False
            self._claims_from_s = now_s + _HOLDERS_FIRST_S
        return orphans

    def _capacity(self, sessions: int) -> int:
        """The number of sessions to offer: the measured capacity, but no free place while sessions miss frames.

        A capacity that the operator has set is never reduced.
        """
        now_s = self._clock.monotonic_s()
        if self._settings.capacity is not None or not self._engine.is_overloaded:
            self._overloaded_since_s = None
        elif self._overloaded_since_s is None:
            self._overloaded_since_s = now_s
        is_short = self._overloaded_since_s is not None and now_s - self._overloaded_since_s >= _OVERLOADED_S
        places = min(self._places, max(1, sessions)) if is_short else self._places
        self._metrics.capacity(places)
        self._offered = places
        return places

    async def drain(self, deadline_s: float) -> None:
        """Take no new sessions and hand over all others. Returns when no session is left, or at the deadline.

        This generator continues a handed-over session for one second. Signaling drops its frames as soon as the other
        generator's first frame arrives.
        """
        self._draining = True
        give_up_s = self._clock.monotonic_s() + deadline_s
        while (left := self._engine.records()) and self._clock.monotonic_s() < give_up_s:
            for session in left:
                if session.session_id not in self._handed_over:
                    await self._hand_over(session)
            await self._clock.sleep(_DRAIN_POLL_S)

    def offer_places(self, places: int) -> None:
        """Hold at most this many sessions from now on. Sessions above it stay."""
        self._places = places

    async def move_away(self, count: int) -> None:
        """Hand over the newest sessions, because another generator of this machine has room and this one is busy."""
        movable = [one for one in self._engine.records() if one.session_id not in self._handed_over]
        for session in movable[::-1][:count]:
            await self._hand_over(session)

    @property
    def places(self) -> int:
        """The number of sessions that this generator offered with its last heartbeat."""
        return self._offered

    async def _hand_over(self, session: SessionRecord) -> None:
        try:
            if await hand_over(self._registry, session, self.generator_id) is None:
                return
        except (NoGenerator, AllFull, *BUS_ERRORS):
            return
        self._handed_over.add(session.session_id)
        task = asyncio.create_task(self._end_later(session.session_id), name="hand over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_later(self, session_id: str) -> None:
        await self._clock.sleep(_OVERLAP_S)
        self._end(session_id, EndedBy.DRAINED)
        self._handed_over.discard(session_id)

    async def close(self) -> None:
        """Release all leases and leave the registry, so that other generators can claim the sessions at once.

        No heartbeat runs during this call or after it.
        """
        held = [*(session.session_id for session in self._engine.records()), *self._taken]
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(1.0), self._beating:
                self._has_left = True
                for session_id in dict.fromkeys(held):
                    await self._registry.release(self.generator_id, session_id)
                for _ in self._engine.records():
                    self._metrics.session_ended(EndedBy.SHUTDOWN)
                await self._registry.remove_generator(self.generator_id)
                await self._inbox.remove()
        except (*BUS_ERRORS, TimeoutError):
            logger.warning("leases not released, Redis does not answer")

    def _apply_renewal(self, session_id: str, renewal: Renewal) -> None:
        now_s = self._clock.monotonic_s()
        match renewal:
            case Renewal.HELD:
                self._missing_since_s.pop(session_id, None)
            case Renewal.TAKEN_OVER if session_id not in self._handed_over:  # a drain may have handed it over meanwhile
                self._end(session_id, EndedBy.TAKEN_OVER)
            case Renewal.ENDED:
                self._end(session_id, EndedBy.STOPPED)
            case Renewal.UNRECORDED:
                if now_s - self._missing_since_s.setdefault(session_id, now_s) > _EXPIRED_AFTER_S:
                    self._end(session_id, EndedBy.EXPIRED)

    def _known(self) -> set[str]:
        """The sessions that this generator generates or starts."""
        return {record.session_id for record in self._engine.records()} | self._starting.keys()

    def _start(self, session: SessionRecord, claimed: bool, parent: str | None = None) -> None:
        if self._has_left or session.session_id in self._known():
            return
        task = asyncio.create_task(self._take_and_build(session, claimed, parent), name="start session")
        self._starting[session.session_id] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_and_build(self, session: SessionRecord, claimed: bool, parent: str | None) -> None:
        session_id = session.session_id
        try:
            if (refusal := await self._refusal(session_id)) is None:
                self._taken.add(session_id)
                await self._build(session, claimed, parent)
            elif not claimed:  # another generator was faster with a claim: that is no news
                self._metrics.session_not_started(StartResult.REFUSED)
                logger.warning("session not started", extra={"error": refusal})
        except BUS_ERRORS as error:  # the lease lapses, and a generator claims the session when Redis is back
            self._metrics.session_not_started(StartResult.FAILED)
            logger.warning("session not started", extra={"error": str(error)})
        finally:
            self._starting.pop(session_id, None)
            self._taken.discard(session_id)

    async def _refusal(self, session_id: str) -> Renewal | None:
        """Take the session, or say why it must not be started."""
        if len(self._known() - {session_id}) >= self._places:  # Redis may not know: while it hangs, slots lapse
            await self._registry.release(self.generator_id, session_id)
            return Renewal.FULL
        taken = await self._registry.take(self.generator_id, session_id, self._places)
        return None if taken is Renewal.HELD else taken

    async def _build(self, session: SessionRecord, claimed: bool, parent: str | None) -> None:
        ordered_s = self._clock.monotonic_s()
        try:
            with span("start session", parent):
                with span("load avatar"):
                    record = await self._avatars.record(session.avatar_id)
                    if record.kind not in self._backends:
                        raise AvatarKindUnsupported(f"this generator has no tier for avatars of kind {record.kind}")
                    still = await asyncio.to_thread(decode_png, await self._avatars.picture(session.avatar_id))
                with span("prepare face and encoder"):
                    avatar, compositor, encoder = await asyncio.to_thread(self._make, record, still)
                    await self._engine.add(session, avatar, compositor, encoder)
            self._metrics.session_started(claimed, self._clock.monotonic_s() - ordered_s)
            logger.info("session started", extra={"avatar": session.avatar_id})
        except _NOT_STARTED as error:
            logger.warning("session not started", extra={"error": str(error)})
            await self._give_up(session.session_id)
        except Exception:
            logger.exception("session not started")
            await self._give_up(session.session_id)

    async def _give_up(self, session_id: str) -> None:
        """Leave a session that could not be started to other generators."""
        self._metrics.session_not_started(StartResult.FAILED)
        self._refused_until_s[session_id] = self._clock.monotonic_s() + _REFUSED_S
        self._taken.discard(session_id)
        await self._registry.release(self.generator_id, session_id)

    def _make(self, record: AvatarRecord, still: RgbArray) -> tuple[SessionAvatar, Compositor, H264Encoder]:
        """A session's compositor and H.264 encoder, and its avatar, shared by all sessions of this avatar."""
        box = record.face_box
        compositor = Compositor(still, box)
        encoder = H264Encoder(self._h264_name, self._settings.bitrate_bps)
        avatar = self._prepared_avatars.get(record.avatar_id)
        if avatar is None:
            crop = np.ascontiguousarray(still[box.y : box.y + box.size, box.x : box.x + box.size])
            face = AvatarFace(crop, record.source_keypoints(), compositor.region)
            avatar = self._prepared_avatars.setdefault(record.avatar_id, SessionAvatar(face))
        return avatar, compositor, encoder

    def _end(self, session_id: str, reason: EndedBy) -> None:
        """End a session here, also one whose start is in progress."""
        if starting := self._starting.get(session_id):
            starting.cancel()
        self._engine.remove(session_id, reason)
        self._missing_since_s.pop(session_id, None)


def decode_png(data: bytes) -> RgbArray:
    """A stored still picture as (H, W, 3) RGB. Raises ValueError if the bytes are not an image."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("the avatar's stored picture cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
