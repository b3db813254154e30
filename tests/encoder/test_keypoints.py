"""The encoder's file, checked before it is used, and what it says of real faces."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mien_encoder.count import count
from mien_encoder.crop import CropSquare, cut
from mien_encoder.finder import faces_in
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder, bundled_path
from mien_encoder.model_file import (
    EncoderFileMissing,
    EncoderFileTampered,
    EncoderFileTruncated,
    Manifest,
    NotAnEncoder,
    manifest_path,
    read_encoder,
)
from mien_encoder.tracker import FOUND_PRESENCE, LOST_PRESENCE
from mien_shared.keypoints import FaceKeypoint
from mien_shared.wire.motion import MotionPacket

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
DRAWN = ROOT / "services/gateway/mien_gateway/bundled"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the pictures of {DATA.name}/ are not beside the repository")


@pytest.fixture(scope="module")
def encoder() -> KeypointEncoder:
    return KeypointEncoder()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The bundled encoder's file and manifest, to be damaged."""
    path = tmp_path / "encoder.onnx"
    path.write_bytes(bundled_path().read_bytes())
    manifest_path(path).write_bytes(manifest_path(bundled_path()).read_bytes())
    return path


def test_the_bundled_encoder_is_within_the_paper_s_table_1() -> None:
    costs = count()
    assert costs.macs <= 14_620_000
    assert costs.parameters <= 160_000
    assert costs.size_bytes <= 700_000
    assert costs.sha256 == KeypointEncoder().sha256


def test_an_undamaged_copy_is_read(copied: Path) -> None:
    model, manifest = read_encoder(copied)
    assert manifest == Manifest.of(model)


def test_a_truncated_file_is_refused(copied: Path) -> None:
    whole = copied.read_bytes()
    copied.write_bytes(whole[:-1000])
    text = f"encoder.onnx has {len(whole) - 1000} bytes, its manifest says {len(whole)}"
    with pytest.raises(EncoderFileTruncated, match=text):
        KeypointEncoder(copied)


