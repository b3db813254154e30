"""Clients that connect and abort in many ways, and the resources that a stack holds before and after them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from e2e.system import System
from processes import descendants
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from mien_client.api import MienClient, MienError, Session, authorization
from mien_client.demo import BUNDLED_AVATAR
from mien_client.viewer import Viewer
from mien_shared.bus import keys
from mien_shared.bus.connection import open_redis
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

#: Environment of the stack: no rate limit stops the churn, and abandoned viewers are removed quickly.
CHURN_ENV = {
    "MIEN_CAPACITY": "32",
    "MIEN_WORKERS": "1",  # the keys of a worker that starts in between would count as left behind
    "MIEN_CONNECT_TIMEOUT_S": "2",
    **{
        f"MIEN_{name}_PER_MINUTE": "1000000"
        for name in ("REQUESTS", "SESSIONS", "UPLOADS", "JOINS", "SESSION_JOINS", "UPDATES")
    },
}

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Churn:
    """Runs connect-and-abort cycles. An async context manager with its own session, the target."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._mien = MienClient(system.stack.url)
        self._http = httpx.AsyncClient(trust_env=False, timeout=20.0, limits=httpx.Limits(max_keepalive_connections=0))
        self._offer = ""
        self._target: Session | None = None
        self.refused: Counter[str] = Counter()
        self.kinds: list[Callable[[], Awaitable[None]]] = [
            self.offer_then_nothing,
            self.offer_then_leave,
            self.half_an_offer,
            self.uplink_cut_off,
            self.uplink_closed,
            self.session_made_and_ended,
            self.session_ended_while_joining,
            self.half_an_upload,
            self.viewer_joins_and_leaves,
        ]

    async def __aenter__(self) -> Self:
        self._offer = await _offer()
        self._target = await self._mien.create_session(BUNDLED_AVATAR)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(MienError):
            await self._mien.end_session(self.target.session_id, self.target.token)
        await self._mien.__aexit__(None, None, None)
        await self._http.aclose()

    @property
    def target(self) -> Session:
        assert self._target is not None
        return self._target

    async def run(self, cycles: int, at_once: int = 6) -> None:
        """Run this many connect-and-abort cycles, of each kind in turn."""
        turns = iter(range(cycles))

        async def work() -> None:
            for turn in turns:
                try:
                    await self.kinds[turn % len(self.kinds)]()
                except MienError as error:
                    self.refused[str(error)] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())

    async def offer_then_nothing(self) -> None:
        """An offer from a client that never answers ICE."""
        await self._join(self.target)

    async def offer_then_leave(self) -> None:
        resource = await self._join(self.target)
        await self._http.delete(resource, headers=authorization(self.target.watch_token))

    async def half_an_offer(self) -> None:
        await _half_a_post(self.target.whep_url, "application/sdp", self.target.watch_token)

    async def half_an_upload(self) -> None:
        await _half_a_post(f"{self._system.stack.url}/v1/avatars", "multipart/form-data; boundary=x", None)

    async def uplink_cut_off(self) -> None:
        """A sender that loses its network."""
        with contextlib.suppress(WebSocketException, OSError):
            async with self._uplink(self.target) as socket_:
                for sequence in range(3):
                    await socket_.send(MotionPacket(sequence, 0, Keypoints.at_rest()).pack())
                socket_.transport.abort()

    async def uplink_closed(self) -> None:
        with contextlib.suppress(WebSocketException, OSError):
            async with self._uplink(self.target) as socket_:
                await socket_.send(MotionPacket(1, 0, Keypoints.at_rest()).pack())

    async def session_made_and_ended(self) -> None:
        session = await self._mien.create_session(BUNDLED_AVATAR)
        await self._mien.end_session(session.session_id, session.token)

    async def session_ended_while_joining(self) -> None:
        session = await self._mien.create_session(BUNDLED_AVATAR)
        with contextlib.suppress(WebSocketException, OSError):
            async with self._uplink(session):
                await self._join(session)
                await self._mien.end_session(session.session_id, session.token)

    async def viewer_joins_and_leaves(self) -> None:
        async with Viewer(self.target.whep_url, self.target.watch_token) as viewer:
            await anext(viewer.frames())

    def _uplink(self, session: Session) -> connect:
        headers = authorization(session.token)
        return connect(session.uplink_url, additional_headers=headers, compression=None, proxy=None)

    async def _join(self, session: Session) -> str:
        headers = {"Content-Type": "application/sdp", **authorization(session.watch_token)}
        answer = await self._http.post(session.whep_url, content=self._offer, headers=headers)
        if answer.is_error:
            raise MienError(answer.status_code, "refused", answer.text)
        return urljoin(session.whep_url, answer.headers["location"])


