"""`mien watch`: watch a session and measure the video that arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mien_client.api import BadAddress, MienClient, checked_address
from mien_client.recording import Recorder, ViewReport
from mien_client.viewer import Viewer
from mien_client.voice_packets import VoicePacket


async def watch(
    url: str, token: str | None, record: Path | None, seconds: float | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Watch a session and return the figures of what was received.

    url: the session's WHEP address, or the address of its watch page, with #session=.
    """
    whep_url, token = await whep_url_of(url, token)
    # The voice is asked for if it is recorded; what is only measured is the picture.
    async with Viewer(whep_url, token, on_voice=_ignore if record else None) as viewer:
        say("Connected. Ctrl-C ends it." if seconds is None else f"Connected, for {seconds:g} s.")
        report = await receive(viewer, record, seconds)
        if reason := await viewer.leave():
            say(f"The service ended the connection: {reason}.")
        return report


async def whep_url_of(url: str, token: str | None) -> tuple[str, str | None]:
    """The WHEP address and the token that a URL leads to.

    A watch page's address names the session and the token in its fragment. Any other address is taken as WHEP. Raises
    BadAddress.
    """
    parts = urlsplit(checked_address(url))
    fragment = {name: values[0] for name, values in parse_qs(parts.fragment).items()}
    if "session" not in fragment:
        if parts.path in {"", "/"}:
            shown = parts._replace(fragment="").geturl()  # the fragment may hold a token
            raise BadAddress(f"{shown} names no session: a watch page's address ends in #session= and the session's id")
        return url, token
    token = token or fragment.get("token")
    async with MienClient(f"{parts.scheme}://{parts.netloc}") as mien:
        return (await mien.session(fragment["session"], token)).whep_url, token


async def receive(viewer: Viewer, record: Path | None, seconds: float | None) -> dict[str, Any]:
    """Measure what a viewer receives, and record it if a path is given.

    Returns `seconds` after the first picture, or when the connection ends.
    """
    report = ViewReport()
    async with contextlib.AsyncExitStack() as stack:
        recorder = stack.enter_context(Recorder(record, with_sound=viewer.has_voice)) if record else None
        writing = asyncio.Lock()
        if recorder:
            await stack.enter_async_context(_recorded_sound(viewer, recorder, writing))
        before = await viewer.received_bytes()
        async for frame in viewer.frames():
            report.add(frame)
            if recorder:
                async with writing:
                    await asyncio.to_thread(recorder.write, frame)
            if seconds is not None and report.seconds >= seconds:
                break
        received = await viewer.received_bytes() - before
    return report.as_json() | {"downlink_kbit_s": kbit_s(received, report.seconds)}


@contextlib.asynccontextmanager
async def _recorded_sound(viewer: Viewer, recorder: Recorder, writing: asyncio.Lock) -> AsyncIterator[None]:
    """Inside it the voice is recorded. writing: only one thread may write at a time."""

    async def record() -> None:
        async for sound in viewer.sound():
            async with writing:
                await asyncio.to_thread(recorder.write_sound, sound)

    task = asyncio.create_task(record(), name="recorded-sound")
    try:
        yield
    finally:
        async with writing:  # a write that is under way ends first
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _ignore(packet: VoicePacket) -> None:
    """The decoded voice is recorded, not its packets."""


def kbit_s(count_bytes: int, seconds: float) -> float | None:
    """A bit rate in kbit/s, rounded for display. None if no time has passed."""
    return round(count_bytes * 8 / seconds / 1000, 1) if seconds else None