def test_a_tampered_file_is_refused(copied: Path) -> None:
    whole = bytearray(copied.read_bytes())
    whole[len(whole) // 2] ^= 1
    copied.write_bytes(whole)
    with pytest.raises(
        EncoderFileTampered, match=r"encoder\.onnx has SHA-256 [0-9a-f]{64}, its manifest says [0-9a-f]{64}"
    ):
        KeypointEncoder(copied)


def test_a_missing_file_or_manifest_is_named(copied: Path) -> None:
    copied.unlink()
    with pytest.raises(
        EncoderFileMissing, match=r"the encoder encoder\.onnx cannot be read: No such file or directory"
    ):
        KeypointEncoder(copied)
    manifest_path(copied).unlink()
    with pytest.raises(EncoderFileMissing, match=r"the encoder's manifest encoder\.json cannot be read: No such file"):
        KeypointEncoder(copied)


@pytest.mark.parametrize("text", ["", "[]", '{"bytes": 3}', '{"bytes": "many", "sha256": ""}'])
def test_a_manifest_that_is_none_is_refused(copied: Path, text: str) -> None:
    manifest_path(copied).write_text(text)
    with pytest.raises(NotAnEncoder, match=r"encoder\.json is not the manifest of an encoder"):
        KeypointEncoder(copied)


def test_a_file_that_is_no_model_is_refused(copied: Path) -> None:
    copied.write_bytes(b"no model at all")
    Manifest.of(b"no model at all").write(manifest_path(copied))
    with pytest.raises(NotAnEncoder, match=r"encoder\.onnx is not a model that ONNX Runtime can run"):
        KeypointEncoder(copied)


def test_a_model_of_something_else_is_refused(copied: Path) -> None:
    # The same graph under other names: what a runtime would only notice at the first frame.
    model = copied.read_bytes().replace(b"presence", b"absence!")
    copied.write_bytes(model)
    Manifest.of(model).write(manifest_path(copied))
    assert json.loads(manifest_path(copied).read_text())["bytes"] == len(model)
    with pytest.raises(NotAnEncoder, match=r"encoder\.onnx is a model, but not an encoder for 256x256 crops"):
        KeypointEncoder(copied)


def test_crops_of_another_shape_are_refused(encoder: KeypointEncoder) -> None:
    with pytest.raises(ValueError, match=r"a crop must be \(256, 256, 3\) uint8, not \(128, 128, 3\) uint8"):
        encoder.encode(np.zeros((128, 128, 3), np.uint8))
    assert encoder.encode_all([]) == []


def test_a_batch_says_what_its_crops_say_one_by_one(encoder: KeypointEncoder) -> None:
    random = np.random.default_rng(1)
    crops = [drawn_face(), random.integers(0, 255, (CROP_SIZE, CROP_SIZE, 3), np.uint8)]
    for together, alone in zip(encoder.encode_all(crops), map(encoder.encode, crops), strict=True):
        assert np.allclose(together.keypoints.rows(), alone.keypoints.rows(), atol=1e-4)
        assert together.presence == pytest.approx(alone.presence, abs=1e-4)


def test_the_bundled_avatar_is_a_face_and_fit_for_the_wire(encoder: KeypointEncoder) -> None:
    found = encoder.encode(drawn_face())
    assert found.presence > FOUND_PRESENCE
    packet = MotionPacket.unpack(MotionPacket(0, 0, found.keypoints).pack())
    assert np.allclose(packet.keypoints.points, found.keypoints.points, atol=1e-3)
    drawn = np.array(json.loads((DRAWN / "mien.json").read_text())["keypoints"], np.float32)[:, :2]
    assert np.linalg.norm(found.keypoints.points - drawn, axis=1).mean() < 0.06


@pytest.mark.parametrize("shade", [0, 90, 255])
def test_a_plain_wall_is_no_face(encoder: KeypointEncoder, shade: int) -> None:
    assert encoder.encode(np.full((CROP_SIZE, CROP_SIZE, 3), shade, np.uint8)).presence < LOST_PRESENCE


def test_keypoints_follow_a_face_that_is_moved_and_scaled(encoder: KeypointEncoder) -> None:
    face = drawn_face(384)
    usual = encoder.encode(cut(face, CropSquare(0, 0, 384), CROP_SIZE)).keypoints
    for square in (
        CropSquare(30, -20, 384),
        CropSquare(-40, 10, 384),
        CropSquare(20, 20, 340),
        CropSquare(-30, -30, 450),
    ):
        moved = encoder.encode(cut(face, square, CROP_SIZE)).keypoints
        expected = square.to_crop(CropSquare(0, 0, 384).to_picture(usual.points))
        assert np.linalg.norm(moved.points - expected, axis=1).mean() < 0.05
        scale = 384 / square.size
        assert np.abs(moved.jacobians.mean(axis=0) - scale * usual.jacobians.mean(axis=0)).max() < 0.12


@needs_data
@pytest.mark.parametrize("name", ["london_008", "london_037", "london_066", "london_097", "london_127", "london_143"])
def test_the_eyes_are_where_people_placed_the_pupils(name: str, encoder: KeypointEncoder) -> None:
    """In whatever crop the finder chose: the landmarks were placed by hand, by the authors of the pictures."""
    picture = read(DATA / f"portraits_london/{name}_neutral.jpg")
    (square,) = faces_in(picture, encoder)
    found = encoder.encode(cut(picture, square, CROP_SIZE))
    assert found.presence > FOUND_PRESENCE
    pupils = square.to_crop(np.load(DATA / "portraits_london/landmarks189.npz")[f"{name}_neutral"][:2])
    eyes = found.keypoints.points[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE]]
    assert np.linalg.norm(eyes - pupils, axis=1).max() < 0.06


def drawn_face(size: int = CROP_SIZE) -> NDArray[np.uint8]:
    crop = json.loads((DRAWN / "mien.json").read_text())["crop"]
    return cut(read(DRAWN / "mien.png"), CropSquare(crop["x"], crop["y"], crop["size"]), size)


def read(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)
