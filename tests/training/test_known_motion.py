"""The known motion of a pair is transformed as its pictures are, and the loss measures the distance from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training runs on torch")

import torch

from mien_shared.keypoints import FaceKeypoint
from mien_training.datasets import Augmentation, KnownMotion, PairBatch, PairSampler
from mien_training.labelled import LOOKUP_SIDE, DatasetError, LabelledSet
from mien_training.losses import known_motion
from mien_training.synthetic.__main__ import main
from mien_training.synthetic.moved import FRAMES, LIPS_APART, Motions, moved, moved_sequences, write

CPU = torch.device("cpu")
SIZE = 4 * LOOKUP_SIDE
EXACT = Augmentation(colour=0, keypoint_noise=0, jacobian_noise=0)
MakeSet = Callable[[Path, str, str, int, int], None]


def _pairs(labelled: LabelledSet, count: int, size: int = SIZE) -> PairBatch:
    return PairSampler([labelled], {labelled.kind: 1.0}, EXACT, device=CPU, seed=2).pairs(count, size)


@pytest.fixture(scope="module")
def moved_set(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> LabelledSet:
    """One of the stills, moved with the clips' motions."""
    still = LabelledSet.open(labelled / "d")
    clips = [LabelledSet.open(labelled / name) for name in "ab"]
    folder = tmp_path_factory.mktemp("moved") / "moved_d"
    write(still, moved(still, Motions.of(clips), 5, np.random.default_rng(1)), folder)
    return LabelledSet.open(folder)


def test_a_moved_still_was_taken_from_where_its_lookup_says(moved_set: LabelledSet) -> None:
    assert moved_set.kind == "moved" and len(moved_set.frames) == 6
    pairs = _pairs(moved_set, 12)
    assert (pairs.source - pairs.driving).abs().mean() > 0.01
    small = torch.nn.functional.avg_pool2d(pairs.driving, 4)
    found = torch.nn.functional.grid_sample(
        torch.nn.functional.avg_pool2d(pairs.source, 4), pairs.known.lookup, align_corners=False
    )
    off = (found - small).abs().mean(dim=1)
    still = (torch.nn.functional.avg_pool2d(pairs.source, 4) - small).abs().mean(dim=1)
    shown = pairs.known.shown > 0.99
    assert shown.float().mean() > 0.8
    assert off[shown].mean() < 0.25 * still[shown].mean()


def test_landmarks_follow_their_pictures(tmp_path: Path, make_set: MakeSet) -> None:
    make_set(tmp_path / "x", "x", "clip", 4, 1)
    landmarks = np.full((4, 478, 2), np.nan, np.float32)
    landmarks[:, :10] = np.load(tmp_path / "x/keypoints.npy")[..., :2]
    np.save(tmp_path / "x/landmarks.npy", landmarks)
    known = _pairs(LabelledSet.open(tmp_path / "x"), 16, 96)
    for picture, places in (
        (known.driving, known.known.landmarks),
        (known.source, known.known.source_landmarks),
    ):
        assert places[:, 10:].isnan().all()
        eyes = places[:, [FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE]]
        assert torch.nn.functional.grid_sample(picture, eyes[:, None], align_corners=False).mean() < 0.15
    assert known.known.shown.eq(0).all()  # it has no lookups


def test_nothing_is_known_of_a_still_moved_against_itself(tmp_path: Path, make_set: MakeSet) -> None:
    make_set(tmp_path / "x", "x", "still", 1, 1)
    np.save(tmp_path / "x/landmarks.npy", np.zeros((1, 478, 2), np.float32))
    pairs = _pairs(LabelledSet.open(tmp_path / "x"), 2, 96)
    assert pairs.known.landmarks.isnan().all() and pairs.known.shown.eq(0).all()
    assert known_motion(torch.rand(2, 24, 24, 2), pairs.known, pairs.attention) == 0


