"""A process of speakers. Each has a session, an uplink of the SDK, and the demo's recorded motion."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import Literal

from load.workers import serve
from pydantic import BaseModel

from mien_client.api import MienClient, MienError, Session, Unreachable
from mien_client.demo import BUNDLED_AVATAR, speaking_session
from mien_client.speaking import DEMO_TRACK, play
from mien_client.uplink import Uplink, UplinkClosed
from mien_shared.wire.track import MotionTrack


class SpeakersOrder(BaseModel):
    """raise: add speakers until there are `speakers`. begin: reset the counters. report: return the counters."""

    kind: Literal["raise", "begin", "report"]
    speakers: int = 0


class SpeakersReport(BaseModel):
    """sessions: all created sessions, oldest first. refused: all refusals, by the problem's code.

    The other fields count since `begin`. closed: speakers whose uplink was closed for good.
    """

    sessions: list[Session]
    refused: dict[str, int]
    closed: int
    sent: int
    sent_bytes: int
    superseded: int
    reconnects: int


class Speakers:
    """All speakers of this process."""

    def __init__(self, gateway_url: str, contexts: AsyncExitStack) -> None:
        self._gateway_url = gateway_url
        self._contexts = contexts
        self._track = MotionTrack.load(DEMO_TRACK)
        self._sessions: list[Session] = []
        self._uplinks: list[Uplink] = []
        self._playing: list[asyncio.Task[None]] = []
        self._refused: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()

    async def handle(self, order: SpeakersOrder) -> SpeakersReport:
        if order.kind == "raise":
            for _ in range(order.speakers - len(self._sessions) - self._refused.total()):
                await self._add()
        elif order.kind == "begin":
            self._begun = self._counts()
        counts = self._counts()
        counts.subtract(self._begun)
        return SpeakersReport(sessions=self._sessions, refused=dict(self._refused), **counts)

    async def _add(self) -> None:
        mien = await self._contexts.enter_async_context(MienClient(self._gateway_url))
        try:
            session, uplink = await self._contexts.enter_async_context(speaking_session(mien, BUNDLED_AVATAR))
        except (MienError, Unreachable, UplinkClosed) as error:
            self._refused[error.code if isinstance(error, MienError) else type(error).__name__] += 1
            return
        self._sessions.append(session)
        self._uplinks.append(uplink)
        self._playing.append(asyncio.create_task(self._speak(uplink)))
        self._contexts.callback(self._playing[-1].cancel)

    async def _speak(self, uplink: Uplink) -> None:
        await asyncio.sleep(random.uniform(0, self._track.interval_s))  # real cameras are not synchronised
        await play(self._track, uplink)

    def _counts(self) -> Counter[str]:
        names = ("sent", "sent_bytes", "superseded", "reconnects")
        counts = Counter({name: sum(getattr(uplink, name) for uplink in self._uplinks) for name in names})
        counts["closed"] = sum(task.done() for task in self._playing)
        return counts


async def main(gateway_url: str) -> None:
    async with AsyncExitStack() as contexts:
        await serve(SpeakersOrder, Speakers(gateway_url, contexts).handle)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
