"""Synthetic heads: they are reproducible from the seed, labelled inside their crops, and move as commanded."""

import json
from pathlib import Path

import numpy as np
import pytest

from mien_landmarks.geometry import keypoints_of
from mien_shared.keypoints import FaceKeypoint
from mien_training.synthetic.dataset import labelled, write
from mien_training.synthetic.head import HeadModel, rotation_of
from mien_training.synthetic.labels import landmarks_of
from mien_training.synthetic.motion import State, sequence

AVATAR3D = Path(__file__).parents[2].parent / "shared/data/avatar3d"
SIZE = 64


@pytest.fixture(scope="module")
def model() -> HeadModel:
    if not AVATAR3D.is_dir():
        pytest.skip("the ICT model (../shared/data/avatar3d) is missing")
    return HeadModel(AVATAR3D)


def seen_from_the_front(model: HeadModel, state: State) -> np.ndarray:
    """(478, 2) landmarks of the mean person in orthographic projection, about as large as in a crop."""
    shape = model.expressed(model.neutral, state.weights)
    world = model.turned(shape, rotation_of(state.yaw, state.pitch, state.roll), np.zeros(3, np.float32))
    return landmarks_of(world[:, :2] * (1 / 15, -1 / 15))


def test_an_opening_jaw_lowers_the_chin_and_the_lower_lip_alone(model: HeadModel) -> None:
    shut, agape = (
        keypoints_of(seen_from_the_front(model, State(weights={"jawOpen": weight}))).points for weight in (0.0, 0.8)
    )
    moved = agape - shut
    assert moved[FaceKeypoint.CHIN, 1] > 0.08
    assert moved[FaceKeypoint.LOWER_LIP, 1] > 0.08
    assert np.abs(moved[[FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_BROW, FaceKeypoint.NOSE]]).max() < 0.01


def test_a_blink_flattens_the_eyes_it_closes(model: HeadModel) -> None:
    # The model's left is the face's own left, which is the picture's right.
    winking = keypoints_of(seen_from_the_front(model, State(weights={"eyeBlink_L": 1.0}))).jacobians
    assert winking[FaceKeypoint.RIGHT_EYE, 1, 1] < 0.25
    assert winking[FaceKeypoint.LEFT_EYE, 1, 1] > 0.8


@pytest.mark.parametrize(
    ("state", "axis", "sign"), [(State(yaw=0.4), 0, 1), (State(pitch=0.3), 1, -1), (State(roll=0.3), 0, 1)]
)
def test_a_turning_head_takes_its_nose_along(model: HeadModel, state: State, axis: int, sign: int) -> None:
    ahead, turned = (keypoints_of(seen_from_the_front(model, s)).points[FaceKeypoint.NOSE] for s in (State(), state))
    assert sign * (turned - ahead)[axis] > 0.05


def test_the_landmarks_are_as_symmetric_as_the_mean_face(model: HeadModel) -> None:
    points = keypoints_of(seen_from_the_front(model, State())).points
    for left, right in (
        (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE),
        (FaceKeypoint.LEFT_BROW, FaceKeypoint.RIGHT_BROW),
        (FaceKeypoint.LEFT_CHEEK, FaceKeypoint.RIGHT_CHEEK),
    ):
        np.testing.assert_allclose(points[left] * (-1, 1), points[right], atol=0.01)


def test_a_sequence_starts_at_rest_and_keeps_within_its_bounds() -> None:
    states = sequence(np.random.default_rng(4), 40)
    assert abs(states[0].yaw) < 0.15 and set(states[0].weights) == {"jawOpen"}
    assert max(abs(state.yaw) for state in states) <= np.radians(32)
    assert max(abs(state.pitch) for state in states) <= np.radians(21)
    assert any(state.weights.get("eyeBlink", 0) > 0.9 for state in states)
    assert any(state.weights.get("jawOpen", 0) > 0.2 for state in states)


def test_rendered_people_follow_from_the_seed_with_labels_on_their_faces(model: HeadModel) -> None:
    pytest.importorskip("moderngl", reason="the extra `synthetic` is not installed")
    from mien_training.synthetic.ict import ict_sequences
    from mien_training.synthetic.renderer import Renderer

    try:
        with Renderer(8):
            pass
    except Exception as problem:  # noqa: BLE001 - moderngl passes on any error of its loader
        pytest.skip(f"no OpenGL here: {problem}")
    first, again, other = (next(ict_sequences(model, 1, 2, SIZE, seed)) for seed in (3, 3, 4))
    frames, keypoints = first.frames, first.keypoints
    assert frames.shape == (2, SIZE, SIZE, 3)
    assert keypoints.shape == (2, 10, 6)
    assert first.landmarks.shape == (2, 478, 2)
    np.testing.assert_array_equal(frames, again.frames)
    np.testing.assert_array_equal(keypoints, again.keypoints)
    assert not np.array_equal(frames, other.frames)
    assert np.abs(keypoints[..., :2]).max() < 1
    # An eye's keypoint must lie on an eye: the contrast of white and pupil is the highest in a face.
    at = ((keypoints[0, FaceKeypoint.LEFT_EYE, :2] + 1) / 2 * SIZE).astype(int)
    cheek = ((keypoints[0, FaceKeypoint.LEFT_CHEEK, :2] + 1) / 2 * SIZE).astype(int) + np.array((6, -6))
    eye_patch, cheek_patch = (frames[0, y - 3 : y + 4, x - 3 : x + 4].mean(axis=2).std() for x, y in (at, cheek))
    assert eye_patch > 1.5 * cheek_patch


def test_a_sequence_is_written_whole_under_its_identity(tmp_path: Path) -> None:
    faces = [np.random.default_rng(n).uniform(-1, 1, (478, 2)) for n in range(2)]
    pictures = [np.full((SIZE, SIZE, 3), shade, np.uint8) for shade in (10, 200)]
    written = labelled(pictures, faces)
    folder = tmp_path / "ict_007"
    for _ in range(2):  # the second replaces the first
        write(written, folder, "ict", "somewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["ict_007"]
    assert json.loads((folder / "meta.json").read_text()) == {
        "identity": "ict_007",
        "kind": "ict",
        "source": "somewhere",
    }
    np.testing.assert_array_equal(np.load(folder / "frames.npy"), written.frames)
    np.testing.assert_array_equal(np.load(folder / "keypoints.npy"), written.keypoints)
    assert written.keypoints.dtype == np.float32
    np.testing.assert_allclose(np.load(folder / "landmarks.npy"), np.stack(faces), atol=1e-6)


def test_drawn_characters_open_mouth_and_eyes_where_their_labels_say() -> None:
    pytest.importorskip("numba", reason="the extra `synthetic` is not installed")
    from mien_draw_avatar.sculpture import Pose
    from mien_training.synthetic.drawn import landmarks_in

    def keypoints(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        found = keypoints_of((landmarks_in(pose) - (448, 94)) / 192 - 1)
        return found.points, found.jacobians

    (rest, _), (agape, _), (_, winking) = keypoints(Pose()), keypoints(Pose(mouth=1)), keypoints(Pose(left_eye=1))
    gap = (agape - rest)[FaceKeypoint.LOWER_LIP, 1] - (agape - rest)[FaceKeypoint.UPPER_LIP, 1]
    assert gap > 0.08 and (agape - rest)[FaceKeypoint.CHIN, 1] > 0.04
    assert 0 < winking[FaceKeypoint.LEFT_EYE, 1, 1] < 0.3 * winking[FaceKeypoint.RIGHT_EYE, 1, 1]
