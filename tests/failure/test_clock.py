"""One service's system clock is set an hour ahead, an hour back, and right again. Monotonic time is not affected."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from e2e.system import System
from failure.eye import LEAST_FPS, fps, longest_freeze_s, longest_gap_s, watching
from failure.stacks import Note, Run, bundled_face, full_only, holder_of
from prometheus_client.parser import text_string_to_metric_families

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR
from mien_client.viewer import Viewer

pytestmark = pytest.mark.failure

_HOUR_S = 3600


@dataclass(frozen=True)
class FakeClock:
    """A system clock with an offset that processes read from a file. See set_clock.c."""

    library: Path
    file: Path

    def set(self, offset_s: int) -> None:
        """Set the clock ahead by this many seconds, or back if negative."""
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("=q", offset_s))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "MIEN_CLOCK_FILE": str(self.file)}


@pytest.fixture
def fake_clock(tmp_path: Path) -> FakeClock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to build set_clock.c")
    clock = FakeClock(tmp_path / "set_clock.so", tmp_path / "clock")
    source = Path(__file__).with_name("set_clock.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", clock.library, source, "-ldl"], check=True)
    clock.set(0)
    return clock


async def negative_sums(system: System) -> set[str]:
    """Time metrics of all services whose sum is negative."""
    wrong = set()
    async with httpx.AsyncClient(trust_env=False) as http:
        for name in system.stack.services:
            text = (await http.get(f"{system.stack.service_url(name)}/metrics")).text
            for family in text_string_to_metric_families(text):
                wrong |= {
                    f"{name}: {sample.name}"
                    for sample in family.samples
                    if sample.name.endswith("_seconds_sum") and sample.value < 0
                }
    return wrong


@pytest.mark.parametrize(
    "service",
    ["generator", pytest.param("gateway", marks=full_only), pytest.param("signaling", marks=full_only)],
)
async def test_a_clock_that_is_set(run_system: Run, note: Note, fake_clock: FakeClock, service: str) -> None:
    # Signaling checks tokens only in a closed deployment.
    env_of = {"signaling": {"MIEN_DEMO_OPEN": "false"}}
    env_of[service] = env_of.get(service, {}) | fake_clock.environment
    async with (
        run_system(env_of=env_of) as system,
        system.call() as call,
        MienClient(system.stack.url) as mien,
        watching(call.session, await bundled_face(system)) as eye,
    ):
        began_s = time.monotonic()
        for offset_s in (_HOUR_S, -_HOUR_S, 0):
            fake_clock.set(offset_s)
            await asyncio.sleep(2.5)
            # A token is valid although the clocks of the services differ by an hour.
            session = await mien.create_session(BUNDLED_AVATAR)
            async with Viewer(session.whep_url, session.watch_token) as viewer:
                assert (await anext(viewer.frames())).picture.width == 1280
            await mien.end_session(session.session_id, session.token)
            stats = (await mien.session(call.session.session_id, call.session.token)).stats
            assert stats is not None
            assert stats.motion_to_packet_ms_p50 is None or stats.motion_to_packet_ms_p50 >= 0
        seen = eye.since(began_s)
        freeze_s, gap_s = longest_freeze_s(seen, time.monotonic()), longest_gap_s(seen)
        spoken = sum(sight.is_speaker for sight in seen) / len(seen)
        print(f"{spoken:.3f} of the pictures show the speaker")
        assert eye.is_connected
        assert system.stack.ended() == {}
        assert await negative_sums(system) == set()
        assert gap_s < 1.0
        assert freeze_s < 1.0
        assert spoken > 0.95, "a busy machine may delay a packet for a moment; a clock must not stop motion for seconds"
    note(
        f"the {service}'s clock set an hour ahead, then an hour back, then right",
        f"no effect: {fps(seen):.0f} pictures a second; new sessions and their tokens work at every hour",
        f"longest gap between two pictures {gap_s * 1000:.0f} ms",
    )


async def test_a_generator_whose_clock_is_an_hour_off_takes_over(
    run_system: Run, note: Note, fake_clock: FakeClock
) -> None:
    async with run_system(generators=2) as system:
        await system.stack.kill("generator-2")
        await asyncio.sleep(2)
        async with system.call() as call:
            assert await holder_of(system, call.session) == "generator"
            fake_clock.set(-_HOUR_S)
            await system.stack.start("generator-2", fake_clock.environment)
            async with watching(call.session, await bundled_face(system)) as eye:
                killed_s = time.monotonic()
                await system.stack.kill("generator")
                await asyncio.sleep(0.3)
                moves_s = await eye.wait_for_speaker(time.monotonic(), within_s=20)
                await asyncio.sleep(3)
                assert eye.is_connected
                after = eye.since(moves_s + 0.1)
                assert moves_s - killed_s <= 3.0
                assert fps(after) > LEAST_FPS
                assert longest_freeze_s(after, time.monotonic()) < 1.0
    note(
        "a generator killed; the one that takes over has a clock an hour behind",
        "the picture freezes for a moment, then the speaker moves again, on the same peer connection",
        f"{moves_s - killed_s:.2f} s until the speaker moves (limit 3 s)",
    )
