"""Step two: cut the last layers one after another, with distillation after each cut (the paper, section 3.2).

The tail's blocks all have the same width, so the remaining network works after a cut and can be trained further. Of the
networks within the budget, the one with the smallest error on faces never trained on is kept and distilled further.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from mien_encoder.count import count
from mien_training.config import at_least
from mien_training.distil import DistilConfig, Distiller, EncoderData
from mien_training.encoder_network import EncoderConfig, EncoderNetwork, write_encoder
from mien_training.run import CHECKPOINT, Run, RunError

TABLE = "prune.csv"
ENCODER = "encoder.onnx"
#: The paper's Table 1.
BUDGET_MACS, BUDGET_PARAMETERS = 14_620_000, 160_000


@dataclass(frozen=True, slots=True)
class PruneConfig:
    """distil: the first step's configuration; its steps and rates are not used.

    steps_a_cut: distillation steps after each cut; final_steps: those of the network that is kept; learning_rate: the
    rate at the start of each of these. macs, parameters: the budget, in multiply-accumulates for one crop and in the
    number of values in the layers.
    """

    distil: DistilConfig
    steps_a_cut: int = 2000
    final_steps: int = 10000
    learning_rate: float = 1e-3
    macs: int = BUDGET_MACS
    parameters: int = BUDGET_PARAMETERS

    def __post_init__(self) -> None:
        at_least(1, steps_a_cut=self.steps_a_cut, final_steps=self.final_steps)


@dataclass(frozen=True, slots=True)
class Trade:
    """One row of the report: the number of blocks in the tail, the network's cost, and its distil.Errors."""

    tail: int
    macs: int
    parameters: int
    size_bytes: int
    points: float
    jacobians: float
    lids: float

    def within(self, config: PruneConfig) -> bool:
        return self.macs <= config.macs and self.parameters <= config.parameters


def prune(
    config: PruneConfig, data: Path, run: Run, distilled: Path, *, device: torch.device, bf16: bool = False
) -> EncoderNetwork:
    """Prune the network of a distillation's checkpoint. Writes encoder.onnx and prune.csv.

    Continues from the run's own checkpoint if there is one. Returns the final network in eval mode. Raises RunError if
    `distilled` has no checkpoint, or if no cut fits the budget.
    """
    torch.manual_seed(config.distil.seed)
    source = EncoderData(data, config.distil, device)
    state = run.checkpoint(device)
    trades = _read(run.folder)
    if state is None:
        whole = _distilled(distilled, device)
        trades = [_measured(whole, source, run.folder)]
        phase, network = "cut", whole.cut()
    else:
        phase = str(state["phase"])
        network = EncoderNetwork(EncoderConfig.from_json(state["network_config"])).to(device)
    while phase == "cut":
        made = _distilled_further(network, source, config, run, phase, config.steps_a_cut, state, bf16=bf16)
        state = None
        trade = _measured(made, source, run.folder)
        trades = [*(each for each in trades if each.tail != trade.tail), trade]
        _write(run.folder, trades)
        torch.save(_saved(made), run.folder / f"tail-{trade.tail}.pt")
        if trade.tail == 1:
            phase, network = "final", _loaded(run.folder / f"tail-{best(trades, config).tail}.pt", device)
        else:
            network = made.cut()
    final = _distilled_further(network, source, config, run, phase, config.final_steps, state, bf16=bf16)
    write_encoder(final, run.folder / ENCODER)
    return final


def best(trades: Sequence[Trade], config: PruneConfig) -> Trade:
    """The trade within the budget with the smallest error. Raises RunError if there is none."""
    fitting = [trade for trade in trades if trade.within(config)]
    if not fitting:
        raise RunError(f"no cut is within {config.macs} multiply-accumulates and {config.parameters} parameters")
    return min(fitting, key=lambda trade: trade.points)


def _distilled_further(
    network: EncoderNetwork,
    source: EncoderData,
    config: PruneConfig,
    run: Run,
    phase: str,
    steps: int,
    state: dict[str, Any] | None,
    *,
    bf16: bool,
) -> EncoderNetwork:
    network = network.to(memory_format=torch.channels_last)
    distil = replace(config.distil, learning_rate=config.learning_rate, final_rate=0.02 if phase == "final" else 0.3)
    distiller = Distiller(network, source, distil, steps=steps, bf16=bf16)
    if state is not None:
        distiller.restore(state)
    distiller.train(run, f"{phase}-{len(network.config.tail)}", extra={"phase": phase})
    return distiller.averaged()


def _measured(network: EncoderNetwork, source: EncoderData, folder: Path) -> Trade:
    """The cost of the deployed network, and its error on faces never trained on."""
    path = folder / f"tail-{len(network.config.tail)}.onnx"
    write_encoder(network.eval(), path)
    costs, errors = count(path), source.errors(network)["all"]
    return Trade(
        len(network.config.tail),
        costs.macs,
        costs.parameters,
        costs.size_bytes,
        errors.points,
        errors.jacobians,
        errors.lids,
    )


def _distilled(folder: Path, device: torch.device) -> EncoderNetwork:
    state = Run(folder, resume=True).checkpoint(device)
    if state is None:
        raise RunError(f"{folder.name} has no {CHECKPOINT} of a distillation")
    network = EncoderNetwork(EncoderConfig.from_json(state["network_config"])).to(device)
    network.load_state_dict(state["average"]["weights"])
    return network


def _saved(network: EncoderNetwork) -> dict[str, Any]:
    return {"network_config": network.config.as_json(), "weights": network.state_dict()}


def _loaded(path: Path, device: torch.device) -> EncoderNetwork:
    state = torch.load(path, map_location=device, weights_only=True)
    network = EncoderNetwork(EncoderConfig.from_json(state["network_config"])).to(device)
    network.load_state_dict(state["weights"])
    return network


def _write(folder: Path, trades: Sequence[Trade]) -> None:
    with (folder / TABLE).open("w", newline="") as file:
        rows = csv.DictWriter(file, [each.name for each in fields(Trade)])
        rows.writeheader()
        rows.writerows(asdict(trade) for trade in trades)


def _read(folder: Path) -> list[Trade]:
    path = folder / TABLE
    if not path.exists():
        return []
    kinds = get_type_hints(Trade)
    with path.open(newline="") as file:
        return [Trade(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]
