"""The device's process: finds out what this machine can run, and then makes faces for all workers of a generator.

It owns the GPU, or the threads of the network on the CPU. Each worker has a connection, served by a thread here. A
worker that does not read is cut off, so that it delays no other. If the device is lost, the process ends and the host
starts another one; the workers' sessions continue on the last tier meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import cv2

from mien_generator.device import wire
from mien_generator.device.contract import Ask, DeviceLost, Made
from mien_generator.device.slots import MOST_SESSIONS, Slots
from mien_generator.device.thread import DeviceThread
from mien_generator.device.wire import Kind
from mien_generator.face.build import BackendUnavailable, Fallback, Ladders
from mien_generator.face.contract import FaceRefused
from mien_generator.face.ladder import Ladder
from mien_generator.h264.encoder import NoH264Encoder, choose_h264_encoder
from mien_generator.link import Link, LinkClosed
from mien_generator.measure import default_cache_folder, measured_speed
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.messages import (
    DeviceStatus,
    Machine,
    Scrape,
    Scraped,
    ServeWorker,
    Stop,
    Unusable,
    parse,
)
from mien_generator.settings import GeneratorSettings
from mien_shared.avatars import AvatarKind
from mien_shared.clock import SystemClock

logger = logging.getLogger(__name__)

MakeLadders = Callable[[GeneratorSettings, int], tuple[Ladders, Fallback | None]]

_STATUS_INTERVAL_S = 0.25


def run(link: Link, settings: GeneratorSettings, cores: float, make_ladders: MakeLadders) -> None:
    """Report the machine, then serve workers until the host ends, the device is lost, or there is no network to run."""
    cv2.setNumThreads(1)  # the workers already use all cores
    metrics = GeneratorMetrics()
    try:
        machine, ladder = probe(settings, cores, make_ladders)
    except (BackendUnavailable, NoH264Encoder, ValueError, OSError) as error:
        link.send(Unusable(reason=str(error)).to_bytes())
        return
    link.send(machine.to_bytes())
    if ladder.last == 0:
        return
    costs = dict(enumerate(machine.speed.speed().device))
    device = DeviceThread(ladder, costs, SystemClock(), metrics, fps=settings.fps, max_batch=settings.max_batch)
    device.start()
    threading.Thread(target=_report, args=(link, device), name="report", daemon=True).start()
    _obey(link, device, metrics)


def probe(settings: GeneratorSettings, cores: float, make_ladders: MakeLadders) -> tuple[Machine, Ladder]:
    """Find out which tiers and which H.264 encoder this machine can run, and how fast they are.

    Raises BackendUnavailable, NoH264Encoder, ValueError or OSError.
    """
    ladders, fallback = make_ladders(settings, max(1, round(cores)))
    ladder = ladders[AvatarKind.PORTRAIT]
    h264_encoder = choose_h264_encoder()
    folder = settings.cache_folder or default_cache_folder()
    speed = measured_speed(ladder, h264_encoder, settings.max_batch, cores, folder)
    machine = Machine(
        tiers=[(rung.name, rung.generator.name) for rung in ladder.rungs],
        shares_cores=ladder.shares_cores,
        h264_encoder=h264_encoder,
        speed=speed,
        fallback=None if fallback is None else (fallback.reason, fallback.text),
    )
    return machine, ladder


def _obey(link: Link, device: DeviceThread, metrics: GeneratorMetrics) -> None:
    """Do what the host says until it says Stop or ends."""
    try:
        while True:
            message, descriptors = link.receive()
            match parse(message):
                case ServeWorker():
                    Serving(Link.over(descriptors[0], waits=False), device).start()
                case Scrape(number=number):
                    link.send(Scraped(number=number, text=metrics.exposition().decode()).to_bytes())
                case Stop():
                    break
                case other:
                    raise ValueError(f"the host sent {other.kind}")
    except LinkClosed:
        pass
    os._exit(0)  # nothing is left to do, and the device's memory goes with the process


def _report(link: Link, device: DeviceThread) -> None:
    """Tell the host how fast the device is, until the device is lost. Then end the process."""
    while device.failure is None:
        try:
            link.send(DeviceStatus(load_factor=device.load_factor).to_bytes())
        except LinkClosed:
            break
        time.sleep(_STATUS_INTERVAL_S)
    os._exit(1)


class Serving:
    """One worker's connection: its requests to the device's thread, and the answers back to it."""

    def __init__(self, link: Link, device: DeviceThread) -> None:
        self._link = link
        self._device = device
        self._client = device.client(self)
        self._slots: Slots | None = None
        self._prepared: dict[int, Any] = {}
        self._is_over = False
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._serve, name="worker's requests", daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                message, descriptors = self._link.receive()
                try:
                    self._hear(message, descriptors)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
        except LinkClosed:
            pass
        except Exception:
            logger.exception("a worker's requests cannot be read")
        self._client.leave()
        with self._lock:  # an avatar that is being prepared now must not stay
            self._is_over = True
            self._prepared.clear()
        self._slots = None
        self._link.close()

    def _hear(self, message: bytes, descriptors: list[int]) -> None:
        match wire.kind_of(message):
            case Kind.SLOTS:
                self._slots = Slots(descriptors[0])
            case Kind.PREPARE:
                number, tier, ahead = wire.unpack_prepare(message)
                if not self._device.has_tier(tier):
                    self._send(wire.pack_refused(number, False, f"the device has no tier {tier}"))
                    return
                preparing = self._client.prepare(wire.read_avatar(descriptors[0]), tier, ahead)
                preparing.add_done_callback(partial(self._was_prepared, number))
            case Kind.RELEASE:
                with self._lock:
                    self._prepared.pop(wire.unpack_number(message), None)
            case Kind.ASK:
                self._ask(wire.unpack_ask(message))
            case Kind.WITHDRAW:
                self._client.withdraw(wire.unpack_number(message))
            case kind:
                raise wire.WireError(f"a worker sent {kind.name}")

    def _ask(self, ask: wire.WireAsk) -> None:
        if ask.slot >= 2 * MOST_SESSIONS:
            raise wire.WireError(f"there is no slot {ask.slot}")
        with self._lock:
            prepared = self._prepared.get(ask.avatar)
        if prepared is None:
            self._send(wire.pack_failed(ask.ticket, "its avatar is not prepared"))
        else:
            self._client.ask(Ask(ask.session, ask.ticket, ask.tier, prepared, ask.driving, ask.deadline_s, ask.slot))

    def _was_prepared(self, number: int, done: Future[Any]) -> None:
        if done.cancelled():
            return
        if error := done.exception():
            if not isinstance(error, DeviceLost):  # of which the end of the connection tells
                self._send(wire.pack_refused(number, isinstance(error, FaceRefused), str(error)))
            return
        with self._lock:
            if self._is_over:
                return
            self._prepared[number] = done.result()
        self._send(wire.pack_number(Kind.PREPARED, number))

    # Answers, on the device's thread

    def begun(self, asks: Sequence[Ask]) -> None:
        self._send(wire.pack_begun([ask.ticket for ask in asks]))

    def made(self, ask: Ask, made: Made) -> None:
        if (slots := self._slots) is None:
            return
        try:
            shape = slots.write(ask.slot, made.picture)
        except ValueError as error:  # the picture is too large
            self.failed(ask, str(error))
        else:
            self._send(wire.pack_made(ask.ticket, ask.slot, shape, made.started_s, made.done_s))

    def failed(self, ask: Ask, error: str) -> None:
        self._send(wire.pack_failed(ask.ticket, error))

    def lost(self, reason: str) -> None:
        self._link.shut()

    def _send(self, message: bytes) -> None:
        try:
            self._link.send(message)
        except LinkClosed:
            self._client.leave()  # the thread that hears the requests ends by itself
