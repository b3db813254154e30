"""The host: starts a generator's workers and its device, watches them, and decides what concerns all of them.

Workers are complete generators: each has its own leases, inbox and sessions, so the death of one costs only its
sessions, and other workers claim them at once. The host decides how many workers run (`plan.py`), on which tier every
session is drawn (`engine/balance.py`), and starts again what has died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

from mien_generator.capacity import capacity
from mien_generator.engine.balance import Balancer
from mien_generator.engine.tiers import SessionLoad
from mien_generator.link import Link, LinkClosed
from mien_generator.metrics import GeneratorMetrics
from mien_generator.processes.exposition import Exposition
from mien_generator.processes.messages import (
    DeviceHangs,
    DeviceStatus,
    Ended,
    Fork,
    Forked,
    Machine,
    Message,
    MoveAway,
    Orders,
    Role,
    Scrape,
    Scraped,
    ServeWorker,
    Stop,
    Unusable,
    UseDevice,
    WorkerStart,
    WorkerStatus,
    parse,
)
from mien_generator.processes.plan import Plan, WorkerView, shares
from mien_generator.settings import GeneratorSettings
from mien_shared.bus.connection import BUS_ERRORS
from mien_shared.bus.registry import Registry
from mien_shared.clock import Clock

logger = logging.getLogger(__name__)

#: Time between two looks at all processes.
TICK_S = 0.25
#: A worker or device that has reported nothing for this long is killed. A worker's leases have lapsed by then.
_SILENT_S = 5.0
#: A tier that was ordered counts as the session's tier until the worker reports it, at most for this time.
_STEP_SHOWS_S = 1.0
#: Time between two attempts to connect a worker and the device.
_BETWEEN_CONNECTIONS_S = 1.0
#: Time within which the warm process starts another one.
_FORK_TIMEOUT_S = 10.0
#: Time after a failed start until the next one.
_AFTER_FAILED_FORK_S = 1.0
#: Time between two sessions that are moved to another worker.
_BETWEEN_MOVES_S = 1.0
#: Time to wait before a process is started again: first value and upper limit. A process that lived resets it.
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LIVED_S = 0.1, 30.0, 20.0
#: The metrics of processes are fetched this often, so that little is lost with one that is killed.
SCRAPE_INTERVAL_S = 5.0
_SCRAPE_TIMEOUT_S = 1.0
#: Time to end after the sessions were handed over.
_END_S = 5.0


_Hear = Callable[[Message], None]
_Lose = Callable[[], None]


class MachineUnusable(RuntimeError):
    """This machine cannot make faces, and the reason. Starting again would not help."""


class NotStarted(RuntimeError):
    """A process could not be started: the system has no memory or no room for another process."""


@dataclass(eq=False)
class Process:
    """A worker or the device.

    status: of a worker, None until its first report. connected_s: when it was last connected to the device. text: its
    newest metrics.
    """

    role: Role
    pid: int
    link: Link
    started_s: float
    heard_s: float
    is_stopping: bool = False
    status: WorkerStatus | None = None
    idle_since_s: float | None = None
    connected_s: float = float("-inf")
    text: str = ""
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Host:
    """The processes of one generator."""

    def __init__(
        self,
        settings: GeneratorSettings,
        warm: Link,
        cores: float,
        redis_url: str,
        registry: Registry,
        clock: Clock,
        metrics: GeneratorMetrics,
    ) -> None:
        self._settings = settings
        self._warm = warm
        self._cores = cores
        self._redis_url = redis_url
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._exposition = Exposition()
        self._workers: list[Process] = []
        self._device: Process | None = None
        self._machine: Machine | None = None
        self._places = 1
        self._plan = Plan(1, 1)
        self._balancer: Balancer | None = None
        self._load_factor: float | None = None
        self._ordered: dict[str, tuple[int, float]] = {}
        self._moved_s = float("-inf")
        self._forking = asyncio.Lock()
        self._forked: asyncio.Future[int] | None = None
        self._probed: asyncio.Future[Machine] | None = None
        self._waits_s: dict[Role, float] = {"worker": _FIRST_WAIT_S, "device": _FIRST_WAIT_S}
        self._not_before_s: dict[Role, float] = {"worker": 0.0, "device": 0.0}
        self._scrapes = count(1)
        self._scraping: dict[int, set[Process]] = {}
        self._scraped: dict[int, asyncio.Future[None]] = {}
        self._is_closing = False
        self._releasing: set[asyncio.Task[None]] = set()
        #: Why no process can be started any more.
        self.failure: str | None = None

    async def start(self) -> None:
        """Find out what this machine can run, and start the first worker. Raises MachineUnusable or NotStarted."""
        self._listen(self._warm, self._hear_warm, self._lose_warm)
        self._probed = asyncio.get_running_loop().create_future()
        self._device = await self._start("device")
        self._machine = machine = await self._probed
        speed = machine.speed.speed()
        settings, costs = self._settings, dict(enumerate(speed.device))
        measured = capacity(
            speed, self._cores, machine.shares_cores, settings.fps, settings.floor_fps, settings.max_batch
        )
        self._places = settings.capacity or measured
        most = min(settings.workers or max(1, round(self._cores)), self._places)
        self._plan = Plan(max(1, min(measured, self._places) // most), most)
        self._balancer = Balancer(
            costs,
            fps=settings.fps,
            floor_fps=settings.floor_fps,
            max_batch=settings.max_batch,
            shares_cores=machine.shares_cores,
        )
        if machine.fallback is not None:
            reason, text = machine.fallback
            logger.warning("the network cannot run, warp makes the faces", extra={"reason": text})
            self._metrics.fell_back(reason)
        self._metrics.generates_with([name for name, _ in machine.tiers], machine.h264_encoder)
        logger.info(
            "ready for sessions",
            extra={"places": self._places, "workers": most, "tiers": [name for name, _ in machine.tiers]},
        )
        await self._start_worker()

    # Processes

    async def _start(self, role: Role, start: WorkerStart | None = None) -> Process:
        ours, theirs = Link.pair()
        async with self._forking:
            self._forked = asyncio.get_running_loop().create_future()
            with theirs:
                await asyncio.to_thread(self._warm.send, Fork(role=role, start=start).to_bytes(), [theirs.fileno()])
            try:
                async with asyncio.timeout(_FORK_TIMEOUT_S):
                    pid = await self._forked
            except TimeoutError:
                self.failure = "the process that starts workers does not answer"
                raise NotStarted(self.failure) from None
        if pid == 0:
            ours.close()
            raise NotStarted(f"no {role} could be started; the log says why")
        now_s = self._clock.monotonic_s()
        process = Process(role, pid, ours, now_s, now_s)
        self._listen(ours, lambda message: self._hear(process, message), lambda: self._lose(process))
        return process

    async def _start_worker(self) -> None:
        assert self._machine is not None
        share = shares(self._places, len(self._workers) + 1)[-1]
        start = WorkerStart(machine=self._machine, places=share, redis_url=self._redis_url)
        worker = await self._start("worker", start)
        self._workers.append(worker)
        self._metrics.workers(len(self._workers))
        self._connect(worker)

    def _connect(self, worker: Process) -> None:
        """Connect a worker and the device, if there is one."""
        now_s = self._clock.monotonic_s()
        if self._device is None or self._load_factor is None or now_s - worker.connected_s < _BETWEEN_CONNECTIONS_S:
            return
        worker.connected_s = now_s
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._send(self._device, ServeWorker(), [ours.fileno()])
            self._send(worker, UseDevice(), [theirs.fileno()])

    def _listen(self, link: Link, hear: _Hear, lose: _Lose) -> None:
        loop = asyncio.get_running_loop()

        def listen() -> None:
            with suppress(RuntimeError):  # the event loop was closed
                try:
                    while True:
                        data, _ = link.receive()
                        loop.call_soon_threadsafe(hear, parse(data))
                except LinkClosed:
                    loop.call_soon_threadsafe(lose)

        threading.Thread(target=listen, name="processes", daemon=True).start()

    def _send(self, process: Process, message: Message, descriptors: Sequence[int] = ()) -> None:
        try:
            process.link.send(message.to_bytes(), descriptors)
        except LinkClosed:
            pass  # the thread that hears it notices that too

    def _kill(self, process: Process, reason: str) -> None:
        logger.error("killing a process", extra={"role": process.role, "pid": process.pid, "reason": reason})
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)

    # What they say

    def _hear_warm(self, message: Message) -> None:
        match message:
            case Forked(pid=pid):
                if self._forked is not None and not self._forked.done():
                    self._forked.set_result(pid)
            case Ended(pid=pid, status=status):
                logger.info("a process has ended", extra={"pid": pid, "status": status})
            case other:
                logger.error("the warm process sent a message of others", extra={"message_kind": other.kind})

    def _lose_warm(self) -> None:
        self.failure = "the process that starts workers has ended"
        for waiting in (self._forked, self._probed):
            if waiting is not None and not waiting.done():
                waiting.set_exception(MachineUnusable(self.failure))

    def _hear(self, process: Process, message: Message) -> None:
        process.heard_s = self._clock.monotonic_s()
        match message:
            case WorkerStatus():
                self._hear_status(process, message)
            case DeviceStatus(load_factor=factor):
                self._hear_device(factor)
            case DeviceHangs() if self._device is not None:
                self._kill(self._device, "it answers no requests")
            case Machine() if self._probed is not None and not self._probed.done():
                self._probed.set_result(message)
            case Unusable(reason=reason) if self._probed is not None and not self._probed.done():
                self._probed.set_exception(MachineUnusable(reason))
            case DeviceHangs() | Machine() | Unusable():
                pass  # known already
            case Scraped(number=number, text=text):
                process.text = text
                self._was_scraped(number, process)
            case other:
                logger.error("a process sent a message of others", extra={"message_kind": other.kind})

    def _hear_status(self, worker: Process, status: WorkerStatus) -> None:
        worker.status = status
        if status.sessions:
            worker.idle_since_s = None
        elif worker.idle_since_s is None:
            worker.idle_since_s = worker.heard_s
        if not status.has_device:  # it is new, or it was cut off because it had stopped reading
            self._connect(worker)
        if status.fatal and not worker.is_stopping:
            worker.is_stopping = True
            self._kill(worker, "; ".join(status.fatal.values()))

    def _hear_device(self, load_factor: float) -> None:
        is_new, self._load_factor = self._load_factor is None, load_factor
        if is_new:
            for worker in self._workers:
                worker.connected_s = float("-inf")
                self._connect(worker)

    def _lose(self, process: Process) -> None:
        """A process has ended."""
        process.closed.set()
        process.link.close()
        self._exposition.ended(process.text)
        for number in list(self._scraping):
            self._was_scraped(number, process)
        if process is self._device:
            self._device, self._load_factor = None, None
        if process in self._workers:
            self._workers.remove(process)
            self._metrics.workers(len(self._workers))
        is_expected = process.is_stopping and not (process.status is not None and process.status.fatal)
        is_probe = process.role == "device" and self._machine is not None and len(self._machine.tiers) == 1
        if self._probed is not None and not self._probed.done():
            self._probed.set_exception(MachineUnusable("the process that measures this machine has died"))
        elif not (is_expected or is_probe or self._is_closing):
            self._died(process)

    def _died(self, process: Process) -> None:
        logger.error("a process has died", extra={"role": process.role, "pid": process.pid})
        self._metrics.process_died(process.role)
        now_s = self._clock.monotonic_s()
        if now_s - process.started_s > _LIVED_S:
            self._waits_s[process.role] = _FIRST_WAIT_S
        self._not_before_s[process.role] = now_s + self._waits_s[process.role]
        self._waits_s[process.role] = min(2 * self._waits_s[process.role], _LONGEST_WAIT_S)
        if process.status is not None:
            task = asyncio.create_task(self._release(process.status), name="release leases")
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _release(self, status: WorkerStatus) -> None:
        """A worker has died: give its leases back now, so that other workers need not wait until they lapse."""
        try:
            await self._registry.remove_generator(status.generator_id)
            for session_id in status.session_ids:
                await self._registry.release(status.generator_id, session_id)
        except BUS_ERRORS as error:
            logger.warning("leases not released, they will lapse", extra={"error": str(error)})

    # Four times a second

    async def tick(self) -> None:
        """Start, move and end what the present load asks for."""
        now_s = self._clock.monotonic_s()
        self._kill_silent(now_s)
        try:
            await self._start_what_is_needed(now_s)
        except NotStarted as error:
            logger.error("a process was not started", extra={"error": str(error)})
            self._not_before_s = dict.fromkeys(self._not_before_s, now_s + _AFTER_FAILED_FORK_S)
        running = [worker for worker in self._workers if not worker.is_stopping]
        views = [self._view(worker) for worker in running]
        if (index := self._plan.ending(views, now_s)) is not None:
            running[index].is_stopping = True
            self._send(running[index], Stop())
        elif (index := self._plan.giving(views)) is not None and now_s - self._moved_s >= _BETWEEN_MOVES_S:
            self._moved_s = now_s
            self._send(running[index], MoveAway(sessions=1))
        self._order(now_s)

    def _view(self, worker: Process) -> WorkerView:
        if worker.status is None:
            return WorkerView(0)
        return WorkerView(worker.status.sessions, worker.idle_since_s, worker.status.is_overloaded)

    def _kill_silent(self, now_s: float) -> None:
        for process in [*self._workers, *([self._device] if self._load_factor is not None and self._device else [])]:
            if now_s - process.heard_s > _SILENT_S and not process.is_stopping:
                process.heard_s = now_s
                self._kill(process, "it reports nothing")

    async def _start_what_is_needed(self, now_s: float) -> None:
        """Start the device if it is missing, and a worker if the sessions need one. Raises NotStarted."""
        needs_device = self._machine is not None and len(self._machine.tiers) > 1
        if needs_device and self._device is None and now_s >= self._not_before_s["device"]:
            self._device = await self._start("device")
        views = [self._view(worker) for worker in self._workers if not worker.is_stopping]
        if self._plan.starts_worker(views) and now_s >= self._not_before_s["worker"]:
            await self._start_worker()

    def _order(self, now_s: float) -> None:
        """Decide the tiers of all sessions and the places of all workers, and tell the workers."""
        assert self._balancer is not None
        loads = sorted(self._loads(now_s), key=lambda load: load.since_s)
        steps = {step.session_id: step.tier for step in self._balancer.steps(now_s, loads, self._load_factor)}
        self._ordered |= {session_id: (tier, now_s + _STEP_SHOWS_S) for session_id, tier in steps.items()}
        first_tier = self._balancer.first_tier(loads, self._load_factor)
        running = [worker for worker in self._workers if not worker.is_stopping and worker.status is not None]
        for worker, places in zip(running, shares(self._places, max(1, len(running))), strict=False):
            own = set(worker.status.session_ids) if worker.status is not None else set()
            theirs = {one: tier for one, tier in steps.items() if one in own}
            self._send(worker, Orders(steps=theirs, first_tier=first_tier, places=places))

    def _loads(self, now_s: float) -> list[SessionLoad]:
        """All sessions. A step that was just ordered counts as done."""
        loads = [
            SessionLoad(load.session_id, load.tier, load.wanted_fps, load.drawn_fps, load.since_s)
            for worker in self._workers
            if worker.status is not None
            for load in worker.status.loads
        ]
        self._ordered = {one: order for one, order in self._ordered.items() if order[1] > now_s}
        return [
            replace(load, tier=self._ordered[load.session_id][0]) if load.session_id in self._ordered else load
            for load in loads
        ]

    # Metrics and probes

    async def exposition(self) -> bytes:
        """The metrics of the whole generator. A process that does not answer in time counts with its last metrics."""
        await self.scrape()
        texts = [process.text for process in self._processes()]
        return self._exposition.of([self._metrics.exposition().decode(), *texts])

    async def scrape(self) -> None:
        """Fetch the metrics of all processes."""
        number, asked = next(self._scrapes), {*self._processes()}
        if not asked:
            return
        done = self._scraped[number] = asyncio.get_running_loop().create_future()
        self._scraping[number] = asked
        for process in list(asked):
            self._send(process, Scrape(number=number))
        try:
            async with asyncio.timeout(_SCRAPE_TIMEOUT_S):
                await done
        except TimeoutError:
            pass
        finally:
            self._scraping.pop(number, None)
            self._scraped.pop(number, None)

    def _was_scraped(self, number: int, process: Process) -> None:
        waiting = self._scraping.get(number)
        if waiting is not None:
            waiting.discard(process)
            if not waiting and not self._scraped[number].done():
                self._scraped[number].set_result(None)

    def _processes(self) -> list[Process]:
        return [*self._workers, *([self._device] if self._device is not None and self._load_factor is not None else [])]

    def why_unready(self) -> str | None:
        """None while at least one worker takes sessions."""
        reasons = [worker.status.unready for worker in self._workers if worker.status is not None]
        if any(not reason for reason in reasons):
            return None
        return "; ".join(f"{name}: {text}" for reason in reasons for name, text in reason.items()) or "no worker runs"

    async def close(self) -> None:
        """Let the workers hand over their sessions, then end all processes."""
        self._is_closing = True
        workers = list(self._workers)
        for worker in workers:
            worker.is_stopping = True
            self._send(worker, Stop())
        try:
            async with asyncio.timeout(self._settings.drain_s + _END_S):
                for worker in workers:
                    await worker.closed.wait()
        except TimeoutError:
            for worker in workers:
                if not worker.closed.is_set():
                    self._kill(worker, "it does not end")
        if self._device is not None:
            self._device.link.close()
        self._warm.close()
