"""Offline animation, all but the networks: what moves what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from mien_encoder.crop import CropSquare
from mien_evaluation.animation import Step, animated, best_initial, clip_steps, track_steps
from mien_evaluation.clips import ClipError
from mien_evaluation.keypoints import FoundFace
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket

SQUARE = CropSquare(0, 0, 16)
#: A pose: keypoints that are not all in one place.
SPREAD = np.stack([np.linspace(-0.4, 0.4, NUM_KEYPOINTS), np.linspace(-0.3, 0.5, NUM_KEYPOINTS) ** 2], axis=1)


def _moved(x: float, scale: float = 1.0) -> Keypoints:
    return Keypoints(
        (SPREAD + x).astype(np.float32), np.tile(np.eye(2, dtype=np.float32) * scale, (NUM_KEYPOINTS, 1, 1))
    )


def _motion(x: float, scale: float = 1.0) -> Keypoints:
    return Keypoints(np.full((NUM_KEYPOINTS, 2), x, np.float32), _moved(0, scale).jacobians)


def _track(path: Path, *packets: MotionPacket) -> Path:
    path.write_bytes(b"".join(packet.pack() for packet in packets))
    return path


def _x(steps: Sequence[Step]) -> list[float]:
    return [float((step.driving.points - SPREAD)[0, 0]) for step in steps]


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """A clip of three pictures, each darker than the next."""
    folder = tmp_path / "greys"
    folder.mkdir()
    for level in (51, 52, 102):
        cv2.imwrite(str(folder / f"{level:03}.png"), np.full((16, 16, 3), level, np.uint8))
    return folder


@dataclass(frozen=True)
class Plain:
    size: int


class PlainGenerator:
    """Faces of one colour: the driving x in the red channel."""

    name = "plain"

    def prepare(self, avatar: AvatarFace) -> Plain:
        return Plain(avatar.rgb.shape[0])

    def animate(self, requests: Sequence[FaceRequest[Plain]]) -> list[RgbArray]:
        return [
            np.full((request.prepared.size,) * 2 + (3,), round(255 * request.driving.points[0, 0]), np.uint8)
            for request in requests
        ]

    def close(self) -> None:
        pass


# --- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_moves_the_source_by_what_changed_since_its_best_frame(greys: Path) -> None:
    found = [FoundFace(SQUARE, _moved(0.5, 1.5)), FoundFace(SQUARE, _moved(0.0)), FoundFace(SQUARE, _moved(0.2, 0.5))]
    steps = list(clip_steps(greys, found, _moved(0.25), 16))
    assert _x(steps) == pytest.approx([0.75, 0.25, 0.45]), "relative to the second, whose pose is the source's"
    assert [float(step.driving.jacobians[0, 0, 0]) for step in steps] == [1.5, 1.0, 0.5]
    assert [int(step.picture[0, 0, 0]) for step in steps if step.picture is not None] == [51, 52, 102]


def test_a_frame_without_a_face_keeps_the_last_motion_and_crop(greys: Path) -> None:
    found = [None, FoundFace(SQUARE, _moved(0.5)), None]
    assert _x(list(clip_steps(greys, found, _moved(0.25), 16))) == pytest.approx([0.25, 0.25, 0.25])


def test_the_best_initial_frame_is_the_one_of_the_smallest_l2() -> None:
    far, near = FoundFace(SQUARE, _moved(0.0, 1.5)), FoundFace(SQUARE, _moved(0.05, 1.1))
    assert best_initial([far, None, near], _moved(0.0), "a.mp4") is near.keypoints


@pytest.mark.parametrize(
    ("found", "source", "text"),
    [
        ([None, None, None], _moved(0), "no face in greys"),
        ([FoundFace(SQUARE, _moved(0, scale=0))] * 3, _moved(0), "greys: every frame has a singular Jacobian"),
        (
            [FoundFace(SQUARE, _moved(0))] * 3,
            _moved(0, scale=0),
            "a keypoint of the source picture has a singular Jacobian",
        ),
    ],
    ids=["no face", "flat", "flat source"],
)
def test_a_clip_that_moves_nothing_is_named(
    greys: Path, found: list[FoundFace | None], source: Keypoints, text: str
) -> None:
    with pytest.raises(ClipError) as error:
        list(clip_steps(greys, found, source, 16))
    assert str(error.value) == text


# --- tracks -----------------------------------------------------------------------------------------------------------


def test_a_tracks_relative_motion_moves_the_source(tmp_path: Path) -> None:
    track = _track(tmp_path / "a.motion", *(MotionPacket(i, 33 * i, _motion(0.125 * i, 2)) for i in range(3)))
    steps = list(track_steps(track, _moved(0.25, 3)))
    assert _x(steps) == pytest.approx([0.25, 0.375, 0.5])
    assert steps[0].driving.jacobians[0, 0, 0] == 6
    assert all(step.picture is None for step in steps)


def test_a_tracks_absolute_motion_is_taken_relative_to_its_latest_initial_frame(tmp_path: Path) -> None:
    absolute, initial = MotionFlags.ABSOLUTE, MotionFlags.ABSOLUTE | MotionFlags.NEW_INITIAL_FRAME
    packets = [
        MotionPacket(0, 0, _motion(0.5), absolute),
        MotionPacket(1, 33, _motion(0.75), absolute),
        MotionPacket(2, 66, _motion(1.0), initial),
        MotionPacket(3, 99, _motion(1.125), absolute),
    ]
    steps = list(track_steps(_track(tmp_path / "a.motion", *packets), _moved(0.0)))
    assert _x(steps) == pytest.approx([0, 0.25, 0, 0.125], abs=1e-6)


@pytest.mark.parametrize("length", [0, 127, 200])
def test_a_track_that_is_cut(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.motion").write_bytes(bytes(length))
    with pytest.raises(ClipError) as error:
        list(track_steps(tmp_path / "a.motion", _moved(0)))
    assert str(error.value) == f"a.motion has {length} bytes: a motion track is one or more packets of 128 bytes"


def test_a_track_with_a_bad_packet_names_it(tmp_path: Path) -> None:
    track = tmp_path / "a.motion"
    track.write_bytes(MotionPacket(0, 0, _motion(0)).pack() + bytes(128))
    with pytest.raises(ClipError) as error:
        list(track_steps(track, _moved(0)))
    assert str(error.value) == "a.motion, packet 1: motion packet version 0 is not known, only 1"


def test_a_track_whose_initial_frame_has_no_inverse_names_it(tmp_path: Path) -> None:
    track = _track(tmp_path / "a.motion", MotionPacket(0, 0, _motion(0, scale=0), MotionFlags.ABSOLUTE))
    with pytest.raises(ClipError, match=r"^a.motion, packet 0: a Jacobian of the initial frame is singular$"):
        list(track_steps(track, _moved(0)))


# --- faces ------------------------------------------------------------------------------------------------------------


def test_faces_stay_with_their_steps_across_batches() -> None:
    steps = [Step(_motion(i / 255), None) for i in range(19)]
    made = list(animated(PlainGenerator(), AvatarFace(np.zeros((4, 4, 3), np.uint8), _moved(0)), steps))
    assert [step for step, _ in made] == steps
    assert [int(face[0, 0, 0]) for _, face in made] == list(range(19))
