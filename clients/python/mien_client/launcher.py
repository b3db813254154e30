"""Runs all of Mien on this machine: an embedded Redis and one process per service, started and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

import mien_web
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.machine import usable_cores

HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0
#: Time between SIGTERM and SIGKILL. So all processes end within three seconds.
_STOP_TIMEOUT_S = 2.0
_LOG_TAIL_LINES = 15


class LaunchError(RuntimeError):
    """A service did not start, or ended unexpectedly. The text contains the end of its log."""


@dataclass(frozen=True)
class StackOptions:
    """The services to run and their ports. Port 0 takes any free port."""

    gateway_port: int = 8080
    signaling_port: int = 8081
    generator_port: int = 0
    avatar_folder: Path | None = None  # None: a temporary folder
    redis_url: str | None = None  # None: an embedded server
    generators: int = 1  # the first is "generator", the others are "generator-2" and so on, on free ports
    generator_env: dict[str, str] = field(default_factory=dict)
    env_of: dict[str, dict[str, str]] = field(default_factory=dict)  # additional variables of one service, by its name


class Stack:
    """The three services and their Redis. An async context manager: inside it all services are ready."""

    def __init__(self, options: StackOptions) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mien-"))
        self._options = options
        self._redis = None if options.redis_url else EmbeddedRedis()
        self._ports = {
            "gateway": options.gateway_port or free_port(),
            "signaling": options.signaling_port or free_port(),
            "generator": options.generator_port or free_port(),
        } | {f"generator-{number}": free_port() for number in range(2, options.generators + 1)}
        self._token_secret = secrets.token_urlsafe(48)
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """The address of the page and the REST API."""
        return self.service_url("gateway")

    def service_url(self, name: str) -> str:
        return f"http://{HOST}:{self._ports[name]}"

    @property
    def services(self) -> list[str]:
        """The names of all services, running or not."""
        return list(self._ports)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def ended(self) -> dict[str, int]:
        """The exit status of each service that has ended. Negative: the signal that killed it."""
        return {name: process.returncode for name, process in self._processes.items() if process.returncode is not None}

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one service and wait for its end. Returns its exit status."""
        process = self._processes[name]
        process.send_signal(number)
        return await process.wait()

    async def start(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a service again after it has ended, on the same port. Returns when it is ready.

        environment: additional environment variables.
        """
        await self._spawn(name, environment or {})
        async with httpx.AsyncClient(trust_env=False) as http:
            await self._ready(http, name)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> None:
        _refuse_same_ports(self._ports)
        for name, port in self._ports.items():
            _refuse_taken_port(name, port)
        if self._redis is not None:
            self._redis.start()
        for name in self._ports:
            await self._spawn(name, {})
        async with httpx.AsyncClient(trust_env=False) as http:
            await asyncio.gather(*(self._ready(http, name) for name in self._ports))

    async def _spawn(self, name: str, environment: Mapping[str, str]) -> None:
        own = {"MIEN_PORT": str(self._ports[name]), **self._share(name)}
        own |= {**self._options.env_of.get(name, {}), **environment}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"mien_{name.partition('-')[0]}",
                env=self._environment() | own,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach only the launcher, which stops the services
            )

    def _share(self, name: str) -> dict[str, str]:
        """The generator's share of the cores: several generators on one machine do not know of each other."""
        if not name.startswith("generator") or self._options.generators == 1 or "MIEN_CORES" in os.environ:
            return {}
        return {"MIEN_CORES": f"{usable_cores() / self._options.generators:g}"}

    def _environment(self) -> dict[str, str]:
        redis_url = self._options.redis_url or (self._redis.url if self._redis else "")
        store = self._options.avatar_folder or self.folder / "avatars"
        return {
            **os.environ,
            "REDIS_URL": redis_url,
            "MIEN_HOST": HOST,
            "MIEN_TOKEN_SECRET": self._token_secret,
            "MIEN_DEMO_OPEN": "true",
            "MIEN_DRAIN_S": "0",  # all generators stop at once, so none can take a session over
            "MIEN_PARENT_PID": str(os.getpid()),
            "MIEN_AVATAR_STORE": f"file:{store}",
            "MIEN_WEB_ROOT": str(mien_web.ROOT),
            "MIEN_PUBLIC_URL": self.url,
            "MIEN_SIGNALING_URL": self.service_url("signaling"),
            "MIEN_CORS_ORIGINS": json.dumps([self.url, self.url.replace(HOST, "localhost")]),
            # Several services share the cores: a large thread pool in each would slow all of them down.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
            **self._options.generator_env,
        }

    async def _ready(self, http: httpx.AsyncClient, name: str) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while True:
                    if self._processes[name].returncode is not None:
                        raise LaunchError(f"{name} ended while it was starting:\n{self.log_tail(name)}")
                    with contextlib.suppress(httpx.HTTPError):
                        answer = await http.get(f"{self.service_url(name)}/readyz", timeout=1.0)
                        if answer.is_success:
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise LaunchError(f"{name} was not ready after {_START_TIMEOUT_S:g} s:\n{self.log_tail(name)}") from error

    def log_tail(self, name: str) -> str:
        """The end of a service's log."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    async def watch(self) -> None:
        """Watch the services. Never returns; raises LaunchError when a service ends."""
        waits = {asyncio.create_task(process.wait()): name for name, process in self._processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            name = waits[done.pop()]
            raise LaunchError(f"{name} ended unexpectedly:\n{self.log_tail(name)}")
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """End every process within three seconds, then remove the temporary folder."""
        running = [process for process in self._processes.values() if process.returncode is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in running]
        if waits:
            await asyncio.wait(waits, timeout=_STOP_TIMEOUT_S)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if self._redis is not None:
            self._redis.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _refuse_same_ports(ports: Mapping[str, int]) -> None:
    names: dict[int, str] = {}
    for name, port in ports.items():
        if (other := names.setdefault(port, name)) != name:
            raise LaunchError(f"{other} and {name} cannot both use port {port}: choose another")


def _refuse_taken_port(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise LaunchError(f"you may not use port {port}, which {name} needs: choose one above 1023") from error
        except OSError as error:
            raise LaunchError(f"port {port}, which {name} needs, is already in use: choose another") from error
