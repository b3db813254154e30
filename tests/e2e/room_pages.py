"""Pages of real browsers in a room: each has a camera and a microphone, and clients/js.

The page itself is empty. It has the gateway's origin, under a policy that allows what clients/js/README.md asks for and
no more. The gateway serves the files of clients/js.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e.browser import ARGUMENTS
from e2e.fake_devices import write_voice, y4m
from playwright.async_api import Browser, BrowserContext, Error, Page, Route, async_playwright

from mien_client.api import Invitation

CLIENT = Path(__file__).resolve().parents[2] / "clients/js"
PAGE = "/a-page-of-the-tests"
PATIENCE_S = 60.0

#: Keeps what the page sends by data channels, its peer connections, and how often it asked for a device.
WATCH_SENDING = """
(() => {
  window.channelMessages = [];
  const send = RTCDataChannel.prototype.send;
  RTCDataChannel.prototype.send = function (data) {
    window.channelMessages.push(data.byteLength ?? String(data));
    return send.call(this, data);
  };
  window.peers = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) {
      super(...given);
      window.peers.push(this);
    }
  };
  window.devicesAsked = [];
  const ask = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = function (constraints) {
    window.devicesAsked.push(...Object.keys(constraints));
    return ask.call(this, constraints);
  };
})()
"""

#: Defines `enter(url, token, options)`, and what the tests ask of a page.
PREPARE = """
async () => {
  const mien = window.mienClient = await import("/static/client/index.js");
  window.told = [];
  window.listen = (room) => {
    window.room = room;
    for (const name of Object.values(mien.RoomEvent)) {
      room.on(name, (...given) => window.told.push([name, ...given.map((one) => one?.identity ?? one?.code ?? one)]));
    }
    room.on("participantConnected", (participant) => {
      const video = participant.attach();
      video.dataset.identity = participant.identity;
      document.body.append(video);
    });
    return room;
  };
  window.enter = async (url, token, options) => {
    const room = window.listen(new mien.Room(options.room ?? {}));
    await room.connect(url, token, options.connect ?? {});
    if (options.camera) await room.localParticipant.setCameraEnabled(true);
    if (options.microphone) await room.localParticipant.setMicrophoneEnabled(true);
  };
  window.other = (identity) => [...window.room.remoteParticipants.values()].find((one) => one.identity === identity);
  window.statsOf = async (identity) => (await window.room.getStats()).participants[window.other(identity)?.id] ?? {};
  // The mean change of an element's picture since the last call, in levels of 256; 0 if there is no picture.
  const before = new Map();
  window.moved = (video) => {
    if (!video?.videoWidth) return 0;
    const canvas = new OffscreenCanvas(160, 90);
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0, 160, 90);
    const { data } = context.getImageData(0, 0, 160, 90);
    const last = before.get(video) ?? data;
    before.set(video, data);
    return data.reduce((sum, value, i) => sum + Math.abs(value - last[i]), 0) / data.length;
  };
  window.movedOf = (identity) => window.moved(document.querySelector(`video[data-identity="${identity}"]`));
}
"""


@dataclass
class RoomPage:
    """A page. messages: what it has sent over WebSockets. bodies: of its requests, with those of its workers."""

    page: Page
    gateway_url: str
    errors: list[str] = field(default_factory=list)
    messages: list[str | bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def keep(self, message: str | bytes) -> None:
        self.messages.append(message)

    async def open(self) -> None:
        """Load the page, or load it again."""
        await self.page.goto(f"{self.gateway_url}{PAGE}")
        await self.page.evaluate(PREPARE)

    async def enter(self, invitation: Invitation, **options: Any) -> None:
        """Load the page and enter a room. Options: room, connect, camera, microphone."""
        await self.open()
        await self.run(f"enter({json.dumps(self.gateway_url)}, {json.dumps(invitation.token)}, {json.dumps(options)})")

    async def run(self, script: str) -> None:
        """Evaluate an expression; its failure is the test's, with what the page has complained of."""
        try:
            await self.do(script)
        except Error as error:
            pytest.fail(f"{error}; errors {self.errors}")

    async def do(self, script: str) -> Any:
        """Evaluate an expression of the page in which `room` is its Room."""
        return await self.page.evaluate(f"async () => {{ const room = window.room; return ({script}); }}")

    async def until(self, condition: str, within_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true. Polls from outside: the page's policy forbids it inside."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.do(condition):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            told = await self.page.evaluate("JSON.stringify(window.told.slice(-12))")
            pytest.fail(f"{condition} is not true after {within_s:g} s; told {told}; errors {self.errors}")

    async def told(self, name: str) -> list[list[Any]]:
        """The arguments of each event of this name."""
        events = json.loads(await self.page.evaluate("JSON.stringify(window.told)"))
        return [given for event, *given in events if event == name]


@asynccontextmanager
async def room_browser(chromium: str, folder: Path) -> AsyncIterator[Browser]:
    """A browser whose camera shows a drawn face, and whose microphone plays a recorded voice."""
    face, voice = folder / "face.y4m", folder / "voice.wav"
    face.write_bytes(y4m())
    write_voice(voice)
    devices = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={face}",
        f"--use-file-for-fake-audio-capture={voice}",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, *devices])
        try:
            yield browser
        finally:
            await browser.close()


async def room_page(browser: Browser, gateway_url: str, signaling_url: str) -> RoomPage:
    """A page of a person of its own: it shares no storage with the others."""
    context = await browser.new_context(permissions=["camera", "microphone", "local-network-access"])
    await _serve_page(context, gateway_url, signaling_url)
    await context.add_init_script(WATCH_SENDING)
    opened = RoomPage(await context.new_page(), gateway_url)
    opened.page.on("websocket", lambda socket: socket.on("framesent", opened.keep))
    context.on("request", lambda request: opened.bodies.append(request.post_data_buffer or b""))
    opened.page.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    return opened


async def _serve_page(context: BrowserContext, gateway_url: str, signaling_url: str) -> None:
    policy = (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        f"connect-src 'self' {gateway_url.replace('http', 'ws')} {signaling_url}"
    )

    async def answer(route: Route) -> None:
        headers = {"Content-Security-Policy": policy}
        await route.fulfill(
            body="<!doctype html><title>a room</title><body>", content_type="text/html", headers=headers
        )

    await context.route(f"{gateway_url}{PAGE}", answer)
