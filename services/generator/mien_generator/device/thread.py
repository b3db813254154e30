"""The device's thread: makes faces in batches, and prepares avatars between two batches.

When the thread becomes free, it takes the most urgent requests of one tier (`pending.py`), of all engines together. If
both wait, batches and preparations alternate; preparations ahead of need wait until nothing else does.

A batch that fails is made again, one face at a time. If a face fails alone, the device is tried with a computed avatar.
A device that cannot make that face either is lost: the thread ends, and every engine hears it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Never

from mien_generator.cost import BatchCost, Load, largest_batches
from mien_generator.device.contract import Answers, Ask, DeviceLost, Made
from mien_generator.device.pending import Pending
from mien_generator.face.contract import AvatarFace, FacePicture, FaceRefused, FaceRequest
from mien_generator.face.ladder import Ladder
from mien_generator.metrics import GeneratorMetrics
from mien_generator.specimen import draw_speaker, face_of
from mien_shared.clock import Clock

logger = logging.getLogger(__name__)


class DeviceThread:
    """Runs the face generators of a ladder's device tiers, for any number of engines."""

    def __init__(
        self,
        ladder: Ladder,
        costs: Mapping[int, BatchCost],
        clock: Clock,
        metrics: GeneratorMetrics,
        *,
        fps: int,
        max_batch: int,
    ) -> None:
        """costs: batch costs of each device tier, measured without other load."""
        self._ladder = ladder
        self._costs = dict(costs)
        self._most = largest_batches(costs, fps, max_batch)
        self._clock = clock
        self._metrics = metrics
        self._load = Load()
        self._clients: set[ThreadClient] = set()
        self._pending: Pending[_Key] = Pending()
        self._preparations: deque[_Preparation] = deque()
        self._prepared_last = False
        self._under_way: _Batch | None = None
        self._done_s = float("-inf")
        self._closing = False
        self._work = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        #: Why the device was lost, None while it works.
        self.failure: str | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current work, and free the device's memory."""
        self._end("the device is closed")
        self._thread.join()

    def client(self, answers: Answers) -> ThreadClient:
        """Another engine's access to the device."""
        client = ThreadClient(self, answers)
        with self._work:
            self._clients.add(client)
        return client

    @property
    def load_factor(self) -> float:
        """Time that batches take now, divided by the time that was measured without other load."""
        return self._load.factor

    def has_tier(self, tier: int) -> bool:
        return tier in self._most

    # Called by clients, on any thread

    def prepare(self, client: ThreadClient, avatar: AvatarFace, tier: int, ahead: bool) -> Future[Any]:
        preparation = _Preparation(client, avatar, tier, ahead)
        with self._work:
            if self._closing:
                preparation.done.set_exception(DeviceLost(self.failure or "the device is closed"))
            else:
                self._preparations.append(preparation)
                self._work.notify()
        return preparation.done

    def ask(self, client: ThreadClient, ask: Ask) -> None:
        """Raises ValueError if the device has no such tier."""
        if not self.has_tier(ask.tier):
            raise ValueError(f"the device has no tier {ask.tier}")
        with self._work:
            if not self._closing and client in self._clients:
                self._pending.put((client, ask.session), ask)
                self._work.notify()

    def withdraw(self, client: ThreadClient, session: int) -> None:
        with self._work:
            self._pending.drop((client, session))

    def leave(self, client: ThreadClient) -> None:
        """Forget an engine, its requests and its preparations."""
        with self._work:
            self._clients.discard(client)
            for key in [key for key in self._pending if key[0] is client]:
                self._pending.drop(key)
            mine = [one for one in self._preparations if one.client is client]
            self._preparations = deque(one for one in self._preparations if one.client is not client)
        for preparation in mine:
            preparation.done.cancel()

    # On the device's thread

    def _run(self) -> None:
        reason = "the device is closed"
        try:
            while self._step():
                pass
        except Exception as error:
            logger.exception("the device has failed")
            reason = self.failure = f"the device has failed: {error}"
        finally:
            self._end(reason)
            for rung in self._ladder.rungs[:-1]:
                rung.generator.close()

    def _end(self, reason: str) -> None:
        with self._work:
            self._closing = True
            waiting, self._preparations = self._preparations, deque()
            clients, self._clients = self._clients, set()
            self._work.notify_all()
        for preparation in waiting:
            if preparation.done.set_running_or_notify_cancel():
                preparation.done.set_exception(DeviceLost(reason))
        for client in clients:
            client.answers.lost(reason)

    def _step(self) -> bool:
        """Make the most urgent batch, or prepare an avatar, or wait for work. If both are pending, they alternate.

        If batches overlap, one is in progress while the next is gathered and given to the device.
        """
        with self._work:
            if self._closing:
                return False
            is_idle = not self._pending and self._under_way is None
            preparation = None if self._pending and self._prepared_last else self._next_preparation(is_idle)
            self._prepared_last = preparation is not None
            asks = self._pending.take(self._most) if preparation is None else []
            if preparation is None and not asks and self._under_way is None:
                self._work.wait()
                return True
        begun_s = self._clock.monotonic_s()
        before, self._under_way = self._under_way, self._begin(asks) if asks else None
        if before is not None:
            self._finish(before)
        if self._under_way is not None and self._under_way.is_done:
            before, self._under_way = self._under_way, None
            self._finish(before)
        if preparation is not None:
            self._carry_out(preparation)
        self._metrics.worked("device", self._clock.monotonic_s() - begun_s)
        return True

    def _begin(self, asks: list[tuple[_Key, Ask]]) -> _Batch:
        """Start the faces of all these requests in one run of their tier's face generator.

        Only a generator that overlaps batches returns before the faces are done. Its error is raised by `pictures`.
        """
        tier = asks[0][1].tier
        self._metrics.batch(len(asks))
        for client in {client for (client, _), _ in asks}:
            client.answers.begun([ask for (of, _), ask in asks if of is client])
        if (device := self._ladder.overlapping(tier)) is None:
            return self._animated(tier, asks)
        started_s = self._clock.monotonic_s()
        try:
            ticket = device.submit(_requests(asks))
        except Exception as error:  # noqa: BLE001 - raised by `pictures`
            return _Batch(tier, asks, started_s, partial(_raise, error), is_done=True)
        return _Batch(tier, asks, started_s, partial(device.collect, ticket), is_done=False)

    def _animated(self, tier: int, asks: list[tuple[_Key, Ask]]) -> _Batch:
        started_s = self._clock.monotonic_s()
        pictures: Callable[[], Sequence[FacePicture]]
        try:
            pictures = partial(list, self._ladder.rungs[tier].generator.animate(_requests(asks)))
        except Exception as error:  # noqa: BLE001 - raised by `pictures`
            pictures = partial(_raise, error)
        return _Batch(tier, asks, started_s, pictures, is_done=True)

    def _finish(self, batch: _Batch) -> None:
        """Wait until the device has made the faces, and answer."""
        try:
            pictures = batch.pictures()
        except Exception:
            logger.exception("a batch failed on the device: making its faces one by one")
            self._metrics.batch_failed()
            self._make_alone(batch)
            return
        done_s = self._clock.monotonic_s()
        # A batch that was submitted while another one ran gets the device only when that one is done.
        self._load.observe(self._costs[batch.tier].of(len(pictures)), done_s - max(batch.started_s, self._done_s))
        self._metrics.device_load(self._load.factor)
        self._done_s = done_s
        self._answer(batch, pictures, done_s)

    def _answer(self, batch: _Batch, pictures: Sequence[FacePicture], done_s: float) -> None:
        for ((client, _), ask), picture in zip(batch.asks, pictures, strict=True):
            client.answers.made(ask, Made(picture, batch.started_s, done_s))

    def _make_alone(self, batch: _Batch) -> None:
        """Make the faces of a failed batch one by one; raises the device's error if the device is lost."""
        if self._under_way is not None and self._under_way is not batch:  # the device makes one thing at a time
            under_way, self._under_way = self._under_way, None
            self._finish(under_way)
        is_tried = False
        for (client, session), ask in batch.asks:
            alone = self._animated(batch.tier, [((client, session), ask)])
            try:
                pictures = alone.pictures()
            except Exception as error:
                if not is_tried:
                    self._try(batch.tier)
                    is_tried = True
                logger.exception("a session's face failed")
                client.answers.failed(ask, str(error))
            else:
                self._answer(alone, pictures, self._clock.monotonic_s())

    def _try(self, tier: int) -> None:
        """Make a face of a computed avatar on this tier; raises the device's error if it cannot make that one either.

        A device without memory for another avatar still works.
        """
        generator, avatar = self._ladder.rungs[tier].generator, face_of(draw_speaker())
        try:
            generator.animate([FaceRequest(generator.prepare(avatar), avatar.keypoints)])
        except FaceRefused:
            pass

    def _next_preparation(self, is_idle: bool) -> _Preparation | None:
        """The next preparation: requested ones first, then those ahead of need if the thread is idle."""
        for preparation in sorted(self._preparations, key=lambda one: one.ahead):
            if is_idle or not preparation.ahead:
                self._preparations.remove(preparation)
                return preparation
        return None

    def _carry_out(self, preparation: _Preparation) -> None:
        if not preparation.done.set_running_or_notify_cancel():
            return  # its engine has gone, or has cancelled it
        try:
            prepared = self._ladder.rungs[preparation.tier].generator.prepare(preparation.avatar)
        except Exception as error:  # noqa: BLE001 - passed to the engine through the future
            preparation.done.set_exception(error)
        else:
            preparation.done.set_result(prepared)


