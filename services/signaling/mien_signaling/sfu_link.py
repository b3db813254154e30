"""Keeps one session published at the SFU: attempt after attempt until its owner closes it."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from redis.asyncio import Redis

from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.egress import EgressError, Egresses, EgressOrder, EgressState, Held
from mien_shared.bus.messages import SessionRecord
from mien_shared.clock import Clock
from mien_signaling.broadcast import Broadcast
from mien_signaling.metrics import SignalingMetrics
from mien_signaling.settings import SignalingSettings
from mien_signaling.sfu_client import BadAnswer, SfuRefused, SfuUnreachable, publish, unpublish
from mien_signaling.sfu_metrics import Deleted, SfuMetrics
from mien_signaling.sfu_publication import Publication, UnusableAnswer, VoiceRefused
from mien_signaling.sfu_target import Endpoint, NoKey, SfuTarget
from mien_signaling.sfu_watch import Attempts

logger = logging.getLogger(__name__)

#: An SFU that cannot take all sections of an offer refuses it as a whole (RFC 9725, section 4.4.3).
_NOT_ACCEPTABLE = {406, 422}


class _Failed(Exception):
    """An attempt did not lead to a connection."""

    def __init__(self, error: EgressError, status: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(error.value)
        self.error = error
        self.status = status
        self.retry_after_s = retry_after_s


class SfuLink:
    """One session's link to the SFU. It runs from `start` to `aclose`.

    order: what an operator wants, None where all sessions are published. resource: Location of an earlier publication.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        order: EgressOrder | None,
        resource: str | None,
        target: SfuTarget,
        redis: Redis,
        settings: SignalingSettings,
        clock: Clock,
        metrics: SignalingMetrics,
        sfu_metrics: SfuMetrics,
    ) -> None:
        self.broadcast = broadcast
        self.session = broadcast.session
        self.order = order
        self._resource = resource
        self._target = target
        self._egresses = Egresses(redis)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._sfu_metrics = sfu_metrics
        self._attempts = Attempts()
        self._with_voice = True
        self._publication: Publication | None = None
        self._state = self._new_state("connecting")
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="SFU link")
        self._task.add_done_callback(_task_done)

    async def aclose(self) -> None:
        """Leave the SFU: its session there is deleted, as far as it answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._leave()

    def held(self) -> Held:
        """What Redis is told with each renewal of the claim."""
        publication = self._publication
        state = self._state
        if publication is not None:
            loss, rtt_s = publication.loss_ratio, publication.rtt_s
            figures = {
                "loss_ratio": None if loss is None else round(loss, 4),
                "rtt_ms": None if rtt_s is None else round(rtt_s * 1000, 1),
            }
            state = state.model_copy(update=figures)
        return Held(self.order, state, self._resource)

    @property
    def state(self) -> str:
        return self._state.state

    async def _run(self) -> None:
        while True:
            started_s = self._clock.monotonic_s()
            retry_after_s = 0.0
            try:
                if self._attempts.failures == 0:
                    self._state = self._new_state("connecting")
                publication = await self._connected()
                started_s = self._clock.monotonic_s()
                self._state = self._new_state("connected")
                self._sfu_metrics.connected()
                error, status = await publication.lost(), None
                self._sfu_metrics.lost(error)
                lasted_s = self._clock.monotonic_s() - started_s
            except VoiceRefused:
                self._with_voice = False
                await self._leave()
                continue
            except _Failed as failed:
                self._sfu_metrics.failed(failed.error)
                error, status, retry_after_s, lasted_s = failed.error, failed.status, failed.retry_after_s, 0.0
            self._with_voice = True
            self._attempts.failed(lasted_s)
            self._state = self._new_state("retrying", error, status)
            logger.warning(
                "a session is not published to the SFU", extra={"reason": error.value, "status": status or 0}
            )
            await self._leave()
            await self._clock.sleep(self._attempts.wait_s(random.random(), retry_after_s))

    async def _connected(self) -> Publication:
        """A connected publication. Raises _Failed or VoiceRefused."""
        await self._leave()  # what an earlier attempt, or a service that was killed, has left at the SFU
        try:
            endpoint = self._target.endpoint(self.session, key_of(self.order))
        except NoKey as error:
            raise _Failed(EgressError.NO_KEY) from error
        self._publication = Publication(self.broadcast, self._clock, self._metrics, self._sfu_metrics, self._with_voice)
        try:
            answer = await self._posted(endpoint, await self._publication.offer())
            await self._publication.accept(answer)
        except SfuUnreachable as error:
            raise _Failed(EgressError.UNREACHABLE) from error
        except SfuRefused as error:
            if self._with_voice and error.status in _NOT_ACCEPTABLE:
                raise VoiceRefused from error
            raise _Failed(EgressError.REFUSED, error.status, error.retry_after_s) from error
        except (BadAnswer, UnusableAnswer) as error:
            logger.warning("the SFU's answer is not usable", extra={"error": str(error)})
            raise _Failed(EgressError.BAD_ANSWER) from error
        if not await self._publication.connected(self._settings.connect_timeout_s):
            raise _Failed(EgressError.NOT_CONNECTED)
        return self._publication

    async def _posted(self, endpoint: Endpoint, offer: str) -> str:
        """The SFU's answer. It is awaited if the caller is cancelled: without its Location no service can delete it."""
        posting = asyncio.create_task(self._post(endpoint, offer), name="publish")
        try:
            return await asyncio.shield(posting)
        except asyncio.CancelledError:
            await asyncio.wait([posting])
            posting.exception()  # the attempt is given up, so it does not matter
            raise

    async def _post(self, endpoint: Endpoint, offer: str) -> str:
        created = await publish(self._target, endpoint, offer)
        self._resource = created.location
        with suppress(*BUS_ERRORS):  # then the next renewal writes it
            await self._egresses.keep_resource(self.session.session_id, created.location)
        return created.answer

    async def _leave(self) -> None:
        """Close the connection, and delete the publication at the SFU. An SFU that does not answer is left as it is.

        It goes on if its caller is cancelled: a connection that is half closed would stay.
        """
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._left(), name="leave the SFU")
        await asyncio.shield(self._leaving)

    async def _left(self) -> None:
        publication, self._publication = self._publication, None
        if publication is not None:
            await publication.close()
        resource, self._resource = self._resource, None
        if resource is not None:
            await delete_resource(self._target, self.session, self.order, resource, self._egresses, self._sfu_metrics)

    def _new_state(self, state: str, error: EgressError | None = None, status: int | None = None) -> EgressState:
        return EgressState.model_validate(
            {
                "state": state,
                "since_ms": round(self._clock.unix_s() * 1000),
                "failures": self._attempts.failures,
                "error": error,
                "status": status,
            }
        )


async def delete_resource(
    target: SfuTarget,
    session: SessionRecord,
    order: EgressOrder | None,
    resource: str,
    egresses: Egresses,
    metrics: SfuMetrics,
) -> bool:
    """Delete a publication at the SFU and forget its Location; whether the SFU said that it is gone."""
    try:
        bearer = target.endpoint(session, key_of(order)).bearer
    except NoKey:
        bearer = None  # the order is gone with the session; some SFUs ask for no bearer here
    try:
        await unpublish(target, resource, bearer)
        await egresses.forget_resource(session.session_id, resource)
    except (SfuUnreachable, SfuRefused, BadAnswer) as error:
        logger.warning("a publication could not be deleted at the SFU", extra={"error": str(error)})
        metrics.deleted(Deleted.FAILED)
        return False
    except BUS_ERRORS:
        pass  # deleting it once more is harmless
    metrics.deleted(Deleted.DONE)
    return True


def key_of(order: EgressOrder | None) -> str | None:
    """The stream key of an order."""
    return None if order is None else order.stream_key


def _task_done(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.error("a link to the SFU failed", exc_info=task.exception())