async def _offer() -> str:
    """A viewer's offer with candidates at which no socket is open any more."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver("video", direction="recvonly")
    codecs = RTCRtpReceiver.getCapabilities("video").codecs
    transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])
    await peer.setLocalDescription(await peer.createOffer())
    sdp = str(peer.localDescription.sdp)
    await peer.close()
    return sdp


async def _half_a_post(url: str, media_type: str, token: str | None) -> None:
    """A request whose client resets the connection before it has sent the whole body."""
    parts = urlsplit(url)
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Type: {media_type}"]
    head += [f"{name}: {value}" for name, value in authorization(token).items()]
    head += ["Content-Length: 4000", "", "v=0\r\n"]
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("\r\n".join(head).encode())
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@dataclass(frozen=True)
class Held:
    """The resources that one service holds.

    pooled: connections to Redis. The pool opens more under load and keeps them.
    """

    fds: int
    pooled: int
    threads: int
    tasks: int


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no VmRSS")


def _descriptors(pid: int) -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(fd.readlink()))
    return found


async def held(system: System) -> dict[str, Held]:
    """The resources that every service holds now, with all its processes."""
    answer = {}
    for name in system.stack.services:
        pid = system.stack.pid(name)
        family = [pid, *descendants(pid)]
        descriptors = [descriptor for process in family for descriptor in _descriptors(process)]
        local = {line.split()[6] for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]}
        pooled = sum(f"socket:[{inode}]" in descriptors for inode in local)  # the tests' Redis uses a Unix socket
        answer[name] = Held(
            fds=len(descriptors) - pooled,
            pooled=pooled,
            threads=sum(len(list(Path(f"/proc/{process}/task").iterdir())) for process in family),
            tasks=round(await system.metric(name, "mien_tasks")),
        )
    return answer


async def facts(system: System) -> dict[str, float]:
    """The numbers of viewers, subscriptions, uplinks, sessions and slots, from the services and from Redis."""
    async with open_redis(system.redis.url) as redis:
        slots = [await redis.zcard(name) for name in await redis.keys(keys.slots("*"))]
    return {
        "viewers": await system.metric("signaling", "mien_viewers"),
        "watched": await system.metric("signaling", "mien_watched_sessions"),
        "uplinks": await system.metric("gateway", "mien_uplinks"),
        "sessions": await system.metric("generator", "mien_generator_sessions"),
        "slots": sum(slots),
    }


#: Keys of a session that expire by themselves (mien_shared.bus.keys says after what time), or come a moment later.
_EXPIRING = (b":ended", b":video", b":stats", b":viewer-counts", b":viewer-lists", b":speaker", b":uplink")


async def lasting_keys(system: System) -> set[str]:
    """All Redis keys, except those of ended sessions that expire by themselves."""
    lasting = set()
    async with open_redis(system.redis.url) as redis:
        for name in await redis.keys("*"):
            lapses = name.endswith(_EXPIRING) and await redis.ttl(name) > 0
            if not lapses:
                lasting.add(name.decode())
    return lasting
