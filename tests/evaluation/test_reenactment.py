from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import ROOT, MovingFace

from mien_encoder.keypoints import KeypointEncoder
from mien_evaluation.clips import ClipError
from mien_evaluation.detectors import FaceReader
from mien_evaluation.keypoints import EncoderFinder, FilmedClip, tracked
from mien_evaluation.metrics import Scores
from mien_evaluation.reenactment import (
    STILL,
    ClipScores,
    DrivingFrame,
    Motion,
    Reenactment,
    carried,
    measured,
    over_identities,
)
from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.warp import WarpGenerator
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

READER = ROOT.parent / "shared/data/clips/reader.mp4"


@dataclass(frozen=True)
class Plain:
    size: int


class RecordingGenerator:
    """Keeps the driving keypoints that it was asked for, by FaceGenerator's contract."""

    name = "recording"

    def __init__(self) -> None:
        self.asked: list[Keypoints] = []

    def prepare(self, avatar: AvatarFace) -> Plain:
        return Plain(avatar.rgb.shape[0])

    def animate(self, requests: Sequence[FaceRequest[Plain]]) -> list[RgbArray]:
        self.asked += [request.driving for request in requests]
        return [np.zeros((request.prepared.size,) * 2 + (3,), np.uint8) for request in requests]

    def close(self) -> None:
        pass


def filmed(path: Path, size: int) -> FilmedClip:
    encoder = KeypointEncoder()
    return FilmedClip(path, size, EncoderFinder(encoder), tracked(encoder))


def _at(x: float, scale: float = 1.0) -> Keypoints:
    return Keypoints(
        np.full((NUM_KEYPOINTS, 2), x, np.float32), np.tile(np.eye(2, dtype=np.float32) * scale, (NUM_KEYPOINTS, 1, 1))
    )


def _clip(*keypoints: Keypoints | None) -> MovingFace:
    grey = np.zeros((8, 8, 3), np.uint8)
    return MovingFace("grey", "nobody", tuple(DrivingFrame(grey + i, one) for i, one in enumerate(keypoints)))


# --- what drives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", ["absolute", "relative"])
def test_what_drives_went_through_a_packet(motion: Motion) -> None:
    generator = RecordingGenerator()
    found = [_at(0.1), _at(1 / 3, 1.1)]
    reenacted = list(Reenactment(_clip(*found), {"r": generator}, motion=motion))
    assert [sorted(frame.made) for frame in reenacted] == [["r", STILL]] * 2
    for asked, wanted in zip(generator.asked, found, strict=True):
        np.testing.assert_allclose(asked.rows(), wanted.rows(), atol=1e-3)
    assert generator.asked[1] != found[1], "FP16 rounds a third"
    assert generator.asked[1] == carried(found[1], found[0], motion)


def test_a_frame_without_keypoints_or_with_some_that_no_packet_carries_holds_the_last() -> None:
    generator = RecordingGenerator()
    reenactment = Reenactment(_clip(_at(0), _at(0.5), None, _at(9), _at(0.25)), {"r": generator})
    assert len(list(reenactment)) == 5
    assert [float(asked.points[0, 0]) for asked in generator.asked] == [0, 0.5, 0.5, 0.5, 0.25]
    assert reenactment.held == 2


def test_still_shows_the_first_frame_throughout_and_every_takes_some() -> None:
    frames = list(Reenactment(_clip(*[_at(0)] * 20), {"r": RecordingGenerator()}, every=3))
    assert [frame.number for frame in frames] == [0, 3, 6, 9, 12, 15, 18]
    assert {int(frame.made[STILL].max()) for frame in frames} == {0}
    assert [int(frame.driving.max()) for frame in frames] == [0, 3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize(
    ("keypoints", "text"),
    [
        ([], "grey has no frames"),
        ([None], "grey: no keypoints found in the first frame"),
        ([_at(0, scale=0)], "grey: a keypoint of the first frame has a singular Jacobian"),
    ],
    ids=["empty", "none", "flat"],
)
def test_a_clip_that_cannot_begin_is_named(keypoints: list[Keypoints | None], text: str) -> None:
    with pytest.raises(ClipError) as error:
        list(Reenactment(_clip(*keypoints), {}))
    assert str(error.value) == text


# --- measured ---------------------------------------------------------------------------------------------------------


def test_warp_beats_the_still_frame_on_a_face_that_moves(reader: FaceReader, moving_face: MovingFace) -> None:
    scores = measured(moving_face, {"warp": WarpGenerator()}, reader)
    assert (scores.frames, scores.held, scores.unread) == (4, 0, 0)
    still, warp = scores.methods[STILL], scores.methods["warp"]
    assert still.l1 is not None
    assert warp.l1 is not None
    assert still.akd is not None
    assert warp.akd is not None
    assert warp.l1 < still.l1
    assert warp.akd < 0.6 * still.akd
    assert warp.aed is not None


@pytest.mark.skipif(not READER.exists(), reason=f"no {READER.name}: the data set is not beside the project")
def test_warp_beats_the_still_frame_on_a_real_clip(reader: FaceReader) -> None:
    clip = filmed(READER, 256)
    scores = measured(clip, {"warp": WarpGenerator()}, reader, every=80)
    still, warp = scores.methods[STILL], scores.methods["warp"]
    assert scores.frames == 3
    assert warp.l1 is not None
    assert still.l1 is not None
    assert warp.l1 < still.l1
    assert warp.akd is not None
    assert still.akd is not None
    assert warp.akd < 0.6 * still.akd


def test_a_clip_without_a_face_for_the_landmark_detector_is_named(reader: FaceReader) -> None:
    with pytest.raises(ClipError, match=r"^grey: the landmark detector finds no face in any of 2 frames$"):
        measured(_clip(_at(0), _at(0)), {}, reader)


def test_a_watcher_sees_every_frame(reader: FaceReader, moving_face: MovingFace) -> None:
    seen: list[int] = []
    first_two = replace(moving_face, listed=moving_face.listed[:2])
    measured(first_two, {}, reader, watch=lambda frame: seen.append(frame.number))
    assert seen == [0, 1]


# --- over people ------------------------------------------------------------------------------------------------------


def test_the_mean_is_over_people_not_over_frames_or_clips() -> None:
    def one(clip: str, identity: str, frames: int, error: float) -> ClipScores:
        return ClipScores(clip, identity, frames, 0, 0, {"m": Scores(frames, 0, error, 1.0, 1.0, None, None)})

    mean = over_identities([one("a1", "a", 900, 0.1), one("a2", "a", 100, 0.3), one("b", "b", 10, 0.6)])
    assert mean["m"].l1 == pytest.approx(0.4)
    assert mean["m"].frames == 1010
    assert over_identities([]) == {}


# --- clips of files ---------------------------------------------------------------------------------------------------


def test_a_filmed_clip_begins_where_its_face_does_and_keeps_its_crop(late_face_clip: Path) -> None:
    clip = filmed(late_face_clip, 128)
    frames = list(clip.frames())
    assert clip.count() == 4
    assert len(frames) == 3, "the first shows nothing"
    assert frames[0].picture.shape == (128, 128, 3)
    keypoints = [frame.keypoints for frame in frames if frame.keypoints is not None]
    assert len(keypoints) == 3
    x = [float(one.points[:, 0].mean()) for one in keypoints]
    assert x[2] - x[0] > 0.03, "the head moves in a crop that does not"


def test_a_filmed_clip_without_a_face_is_named(noise_clip: Path) -> None:
    with pytest.raises(ClipError, match=r"^no face in noise.mp4$"):
        list(filmed(noise_clip, 128).frames())
