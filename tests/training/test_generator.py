from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training runs on torch")

import cv2
import torch

from mien_generator.face.fomm.config import HALF_WIDTH, FommConfig, GeneratorConfig, HourglassConfig
from mien_training.config import TrainingConfigError
from mien_training.datasets import Augmentation, PairSampler
from mien_training.generator import MIEN_HALF, GeneratorTrainer, Losses, Schedule, Stage, revive
from mien_training.labelled import Split, open_sets
from mien_training.run import Run, RunError

CPU = torch.device("cpu")

#: The whole architecture with few channels and with the flags of MIEN_HALF.
SMALL = FommConfig(
    keypoint_detector=None,
    generator=GeneratorConfig(
        block_expansion=8,
        max_features=16,
        num_down_blocks=2,
        num_bottleneck_blocks=1,
        dense_motion=HourglassConfig(block_expansion=8, max_features=24, num_blocks=3),
    ),
    pixel_centres=True,
    source_residual=True,
)
STAGES = (
    Stage("appearance", steps=8, batch=4, size=32, learning_rate=3e-3),
    Stage("motion", steps=8, batch=4, size=64, learning_rate=3e-3),
    Stage("joint", steps=8, batch=2, size=64, learning_rate=1e-3),
)


def _trainer(folder: Path, data: Path, stages: tuple[Stage, ...] = STAGES, *, resume: bool = False) -> GeneratorTrainer:
    training, held = open_sets(data, Split(("held",)))
    sampler = PairSampler(training, {"clip": 1.0, "still": 0.3}, Augmentation(), device=CPU, seed=1)
    shown = PairSampler(held, {"clip": 1.0}, Augmentation(), device=CPU, seed=1)
    return GeneratorTrainer(
        Run(folder, resume=resume),
        stages,
        sampler,
        shown,
        device=CPU,
        bf16=False,
        config=SMALL,
        schedule=Schedule(report=4, save=4, sheet=8),
    )


def test_ours_is_the_papers_network_with_two_flags() -> None:
    assert replace(MIEN_HALF, pixel_centres=False, source_residual=False) == HALF_WIDTH


def test_every_stage_runs_and_leaves_curves_and_sheets(tmp_path: Path, labelled: Path) -> None:
    network = _trainer(tmp_path / "run", labelled).train()
    assert not network.training
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt",
        "curves-1-appearance.csv",
        "curves-2-motion.csv",
        "curves-3-joint.csv",
        "sheet-1-appearance-000008.png",
        "sheet-2-motion-000008.png",
        "sheet-3-joint-000008.png",
    }
    rows = (tmp_path / "run/curves-3-joint.csv").read_text().splitlines()
    assert rows[0] == "step,moved,occlusion,known,pixels,edges,features,painted" and len(rows) == 3
    sheet = cv2.imread(str(tmp_path / "run/sheet-3-joint-000008.png"))
    assert sheet is not None and sheet.shape == (4 * 64, 5 * 64, 3)


def test_training_lowers_the_loss(tmp_path: Path, labelled: Path) -> None:
    trainer = _trainer(tmp_path / "run", labelled, (Stage("motion", 40, 8, 64, 3e-3),))
    trainer.train()
    rows = [row.split(",") for row in (tmp_path / "run/curves-1-motion.csv").read_text().splitlines()[1:]]
    first, last = (sum(float(row[1]) for row in part) / len(part) for part in (rows[:2], rows[-2:]))
    assert last < 0.9 * first


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path, labelled: Path) -> None:
    whole = _trainer(tmp_path / "whole", labelled).train()

    class Interrupted(Exception):
        pass

    broken = _trainer(tmp_path / "broken", labelled)
    save, saves = broken.run.save, iter(range(100))

    def interrupt(state: dict[str, object]) -> None:
        save(state)
        if next(saves) == 6:  # in the middle of the third stage
            raise Interrupted

    broken.run.save = interrupt  # type: ignore[method-assign,assignment]
    with pytest.raises(Interrupted):
        broken.train()
    resumed = _trainer(tmp_path / "broken", labelled, resume=True).train()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name, atol=1e-5, rtol=1e-4)


def test_the_adversarial_losses_train_their_critic_too(tmp_path: Path, labelled: Path) -> None:
    losses = Losses(adversarial=1.0, feature_matching=2.0)
    stage = Stage("joint", 4, 1, 128, 1e-3, losses)  # the critic also works at half size
    _trainer(tmp_path / "run", labelled, (stage,)).train()
    header = (tmp_path / "run/curves-1-joint.csv").read_text().splitlines()[0]
    assert header == "step,moved,occlusion,known,pixels,edges,features,painted,adversarial,matching,critic"


