from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training runs on torch")

import torch

from mien_shared.keypoints import FaceKeypoint
from mien_training.datasets import Augmentation, PairBatch, PairSampler, attention
from mien_training.labelled import DatasetError, LabelledSet, Split, open_sets

CPU = torch.device("cpu")
SIZE = 96
SPLIT = Split(("held",))
STILL = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
EXACT = Augmentation(colour=0, keypoint_noise=0, jacobian_noise=0)


def _sampler(folder: Path, weights: dict[str, float], augmentation: Augmentation, seed: int = 0) -> PairSampler:
    return PairSampler(open_sets(folder, SPLIT)[0], weights, augmentation, device=CPU, seed=seed)


def test_validation_identities_are_never_drawn(labelled: Path) -> None:
    training, held = open_sets(labelled, SPLIT)
    assert [each.name for each in training] == ["a", "b", "d", "e"]
    assert [each.name for each in held] == ["c"]
    assert [each.name for each in open_sets(labelled, Split(("held",), ("a",)))[0]] == ["b", "d", "e"]


def _darkness_at_eyes(pairs: PairBatch) -> float:
    """The brightness of the driving pictures at the eyes' keypoints; the drawn eyes are black."""
    eyes = pairs.driving_keypoints.points[:, [FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE]]
    seen = torch.nn.functional.grid_sample(pairs.driving, eyes[:, None], align_corners=False)
    return float(seen.mean())


@pytest.mark.parametrize("kind", ["clip", "still"])
def test_keypoints_stay_on_what_they_name_however_a_picture_is_moved(labelled: Path, kind: str) -> None:
    pairs = _sampler(labelled, {kind: 1.0}, EXACT).pairs(16, SIZE)
    assert _darkness_at_eyes(pairs) < 0.15
    nowhere = pairs.driving_keypoints.points + 0.15
    seen = torch.nn.functional.grid_sample(pairs.driving, nowhere[:, None, 2:4], align_corners=False)
    assert seen.mean() > 0.25


def test_a_still_is_moved_against_itself(labelled: Path) -> None:
    pairs = _sampler(labelled, {"still": 1.0}, EXACT).pairs(8, SIZE)
    assert (pairs.source - pairs.driving).abs().mean(dim=(1, 2, 3)).min() > 1e-3
    border = torch.cat([(pairs.source - pairs.driving)[..., :2, :].flatten(1)], dim=1)
    assert border.abs().max() < 1e-5  # the background does not move


def test_a_moved_stills_jacobians_are_the_derivative_of_its_motion(labelled: Path) -> None:
    """The distance between two close keypoints changes as the Jacobian between them says."""
    pairs = _sampler(labelled, {"still": 1.0}, EXACT, seed=3).pairs(8, SIZE)
    source, driving = pairs.source_keypoints, pairs.driving_keypoints
    upper, lower = FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP
    motion = driving.jacobians[:, upper] @ torch.linalg.inv(source.jacobians[:, upper])
    apart = (source.points[:, lower] - source.points[:, upper])[..., None]
    expected = (motion @ apart).squeeze(-1)
    measured = driving.points[:, lower] - driving.points[:, upper]
    assert (expected - measured).norm(dim=-1).max() < 0.02


def test_a_mirrored_face_keeps_its_left_on_the_left(labelled: Path) -> None:
    for seed in range(4):
        pairs = _sampler(labelled, {"clip": 1.0}, EXACT, seed).pairs(8, SIZE)
        points, jacobians = pairs.source_keypoints.points, pairs.source_keypoints.jacobians
        assert (points[:, FaceKeypoint.LEFT_EYE, 0] < points[:, FaceKeypoint.RIGHT_EYE, 0]).all()
        assert (torch.linalg.det(jacobians) > 0).all()


def test_without_augmentation_a_frame_comes_as_it_is_stored(labelled: Path) -> None:
    stored = np.load(labelled / "d/frames.npy")[0]
    sampler = PairSampler([LabelledSet.open(labelled / "d")], {"still": 1.0}, STILL, device=CPU, seed=0)
    pairs = sampler.pairs(8, SIZE)
    jacobians = torch.from_numpy(np.load(labelled / "d/keypoints.npy"))[0, :, 2:].view(10, 2, 2)
    straight = [
        picture
        for picture, found in zip(pairs.source, pairs.source_keypoints.jacobians, strict=True)
        if torch.allclose(found, jacobians)
    ]
    assert straight  # the others are mirrored
    for picture in straight:
        np.testing.assert_allclose(picture.permute(1, 2, 0).numpy() * 255, stored, atol=0.51)


def test_the_same_seed_draws_the_same_pairs_and_a_state_goes_on(labelled: Path) -> None:
    first, second = (_sampler(labelled, {"clip": 1.0, "still": 0.5}, Augmentation(), 7) for _ in range(2))
    assert torch.equal(first.pairs(3, 64).driving, second.pairs(3, 64).driving)
    state = first.state()
    expected = first.pairs(3, 64).source
    second.restore(state)
    assert torch.equal(second.pairs(3, 64).source, expected)


def test_patches_lie_within_the_picture(labelled: Path) -> None:
    patches = _sampler(labelled, {"clip": 1.0}, STILL).patches(5, 32)
    assert patches.shape == (5, 3, 32, 32)
    assert patches.min() >= 0 and patches.max() <= 1


def test_attention_is_on_eyes_and_mouth(labelled: Path) -> None:
    pairs = _sampler(labelled, {"clip": 1.0}, STILL).pairs(1, SIZE)
    weight = attention(pairs.driving_keypoints, SIZE, gain=4.0)
    assert weight.min() >= 1 and weight.max() <= 5
    x, y = ((pairs.driving_keypoints.points[0, FaceKeypoint.LEFT_EYE] + 1) * SIZE / 2).long().tolist()
    assert weight[0, 0, y, x] > 4 and weight[0, 0, 0, 0] < 1.01


def test_a_kind_without_weight(labelled: Path) -> None:
    with pytest.raises(DatasetError, match="no set is of a kind with a weight; the sets' kinds are clip, still"):
        _sampler(labelled, {"ict": 1.0}, STILL)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no labelled set to train on"):
        open_sets(tmp_path, SPLIT)


def test_damaged_sets_are_named(tmp_path: Path, make_set: Callable[[Path, str, str, int, int], None]) -> None:
    make_set(tmp_path / "x", "x", "clip", 3, 0)
    np.save(tmp_path / "x/keypoints.npy", np.zeros((2, 10, 6), np.float32))
    with pytest.raises(DatasetError, match=r"x: keypoints must be \(3, 10, 6\), not \(2, 10, 6\)"):
        LabelledSet.open(tmp_path / "x")
    np.save(tmp_path / "x/keypoints.npy", np.full((3, 10, 6), np.nan, np.float32))
    with pytest.raises(DatasetError, match="x: a keypoint is not finite"):
        LabelledSet.open(tmp_path / "x")
    np.save(tmp_path / "x/frames.npy", np.zeros((3, 8, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match="x: frames must be"):
        LabelledSet.open(tmp_path / "x")
    (tmp_path / "x/meta.json").write_text(json.dumps({"kind": "clip"}))
    with pytest.raises(DatasetError, match="x is not a labelled set: 'identity'"):
        LabelledSet.open(tmp_path / "x")
