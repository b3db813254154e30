"""What the gateway's readiness is made of, beside its loops and Redis."""

from __future__ import annotations

import shutil
from pathlib import Path

from mien_encoder.model_file import bundled_path, manifest_path
from mien_gateway.app import StoreProbe, flaw_of_encoder
from mien_gateway.bundled import BUNDLED_AVATAR_ID
from mien_shared.avatars import AvatarStore


def test_a_damaged_encoder_keeps_the_gateway_from_getting_ready(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder.onnx"
    encoder.write_bytes(bundled_path().read_bytes()[:-1])
    manifest_path(encoder).write_bytes(manifest_path(bundled_path()).read_bytes())
    size = bundled_path().stat().st_size
    assert flaw_of_encoder(encoder)() == f"encoder.onnx has {size - 1} bytes, its manifest says {size}"
    assert flaw_of_encoder(bundled_path())() is None


async def test_the_store_is_probed_and_holds_the_bundled_avatar(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path / 'avatars'}")
    probe = StoreProbe(store)
    assert probe.reason() == "the avatar store has not been checked yet"
    await probe.probe()
    assert probe.reason() is None
    assert (await store.record(BUNDLED_AVATAR_ID)).kind == "portrait"


async def test_a_store_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = AvatarStore.open(f"file:{tmp_path / 'avatars'}")
    probe = StoreProbe(store)
    await probe.probe()
    folder = tmp_path / "avatars" / BUNDLED_AVATAR_ID
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where a folder was")
    await probe.probe()
    assert probe.reason() == "the avatar could not be read"