def test_a_window_trains_everything_on_part_of_the_picture(tmp_path: Path, labelled: Path) -> None:
    trainer = _trainer(tmp_path / "run", labelled, (Stage("joint", 4, 2, 64, 1e-3, window=32),))
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.train()
    header = (tmp_path / "run/curves-1-joint.csv").read_text().splitlines()[0]
    assert header == "step,moved,occlusion,known,pixels,edges,features"
    after = dict(trainer.network.named_parameters())
    for part in ("first.", "bottleneck.", "final.", "dense_motion_network.mask", "dense_motion_network.occlusion"):
        assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith(part)), part


def test_a_windows_features_are_those_of_the_whole_picture(tmp_path: Path, labelled: Path) -> None:
    """A window as large as the picture has the same losses as the picture, except for the source's residual."""
    trainer = _trainer(tmp_path / "run", labelled, (STAGES[2],))
    trainer.set_modes("joint")
    pairs = trainer.sampler.pairs(2, 64)
    plain = Losses(features=0)
    whole = trainer.joint_losses(pairs, plain)
    window = trainer.window_losses(pairs, Stage("joint", 1, 2, 64, 1e-3, plain, window=64))
    both = (plain.pixels + plain.painted) / plain.painted
    assert window["pixels"].item() == pytest.approx(both * whole["painted"].item(), rel=1e-4)
    for name in ("moved", "occlusion", "known"):
        assert window[name].item() == pytest.approx(whole[name].item(), rel=1e-4), name


def test_what_no_motion_explains_counts_more(tmp_path: Path, labelled: Path) -> None:
    trainer = _trainer(tmp_path / "run", labelled, (STAGES[2],))
    pairs = trainer.sampler.pairs(2, 64)
    driving = pairs.source.clone()
    driving[..., 20:36, 20:36] = 1 - driving[..., 20:36, 20:36].round()  # invert the channels as far as possible
    still = replace(pairs, driving=driving, driving_keypoints=pairs.source_keypoints)
    trainer.set_modes("joint")
    motion = trainer.made(still.source, still.source_keypoints, still.driving_keypoints).motion
    _, attention = trainer.motion_losses(still, motion, Losses(unexplained=6.0))
    more = attention / still.attention
    assert more[..., 24:32, 24:32].min() > 4
    assert more[..., :12, :].max() < 1.1


@pytest.mark.parametrize(("kind", "window"), [("motion", 32), ("joint", 30), ("joint", 68), ("joint", -4)])
def test_invalid_windows_are_refused(kind: Any, window: int) -> None:
    with pytest.raises(
        TrainingConfigError, match="window must be 0, or in a joint stage a multiple of 4 up to its size"
    ):
        Stage(kind, 1, 1, 64, 1e-3, window=window)


def test_windows_lie_within_the_picture_mostly_where_faces_are(labelled: Path) -> None:
    sampler = PairSampler(open_sets(labelled, Split(()))[0], {"clip": 1.0}, Augmentation(), device=CPU, seed=0)
    places = torch.tensor([sampler.window(64, 36) for _ in range(300)])
    assert places.min() >= 0 and places.max() <= 28
    centred = (places - torch.tensor([16, 14])).abs().amax(dim=1) < 8
    assert 0.6 < centred.float().mean() < 0.95
    assert sampler.window(16, 16) == (0, 0)


def test_normalisations_keep_their_statistics_in_a_joint_stage(tmp_path: Path, labelled: Path) -> None:
    trainer = _trainer(tmp_path / "run", labelled, (STAGES[2],))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items() if "running" in name}
    trainer.train()
    assert all(torch.equal(trainer.network.state_dict()[name], value) for name, value in before.items())


def test_a_dead_keypoint_is_revived(tmp_path: Path, labelled: Path) -> None:
    trainer = _trainer(tmp_path / "run", labelled, (STAGES[1],))
    mask = trainer.network.dense_motion_network.mask
    with torch.no_grad():
        mask.bias[1 + 2] = -50.0
        mask.bias[1 + 0] = 3.0
    pairs = trainer.sampler.pairs(4, 64)
    assert revive(trainer.network, pairs) == [2]
    torch.testing.assert_close(mask.weight[3], mask.weight[1], atol=1e-3, rtol=0.1)
    assert mask.bias[3] == mask.bias[1]
    assert revive(trainer.network, pairs) == []


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path, labelled: Path) -> None:
    stage = (STAGES[1],)
    _trainer(tmp_path / "run", labelled, stage).train()
    with pytest.raises(RunError, match="run already holds a run: resume it, or name another folder"):
        _trainer(tmp_path / "run", labelled, stage)


def test_a_damaged_checkpoint_is_named(tmp_path: Path, labelled: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.pt").write_bytes(b"not one")
    with pytest.raises(RunError, match=r"checkpoint\.pt in run is not a checkpoint"):
        _trainer(tmp_path / "run", labelled, resume=True).train()
