"""The Python SDK speaks in a room: it obeys mute and connects again with the same voice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from integration.test_signaling_media import SESSION
from integration.test_signaling_voice import World, world
from integration.voice_peers import SECRET, until

from mien_client.api import RoomConnection
from mien_client.publication import Publication
from mien_client.sound import LoopedVoice
from mien_client.speaking import SPEAKERS, packets
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_shared.wire.track import MotionTrack

pytestmark = pytest.mark.integration

__all__ = ["world"]  # a fixture

PATIENCE_S = 40


@asynccontextmanager
async def published(world: World, **options: Any) -> AsyncIterator[Publication]:
    """A recorded speaker on the world's session."""

    async def where() -> RoomConnection:
        return RoomConnection(whip_url=f"{str(world.client.base_url).rstrip('/')}/v1/whip/{SESSION.session_id}")

    speaker, start_s = SPEAKERS[1], time.monotonic()
    voice = await asyncio.to_thread(LoopedVoice, str(speaker.voice))
    voice.begin(start_s)
    token = TokenIssuer(SECRET).issue(SESSION.session_id, SPEAKER_GRANTS)
    publication = Publication(where, token, voice, **options)
    publication.start(packets(MotionTrack.load(speaker.track), start_s))
    try:
        await publication.connected()
        yield publication
    finally:
        await publication.aclose()


async def test_a_listener_hears_what_was_sent_and_nothing_while_it_is_muted(world: World) -> None:
    listener = await world.listener()
    sent: dict[bytes, int] = {}
    async with published(world, on_voice=sent.__setitem__) as publication:
        assert publication.over == "whip"
        await until(lambda: len(listener.voice.packets) > 20, PATIENCE_S)
        assert all(packet.payload in sent for packet in listener.voice.packets)
        await world.reaches('mien_whip_motion_packets_total{result="accepted"}', 10)
        publication.is_muted = True
        count = -1
        while count != len(sent):  # what was under way
            count = len(sent)
            await asyncio.sleep(0.5)
        publication.is_muted = False
        await until(lambda: len(sent) > count, PATIENCE_S)
        ticks = list(sent.values())
        assert ticks[count] - ticks[count - 1] > 48_000 * 0.3, "the time of the mute has passed in the voice too"


async def test_it_connects_again_with_the_same_voice(world: World) -> None:
    listener = await world.listener()
    async with published(world) as publication:
        await until(lambda: len(listener.voice.packets) > 10, PATIENCE_S)
        first: Any = publication._uplink
        await first._peer.close()
        await until(lambda: publication.connections == 2, PATIENCE_S)
        before = len(listener.voice.packets)
        await until(lambda: len(listener.voice.packets) > before + 10, PATIENCE_S)
