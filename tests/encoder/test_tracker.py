"""A face found, followed in a steady crop, lost and found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mien_encoder.crop import CropSquare, RgbArray
from mien_encoder.finder import GridFinder, PatientFinder
from mien_encoder.keypoints import KeypointEncoder
from mien_encoder.tracker import SHIFT_DEAD_ZONE, FaceTracker, TrackedFace

ROOT = Path(__file__).resolve().parents[2]
EDGE = ROOT.parent / "shared/data/edge"
DRAWN = ROOT / "services/gateway/mien_gateway/bundled"
FRAME_S = 1 / 30

needs_data = pytest.mark.skipif(not EDGE.is_dir(), reason=f"the clips of {EDGE.name}/ are not beside the repository")


class CountingFinder(PatientFinder):
    """Searches at once, and counts how often it was asked and how often it searched."""

    def __init__(self, encoder: KeypointEncoder) -> None:
        super().__init__(encoder)
        self.asked = 0

    def find(self, rgb: RgbArray, time_s: float) -> list[CropSquare]:
        self.asked += 1
        return super().find(rgb, time_s)


@pytest.fixture(scope="module")
def encoder() -> KeypointEncoder:
    return KeypointEncoder()


@pytest.fixture
def finder(encoder: KeypointEncoder) -> CountingFinder:
    return CountingFinder(encoder)


@pytest.fixture
def tracker(encoder: KeypointEncoder, finder: CountingFinder) -> FaceTracker:
    return FaceTracker(encoder, finder)


def test_a_still_face_with_noise_keeps_a_still_box_and_steady_keypoints(tracker: FaceTracker) -> None:
    random = np.random.default_rng(7)
    still = cv2.resize(picture(), (640, 360), interpolation=cv2.INTER_AREA)
    faces = []
    for i in range(30):
        noisy = np.clip(still + random.normal(0, 5, still.shape), 0, 255).astype(np.uint8)
        face = tracker.find(noisy, i * FRAME_S)
        assert face is not None
        faces.append(face)
    assert len({face.box for face in faces}) == 1
    points = np.stack([face.keypoints.points for face in faces])
    jitter_px = points.std(axis=0) * faces[0].box.size / 2
    assert jitter_px.mean() < 0.3


def test_the_crop_waits_in_its_dead_zone_then_follows_and_comes_to_rest(
    tracker: FaceTracker, finder: CountingFinder
) -> None:
    still = picture()
    first = tracker.find(still, 0.0)
    assert first is not None
    near = 0.5 * SHIFT_DEAD_ZONE * first.box.size
    for i in range(1, 8):
        face = tracker.find(shifted(still, near), i * FRAME_S)
        assert face is not None and face.box == first.box
    far = 2.5 * SHIFT_DEAD_ZONE * first.box.size
    boxes = [tracked(tracker, shifted(still, far), i * FRAME_S).box for i in range(8, 70)]
    steps = np.abs(np.diff([box.x for box in boxes]))
    assert steps.max() < 0.25 * far, "it glides"
    assert boxes[-1] == boxes[-2], "and stops"
    assert boxes[-1].x - first.box.x == pytest.approx(far, abs=0.04 * first.box.size)
    assert finder.asked == 1


def test_keypoints_say_the_same_place_whatever_the_crop_does(tracker: FaceTracker) -> None:
    """While the crop glides after a face that has moved, its keypoints glide back: the face itself has one place."""
    still = picture()
    first = tracked(tracker, still, 0.0)
    far = 2.0 * SHIFT_DEAD_ZONE * first.box.size
    places = [
        (face := tracked(tracker, shifted(still, far), i * FRAME_S)).box.to_picture(face.keypoints.points)
        for i in range(1, 50)
    ]
    off = np.linalg.norm(np.stack(places) - places[-1], axis=2).mean(axis=1)
    assert off.max() < 0.03 * first.box.size


def test_a_lost_face_is_looked_for_now_and_then_and_found_again(tracker: FaceTracker) -> None:
    still, wall = picture(), np.full((720, 1280, 3), 127, np.uint8)
    assert tracker.find(still, 0.0) is not None
    seconds = np.arange(1, 61) * FRAME_S
    gone = [tracker.find(wall, float(time_s)) for time_s in seconds]
    assert gone[0] is not None, "a blink of the camera is no loss"
    assert gone[0].presence < 0.3
    assert all(face is None for face in gone[8:])
    back = [tracker.find(still, float(seconds[-1] + i * FRAME_S)) for i in range(1, 16)]
    assert back[-1] is not None
    assert back[-1].presence > 0.6


def test_a_face_is_searched_over_several_pictures(encoder: KeypointEncoder) -> None:
    tracker = FaceTracker(encoder, GridFinder(encoder))
    found = [tracker.find(picture(), i * FRAME_S) is not None for i in range(20)]
    assert not found[0]
    assert found.index(True) < 15, "half a second at 30 pictures a second"
    assert all(found[found.index(True) :])


def test_no_face_is_no_face(tracker: FaceTracker) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (360, 480, 3), np.uint8)
    assert [tracker.find(noise, i * FRAME_S) for i in range(10)] == [None] * 10


@needs_data
def test_a_clip_s_face_is_followed_until_it_is_gone(tracker: FaceTracker) -> None:
    found = [tracker.find(rgb, time_s) for rgb, time_s in clip("face_lost.mov")]
    assert all(face is not None for face in found[:72])
    assert all(face is None for face in found[85:]), "a title and clouds are no face"


@needs_data
def test_of_two_faces_the_larger_is_kept(tracker: FaceTracker) -> None:
    faces = [tracker.find(rgb, time_s) for rgb, time_s in clip("two_faces.gif")]
    centres = [face.box.x + face.box.size / 2 for face in faces if face is not None]
    assert len(centres) == len(faces)
    assert min(centres) > 300, "the one on the right, in every frame"


@needs_data
def test_a_small_face_is_followed(tracker: FaceTracker) -> None:
    faces = [tracker.find(rgb, time_s) for rgb, time_s in clip("small_face.mkv")]
    sizes = [face.box.size for face in faces if face is not None]
    assert len(sizes) == len(faces)
    assert min(sizes) > 90 and max(sizes) < 200


@needs_data
def test_the_framing_after_following_is_that_of_a_new_search(tracker: FaceTracker, encoder: KeypointEncoder) -> None:
    *_, (last, time_s) = clip("small_face.mkv")
    for rgb, at_s in clip("small_face.mkv"):
        tracker.find(rgb, at_s)
    followed = tracked(tracker, last, time_s + FRAME_S)
    anew = tracked(FaceTracker(encoder, PatientFinder(encoder)), last, 0.0)
    assert abs(np.log(followed.box.size / anew.box.size)) < 0.15
    assert np.hypot(followed.box.x - anew.box.x, followed.box.y - anew.box.y) < 0.2 * anew.box.size


def tracked(tracker: FaceTracker, rgb: RgbArray, time_s: float) -> TrackedFace:
    face = tracker.find(rgb, time_s)
    assert face is not None
    return face


def picture() -> NDArray[np.uint8]:
    """The bundled avatar's still picture, 1280x720."""
    bgr = cv2.imread(str(DRAWN / "mien.png"), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def shifted(rgb: NDArray[np.uint8], right_px: float) -> NDArray[np.uint8]:
    matrix = np.array([[1, 0, right_px], [0, 1, 0]], np.float64)
    size = (rgb.shape[1], rgb.shape[0])
    return np.asarray(cv2.warpAffine(rgb, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def clip(name: str) -> Iterator[tuple[NDArray[np.uint8], float]]:
    with av.open(EDGE / name) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False), frame.time or 0.0
