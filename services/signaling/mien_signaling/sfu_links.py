"""The sessions that this process publishes to the operator's SFU, among several signaling services.

Once a second it renews its claims, gives up what is not wanted any more, and claims sessions that no service publishes.
It takes few at a time, so that services that start together share them.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Iterable

from redis.asyncio import Redis

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.egress import INTERVAL_S, Candidate, Egresses, EgressOrder, Renewal, Survey, orphans
from mien_shared.bus.keys import EGRESS_OWNER_S
from mien_shared.bus.messages import SessionRecord
from mien_shared.clock import Clock
from mien_signaling.background import BackgroundTasks
from mien_signaling.broadcast import Broadcast
from mien_signaling.broadcasts import Broadcasts, UnknownSession
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.settings import SignalingSettings
from mien_signaling.sfu_link import SfuLink, delete_resource, key_of
from mien_signaling.sfu_metrics import Ended, SfuMetrics
from mien_signaling.sfu_target import SfuTarget

__all__ = ["INTERVAL_S", "SfuLinks"]

#: Most sessions that one step claims.
_CLAIMS_A_STEP = 4
#: Claims may expire while Redis is away. After that a service waits, so that those who hold claims renew them first.
_SETTLE_S = 2 * INTERVAL_S
#: How long an SFU that could not delete what a killed service left is not asked again.
_ORPHAN_RETRY_S = 10.0


class SfuLinks:
    """Owns the links of this process. `aclose` ends all of them, so that another service takes over at once."""

    def __init__(
        self,
        target: SfuTarget,
        redis: Redis,
        settings: SignalingSettings,
        clock: Clock,
        metrics: SignalingMetrics,
        sfu_metrics: SfuMetrics,
        broadcasts: Broadcasts,
    ) -> None:
        self._target = target
        self._redis = redis
        self._egresses = Egresses(redis)
        self._broadcasts = broadcasts
        broadcasts.on_ended(self._ended)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._sfu_metrics = sfu_metrics
        sfu_metrics.watch(lambda state: sum(link.state == state for link in self._links.values()))
        self._service_id = secrets.token_hex(8)
        self._wants_all = settings.sfu_sessions == "all"
        self._links: dict[str, SfuLink] = {}
        self._tasks = BackgroundTasks("leaving the SFU failed")
        self._asked_s = float("-inf")
        self._settled_s = float("-inf")
        self._orphans_asked_s: dict[str, float] = {}

    async def step(self) -> None:
        """One step of a loop. Raises the errors of Redis."""
        try:
            await self._renew()
            survey = await self._egresses.survey(wants_all=self._wants_all)
            others = [session_id for session_id in survey.session_ids if session_id not in self._links]
            found = await self._egresses.look(others, survey.ordered)
        except BUS_ERRORS:
            self._settled_s = float("inf")
            raise
        now_s = self._clock.monotonic_s()
        if self._settled_s == float("inf") or now_s - self._asked_s > EGRESS_OWNER_S:
            self._settled_s = now_s + _SETTLE_S
        self._asked_s = now_s
        if now_s >= self._settled_s:
            await self._claim(found, survey)
            await self._delete_orphans(found, survey)

    async def aclose(self) -> None:
        await asyncio.gather(*(self._drop(link, Ended.SHUTDOWN) for link in list(self._links.values())))
        await self._tasks.finish()

    async def _renew(self) -> None:
        held = {session_id: link.held() for session_id, link in self._links.items()}
        for session_id, (renewal, order) in (await self._egresses.renew(self._service_id, held)).items():
            if (link := self._links.get(session_id)) is None:
                continue
            if renewal is Renewal.ENDED:
                self._tasks.spawn(self._drop(link, Ended.SESSION_ENDED))
            elif renewal is Renewal.LOST:
                self._tasks.spawn(self._drop(link, Ended.TAKEN_OVER))
            elif not self._is_wanted(order):
                self._tasks.spawn(self._drop(link, Ended.WITHDRAWN))
            elif key_of(order) != key_of(link.order):
                # This publication ends, and the next step begins one by the new order.
                self._tasks.spawn(self._drop(link, Ended.WITHDRAWN))
            else:
                link.order = order

    def _is_wanted(self, order: EgressOrder | None) -> bool:
        return self._wants_all if order is None else order.wanted

    async def _claim(self, found: Iterable[Candidate], survey: Survey) -> None:
        free = [one for one in found if one.is_free(wants_all=self._wants_all)]
        random.shuffle(free)
        room = min(_CLAIMS_A_STEP, self._settings.max_sfu_sessions - len(self._links))
        for one in free[: max(room, 0)]:
            if await self._egresses.claim(one.session_id, self._service_id):
                await self._begin(one, survey.resources.get(one.session_id))

    async def _begin(self, one: Candidate, resource: str | None) -> None:
        try:
            broadcast = await self._broadcasts.use(one.session_id, needs_video=False)
        except UnknownSession:
            await self._egresses.release(one.session_id, self._service_id)
            return
        link = SfuLink(
            broadcast,
            one.order,
            resource,
            self._target,
            self._redis,
            self._settings,
            self._clock,
            self._metrics,
            self._sfu_metrics,
        )
        self._links[one.session_id] = link
        link.start()

    async def _drop(self, link: SfuLink, reason: Ended) -> None:
        """Leave the SFU and give up the claim; does nothing if the link was dropped before."""
        session_id = link.session.session_id
        if self._links.get(session_id) is not link:
            return
        del self._links[session_id]
        self._sfu_metrics.ended(reason)
        await link.aclose()
        self._broadcasts.done(link.broadcast)
        try:
            await self._egresses.release(session_id, self._service_id)
        except BUS_ERRORS:
            pass  # the claim expires

    async def _ended(self, broadcast: Broadcast) -> None:
        link = self._links.get(broadcast.session.session_id)
        if link is not None and link.broadcast is broadcast:
            self._tasks.spawn(self._drop(link, Ended.SESSION_ENDED))

    async def _delete_orphans(self, found: Iterable[Candidate], survey: Survey) -> None:
        """Delete at the SFU what a killed service has left of sessions that are not published any more."""
        now_s = self._clock.monotonic_s()
        left = [one for one in orphans(survey, found, wants_all=self._wants_all) if one not in self._links]
        self._orphans_asked_s = {one: at_s for one, at_s in self._orphans_asked_s.items() if one in left}
        for session_id in left[:_CLAIMS_A_STEP]:
            if now_s - self._orphans_asked_s.get(session_id, float("-inf")) < _ORPHAN_RETRY_S:
                continue
            if await self._egresses.claim(session_id, self._service_id):
                self._orphans_asked_s[session_id] = now_s
                self._tasks.spawn(self._delete_orphan(session_id, survey.resources[session_id]))

    async def _delete_orphan(self, session_id: str, resource: str) -> None:
        session = SessionRecord(session_id=session_id, avatar_id="", created_at_ms=0)
        await delete_resource(self._target, session, None, resource, self._egresses, self._sfu_metrics)
        try:
            await self._egresses.release(session_id, self._service_id)
        except BUS_ERRORS:
            pass
