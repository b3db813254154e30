"""clients/js in Chromium: a camera's picture becomes packets in a worker, and only packets leave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import pytest_asyncio
from e2e.browser import ARGUMENTS
from e2e.fake_devices import y4m
from playwright.async_api import Page, async_playwright

from mien_shared.wire.motion import MotionFlags, MotionPacket

pytestmark = [pytest.mark.e2e, pytest.mark.chromium]

CLIENT = Path(__file__).resolve().parents[2] / "clients/js"
#: What a page may load: the modules of clients/js.
SDK_FILES = ("/index.js", "/encoder/", "/media/", "/motion/", "/network/", "/room/", "/favicon.ico")

#: What a page that embeds the encoder has to allow, and no more.
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'"

PAGE = b"<!doctype html><title>a camera</title>"

#: Keeps a description of every message that a worker sends, before a module sees it.
WATCH_WORKERS = """
(() => {
  window.reports = [];
  const describe = (value) => {
    if (value === null || typeof value !== "object") return typeof value === "string" ? value : typeof value;
    if (ArrayBuffer.isView(value)) return `${value.constructor.name} ${value.byteLength} of ${value.buffer.byteLength}`;
    if (Object.getPrototypeOf(value) !== Object.prototype) return value.constructor.name;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, describe(inner)]));
  };
  window.Worker = class extends Worker {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", (event) => window.reports.push(describe(event.data)));
    }
  };
})()
"""

START = """
async ([keypoints, processor]) => {
  if (!processor) delete globalThis.MediaStreamTrackProcessor;
  const { MotionCapture } = await import("/index.js");
  const media = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 30 } });
  const [track] = media.getVideoTracks();
  window.track = track;
  window.packets = [];
  window.states = [];
  window.failures = [];
  window.capture = new MotionCapture({
    keypoints: Float32Array.from(keypoints),
    onPacket: (bytes) => window.packets.push([...bytes]),
    onState: (state) => window.states.push(state),
    onError: (error) => window.failures.push(`${error.cause}: ${error.message}`),
  });
  await window.capture.start(track);
}
"""

#: A voice without a microphone: a second with a tone, a second without, and so on.
SPEAK = """
async () => {
  const context = new AudioContext();
  await context.resume();
  const [tone, gate, switching] = [new OscillatorNode(context, { frequency: 1000 }),
    new GainNode(context, { gain: 0.1 }), new OscillatorNode(context, { type: "square", frequency: 0.5 })];
  const depth = new GainNode(context, { gain: 0.1 });
  const out = new MediaStreamAudioDestinationNode(context);
  switching.connect(depth).connect(gate.gain);
  tone.connect(gate).connect(out);
  tone.start();
  switching.start();
  await window.capture.followVoice(out.stream.getAudioTracks()[0]);
}
"""

#: The page's own face at rest, in crop coordinates.
AVATAR = [
    value
    for x, y in (
        (-0.207, -0.3615), (0.207, -0.3615), (-0.2149, -0.1643), (0.2149, -0.1643), (0.0, 0.0251), (0.0, 0.1719),
        (0.0, 0.2511), (0.0, 0.4233), (-0.3291, 0.1608), (0.3291, 0.1608),
    )
    for value in (x, y, 1, 0, 0, 1)
]  # fmt: skip


@dataclass
class Camera:
    """A page whose camera shows the drawn face. requests: the addresses that page and worker asked for."""

    page: Page
    origin: str
    broken: dict[str, Callable[[bytes], bytes]]
    requests: list[str] = field(default_factory=list)

    async def start(self, *, processor: bool = True) -> None:
        await self.page.evaluate(START, [AVATAR, processor])

    async def packets(self) -> list[MotionPacket]:
        """Every packet so far. Each is one that our receivers accept, or unpack raises."""
        return [MotionPacket.unpack(bytes(packet)) for packet in await self.page.evaluate("window.packets")]

    async def until(self, condition: str, within_s: float = 60.0) -> None:
        """Wait until an expression in the page is true. Polls from outside: the page's policy forbids it inside."""
        try:
            async with asyncio.timeout(within_s):
                while not await self.page.evaluate(condition):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            failures, states = await self.page.evaluate("[window.failures, window.states.slice(-2)]")
            pytest.fail(f"{condition} is not true after {within_s:g} s; failures {failures}, states {states}")


@pytest_asyncio.fixture
async def camera(chromium: str, tmp_path: Path) -> AsyncIterator[Camera]:
    clip = tmp_path / "face.y4m"
    clip.write_bytes(y4m())
    broken: dict[str, Callable[[bytes], bytes]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, broken, directory=str(CLIENT)))
    Thread(target=server.serve_forever, daemon=True).start()
    devices = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={clip}",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, *devices])
        try:
            context = await browser.new_context(permissions=["camera"])
            page = await context.new_page()
            camera = Camera(page, f"http://127.0.0.1:{server.server_port}", broken)
            context.on("request", lambda request: camera.requests.append(request.url))
            await page.add_init_script(WATCH_WORKERS)
            await page.goto(f"{camera.origin}/")
            yield camera
        finally:
            await browser.close()
            server.shutdown()


async def test_a_face_in_front_of_the_camera_becomes_packets(camera: Camera) -> None:
    await camera.start()
    await camera.until("window.packets.length >= 120 && window.states.at(-1)?.face")
    packets = await camera.packets()
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    times_ms = [packet.capture_ms for packet in packets]
    assert times_ms == sorted(times_ms)
    now_ms = int(await camera.page.evaluate("performance.timeOrigin + performance.now()")) & 0xFFFF_FFFF
    assert 0 <= now_ms - times_ms[-1] < 5000, "capture times are Unix milliseconds"
    spoken = [packet for packet in packets if not packet.flags & MotionFlags.DEFAULT_MOTION]
    assert len(spoken) > 30
    lips = [packet.keypoints.points[6, 1] for packet in spoken]
    assert max(lips) - min(lips) > 0.01, "the mouth moves"
    assert await camera.page.evaluate("window.failures") == []


