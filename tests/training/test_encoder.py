"""Steps one and two at toy size: the network, its export, distillation and pruning, each resumable."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from mien_encoder.count import count  # noqa: E402
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder  # noqa: E402
from mien_generator.face.fomm.first_order import coordinate_grid  # noqa: E402
from mien_training.distil import DistilConfig, EncoderData, distil, heat_loss  # noqa: E402
from mien_training.encoder_network import WIDE, Block, EncoderConfig, EncoderNetwork, write_encoder  # noqa: E402
from mien_training.prune import PruneConfig, Trade, best, prune  # noqa: E402
from mien_training.run import Run, RunError  # noqa: E402

CPU = torch.device("cpu")
SMALL = EncoderConfig(
    stem=4,
    to_16=(Block(4, 6, 2), Block(12, 8, 2), Block(16, 8, 2)),
    to_8=(Block(16, 8, 2),),
    tail=(Block(16, 12, 2), Block(12, 12), Block(12, 12)),
    head=8,
)
TOY = DistilConfig(
    validation=("held",), steps=4, pairs=2, nothing=1, size=64, stored=72, report=2, save=2, average_decay=0.5
)


def test_the_wide_network_fits_the_paper_s_budget_after_four_cuts(tmp_path: Path) -> None:
    network = EncoderNetwork(WIDE).eval()
    for _ in range(4):
        network = network.cut()
    write_encoder(network.eval(), tmp_path / "encoder.onnx")
    costs = count(tmp_path / "encoder.onnx")
    assert costs.macs <= 14_620_000
    assert costs.parameters <= 160_000
    assert costs.size_bytes <= 700_000


def test_the_exported_encoder_gives_the_network_s_results(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EncoderNetwork(SMALL).train()
    network(torch.rand(8, 3, CROP_SIZE, CROP_SIZE) * 2 - 1)  # so that the normalisations are not the identity
    network.eval()
    write_encoder(network, tmp_path / "encoder.onnx")
    crops = np.random.default_rng(1).integers(0, 255, (3, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    found = KeypointEncoder(tmp_path / "encoder.onnx").encode_all(list(crops))
    with torch.no_grad():
        expected = network(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1)
    for index, face in enumerate(found):
        assert np.allclose(face.keypoints.points, expected.keypoints.points[index].numpy(), atol=2e-5)
        assert np.allclose(face.keypoints.jacobians, expected.keypoints.jacobians[index].numpy(), atol=2e-5)
        assert face.presence == pytest.approx(float(torch.sigmoid(expected.presence[index])), abs=2e-5)


def test_a_cut_keeps_every_other_weight() -> None:
    network = EncoderNetwork(SMALL)
    smaller = network.cut()
    assert len(smaller.config.tail) == 2
    kept = smaller.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items() if name in kept)
    with pytest.raises(ValueError, match="the tail has no block left to cut"):
        smaller.cut().cut()


def test_a_configuration_survives_a_checkpoint() -> None:
    assert EncoderConfig.from_json(WIDE.as_json()) == WIDE


def test_heat_is_least_where_the_keypoint_is() -> None:
    points = torch.tensor([[[0.3, -0.2]]])
    grid = coordinate_grid(16, 16, CPU, pixel_centres=True)

    def heat_at(x: float, y: float) -> Any:
        squared = (grid - torch.tensor([x, y])).square().sum(dim=-1)
        return (-40 * squared).flatten().log_softmax(dim=0).view(1, 1, 16, 16)

    right, beside = heat_loss(heat_at(0.3, -0.2), points), heat_loss(heat_at(0.5, -0.2), points)
    assert float(right) < float(beside)
    assert float(heat_loss(heat_at(0.3, -0.2), torch.tensor([[[1.5, 0.0]]]))) == 0, (
        "a keypoint outside the crop has no cell"
    )


def test_distillation_learns_leaves_curves_and_goes_on(labelled: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", resume=False)
    config = replace(TOY, steps=40, report=10, save=10, pairs=6, learning_rate=1e-2, final_rate=0.5)
    network = distil(config, labelled, run, device=CPU, network=SMALL)
    rows = list(csv.DictReader((tmp_path / "run/curves-distil.csv").open()))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert float(rows[-1]["points"]) < 0.9 * float(rows[0]["points"])
    assert list((tmp_path / "run").glob("sheet-distil-*.png"))
    errors = EncoderData(labelled, config, CPU).errors(network)
    assert set(errors) == {"held", "all"}
    with pytest.raises(RunError, match="run already holds a run: resume it, or name another folder"):
        Run(tmp_path / "run", resume=False)
    distil(replace(config, steps=44), labelled, Run(tmp_path / "run", resume=True), device=CPU)
    rows = list(csv.DictReader((tmp_path / "run/curves-distil.csv").open()))
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40, 44]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(labelled: Path, tmp_path: Path) -> None:
    whole = distil(TOY, labelled, Run(tmp_path / "whole", resume=False), device=CPU, network=SMALL)
    distil_until(2, labelled, tmp_path / "broken")
    resumed = distil(TOY, labelled, Run(tmp_path / "broken", resume=True), device=CPU)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def distil_until(step: int, data: Path, folder: Path) -> None:
    """Simulates a crash after `step` in a run with the full schedule."""

    class Broken(RuntimeError):
        pass

    class BreakingRun(Run):
        def save(self, state: object) -> None:
            super().save(state)  # type: ignore[arg-type]
            raise Broken

    with pytest.raises(Broken):
        distil(replace(TOY, save=step), data, BreakingRun(folder, resume=False), device=CPU, network=SMALL)


def test_pruning_cuts_to_the_end_keeps_the_best_and_writes_an_encoder(labelled: Path, tmp_path: Path) -> None:
    distil(TOY, labelled, Run(tmp_path / "distil", resume=False), device=CPU, network=SMALL)
    config = PruneConfig(replace(TOY), steps_a_cut=2, final_steps=2)
    run = Run(tmp_path / "prune", resume=False)
    network = prune(config, labelled, run, tmp_path / "distil", device=CPU)
    rows = list(csv.DictReader((tmp_path / "prune/prune.csv").open()))
    assert [int(row["tail"]) for row in rows] == [3, 2, 1]
    assert int(rows[0]["macs"]) > int(rows[1]["macs"]) > int(rows[2]["macs"])
    kept = min(rows, key=lambda row: float(row["points"]))
    assert len(network.config.tail) == int(kept["tail"])
    assert KeypointEncoder(tmp_path / "prune/encoder.onnx").sha256 == count(tmp_path / "prune/encoder.onnx").sha256
    again = prune(config, labelled, Run(tmp_path / "prune", resume=True), tmp_path / "distil", device=CPU)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_pruning_needs_a_distillation_and_a_feasible_budget(labelled: Path, tmp_path: Path) -> None:
    config = PruneConfig(TOY, steps_a_cut=1, final_steps=1, macs=1000)
    with pytest.raises(RunError, match=r"nowhere has no checkpoint\.pt of a distillation"):
        prune(config, labelled, Run(tmp_path / "prune", resume=False), tmp_path / "nowhere", device=CPU)
    trade = Trade(1, 2000, 10, 100, 0.1, 0.1, 0.1)
    with pytest.raises(RunError, match="no cut is within 1000 multiply-accumulates and 160000 parameters"):
        best([trade], config)
    assert best([trade, replace(trade, macs=900, points=0.3), replace(trade, macs=800, points=0.2)], config).macs == 800
