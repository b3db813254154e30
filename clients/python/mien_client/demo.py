"""`mien demo`: all services on this machine, a recorded speaker, and a real WebRTC viewer that measures the result."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mien_client.api import MienClient, MienError, Session, Unreachable
from mien_client.launcher import Stack, StackOptions
from mien_client.speaking import DEMO_TRACK, play
from mien_client.uplink import Uplink
from mien_client.viewer import Viewer
from mien_client.watching import kbit_s, receive
from mien_shared.wire.track import MotionTrack

#: The avatar that every gateway has when it starts.
BUNDLED_AVATAR = "mien"

_AVATAR_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class DemoOptions:
    """seconds: how long to run, None until interrupted. record: MP4 file for the video that the viewer receives.

    measure: whether to watch the session and report figures. A recording needs a viewer too.
    """

    avatar: str = BUNDLED_AVATAR
    motion: Path = DEMO_TRACK
    seconds: float | None = None
    record: Path | None = None
    measure: bool = False
    stack: StackOptions = field(default_factory=StackOptions)
    consent: StatedConsent | None = None


async def run_demo(options: DemoOptions, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Run the demo. Returns the figures of its own viewer, or None if the options ask for no viewer."""
    track = MotionTrack.load(options.motion)
    async with Stack(options.stack) as stack, MienClient(stack.url) as mien:
        avatar_id = await avatar_of(mien, options.avatar, options.consent)
        async with speaking_session(mien, avatar_id) as (session, uplink):
            say(f"Mien is running. Open {stack.url}/#session={session.session_id} and press play; Ctrl-C ends it.")
            tiers: Counter[str] = Counter()
            view = asyncio.create_task(_view(session, uplink, options, tiers), name="view")
            others = {
                asyncio.create_task(_count_tiers(mien, session, tiers), name="tiers"),
                asyncio.create_task(stack.watch(), name="services"),
                asyncio.create_task(play(track, uplink), name="speaker"),
            }
            try:
                done, _ = await asyncio.wait({view, *others}, return_when=asyncio.FIRST_COMPLETED)
                if view not in done:
                    done.pop().result()  # these tasks never return: this raises the error that ended one
                return view.result()
            finally:
                for task in (view, *others):
                    task.cancel()
                await asyncio.gather(view, *others, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class StatedConsent:
    """What the user says about the person in a picture, see `MienClient.upload_avatar`."""

    kind: str | None = None
    name: str | None = None


async def avatar_of(mien: MienClient, avatar: str, consent: StatedConsent | None = None) -> str:
    """The id of an avatar. A picture file is uploaded first. Whether an id is known is said where it is used."""
    if Path(avatar).is_file():
        said = consent or StatedConsent()
        return (await mien.upload_avatar(Path(avatar), said.kind, said.name)).avatar_id
    if not _AVATAR_ID.fullmatch(avatar):
        raise FileNotFoundError(f"there is no picture file {avatar}, and it is not an avatar id")
    return avatar


@contextlib.asynccontextmanager
async def speaking_session(mien: MienClient, avatar_id: str) -> AsyncIterator[tuple[Session, Uplink]]:
    """A new session with its uplink connected. The session is ended afterwards."""
    async with new_session(mien, avatar_id) as session, Uplink(session.uplink_url, session.token) as uplink:
        yield session, uplink


@contextlib.asynccontextmanager
async def new_session(mien: MienClient, avatar_id: str) -> AsyncIterator[Session]:
    """A new session. It is ended afterwards."""
    session = await mien.create_session(avatar_id)
    try:
        yield session
    finally:
        with contextlib.suppress(MienError, Unreachable):  # if the service is gone, its session is gone too
            await mien.end_session(session.session_id, session.token)


async def _count_tiers(mien: MienClient, session: Session, tiers: Counter[str]) -> NoReturn:
    """Once a second, count the tier that the session is on. Under load it may change during the call."""
    while True:
        await asyncio.sleep(1.0)
        with contextlib.suppress(MienError, Unreachable):
            stats = (await mien.session(session.session_id, session.token)).stats
            if stats is not None:
                tiers[stats.tier] += 1


async def _view(session: Session, uplink: Uplink, options: DemoOptions, tiers: Counter[str]) -> dict[str, Any] | None:
    if not (options.measure or options.record):
        await (asyncio.Event().wait() if options.seconds is None else asyncio.sleep(options.seconds))
        return None
    async with Viewer(session.whep_url, session.watch_token) as viewer:
        start_s, sent_before = time.monotonic(), uplink.sent_bytes
        report = await receive(viewer, options.record, options.seconds)
        uplink_kbit_s = kbit_s(uplink.sent_bytes - sent_before, time.monotonic() - start_s)
        return report | {"uplink_kbit_s": uplink_kbit_s, "tier_seconds": dict(tiers)}
