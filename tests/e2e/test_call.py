"""The path of a call with real WebRTC peers: motion goes in at the gateway, a moving 720p picture comes out."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import numpy as np
import pytest
from e2e.system import System, traces, watch_for

from mien_client.api import MienClient, MienError
from mien_client.demo import BUNDLED_AVATAR
from mien_client.viewer import Viewer
from mien_client.whep import ReceivedFrame

pytestmark = pytest.mark.e2e


def luma(frame: ReceivedFrame) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    return frame.picture.to_ndarray(format="gray").astype(np.int16)


async def test_a_viewer_sees_the_face_move_and_the_rest_stand_still(system: System) -> None:
    async with system.call() as call, MienClient(system.stack.url) as mien:
        box = (await mien.avatar(BUNDLED_AVATAR)).face_box
        async with Viewer(call.session.whep_url, call.session.watch_token) as viewer:
            frames = await watch_for(viewer, 3.0)
    assert {(frame.picture.width, frame.picture.height) for frame in frames} == {(1280, 720)}
    assert len(traces(frames)) == len(frames)
    pictures = [luma(frame) for frame in frames[::5]]
    inside = np.zeros((720, 1280), bool)
    inside[box.y : box.y + box.size, box.x : box.x + box.size] = True
    face = [float(np.abs(later - pictures[0])[inside].mean()) for later in pictures[1:]]
    still = [float(np.abs(later - pictures[0])[~inside].mean()) for later in pictures[1:]]
    assert max(face) > 1.0
    assert max(still) < 1.0
    assert max(face) > 4 * max(still)


async def test_three_viewers_cost_one_encode(system: System) -> None:
    async with system.call() as call, contextlib.AsyncExitStack() as stack:
        viewers = [
            await stack.enter_async_context(Viewer(call.session.whep_url, call.session.watch_token)) for _ in range(3)
        ]
        await asyncio.gather(*(watch_for(viewer, 0.2) for viewer in viewers))
        before = await system.metric("generator", "mien_generated_frames_total")
        received = await asyncio.gather(*(watch_for(viewer, 3.0) for viewer in viewers))
        encoded = await system.metric("generator", "mien_generated_frames_total") - before
    assert min(len(frames) for frames in received) > 30
    assert sum(len(frames) for frames in received) > 2.2 * encoded
    sequences = [{trace.sequence for trace in traces(frames)} for frames in received]
    assert len(sequences[0] & sequences[1] & sequences[2]) > 30, "all three saw the same frames"


async def test_a_late_joiner_starts_on_an_idr_made_for_it(system: System) -> None:
    async with system.call() as call, Viewer(call.session.whep_url, call.session.watch_token) as first:
        await watch_for(first, 2.0)
        before = await system.metric("generator", "mien_idr_frames_total")
        async with Viewer(call.session.whep_url, call.session.watch_token) as late:
            frames = await watch_for(late, 1.0)
        assert frames[0].picture.key_frame
        assert await system.metric("generator", "mien_idr_frames_total") > before


async def test_a_stalled_uplink_eases_into_a_face_that_lives(system: System) -> None:
    async with system.call() as call, Viewer(call.session.whep_url, call.session.watch_token) as viewer:
        assert not any(trace.is_stalled for trace in traces(await watch_for(viewer, 1.0))[5:])
        call.speaker.cancel()
        frames = await watch_for(viewer, 4.0)
        stalled = [trace.is_stalled for trace in traces(frames)]
        assert stalled[-1]
        assert stalled.index(True) < 20, "a stall shows after 200 ms, plus the frames that were on their way"
        assert len(frames) / 4.0 > 15
        settled = [luma(frame) for frame in frames[-60::6]]
        moved = max(float(np.abs(later - settled[0]).max()) for later in settled[1:])
        assert moved > 5, "the default motion breathes"


async def test_an_end_is_an_end_for_everyone(system: System) -> None:
    async with MienClient(system.stack.url) as mien:
        async with system.call() as call, Viewer(call.session.whep_url, call.session.watch_token) as viewer:
            await watch_for(viewer, 0.5)
            await mien.end_session(call.session.session_id, call.session.token)
            async with asyncio.timeout(8):
                async for _ in viewer.frames():
                    pass
        with pytest.raises(MienError, match="404"):
            await mien.session(call.session.session_id)
        async with asyncio.timeout(5):
            while await system.metric("generator", "mien_generator_sessions"):
                await asyncio.sleep(0.05)


async def test_redis_killed_and_started_again_loses_no_call(system: System) -> None:
    async with MienClient(system.stack.url) as mien, system.call() as call:
        async with Viewer(call.session.whep_url, call.session.watch_token) as viewer:
            await watch_for(viewer, 1.0)
            await asyncio.to_thread(system.redis.stop)
            async with asyncio.timeout(10):
                while {await system.readiness(name) for name in ("gateway", "generator", "signaling")} != {503}:
                    await asyncio.sleep(0.1)
            with pytest.raises(MienError) as refused:
                await mien.create_session(BUNDLED_AVATAR)
            assert refused.value.status == 503
            assert refused.value.retry_after_s is not None
            await asyncio.to_thread(system.redis.start)
            frames = await watch_for(viewer, 2.0)
            assert len(frames) > 20
            assert not traces(frames)[-1].is_stalled, "the speaker moves again too"
            async with asyncio.timeout(10):
                while {await system.readiness(name) for name in ("gateway", "generator", "signaling")} != {200}:
                    await asyncio.sleep(0.1)
        other = await mien.create_session(BUNDLED_AVATAR)
        async with Viewer(other.whep_url, other.watch_token) as second:
            assert len(await watch_for(second, 0.5)) > 5


async def test_bad_packets_are_counted_and_nothing_else_is_lost(system: System) -> None:
    import websockets

    from mien_client.api import authorization
    from mien_shared.keypoints import Keypoints
    from mien_shared.wire.motion import MotionPacket

    good = MotionPacket(7, 0, Keypoints.at_rest()).pack()
    not_finite = good[:-2] + b"\x00\x7e"
    async with MienClient(system.stack.url) as mien:
        session = await mien.create_session(BUNDLED_AVATAR)
        async with websockets.connect(
            session.uplink_url, additional_headers=authorization(session.token), proxy=None
        ) as socket:
            for data in (good, good, good[:100], b"\x09" + good[1:], not_finite):
                await socket.send(data)
            async with asyncio.timeout(5):
                while await system.metric("gateway", "mien_uplink_packets_total") < 5:
                    await asyncio.sleep(0.05)
            for reason, count in {"accepted": 1, "duplicate": 1, "length": 1, "version": 1, "not_finite": 1}.items():
                assert await system.metric("gateway", "mien_uplink_packets_total", result=reason) == count, reason
            await socket.send(MotionPacket(8, 0, Keypoints.at_rest()).pack())
            async with asyncio.timeout(5):
                while await system.metric("gateway", "mien_uplink_packets_total", result="accepted") < 2:
                    await asyncio.sleep(0.05)


async def test_every_page_of_the_service_is_there(system: System) -> None:
    async with httpx.AsyncClient(base_url=system.stack.url, trust_env=False) as http:
        page = await http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "content-security-policy" in page.headers
        assert (await http.get("/docs")).is_success
        assert "/v1/sessions" in (await http.get("/openapi.json")).json()["paths"]
