"""Workers connected to a real device thread, as in two processes, with a face generator that a test can hold up."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np

from mien_generator.cost import BatchCost
from mien_generator.device.contract import Ask, Made
from mien_generator.device.remote import RemoteDevice
from mien_generator.device.thread import DeviceThread
from mien_generator.face.contract import AvatarFace, FacePicture, FaceRequest, RgbArray, YuvPatch
from mien_generator.face.ladder import Ladder, Rung
from mien_generator.face.warp import WarpGenerator
from mien_generator.link import Link
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.device import Serving
from mien_generator.specimen import source_keypoints
from mien_shared.clock import SystemClock
from mien_shared.keypoints import Keypoints

#: A busy machine may take so long; a test that passes waits for none of it.
PATIENCE_S = 30.0
SIZE = 32


def until(condition: Callable[[], bool]) -> None:
    """Wait until this is so."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "it never happened"
        time.sleep(0.002)


class Painted:
    """A prepared avatar of `Painter`."""

    size = SIZE

    def __init__(self, avatar: AvatarFace) -> None:
        self.avatar = avatar

    @property
    def colour(self) -> int:
        return int(self.avatar.rgb[0, 0, 0])


class Painter:
    """Stands for a network: a face has its avatar's colour, and the x of its first driving keypoint in one corner.

    A test holds it up with `may_draw` and `may_prepare`. Faces of the colours in `failing` fail, and with them their
    batch; avatars of the colours in `errors` cannot be prepared; `is_lost` ends the device.
    """

    name = "painter"

    def __init__(self) -> None:
        self.may_draw, self.may_prepare = threading.Event(), threading.Event()
        self.may_draw.set()
        self.may_prepare.set()
        self.batches: list[list[int]] = []
        self.preparing = 0
        self.prepared: list[weakref.ref[Painted]] = []
        self.avatars: list[AvatarFace] = []
        self.failing: set[int] = set()
        self.errors: dict[int, Exception] = {}
        self.is_lost = False

    def prepare(self, avatar: AvatarFace) -> Painted:
        self.preparing += 1
        assert self.may_prepare.wait(PATIENCE_S)
        prepared = Painted(avatar)
        if prepared.colour in self.errors:
            raise self.errors[prepared.colour]
        self.prepared.append(weakref.ref(prepared))
        return prepared

    def animate(self, requests: Sequence[FaceRequest[Painted]]) -> Sequence[FacePicture]:
        self.batches.append([request.prepared.colour for request in requests])
        assert self.may_draw.wait(PATIENCE_S)
        if self.is_lost:
            raise RuntimeError("the device fell off the bus")
        if any(request.prepared.colour in self.failing for request in requests):
            raise RuntimeError("a face cannot be made")
        return [self._face(request) for request in requests]

    def close(self) -> None:
        pass

    def _face(self, request: FaceRequest[Painted]) -> FacePicture:
        region = request.prepared.avatar.region
        if region is None:
            return picture(request.prepared.colour, float(request.driving.points[0, 0]))
        still = region.still
        return YuvPatch(still[..., 0].copy(), still[::2, ::2, 1].copy(), still[::2, ::2, 2].copy())

    @property
    def alive(self) -> int:
        """How many prepared avatars still take memory."""
        return sum(one() is not None for one in self.prepared)


def picture(colour: int, x: float) -> RgbArray:
    """What `Painter` makes of an avatar of this colour and this motion."""
    face = np.full((SIZE, SIZE, 3), colour, np.uint8)
    face[:4, :4] = round(100 * x) % 256
    return face


def avatar(colour: int) -> AvatarFace:
    return AvatarFace(np.full((40, 40, 3), colour, np.uint8), source_keypoints())


def motion(x: float) -> Keypoints:
    driving = Keypoints.at_rest()
    driving.points[0, 0] = x
    return driving


