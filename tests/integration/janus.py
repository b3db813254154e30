"""A real Janus as an SFU, with a WHIP front, and viewers that receive from it.

Janus has no WHIP: operators put a small server before it. This one behaves as simple-whip-server does, with its traps:
it passes Janus' answer on as it is, and an endpoint that has a publication takes no second one before a DELETE. Janus
uses no loopback address for media, so a test needs another one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from fastapi import FastAPI, Request, Response
from integration.voice_peers import Ears, until

from mien_signaling.ice import host_addresses

BEARER = "the bearer of this SFU"
_FOLDERS = ("/usr/lib/x86_64-linux-gnu/janus", "/usr/lib/aarch64-linux-gnu/janus", "/usr/lib/janus")
_ROOM = 1
_MESSAGE_BYTES = 256 * 1024
_START_S = 30.0
#: Janus answers in milliseconds; one that hangs does not answer at all.
_CALL_S = 5.0


def why_impossible() -> str | None:
    """Why no Janus can run here, None if one can."""
    if shutil.which("janus") is None or _folder() is None:
        return "janus is not installed (apt-get install janus)"
    return None if host_addresses() else "Janus uses no loopback address, and this machine has no other"


def _folder() -> str | None:
    return next((folder for folder in _FOLDERS if Path(folder, "plugins/libjanus_videoroom.so").exists()), None)


class JanusError(RuntimeError):
    """Janus answered with an error."""


class Janus:
    """The process and one connection to its API (a Unix socket), both made again after a kill. A context manager."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="janus-"))
        self._socket_path = self._folder / "api"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._session = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Janus:
        self._configure()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self) -> None:
        lib = _folder()
        general = f'plugins_folder = "{lib}/plugins"\ntransports_folder = "{lib}/transports"\n'
        general += (
            f'events_folder = "{lib}/events"\nloggers_folder = "{lib}/loggers"\ndebug_level = 4\nsession_timeout = 0\n'
        )
        others = {
            kind: ", ".join(f'"{path.name}"' for path in Path(lib or "", kind).glob("*.so") if kept not in path.name)
            for kind, kept in (("plugins", "videoroom"), ("transports", "pfunix"), ("loggers", "none"))
        }
        (self._folder / "janus.jcfg").write_text(
            f"general: {{\n{general}event_loops = 2\n}}\n"
            # The answer must hold Janus' candidates, because a WHIP client gets no others.
            'nat: {\nfull_trickle = false\nice_ignore_list = "vmnet,docker0"\n}\n'
            f"plugins: {{ disable = {_list(others['plugins'])} }}\n"
            f"transports: {{ disable = {_list(others['transports'])} }}\n"
            f"loggers: {{ disable = {_list(others['loggers'])} }}\n"
        )
        (self._folder / "janus.transport.pfunix.jcfg").write_text(
            f'general: {{\nenabled = true\njson = "compact"\npath = "{self._socket_path}"\n}}\n'
        )
        (self._folder / "janus.plugin.videoroom.jcfg").write_text("general: {}\n")

    async def start(self) -> None:
        """Start Janus with one empty room."""
        async with asyncio.timeout(_START_S):
            while not await self._is_up():
                pass  # a race in Janus 1.1: if the thread of its socket is too early, it ends, and so does Janus
        self._reading = asyncio.create_task(self._read())
        self._session = (await self.call({"janus": "create"}))["data"]["id"]
        room = {
            "request": "create", "room": _ROOM, "publishers": 100, "videocodec": "h264", "h264_profile": "42e01f",
            "audiocodec": "opus", "notify_joining": False, "audiolevel_event": False,
        }  # fmt: skip
        await self.ask(await self.attach(), room)

    async def _is_up(self) -> bool:
        """Start the process and connect to it; False if it ended."""
        self._socket_path.unlink(missing_ok=True)
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.to_thread(self._spawn, log)
        while not self._connect():
            if self._process.poll() is not None:
                text = (self._folder / "log").read_text()
                assert "No Janus API transport is available" in text, text[-2000:]
                return False
            await asyncio.sleep(0.05)
        return True

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["janus", "-F", str(self._folder), "-o"], stdout=log, stderr=log)

    async def kill(self) -> None:
        """Kill the process, as a crash does: it sends nothing more, not even an end."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._reading is not None:
            self._reading.cancel()
        if self._socket is not None:
            self._socket.close()
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self._socket_path))
        except OSError:
            connection.close()
            return False
        connection.setblocking(False)
        self._socket = connection
        return True

    async def _read(self) -> None:
        """Give answers to those who wait for them; keep the session alive."""
        loop, connection = asyncio.get_running_loop(), self._socket
        assert connection is not None
        while data := await loop.sock_recv(connection, _MESSAGE_BYTES):
            message = json.loads(data)
            future = self._waiting.get(message.get("transaction", ""))
            if future is not None and not future.done() and message["janus"] != "ack":
                future.set_result(message)

    async def call(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises JanusError, or TimeoutError."""
        transaction = str(next(self._numbers))
        future = self._waiting[transaction] = asyncio.get_running_loop().create_future()
        assert self._socket is not None
        try:
            sent = json.dumps(message | {"transaction": transaction}).encode()
            await asyncio.get_running_loop().sock_sendall(self._socket, sent)
            async with asyncio.timeout(_CALL_S):
                answer: dict[str, Any] = await future
        finally:
            del self._waiting[transaction]
        if answer["janus"] == "error":
            raise JanusError(str(answer["error"]))
        return answer

    async def attach(self) -> int:
        request = {"janus": "attach", "session_id": self._session, "plugin": "janus.plugin.videoroom"}
        handle: int = (await self.call(request))["data"]["id"]
        return handle

    async def detach(self, handle: int) -> None:
        await self.call({"janus": "detach", "session_id": self._session, "handle_id": handle})

    async def ask(self, handle: int, body: dict[str, Any], jsep: dict[str, str] | None = None) -> dict[str, Any]:
        """What the videoroom says, with its SDP as "jsep". Raises JanusError."""
        request = {"janus": "message", "session_id": self._session, "handle_id": handle, "body": body}
        answer = await self.call(request if jsep is None else request | {"jsep": jsep})
        data: dict[str, Any] = answer["plugindata"]["data"]
        if "error" in data:
            raise JanusError(str(data["error"]))
        return data | ({"jsep": answer["jsep"]} if "jsep" in answer else {})

    async def publishers(self) -> list[dict[str, Any]]:
        """Who publishes in the room."""
        found = await self.ask(await self.attach(), {"request": "listparticipants", "room": _ROOM})
        return [one for one in found["participants"] if one["publisher"]]


