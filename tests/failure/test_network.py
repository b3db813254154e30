"""A network that loses and delays packets, between the services and a viewer in its own network namespace."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from e2e.system import Call, System
from failure.eye import LEAST_FPS, Sight, fps, longest_freeze_s, longest_gap_s
from failure.lossy_link import HOST, LinkImpossible, LossyLink
from failure.stacks import Note, Run, bundled_face, full_only, setting

pytestmark = pytest.mark.failure


@pytest_asyncio.fixture
async def link(root_only: None) -> AsyncIterator[LossyLink]:
    try:
        async with LossyLink() as link:
            yield link
    except LinkImpossible as error:
        pytest.skip(f"cannot create a network namespace with a lossy link: {error}")


@asynccontextmanager
async def remote_viewer(system: System, call: Call, link: LossyLink) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of a viewer that has already seen the speaker move."""
    box = await bundled_face(system)
    port = urlsplit(call.session.whep_url).port
    url = call.session.whep_url.replace(f"127.0.0.1:{port}", f"{HOST}:{port}")
    tests = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", link.namespace, sys.executable, str(tests / "failure" / "remote_viewer.py")),
        *(url, call.session.watch_token, str(box.x), str(box.y), str(box.size)),
        env={**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"watching\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# A loss of 10 % is beyond what Mien promises. Its row shows what viewers see then.
@pytest.mark.parametrize(
    ("loss_percent", "least_fps", "longest_s"),
    [pytest.param(5, 20.0, 1.0, id="5-percent"), pytest.param(10, 5.0, 5.0, id="10-percent", marks=full_only)],
)
async def test_a_network_that_loses_and_delays(
    run_system: Run, note: Note, link: LossyLink, loss_percent: int, least_fps: float, longest_s: float
) -> None:
    seconds = setting("MIEN_FAILURE_NETWORK_S", 8)
    env_of = {"signaling": {"MIEN_HOST": "0.0.0.0", "MIEN_DEMO_OPEN": "false"}}
    async with (
        run_system(env_of=env_of) as system,
        system.call() as call,
        remote_viewer(system, call, link) as viewer,
    ):
        await asyncio.sleep(2)
        link.impair(loss_percent / 100, delay_s=0.06, jitter_s=0.05)
        impaired_s = time.monotonic()
        await asyncio.sleep(seconds)
        nacks = await system.metric("signaling", "mien_viewer_nack_packets_total")
        plis = await system.metric("signaling", "mien_viewer_pli_total")
        link.impair(0, 0, 0)
        mended_s = time.monotonic()
        await asyncio.sleep(4)
        out, _ = await viewer.communicate(b"")  # closes its standard input, which ends the viewer
        ended_s = time.monotonic()
    seen = json.loads(out)
    sights = [Sight(**sight) for sight in seen["sights"]]
    during = [sight for sight in sights if impaired_s + 0.5 <= sight.at_s <= mended_s]
    after = [sight for sight in sights if mended_s + 1.5 <= sight.at_s <= ended_s - 0.5]
    freeze_s = max(longest_freeze_s(during, mended_s), longest_gap_s(during))
    assert seen["connected"]
    assert nacks > 0, "the viewer requests lost packets again"
    assert fps(during) >= least_fps
    assert freeze_s <= longest_s
    assert fps(after) > LEAST_FPS
    assert longest_freeze_s(after, after[-1].at_s) < 0.5
    note(
        f"a network with {loss_percent} % loss and 50 ms jitter (round trip 120 ms, both ways)",
        f"{fps(during):.1f} pictures a second, longest freeze {freeze_s:.2f} s; {nacks:.0f} packets sent again, "
        f"{plis:.0f} PLI; {fps(after):.1f} pictures a second once it is mended",
        f"{seconds:g} s" + (f" (limits: 20 pictures a second, {longest_s:g} s)" if loss_percent == 5 else ""),
    )
