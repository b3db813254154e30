from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from evaluation.conftest import MovingFace

from mien_evaluation.detectors import EvaluationPartMissing, FaceReader, instruments, l1_and_akd


def test_landmarks_follow_a_face_in_pixels_of_256(reader: FaceReader, moving_face: MovingFace) -> None:
    faces = [reader.read(frame.picture) for frame in moving_face.listed]
    first, *others = faces
    assert first is not None
    assert first.landmarks.shape == (68, 2)
    at_rest = moving_face.listed[0].keypoints
    assert at_rest is not None
    for face, frame in zip(others, moving_face.listed[1:], strict=True):
        assert face is not None
        assert frame.keypoints is not None
        moved_px = 128 * (frame.keypoints.points - at_rest.points).mean(axis=0)
        np.testing.assert_allclose((face.landmarks - first.landmarks).mean(axis=0), moved_px, atol=1.5)


def test_a_larger_picture_reads_the_same(reader: FaceReader, moving_face: MovingFace) -> None:
    picture = moving_face.listed[0].picture
    small, large = reader.read(picture), reader.read(picture.repeat(2, axis=0).repeat(2, axis=1))
    assert small is not None
    assert large is not None
    assert np.linalg.norm(small.landmarks - large.landmarks, axis=1).mean() < 1


def test_a_face_that_moves_is_nearer_to_itself_than_a_broader_one(reader: FaceReader, moving_face: MovingFace) -> None:
    picture = moving_face.listed[0].picture
    own, moved = reader.read(picture), reader.read(moving_face.listed[1].picture)
    other = reader.read(np.asarray(cv2.resize(picture[:, 20:236], (256, 256)), np.uint8))  # a broader face
    assert own is not None
    assert moved is not None
    assert other is not None
    assert own.embedding is not None
    assert moved.embedding is not None
    assert other.embedding is not None
    assert np.linalg.norm(own.embedding - moved.embedding) < np.linalg.norm(own.embedding - other.embedding)


def test_no_face_reads_as_none(reader: FaceReader) -> None:
    assert reader.read(np.full((256, 256, 3), 128, np.uint8)) is None


def test_l1_and_akd_of_batches(reader: FaceReader, moving_face: MovingFace) -> None:
    driving = np.stack([frame.picture for frame in moving_face.listed])
    assert l1_and_akd(driving, driving) == (0.0, 0.0)
    error, distance = l1_and_akd(np.roll(driving, 1, axis=0), driving)
    assert error > 0.01
    assert 3 < distance < 20


def test_l1_and_akd_where_nothing_has_a_face(reader: FaceReader) -> None:
    grey = np.zeros((2, 64, 64, 3), np.uint8)
    error, distance = l1_and_akd(grey, grey)
    assert error == 0
    assert np.isnan(distance)


def test_what_measures_is_named_with_its_version(reader: FaceReader) -> None:
    named = instruments()
    assert named.keys() == {"landmark_detector", "identity_network"}
    assert all("dlib 20" in text and "face_recognition_models 0.3.0" in text for text in named.values())


@pytest.mark.parametrize("part", ["dlib", "face_recognition_models"])
def test_a_missing_part_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, reader: FaceReader, part: str
) -> None:
    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(EvaluationPartMissing) as error:
        FaceReader()
    assert str(error.value) == (
        f"evaluation needs {part}, which is not installed: pip install 'mien-evaluation[instruments]'"
    )