def _list(names: str) -> str:
    return '"' + names.replace('"', "").replace(", ", ",") + '"'


@dataclass
class WhipFront:
    """The WHIP server before Janus. posts, deletes: what clients asked for, with the status that they got."""

    janus: Janus
    posts: list[tuple[str, int]] = field(default_factory=list)
    deletes: list[tuple[str, int]] = field(default_factory=list)
    bearers: list[str | None] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    handles: dict[str, tuple[str, int]] = field(default_factory=dict)  # resource -> endpoint, handle
    delay_s: float = 0.0  # before a POST is answered

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/whip/{endpoint}", self._post, methods=["POST"], response_model=None)
        app.add_api_route("/resource/{resource}", self._delete, methods=["DELETE"], response_model=None)
        return app

    async def _post(self, endpoint: str, request: Request) -> Response:
        response = await self._answer(endpoint, request)
        await asyncio.sleep(self.delay_s)
        self.posts.append((endpoint, response.status_code))
        return response

    async def _answer(self, endpoint: str, request: Request) -> Response:
        self.bearers.append(request.headers.get("authorization"))
        if request.headers.get("authorization") != f"Bearer {BEARER}":
            return Response(status_code=403)
        if request.headers.get("content-type") != "application/sdp":
            return Response(status_code=406)
        if any(taken == endpoint for taken, _ in self.handles.values()):
            return Response("Endpoint ID already in use", status_code=403)
        offer = (await request.body()).decode()
        self.offers.append(offer)
        try:
            handle = await self.janus.attach()
            joining = {"request": "joinandconfigure", "room": _ROOM, "ptype": "publisher", "display": endpoint}
            joined = await self.janus.ask(handle, joining, {"type": "offer", "sdp": offer})
        except (JanusError, OSError, TimeoutError, asyncio.CancelledError) as error:
            return Response(str(error), status_code=502)
        resource = os.urandom(8).hex()
        self.handles[resource] = (endpoint, handle)
        headers = {"Location": f"/resource/{resource}"}
        return Response(joined["jsep"]["sdp"], 201, headers, media_type="application/sdp")

    async def _delete(self, resource: str, request: Request) -> Response:
        found = self.handles.pop(resource, None)
        status = 404 if found is None else 200
        if found is not None:
            with suppress(JanusError, OSError, TimeoutError):  # Janus was started again and knows nothing of it
                await self.janus.detach(found[1])
        self.deletes.append((resource, status))
        return Response(status_code=status)


class Subscriber:
    """A viewer of Janus. It counts what arrives, and decodes nothing."""

    def __init__(self, janus: Janus, display: str) -> None:
        self._janus = janus
        self._display = display
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.picture, self.voice = Ears(), Ears()

    async def join(self) -> None:
        async with asyncio.timeout(_START_S):
            while not (
                feeds := [one["id"] for one in await self._janus.publishers() if one["display"] == self._display]
            ):
                await asyncio.sleep(0.05)
        handle = await self._janus.attach()
        joining = {"request": "join", "room": _ROOM, "ptype": "subscriber", "streams": [{"feed": feeds[0]}]}
        offered = await self._janus.ask(handle, joining)
        await self.peer.setRemoteDescription(RTCSessionDescription(offered["jsep"]["sdp"], "offer"))
        for transceiver in self.peer.getTransceivers():
            (self.picture if transceiver.kind == "video" else self.voice).listen(transceiver.receiver)
        await self.peer.setLocalDescription(await self.peer.createAnswer())
        answer = {"type": "answer", "sdp": self.peer.localDescription.sdp}
        await self._janus.ask(handle, {"request": "start", "room": _ROOM}, answer)
        await until(lambda: self.peer.connectionState == "connected", 60)

    async def close(self) -> None:
        async with asyncio.timeout(20):
            await self.peer.close()


@asynccontextmanager
async def subscribed(janus: Janus, display: str) -> AsyncIterator[Subscriber]:
    async with AsyncExitStack() as stack:
        viewer = Subscriber(janus, display)
        stack.push_async_callback(viewer.close)
        await viewer.join()
        yield viewer
