"""A speaker and a viewer for the compose trial: real clients in their own network, which know only the origin.

MIEN_API_KEY is an operator's API key. Prints one JSON object per line: first {"event": "first-frame"} with the data
that another viewer needs, then {"event": "report"} at the end or on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mien_client.api import MienClient, Session
from mien_client.demo import StatedConsent, avatar_of, speaking_session
from mien_client.recording import ViewReport
from mien_client.speaking import DEMO_TRACK, play
from mien_client.viewer import Viewer
from mien_shared.settings import IceServer
from mien_shared.wire.track import MotionTrack

#: Frames are compared at this size: it keeps the movement of a head and removes the encoder's noise.
_WIDTH, _HEIGHT = 160, 90


def say(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def watch(viewer: Viewer, session: Session, report: ViewReport, changes: list[float]) -> None:
    """Record each frame, and its mean absolute difference (of 255) from the previous frame."""
    before: np.ndarray[tuple[int, ...], np.dtype[np.int16]] | None = None
    async for frame in viewer.frames():
        if not changes:
            say("first-frame", session_id=session.session_id, watch_token=session.watch_token)
        report.add(frame)
        small = frame.picture.reformat(_WIDTH, _HEIGHT, format="gray").to_ndarray().astype(np.int16)
        changes.append(0.0 if before is None else float(np.abs(small - before).mean()))
        before = small


def reached_over(transport: str, server: IceServer) -> IceServer:
    return server.model_copy(update={"urls": [url for url in server.urls if url.endswith(f"?transport={transport}")]})


async def main(origin: str, avatar: str, seconds: float, relay: str | None) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    report, changes = ViewReport(), list[float]()
    async with MienClient(origin, os.environ["MIEN_API_KEY"]) as mien:
        avatar_id = await avatar_of(mien, avatar, StatedConsent("drawn"))
        async with speaking_session(mien, avatar_id) as (session, uplink):
            speaker = asyncio.create_task(play(MotionTrack.load(DEMO_TRACK), uplink))
            ice_servers = [reached_over(relay, server) for server in session.ice_servers] if relay else []
            joining_s = time.monotonic()
            async with Viewer(session.whep_url, session.watch_token, ice_servers) as viewer:
                joined_s = time.monotonic() - joining_s
                watching = asyncio.create_task(watch(viewer, session, report, changes))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), seconds)
                lost = watching.done()
                watching.cancel()
            speaker.cancel()
            await asyncio.gather(watching, speaker, return_exceptions=True)
    say(
        "report",
        avatar_id=avatar_id,
        join_s=round(joined_s, 3),
        connection_lost=lost,
        uplink_reconnects=uplink.reconnects,
        arrivals_s=[round(at, 4) for at in report.arrivals_s],
        changes=[round(change, 3) for change in changes],
        figures=report.as_json(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("origin")
    parser.add_argument("--avatar", default="mien", help="An avatar's id, or a picture file to upload.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--relay", choices=["udp", "tcp"], help="Use the session's TURN server over this transport.")
    given = parser.parse_args()
    if Path(given.avatar).suffix and not Path(given.avatar).is_file():
        parser.error(f"the picture {given.avatar} does not exist")
    asyncio.run(main(given.origin, given.avatar, given.seconds, given.relay))
