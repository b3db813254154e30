"""A worker's connection to the device's process: a `Device`."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from concurrent.futures import Future
from itertools import count
from queue import SimpleQueue
from typing import Any

from mien_generator.device import wire
from mien_generator.device.contract import Answers, Ask, DeviceLost, Made
from mien_generator.device.slots import Shape, Slots, SlotsFull, SlotTable
from mien_generator.device.wire import Kind, WireAsk
from mien_generator.face.contract import AvatarFace, FaceRefused
from mien_generator.link import Link, LinkClosed

logger = logging.getLogger(__name__)

#: A device that has not begun or finished a face for this long hangs. Sessions then continue without it.
HANGS_S = 3.0


class PreparedThere:
    """An avatar that the device has prepared. The device frees it when this object is freed."""

    def __init__(self, number: int) -> None:
        self.number = number


class RemoteDevice:
    """The device, for one worker. `serve` runs on a thread that hears the answers."""

    def __init__(self, link: Link, answers: Answers) -> None:
        self._link = link
        self._answers = answers
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._preparing: dict[int, Future[Any]] = {}
        self._asks: dict[int, Ask] = {}  # by ticket: those that may still be answered
        self._asked_s: dict[int, float] = {}  # session -> since when it waits, monotonic
        self._table = SlotTable()
        #: Avatars that were freed. An avatar may be freed anywhere, also while this thread sends a message, so another
        #: thread tells the device. `put` of this queue may be called from a finalizer.
        self._released: SimpleQueue[int | None] = SimpleQueue()
        self._answering = threading.Thread(target=self.serve, name="device answers", daemon=True)
        #: Whether the connection has ended. Then the engine has heard that the device is lost.
        self.is_lost = False
        descriptor = Slots.create()
        try:
            self._slots = Slots(descriptor)
            self._send(bytes([Kind.SLOTS]), descriptor)
        finally:
            os.close(descriptor)

    def start(self) -> None:
        self._answering.start()
        threading.Thread(target=self._release, name="device avatars", daemon=True).start()

    # Device

    def prepare(self, avatar: AvatarFace, tier: int, ahead: bool) -> Future[Any]:
        number, done = next(self._numbers), Future[Any]()
        with self._lock:
            if self.is_lost:
                done.set_exception(DeviceLost("the device is gone"))
                return done
            self._preparing[number] = done
        descriptor = wire.avatar_memory(avatar)
        try:
            self._send(wire.pack_prepare(number, tier, ahead), descriptor)
        finally:
            os.close(descriptor)
        return done

    def ask(self, request: Ask) -> None:
        with self._lock:
            if self.is_lost:
                return
            is_waiting = any(ask.session == request.session for ask in self._asks.values())
            try:
                slot = self._table.next(request.session, replaces=is_waiting)
            except SlotsFull as error:
                # On another thread, because the engine holds its lock here.
                threading.Thread(target=self._answers.failed, args=(request, str(error)), daemon=True).start()
                return
            self._asks[request.ticket] = request
            self._asked_s.setdefault(request.session, time.monotonic())
        self._send(wire.pack_ask(_on_the_wire(request, slot)))

    def withdraw(self, session: int) -> None:
        with self._lock:
            self._asked_s.pop(session, None)
            self._asks = {ticket: ask for ticket, ask in self._asks.items() if ask.session != session}
        self._send(wire.pack_number(Kind.WITHDRAW, session))

    def forget(self, session: int) -> None:
        self.withdraw(session)
        with self._lock:
            self._table.release(session)

    @property
    def waits_s(self) -> float:
        """For how long the session that has waited longest has waited for its face."""
        with self._lock:
            since_s = min(self._asked_s.values(), default=None)
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self) -> None:
        """End the connection. When this returns, the engine has heard that the device is lost."""
        self._link.shut()
        if self._answering.is_alive():
            self._answering.join()

    def _release(self) -> None:
        """Tell the device which avatars it may free, until it is gone."""
        while (number := self._released.get()) is not None:
            self._send(wire.pack_number(Kind.RELEASE, number))

    def _send(self, message: bytes, *descriptors: int) -> None:
        try:
            self._link.send(message, descriptors)
        except LinkClosed:
            pass  # the thread that hears the answers notices it too

    # Answers

    def serve(self) -> None:
        """Hear the answers until the device is gone."""
        reason = "its process has ended"
        try:
            while True:
                message, _ = self._link.receive()
                self._hear(message)
        except LinkClosed:
            pass
        except Exception as error:
            logger.exception("the device's answers cannot be read")
            reason = str(error)
        with self._lock:
            self.is_lost = True
            waiting, self._preparing = self._preparing, {}
            self._asks.clear()
            self._asked_s.clear()
        self._released.put(None)
        self._link.close()
        for done in waiting.values():
            if done.set_running_or_notify_cancel():
                done.set_exception(DeviceLost("the device is gone"))
        self._answers.lost(reason)

    def _hear(self, message: bytes) -> None:
        match wire.kind_of(message):
            case Kind.BEGUN:
                with self._lock:
                    asks = [self._asks[ticket] for ticket in wire.unpack_begun(message) if ticket in self._asks]
                self._answers.begun(asks)
            case Kind.MADE:
                self._made(*wire.unpack_made(message))
            case Kind.FAILED:
                ticket, error = wire.unpack_failed(message)
                if (ask := self._settled(ticket)) is not None:
                    self._answers.failed(ask, error)
            case Kind.PREPARED:
                self._prepared(wire.unpack_number(message))
            case Kind.REFUSED:
                number, is_full, text = wire.unpack_refused(message)
                error_of: type[Exception] = FaceRefused if is_full else ValueError
                self._resolve(number, error=error_of(text))
            case kind:
                raise wire.WireError(f"the device sent {kind.name}")

    def _made(self, ticket: int, slot: int, shape: Shape, started_s: float, done_s: float) -> None:
        if (ask := self._settled(ticket)) is not None:
            self._answers.made(ask, Made(self._slots.read(slot, shape), started_s, done_s))

    def _settled(self, ticket: int) -> Ask | None:
        """The request that was answered, if it is still known. Older requests of its session get no answer any more."""
        with self._lock:
            if (settled := self._asks.pop(ticket, None)) is None:
                return None
            of_session = [ask for ask in self._asks.values() if ask.session == settled.session]
            for ask in of_session:
                if ask.ticket < ticket:
                    del self._asks[ask.ticket]
            if any(ask.ticket > ticket for ask in of_session):
                self._asked_s[settled.session] = time.monotonic()
            else:
                self._asked_s.pop(settled.session, None)
            return settled

    def _prepared(self, number: int) -> None:
        prepared = PreparedThere(number)
        weakref.finalize(prepared, self._released.put, number).atexit = False
        self._resolve(number, prepared)

    def _resolve(self, number: int, prepared: PreparedThere | None = None, error: Exception | None = None) -> None:
        with self._lock:
            done = self._preparing.pop(number, None)
        if done is None or not done.set_running_or_notify_cancel():
            return  # nobody waits: a prepared avatar is freed with this call's reference
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(prepared)


def _on_the_wire(ask: Ask, slot: int) -> WireAsk:
    return WireAsk(ask.session, ask.ticket, ask.tier, ask.prepared.number, slot, ask.deadline_s, ask.driving)
