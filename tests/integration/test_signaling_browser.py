"""Chromium's offers of every form: each is answered so that the browser takes the answer and decodes the stream."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing

import httpx
import pytest
from fastapi import FastAPI
from hostile.whep import verdicts
from integration.media_ports import free_port
from integration.test_signaling_media import SESSION, Publisher, RunApp, settings, world_of
from integration.test_signaling_offers import bare_bundle_only, bundle_only
from playwright.async_api import Page

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_signaling.app import create_app

pytestmark = [pytest.mark.integration, pytest.mark.chromium, pytest.mark.alone]

_OFFER = """
async ({policy, steps}) => {
  const peer = window.peer = new RTCPeerConnection({bundlePolicy: policy});
  const canvas = document.createElement("canvas");
  canvas.getContext("2d");
  for (const step of steps) {
    if (step === "data") peer.createDataChannel("anything");
    else {
      const [kind, direction] = step.split(" ");
      const source = kind === "video" && direction.startsWith("send") ? canvas.captureStream().getTracks()[0] : kind;
      peer.addTransceiver(source, {direction});
    }
  }
  await peer.setLocalDescription();
  await new Promise(done => {
    if (peer.iceGatheringState === "complete") return done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  return peer.localDescription.sdp;
}
"""
_TAKE = "answer => window.peer.setRemoteDescription({type: 'answer', sdp: answer})"
_TRANSPORT = """
async () => {
  const stats = [...(await window.peer.getStats()).values()];
  const transport = stats.find(entry => entry.type === "transport");
  const pair = stats.find(entry => entry.id === transport.selectedCandidatePairId);
  const remote = stats.find(entry => entry.id === pair.remoteCandidateId);
  return [remote.protocol, remote.port];
}
"""
_DECODED = """
async () => {
  let frames = 0;
  (await window.peer.getStats()).forEach(entry => {
    if (entry.type === "inbound-rtp" && entry.kind === "video") frames += entry.framesDecoded || 0;
  });
  return [window.peer.connectionState, frames];
}
"""


@pytest.fixture
async def client(
    redis_server: EmbeddedRedis, run_app: Callable[[FastAPI], Awaitable[str]]
) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        redis = open_redis(redis_server.url)
        stack.push_async_callback(redis.aclose)
        await stack.enter_async_context(Publisher(redis).live())
        url = await run_app(create_app(settings(redis_server)))
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15))


CASES = {
    "video alone": ("balanced", ["video recvonly"], ["video sendonly"]),
    "audio first": ("balanced", ["audio recvonly", "video recvonly"], ["audio sendonly", "video sendonly"]),
    "max-bundle": ("max-bundle", ["audio recvonly", "video recvonly"], ["audio sendonly", "video sendonly"]),
    "audio last": ("max-bundle", ["video recvonly", "audio recvonly"], ["video sendonly", "audio sendonly"]),
    # The audio section carries the connection. Under max-bundle Chromium takes no answer that refuses it.
    "inactive audio": ("max-bundle", ["audio inactive", "video recvonly"], ["audio inactive", "video sendonly"]),
    "everything": (
        "balanced",
        ["audio sendrecv", "video sendonly", "video sendrecv", "video recvonly", "data"],
        ["audio sendonly", "video refused", "video sendonly", "video refused", "application refused"],
    ),
    "max-compat": (
        "max-compat",
        ["data", "video recvonly", "audio inactive"],
        ["video sendonly", "audio refused", "application refused"],
    ),
}


async def watches(
    client: httpx.AsyncClient,
    page: Page,
    offer: str,
    expected: list[str],
    change: Callable[[str], str] = lambda answer: answer,
) -> None:
    """Fails unless the browser takes the answer to this offer and decodes pictures. change: of the answer."""
    answer = await client.post(
        f"/v1/whep/{SESSION.session_id}", content=offer, headers={"Content-Type": "application/sdp"}
    )
    assert answer.status_code == 201, answer.text
    assert verdicts(answer.text) == expected
    await page.evaluate(_TAKE, change(answer.text))
    state, frames = "", 0
    try:
        async with asyncio.timeout(20):
            while frames < 10:
                state, frames = await page.evaluate(_DECODED)
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"the browser is {state} and has decoded {frames} pictures")
    assert state == "connected"


@pytest.mark.parametrize("name", CASES)
async def test_a_browser_sees_the_stream(client: httpx.AsyncClient, page: Page, name: str) -> None:
    policy, steps, expected = CASES[name]
    offer = await page.evaluate(_OFFER, {"policy": policy, "steps": steps})
    await watches(client, page, offer, expected)


@pytest.mark.parametrize("spoil", [bundle_only, bare_bundle_only])
async def test_a_browser_takes_the_answer_to_a_bundle_only_section(
    client: httpx.AsyncClient, page: Page, spoil: Callable[[str], str]
) -> None:
    steps = ["audio recvonly", "video recvonly"]
    offer = await page.evaluate(_OFFER, {"policy": "max-bundle", "steps": steps})
    await watches(client, page, spoil(offer), ["audio sendonly", "video sendonly"])


async def test_a_browser_that_hides_its_addresses_and_ends_its_candidates(
    client: httpx.AsyncClient, page: Page
) -> None:
    offer = await page.evaluate(_OFFER, {"policy": "max-bundle", "steps": ["video recvonly"]})
    assert ".local " in offer
    await watches(client, page, offer + "a=end-of-candidates\r\n", ["video sendonly"])


def without(transport: str) -> Callable[[str], str]:
    """Takes the candidates of a transport out of a description: what a firewall that blocks it leaves."""

    def changed(answer: str) -> str:
        lines = answer.splitlines(keepends=True)
        return "".join(line for line in lines if not (line.startswith("a=candidate:") and f" {transport} " in line))

    return changed


def silent_udp(port: int) -> Callable[[str], str]:
    """Sends the checks over UDP to a port that never answers: what a firewall that drops UDP does."""

    def changed(answer: str) -> str:
        return re.sub(r"^(a=candidate:\S+ 1 udp \d+ \S+) \d+", rf"\1 {port}", answer, flags=re.MULTILINE)

    return changed


async def test_a_browser_whose_udp_is_dropped_connects_over_tcp(
    redis_server: EmbeddedRedis, run_app: RunApp, page: Page
) -> None:
    port = free_port()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("", 0))
        async with world_of(redis_server, run_app, media_port=port) as world:
            offer = await page.evaluate(_OFFER, {"policy": "max-bundle", "steps": ["video recvonly"]})
            change = silent_udp(silent.getsockname()[1])
            await watches(world.client, page, without("udp")(offer), ["video sendonly"], change)
            assert await page.evaluate(_TRANSPORT) == ["tcp", port]


@pytest.mark.parametrize(("transport", "blocked"), [("udp", "none"), ("udp", "tcp"), ("tcp", "udp")])
async def test_a_browser_at_the_media_port(
    redis_server: EmbeddedRedis, run_app: RunApp, page: Page, transport: str, blocked: str
) -> None:
    port = free_port()
    async with world_of(redis_server, run_app, media_port=port) as world:
        offer = await page.evaluate(_OFFER, {"policy": "max-bundle", "steps": ["video recvonly"]})
        change = without(blocked)
        await watches(world.client, page, change(offer), ["video sendonly"], change)
        assert await page.evaluate(_TRANSPORT) == [transport, port]
        assert await world.metric(f'mien_viewers_connected_total{{transport="{transport}"}}') == 1