class ThreadClient:
    """One engine's access to a device thread of the same process: a `Device`."""

    def __init__(self, thread: DeviceThread, answers: Answers) -> None:
        self._thread = thread
        self.answers = answers

    def prepare(self, avatar: AvatarFace, tier: int, ahead: bool) -> Future[Any]:
        return self._thread.prepare(self, avatar, tier, ahead)

    def ask(self, request: Ask) -> None:
        self._thread.ask(self, request)

    def withdraw(self, session: int) -> None:
        self._thread.withdraw(self, session)

    def forget(self, session: int) -> None:
        self._thread.withdraw(self, session)

    def leave(self) -> None:
        """The engine is gone. Its prepared avatars are freed with its references to them."""
        self._thread.leave(self)


#: A session of an engine.
_Key = tuple[ThreadClient, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Preparation:
    """A pending preparation of an avatar for a tier. ahead: it is not needed yet."""

    client: ThreadClient
    avatar: AvatarFace
    tier: int
    ahead: bool
    done: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """A batch that a face generator was given. pictures(): waits for the faces. is_done: no wait is needed."""

    tier: int
    asks: list[tuple[_Key, Ask]]
    started_s: float
    pictures: Callable[[], Sequence[FacePicture]]
    is_done: bool


def _requests(asks: Sequence[tuple[_Key, Ask]]) -> list[FaceRequest[Any]]:
    return [FaceRequest(ask.prepared, ask.driving) for _, ask in asks]


def _raise(error: Exception) -> Never:
    raise error
