"""A process of a generator is killed in mid-call: a worker, the device, or the host."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from e2e.system import Call, System
from failure.eye import LEAST_FPS, fps, longest_freeze_s, longest_gap_s, watching
from failure.stacks import Note, Run, bundled_face
from processes import descendants, of_role

from mien_client.api import MienClient

pytestmark = [
    pytest.mark.failure,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, which only Linux has"),
]


async def holder(system: System, call: Call) -> str | None:
    """The generator id of the worker that holds the call."""
    async with MienClient(system.stack.url) as mien:
        return (await mien.session(call.session.session_id, call.session.token)).generator


async def test_a_worker_killed_in_mid_call(run_system: Run, note: Note) -> None:
    async with run_system(generator_env={"MIEN_WORKERS": "1"}) as system, system.call() as call:
        box = await bundled_face(system)
        async with watching(call.session, box) as eye:
            await asyncio.sleep(1.5)  # until the first heartbeat, the longer reservation holds the session
            (worker,) = of_role(system.stack.pid("generator"), "worker")
            frames = await system.metric("generator", "mien_generated_frames_total")
            os.kill(worker, signal.SIGKILL)
            killed_s = time.monotonic()
            async with asyncio.timeout(20):  # the next run begins on an IDR
                while not (keys := [sight.at_s for sight in eye.since(killed_s) if sight.is_key]):
                    await asyncio.sleep(0.02)
            moves_s = keys[0]
            await asyncio.sleep(2)
            after = eye.since(moves_s)
            assert eye.is_connected
        assert moves_s - killed_s <= 3.0
        assert longest_freeze_s(after, after[-1].at_s) < 0.5, "the speaker keeps moving"
        assert await system.metric("generator", "mien_generator_process_deaths_total", role="worker") == 1
        assert await system.metric("generator", "mien_generated_frames_total") > frames, "no counter falls"
        assert await system.readiness("generator") == 200
    note(
        "a worker of the only generator killed (`-9`) in mid-call",
        "the picture freezes for a moment, then the speaker moves again, on the same peer connection",
        f"{moves_s - killed_s:.2f} s until the speaker moves (limit 2 s)",
    )
    assert moves_s - killed_s <= 2.0


async def test_a_worker_killed_beside_another(run_system: Run, note: Note) -> None:
    """Only its own sessions notice."""
    env = {"MIEN_WORKERS": "2", "MIEN_CAPACITY": "2"}
    async with run_system(generator_env=env) as system, system.call() as first, system.call() as second:
        box = await bundled_face(system)
        generator = system.stack.pid("generator")
        async with watching(first.session, box) as one, watching(second.session, box) as other:
            async with asyncio.timeout(20):
                while len({await holder(system, call) for call in (first, second)}) < 2:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)  # the moved session has ended on the worker that gave it away
            os.kill(of_role(generator, "worker")[0], signal.SIGKILL)
            killed_s = time.monotonic()
            await asyncio.sleep(4)
            seen = [eye.since(killed_s) for eye in (one, other)]
        freezes = sorted(longest_freeze_s(sights, sights[-1].at_s) for sights in seen)
        assert min(len(sights) for sights in seen) > LEAST_FPS
        assert freezes[0] < 0.5, "one call does not notice"
        assert freezes[1] <= 3.0
    note(
        "one of two workers killed (`-9`), each with a call",
        "one call does not notice, the other one freezes for a moment",
        f"longest freeze {freezes[0]:.2f} s and {freezes[1]:.2f} s",
    )


async def test_the_device_killed_in_mid_call(run_system: Run, note: Note) -> None:
    # A floor of 0 keeps the session on the network, however slow this machine is.
    env = {"MIEN_FACE_BACKEND": "onnx", "MIEN_FACE_SIZE": "256", "MIEN_FLOOR_FPS": "0", "MIEN_WORKERS": "2"}
    async with run_system(generator_env=env) as system, system.call() as call:
        box, generator = await bundled_face(system), system.stack.pid("generator")

        async def tier() -> str | None:
            async with MienClient(system.stack.url) as mien:
                stats = (await mien.session(call.session.session_id, call.session.token)).stats
            return stats.tier if stats else None

        async with watching(call.session, box) as eye:
            async with asyncio.timeout(20):
                while await tier() != "onnx-256":
                    await asyncio.sleep(0.1)
            (device,) = of_role(generator, "device")
            os.kill(device, signal.SIGKILL)
            killed_s = time.monotonic()
            async with asyncio.timeout(20):
                while await tier() != "warp":
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(60):
                while await tier() != "onnx-256":
                    await asyncio.sleep(0.1)
            back_s = time.monotonic() - killed_s
            await asyncio.sleep(1)
            sights = eye.since(killed_s)
            assert eye.is_connected
        assert of_role(generator, "device") not in ([], [device])
        assert await system.metric("generator", "mien_generator_process_deaths_total", role="device") == 1
        assert await system.metric("generator", "mien_generator_sessions_ended_total", reason="failed") == 0
        gap_s, freeze_s = longest_gap_s(sights), longest_freeze_s(sights, sights[-1].at_s)
        assert gap_s < 1.0
        assert freeze_s < 1.0
        assert fps(sights) > LEAST_FPS
    note(
        "the device's process killed (`-9`) in mid-call",
        "the speaker goes on moving, drawn by `warp` until the network is back; no IDR, no gap",
        f"longest freeze {freeze_s:.2f} s; the network draws again after {back_s:.1f} s",
    )


async def test_the_host_killed_leaves_no_process_and_no_memory(run_system: Run, note: Note) -> None:
    env = {"MIEN_FACE_BACKEND": "onnx", "MIEN_FACE_SIZE": "256", "MIEN_FLOOR_FPS": "0", "MIEN_WORKERS": "2"}
    async with run_system(generator_env=env) as system, system.call():
        generator = system.stack.pid("generator")
        before = {path.name for path in Path("/dev/shm").iterdir()}
        async with asyncio.timeout(20):
            while not await system.metric("generator", "mien_batch_size_sessions_count"):
                await asyncio.sleep(0.1)
        left = descendants(generator)
        assert {"mien-warm", "mien-worker", "mien-device"} <= set(left.values())
        assert await system.stack.kill("generator") == -signal.SIGKILL
        killed_s = time.monotonic()
        async with asyncio.timeout(10):
            while any(Path(f"/proc/{pid}").is_dir() for pid in left):
                await asyncio.sleep(0.05)
        ended_s = time.monotonic() - killed_s
        assert {path.name for path in Path("/dev/shm").iterdir()} <= before, "shared memory has no names"
    note(
        "the host of a generator killed (`-9`)",
        "its workers, its device and the process that starts them end too; nothing stays in shared memory",
        f"{ended_s:.2f} s",
    )