class Worker:
    """A worker's side: its connection, and what it has heard."""

    _tickets = itertools.count(1)

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard: list[str] = []
        self.begun_tickets: list[int] = []
        self.faces: dict[int, FacePicture] = {}
        self.errors: dict[int, str] = {}
        self.reasons: list[str] = []
        self.device = RemoteDevice(link, self)

    def prepared(self, colour: int, tier: int = 0) -> Any:
        return self.prepare(colour, tier).result(PATIENCE_S)

    def prepare(self, colour: int, tier: int = 0, ahead: bool = False) -> Future[Any]:
        return self.device.prepare(avatar(colour), tier, ahead)

    def ask(self, session: int, prepared: Any, x: float = 0.0, tier: int = 0, deadline_s: float = 1.0) -> int:
        """Ask for a face. Returns the ticket."""
        ticket = next(self._tickets)
        self.device.ask(Ask(session, ticket, tier, prepared, motion(x), deadline_s))
        return ticket

    def received(self) -> None:
        """Wait until the device has received all that this worker has sent: it refuses an unknown tier at once."""
        assert isinstance(self.prepare(0, tier=255).exception(PATIENCE_S), ValueError)

    def face(self, ticket: int) -> FacePicture:
        until(lambda: ticket in self.faces)
        return self.faces[ticket]

    def draws(self, prepared: Any, session: int = 99) -> bool:
        """Whether the device works for this worker: it makes a face."""
        return self.face(self.ask(session, prepared)) is not None

    # Answers

    def begun(self, asks: Sequence[Ask]) -> None:
        self.begun_tickets += [ask.ticket for ask in asks]

    def made(self, ask: Ask, made: Made) -> None:
        assert ask.ticket in self.begun_tickets
        assert made.started_s <= made.done_s <= time.monotonic()
        self.faces[ask.ticket] = made.picture

    def failed(self, ask: Ask, error: str) -> None:
        self.errors[ask.ticket] = error

    def lost(self, reason: str) -> None:
        self.reasons.append(reason)


class Connected:
    """A device with any number of workers."""

    def __init__(self, tiers: int = 1) -> None:
        self.painters = [Painter() for _ in range(tiers)]
        rungs = [Rung(f"painter-{tier}", painter, on_device=True) for tier, painter in enumerate(self.painters)]
        costs = {tier: BatchCost.linear(0.0001) for tier in range(tiers)}
        self.thread = DeviceThread(
            Ladder((*rungs, Rung("warp", WarpGenerator(), on_device=False))),
            costs,
            SystemClock(),
            GeneratorMetrics(),
            fps=30,
            max_batch=8,
        )
        self.thread.start()
        self._served: dict[Worker, Link] = {}

    @property
    def painter(self) -> Painter:
        return self.painters[0]

    def worker(self, starts: bool = True, buffer_bytes: int | None = None) -> Worker:
        """Another worker. starts: whether it hears answers. buffer_bytes: room for answers that it has not heard."""
        ours, theirs = socket.socketpair()
        link, served = Link(ours), Link(theirs)
        if buffer_bytes is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        Serving(served, self.thread).start()
        worker = Worker(link)
        self._served[worker] = served
        if starts:
            worker.device.start()
        return worker

    def say(self, worker: Worker, message: bytes) -> None:
        """Send this worker a message in the device's name."""
        self._served[worker].send(message)

    def end(self, worker: Worker) -> None:
        """End a worker's connection at the device."""
        self._served[worker].shut()

    def waiting(self) -> int:
        """Requests for faces that wait for a batch."""
        return len(self.thread._pending)

    def preparations(self) -> int:
        """Avatars that wait to be prepared."""
        return len(self.thread._preparations)

    def workers(self) -> int:
        """Workers that the device serves."""
        return len(self.thread._clients)

    def close(self) -> None:
        for painter in self.painters:
            painter.may_draw.set()
            painter.may_prepare.set()
        for worker, served in self._served.items():
            worker.link.shut()
            served.shut()
        self.thread.close()


@contextmanager
def connected(tiers: int = 1) -> Iterator[Connected]:
    connected = Connected(tiers)
    try:
        yield connected
    finally:
        connected.close()
