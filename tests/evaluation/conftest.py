from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_models import small_config

from mien_encoder.crop import CropSquare, cut
from mien_evaluation.clips import ClipWriter, read_picture
from mien_evaluation.detectors import EvaluationPartMissing, FaceReader, face_reader
from mien_evaluation.reenactment import DrivingFrame
from mien_generator.face.contract import RgbArray
from mien_shared.avatars import AvatarRecord
from mien_shared.keypoints import Keypoints

__all__ = ["small_config"]

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "services/gateway/mien_gateway/bundled"

#: A head that moves: shift in crop units, turn in radians, size.
MOVES = ((0.0, 0.0, 0.0, 1.0), (0.04, 0.01, 0.03, 1.02), (-0.06, 0.02, -0.05, 0.97), (0.02, -0.05, 0.04, 1.04))


@dataclass(frozen=True)
class MovingFace:
    """The bundled avatar's crop under known motion: a DrivingClip whose keypoints are exact."""

    name: str
    identity: str
    listed: tuple[DrivingFrame, ...]

    def count(self) -> int:
        return len(self.listed)

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        return iter(self.listed[::every])


@pytest.fixture(scope="session")
def avatar_record() -> AvatarRecord:
    stored = json.loads((BUNDLED / "mien.json").read_bytes())
    return AvatarRecord(
        avatar_id="mien", width=1280, height=720, face_box=stored["crop"], keypoints=stored["keypoints"]
    )


@pytest.fixture(scope="session")
def avatar_picture() -> Path:
    return BUNDLED / "mien.png"


@pytest.fixture(scope="session")
def moving_face(avatar_record: AvatarRecord, avatar_picture: Path) -> MovingFace:
    box = avatar_record.face_box
    rgb = read_picture(avatar_picture)[box.y : box.y + box.size, box.x : box.x + box.size]
    face = np.asarray(cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    keypoints = avatar_record.source_keypoints()
    return MovingFace("moving", "mien", tuple(_moved(face, keypoints, *move) for move in MOVES))


def _moved(face: RgbArray, keypoints: Keypoints, x: float, y: float, turn: float, size: float) -> DrivingFrame:
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array([x, y])
    half = face.shape[0] / 2
    to_pixels = np.array([[half, 0, half - 0.5], [0, half, half - 0.5], [0, 0, 1]])
    map3 = np.eye(3)
    map3[:2, :2], map3[:2, 2] = linear, shift
    in_pixels = (to_pixels @ map3 @ np.linalg.inv(to_pixels))[:2]
    picture = cv2.warpAffine(face, in_pixels, face.shape[:2], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    points = keypoints.points @ linear.T + shift
    moved = Keypoints(points.astype(np.float32), (linear @ keypoints.jacobians).astype(np.float32))
    return DrivingFrame(np.asarray(picture, np.uint8), moved)


@pytest.fixture(scope="session")
def reader() -> FaceReader:
    try:
        return face_reader()
    except EvaluationPartMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def labelled(tmp_path: Path, moving_face: MovingFace) -> Callable[[str, str], Path]:
    """Writes the moving face as a labelled set of a name and an identity."""

    def write(name: str, identity: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        frames = [frame for frame in moving_face.listed if frame.keypoints is not None]
        np.save(folder / "frames.npy", np.stack([frame.picture for frame in frames]))
        np.save(folder / "keypoints.npy", np.stack([frame.keypoints.rows() for frame in frames if frame.keypoints]))
        (folder / "meta.json").write_text(json.dumps({"identity": identity, "kind": "clip"}))
        return folder

    return write


@pytest.fixture
def noise_clip(tmp_path: Path) -> Path:
    """A clip of which no frame shows a face."""
    path = tmp_path / "noise.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
    with ClipWriter(path, Fraction(25)) as writer:
        for frame in noise:
            writer.write(frame)
    return path


@pytest.fixture
def face_clip(tmp_path: Path, avatar_picture: Path) -> Path:
    """The bundled avatar in a clip, sliding to the right."""
    return _face_clip(tmp_path / "face.mp4", avatar_picture, nothing_first=False)


@pytest.fixture
def late_face_clip(tmp_path: Path, avatar_picture: Path) -> Path:
    """The same after a frame that shows nothing."""
    return _face_clip(tmp_path / "late.mp4", avatar_picture, nothing_first=True)


def _face_clip(path: Path, avatar_picture: Path, nothing_first: bool) -> Path:
    rgb = read_picture(avatar_picture)
    with ClipWriter(path, Fraction(25)) as writer:
        if nothing_first:
            writer.write(np.full((360, 360, 3), 128, np.uint8))
        for i in range(3):
            writer.write(cut(rgb, CropSquare(290 - 10 * i, 10, 700), 360))
    return path
