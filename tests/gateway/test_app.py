"""What readiness is made of."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mien_encoder.model_file import bundled_path, manifest_path
from mien_gateway.app import Health, Loops
from mien_gateway.metrics import GatewayMetrics
from mien_shared.avatars import AvatarStore
from mien_shared.clock import SystemClock


async def fails() -> None:
    raise KeyError("a bug")


async def waits() -> None:
    await asyncio.Event().wait()


async def test_a_loop_that_crashes_is_seen_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    sound = asyncio.create_task(waits(), name="sound")
    broken = asyncio.create_task(fails(), name="broken")
    loops = Loops([sound, broken])
    assert loops.reasons() == {}
    with caplog.at_level(logging.CRITICAL):
        await asyncio.wait([broken])
        await asyncio.sleep(0)
    assert loops.reasons() == {"broken": "the loop has crashed; the log says why"}
    assert [record.getMessage() for record in caplog.records] == ["a loop has crashed"]
    await loops.aclose()
    assert sound.cancelled()


async def test_a_damaged_encoder_keeps_the_gateway_from_getting_ready(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder.onnx"
    encoder.write_bytes(bundled_path().read_bytes()[:-1])
    manifest_path(encoder).write_bytes(manifest_path(bundled_path()).read_bytes())

    def reasons(path: Path) -> dict[str, str]:
        store = AvatarStore.open(f"file:{tmp_path / 'avatars'}")
        return Health(Redis(), store, SystemClock(), GatewayMetrics(), path).reasons()

    size = bundled_path().stat().st_size
    assert reasons(encoder)["encoder"] == f"encoder.onnx has {size - 1} bytes, its manifest says {size}"
    assert "encoder" not in reasons(bundled_path())