async def test_only_packets_and_figures_leave_the_worker(camera: Camera) -> None:
    await camera.start()
    await camera.until("window.packets.length >= 60 && window.states.length >= 2")
    reports: list[dict[str, Any]] = await camera.page.evaluate("window.reports")
    state = {"face": "boolean", "muted": "boolean", "pictures": "number", "packets": "number", "busyMs": "number"}
    allowed: list[dict[str, Any]] = [
        {"type": "ready", "readsTracks": "boolean"},
        {"type": "packet", "bytes": "Uint8Array 128 of 128"},
        {"type": "state", "state": state},
    ]
    assert [report for report in reports if report not in allowed] == []
    assert len(reports) > 60
    paths = {url.removeprefix(camera.origin) for url in camera.requests}
    assert all(path.startswith(SDK_FILES) or path == "/" for path in paths)
    assert {"/encoder/kernel.wasm", "/encoder/encoder.weights"} <= paths


async def test_a_browser_without_the_processor_sends_packets_too(camera: Camera) -> None:
    await camera.start(processor=False)
    await camera.until("window.packets.length >= 60 && window.states.at(-1)?.face")
    assert await camera.page.evaluate("window.reports.filter(({type}) => type === 'taken').length > 20")
    packets = await camera.packets()
    assert any(not packet.flags & MotionFlags.DEFAULT_MOTION for packet in packets)
    assert await camera.page.evaluate("window.failures") == []


async def test_default_motion_follows_a_camera_that_ends_until_the_next_one_begins(camera: Camera) -> None:
    await camera.start()
    await camera.until("window.states.at(-1)?.face")
    await camera.page.evaluate("window.track.stop()")
    await camera.until("window.states.at(-1)?.muted")
    sent = len(await camera.packets())
    await camera.until(f"window.packets.length > {sent + 30}")
    assert all(packet.flags & MotionFlags.DEFAULT_MOTION for packet in (await camera.packets())[sent + 1 :])

    await camera.page.evaluate(
        "navigator.mediaDevices.getUserMedia({video: true})"
        ".then((media) => window.capture.follow(media.getVideoTracks()[0]))"
    )
    await camera.until("window.states.at(-1)?.face && !window.states.at(-1).muted")
    packets = await camera.packets()
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    assert not packets[-1].flags & MotionFlags.DEFAULT_MOTION

    await camera.page.evaluate("window.capture.follow(null)")
    await camera.until("window.states.at(-1)?.muted")
    await camera.page.evaluate("window.capture.stop()")
    sent = await camera.page.evaluate("window.packets.length")
    await asyncio.sleep(0.3)
    assert await camera.page.evaluate("window.packets.length") == sent


async def test_without_a_face_the_voice_moves_the_mouth_and_a_reaction_the_head(camera: Camera) -> None:
    await camera.start()
    await camera.page.evaluate("window.capture.follow(null)")
    await camera.until("window.states.at(-1)?.muted")
    await camera.page.evaluate(SPEAK)
    await sent(camera, lambda packets: opening(packets[-1]) > 0.03)
    await sent(camera, lambda packets: opening(packets[-1]) < 0.01)  # between two syllables
    begun = len(await camera.packets())
    await camera.page.evaluate("window.capture.react('nod')")
    packets = await sent(camera, lambda packets: max(map(nose, packets[begun:])) > 0.04)
    assert all(packet.flags & MotionFlags.DEFAULT_MOTION for packet in packets[begun:])
    await camera.page.evaluate("window.capture.followVoice(null)")
    await sent(camera, lambda packets: all(opening(packet) < 0.005 for packet in packets[-30:]))
    assert await camera.page.evaluate("window.failures") == []


def opening(packet: MotionPacket) -> float:
    return float(packet.keypoints.points[6, 1] - packet.keypoints.points[5, 1])


def nose(packet: MotionPacket) -> float:
    return float(packet.keypoints.points[4, 1])


async def sent(camera: Camera, wanted: Callable[[list[MotionPacket]], bool]) -> list[MotionPacket]:
    """Every packet, as soon as they are as wanted. The test fails if they never are."""
    async with asyncio.timeout(60):
        while True:
            packets = await camera.packets()
            if len(packets) > 30 and wanted(packets):
                return packets
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("file", "damage", "flaw"),
    [
        ("kernel.wasm", lambda data: data[:-1] + bytes([data[-1] ^ 1]), r"kernel\.wasm has SHA-256 \w+, its manifest"),
        ("encoder.weights", lambda data: data[:1000], r"encoder\.weights has 1000 bytes, its manifest says \d+"),
    ],
)
async def test_a_damaged_file_is_named(camera: Camera, file: str, damage: Callable[[bytes], bytes], flaw: str) -> None:
    camera.broken[f"/encoder/{file}"] = damage
    with pytest.raises(Exception, match=flaw):
        await camera.start()
    assert await camera.page.evaluate("window.packets") == []


class _Files(SimpleHTTPRequestHandler):
    """clients/js and an empty page. broken: what to do to a file before it is sent."""

    def __init__(self, broken: dict[str, Callable[[bytes], bytes]], *given: Any, **named: Any) -> None:
        self._broken = broken
        super().__init__(*given, **named)

    def do_GET(self) -> None:
        if self.path not in ("/", *self._broken):
            super().do_GET()
            return
        data = PAGE if self.path == "/" else self._broken[self.path](Path(self.translate_path(self.path)).read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(self.path) if self.path != "/" else "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None: ...