def test_the_loss_is_the_distance_from_what_is_known() -> None:
    side = 16
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    rest = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
    landmarks = torch.full((1, 478, 2), torch.nan)
    landmarks[:, :2] = torch.tensor([[0.1, 0.2], [-0.3, 0.4]])
    known = KnownMotion(landmarks, landmarks + 0.03, rest + 0.1, torch.ones(1, side, side))
    flat = torch.ones(1, 1, 64, 64)
    diagonal = 2**0.5
    assert known_motion(rest, known, flat).item() == pytest.approx((0.03 + 0.1) * diagonal, rel=1e-3)
    assert known_motion(rest + 0.1, known, flat).item() == pytest.approx(0.07 * diagonal, rel=1e-3)
    hidden = KnownMotion(landmarks + 5, landmarks, rest, torch.zeros(1, side, side))
    asked = (rest + 0.1).requires_grad_()
    loss = known_motion(asked, hidden, flat)
    loss.backward()
    assert loss == 0 and asked.grad is not None and asked.grad.isfinite().all()


def test_motions_start_at_rest_and_some_open_the_mouth_or_shut_the_eyes(labelled: Path) -> None:
    motions = Motions.of([LabelledSet.open(labelled / name) for name in "ab"])
    assert len(motions.relative) == 10
    assert any(np.allclose(each[:, :2], 0, atol=1e-6) for each in motions.relative)
    assert len(motions.wide) == 2 and len(motions.shut) == 1
    rng = np.random.default_rng(0)
    drawn = [motions.drawn(rng) for _ in range(5)]
    assert all(np.isfinite(each.rows()).all() for each in drawn)
    assert len({each.rows().tobytes() for each in drawn}) == 5


def test_the_command_moves_stills_but_no_validation_identity(
    tmp_path: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(labelled, tmp_path / "data")
    assert main(["moved", "--out", str(tmp_path / "data"), "--validation", "held", "emil"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/data/moved_d\n"
    made = LabelledSet.open(tmp_path / "data/moved_d")
    assert (made.identity, made.kind, len(made.frames)) == ("dora", "moved", 1 + FRAMES["still"])
    assert made.lookups is not None and made.landmarks is None
    assert not list((tmp_path / "data").glob(".*"))


def test_a_motion_that_warp_reduces_is_left_out(labelled: Path) -> None:
    rows = np.tile(np.concatenate([np.zeros((10, 2)), np.tile(np.eye(2).ravel(), (10, 1))], axis=1), (2, 1, 1))
    rows[1, :, 0] = 0.9  # the whole head moves out of its crop
    still = LabelledSet.open(labelled / "d")
    none = np.array([1])
    far, near = (Motions(rows[[each]].astype(np.float32), none * 0, none * 0) for each in (1, 0))
    assert len(moved(still, far, 3, np.random.default_rng(0)).frames) == 1
    assert len(moved(still, near, 3, np.random.default_rng(0)).frames) == 4


def test_stills_with_parted_lips_are_left_out(tmp_path: Path, make_set: MakeSet, labelled: Path) -> None:
    stills = []
    for name, apart in (("closed", 0.1), ("wide", 0.6)):
        make_set(tmp_path / name, name, "still", 1, 1)
        rows = np.load(tmp_path / name / "keypoints.npy")
        eyes = np.linalg.norm(rows[0, FaceKeypoint.RIGHT_EYE, :2] - rows[0, FaceKeypoint.LEFT_EYE, :2])
        rows[0, FaceKeypoint.LOWER_LIP, :2] = rows[0, FaceKeypoint.UPPER_LIP, :2] + (0, apart * eyes / 2)
        np.save(tmp_path / name / "keypoints.npy", rows)
        stills.append(LabelledSet.open(tmp_path / name))
    assert 0.1 < LIPS_APART < 0.6
    made = [(still.name, len(sequence.frames)) for still, sequence in moved_sequences(stills, _clips(labelled), 3)]
    assert made == [("closed", 1 + FRAMES["still"])]


def _clips(labelled: Path) -> list[LabelledSet]:
    return [LabelledSet.open(labelled / name) for name in "ab"]


def test_damaged_arrays_are_named(tmp_path: Path, make_set: MakeSet) -> None:
    make_set(tmp_path / "x", "x", "clip", 3, 0)
    np.save(tmp_path / "x/lookups.npy", np.zeros((3, 8, 8, 3), np.float16))
    with pytest.raises(DatasetError, match=r"x: lookups must be \(3, 96, 96, 3\), not \(3, 8, 8, 3\)"):
        LabelledSet.open(tmp_path / "x")
    np.save(tmp_path / "x/landmarks.npy", np.zeros((3, 68, 2), np.float32))
    with pytest.raises(DatasetError, match=r"x: landmarks must be \(3, 478, 2\), not \(3, 68, 2\)"):
        LabelledSet.open(tmp_path / "x")
