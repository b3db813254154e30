"""Step one: the encoder learns the teacher's keypoints (the ultra-lightweight paper, section 3.2, eq. 1).

L = L_dis + L_eq. L_dis is the distance to the teacher's keypoints and Jacobians. L_eq is equivariance: two views of a
face under random thin-plate splines must have the same keypoints after both are mapped back. The teacher's keypoints of
a stored crop pass through a view's map exactly, so the teacher runs only once, before training (`python -m
mien_landmarks label`). Two losses are added to the paper's: one pulls each heatmap to its keypoint, and one is for the
presence of a face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mien_encoder.keypoints import CROP_SIZE
from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid, inverse_2x2
from mien_shared.keypoints import EYES
from mien_training.config import at_least
from mien_training.deformation import ThinPlateSpline
from mien_training.encoder_network import WIDE, EncoderConfig, EncoderNetwork
from mien_training.labelled import LabelledSet, Split, open_sets
from mien_training.run import Average, Meter, Progress, Run
from mien_training.views import ViewAmount, ViewBatch, ViewSampler

#: Standard deviation of a keypoint's target heatmap, in cells.
_HEAT_SPREAD = 0.8
_EYES = list(EYES)


@dataclass(frozen=True, slots=True)
class DistilLosses:
    """The weight of each loss. eyes: the factor for the entry of an eye's Jacobian that shows a blink (its height)."""

    points: float = 10.0
    jacobians: float = 2.0
    eyes: float = 2.0
    equivariance_points: float = 2.0
    equivariance_jacobians: float = 0.2
    heat: float = 0.05
    presence: float = 0.3


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """One run.

    validation: identities that are never trained on; left_out: sets that are not used at all; weights: how often each
    kind of set is drawn. A step takes two views of each of `pairs` faces and `nothing` pictures without a face, at
    `size` pixels, from frames stored at `stored` pixels. learning_rate falls along a cosine to final_rate times its
    value.
    """

    validation: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=lambda: {"clip": 0.36, "still": 0.26, "ict": 0.28, "drawn": 0.1})
    steps: int = 20000
    pairs: int = 24
    nothing: int = 8
    size: int = CROP_SIZE
    stored: int = 288
    learning_rate: float = 3e-3
    final_rate: float = 0.1
    weight_decay: float = 1e-4
    average_decay: float = 0.998
    report: int = 50
    save: int = 200
    seed: int = 0
    losses: DistilLosses = field(default_factory=DistilLosses)
    views: ViewAmount = field(default_factory=ViewAmount)

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, pairs=self.pairs, report=self.report, save=self.save)
        at_least(64, size=self.size, stored=self.stored)


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean errors against the teacher on validation faces, in crop units (the crop spans 2) and Jacobian entries."""

    points: float
    jacobians: float
    lids: float


class EncoderData:
    """The training data and the validation data, both on the device."""

    def __init__(self, folder: Path, config: DistilConfig, device: torch.device) -> None:
        training, validation = open_sets(folder, Split(config.validation, config.left_out))
        training = [labelled for labelled in training if config.weights.get(labelled.kind, 0.0) > 0]
        self.sampler = ViewSampler(
            training,
            config.weights,
            config.views,
            device=device,
            seed=config.seed,
            size=config.size,
            stored=config.stored,
        )
        self._validation = [_Held.of(labelled, config.size, device) for labelled in validation]

    def errors(self, network: EncoderNetwork) -> dict[str, Errors]:
        """Errors by validation identity, and as `all` their mean. Empty if there is no validation set."""
        by_identity: dict[str, list[tuple[float, float, float]]] = {}
        for held in self._validation:
            by_identity.setdefault(held.identity, []).append(held.errors(network))
        means = {name: np.mean(rows, axis=0).tolist() for name, rows in by_identity.items()}
        if means:
            means["all"] = np.mean(list(means.values()), axis=0).tolist()
        return {name: Errors(*row) for name, row in means.items()}

    def shown(self) -> torch.Tensor | None:
        """A picture of each of the first 8 validation sets, (N, 3, S, S); None if there is no validation set."""
        if not self._validation:
            return None
        return torch.stack([held.pictures[len(held.pictures) // 2] for held in self._validation[:8]])


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A validation set, at most 24 frames of it."""

    identity: str
    pictures: torch.Tensor
    keypoints: KeypointTensors

    @classmethod
    def of(cls, labelled: LabelledSet, size: int, device: torch.device) -> _Held:
        chosen = np.unique(np.linspace(0, len(labelled.frames) - 1, 24).astype(int))
        frames = [cv2.resize(labelled.frames[index], (size, size), interpolation=cv2.INTER_AREA) for index in chosen]
        pictures = torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float() / 255
        rows = torch.from_numpy(labelled.keypoints[chosen]).to(device)
        return cls(labelled.identity, pictures, KeypointTensors(rows[..., :2], rows[..., 2:].unflatten(-1, (2, 2))))

    def errors(self, network: EncoderNetwork) -> tuple[float, float, float]:
        with torch.no_grad():
            found = network(self.pictures * 2 - 1).keypoints
        points = (found.points - self.keypoints.points).norm(dim=-1).mean()
        jacobians = (found.jacobians - self.keypoints.jacobians).abs()
        return float(points), float(jacobians.mean()), float(jacobians[:, _EYES, 1, 1].mean())


class Distiller:
    """Trains a network on views, for both `distil` and `prune`."""

    def __init__(
        self, network: EncoderNetwork, data: EncoderData, config: DistilConfig, *, steps: int, bf16: bool
    ) -> None:
        self.network = network
        self.average = Average(network, config.average_decay)
        self.step = 0
        self.steps = steps
        self._data, self._config, self._bf16 = data, config, bf16
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def train(self, run: Run, stage: str, *, extra: dict[str, Any] | None = None) -> None:
        """Run the remaining steps; report to the run and save the state there, with `extra`."""
        config = self._config
        meter, progress = Meter(), Progress(stage, self.steps)
        self.network.train()
        while self.step < self.steps:
            for group in self._optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(self.step, self.steps, config.final_rate)
            batch = self._data.sampler.draw(config.pairs, config.nothing)
            losses = self.losses(batch)
            self._optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
            self._optimizer.step()
            self.average.update(self.network)
            meter.add(losses)
            self.step += 1
            if self.step % config.report == 0 or self.step == self.steps:
                values = meter.take()
                held = self._data.errors(self.averaged()).get("all")
                if held is not None:
                    values |= {"held_points": held.points, "held_jacobians": held.jacobians, "held_lids": held.lids}
                run.report(stage, self.step, values)
                progress.at(self.step, values)
            if self.step % config.save == 0 or self.step == self.steps:
                run.save({**self.state(), **(extra or {})})
                self.sheet(run, f"{stage}-{self.step:06d}", batch)

    def losses(self, batch: ViewBatch) -> dict[str, torch.Tensor]:
        """The losses of eq. 1 and the two added ones, each with its weight."""
        amount, device = self._config.losses, batch.pictures.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            everything = torch.cat([batch.pictures, batch.nothing]) * 2 - 1
            encoded = self.network(everything.contiguous(memory_format=torch.channels_last))
        found, faces = encoded.keypoints, len(batch.pictures)
        points, jacobians = found.points[:faces].float(), found.jacobians[:faces].float()
        weight = torch.ones(jacobians.shape[1:], device=device)
        weight[_EYES, 1, 1] = amount.eyes
        there = torch.arange(len(everything), device=device) < faces
        back_points, back_jacobians = taken_back(KeypointTensors(points, jacobians), batch.maps)
        (p1, p2), (j1, j2) = back_points.chunk(2), back_jacobians.chunk(2)
        change = torch.eye(2, device=device) - inverse_2x2(j1) @ j2
        return {
            "points": amount.points * _distance(points - batch.keypoints.points),
            "jacobians": amount.jacobians * (weight * (jacobians - batch.keypoints.jacobians).abs()).mean(),
            "eq_points": amount.equivariance_points * _distance(p1 - p2),
            # Limits the influence of Jacobians that are almost singular at the start of training.
            "eq_jacobians": amount.equivariance_jacobians * change.abs().clamp_max(1.0).mean(),
            "heat": amount.heat * heat_loss(encoded.heat[:faces], batch.keypoints.points),
            "presence": amount.presence
            * functional.binary_cross_entropy_with_logits(encoded.presence.float(), there.float()),
        }

    def averaged(self) -> EncoderNetwork:
        """The averaged network, in eval mode."""
        network = EncoderNetwork(self.network.config).to(next(self.network.parameters()).device)
        network.load_state_dict(self.average.weights)
        return network.eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "network_config": self.network.config.as_json(),
            "network": self.network.state_dict(),
            "average": self.average.state(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._data.sampler.state(),
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same network."""
        self.network.load_state_dict(state["network"])
        self.average.restore(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._data.sampler.restore(state["random"])
        self.step = int(state["step"])

    def sheet(self, run: Run, name: str, batch: ViewBatch) -> None:
        """Write a sheet: views with the teacher's keypoints, with the network's, and faces never trained on."""
        network = self.averaged()
        pictures = batch.pictures[:8]
        teacher = KeypointTensors(batch.keypoints.points[:8], batch.keypoints.jacobians[:8])
        rows = [drawn(pictures, teacher), drawn(pictures, network(pictures * 2 - 1).keypoints)]
        held = self._data.shown()
        if held is not None and len(held) >= len(pictures):
            held = held[: len(pictures)]
            rows.append(drawn(held, network(held * 2 - 1).keypoints))
        run.sheet(name, torch.stack(rows))


def distil(
    config: DistilConfig,
    data: Path,
    run: Run,
    *,
    device: torch.device,
    bf16: bool = False,
    network: EncoderConfig = WIDE,
) -> EncoderNetwork:
    """Run the whole step, from the run's checkpoint if there is one. Returns the averaged network in eval mode."""
    torch.manual_seed(config.seed)
    state = run.checkpoint(device)
    if state is not None:
        network = EncoderConfig.from_json(state["network_config"])
    distiller = Distiller(
        EncoderNetwork(network).to(device, memory_format=torch.channels_last),
        EncoderData(data, config, device),
        config,
        steps=config.steps,
        bf16=bf16,
    )
    if state is not None:
        distiller.restore(state)
    distiller.train(run, "distil")
    return distiller.averaged()


def taken_back(found: KeypointTensors, maps: ThinPlateSpline) -> tuple[torch.Tensor, torch.Tensor]:
    """Map the keypoints of views back to the stored crops: (B, K, 2) points and (B, K, 2, 2) Jacobians."""
    return maps.at(found.points), maps.slope_at(found.points) @ found.jacobians


def heat_loss(heat: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of heatmaps, (B, K, H, W) log-probabilities, with Gaussians at the points (B, K, 2).

    Keypoints outside the crop are left out, because they have no cell.
    """
    height, width = heat.shape[2:]
    grid = coordinate_grid(height, width, heat.device, pixel_centres=True).flatten(0, 1)
    squared = (points[:, :, None] - grid).square().sum(dim=-1) * (width / 2) ** 2
    wanted = (-squared / (2 * _HEAT_SPREAD**2)).softmax(dim=-1)
    inside = (points.abs().amax(dim=-1) < 1).float()
    entropy = -(wanted * heat.flatten(2)).sum(dim=-1)
    return (entropy * inside).sum() / inside.sum().clamp_min(1.0)


def drawn(pictures: torch.Tensor, keypoints: KeypointTensors) -> torch.Tensor:
    """(B, 3, S, S) pictures with each keypoint's axes drawn: its x axis in red, its y axis in green."""
    scale = pictures.shape[2] / 2
    made = []
    for picture, points, jacobians in zip(
        pictures.permute(0, 2, 3, 1).cpu().numpy(),
        keypoints.points.float().cpu().numpy(),
        keypoints.jacobians.float().cpu().numpy(),
        strict=True,
    ):
        canvas = np.ascontiguousarray(picture)
        for point, jacobian in zip((points + 1) * scale, jacobians, strict=True):
            for axis, colour in ((0, (1.0, 0.1, 0.1)), (1, (0.1, 1.0, 0.1))):
                end = point + jacobian[:, axis] * 0.1 * scale
                cv2.line(canvas, _pixel(point), _pixel(end), colour, 1, cv2.LINE_AA)
        made.append(torch.from_numpy(canvas).permute(2, 0, 1))
    return torch.stack(made)


def _pixel(point: Sequence[float]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def _cross_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits.float(), truth.float())


def _distance(difference: torch.Tensor) -> torch.Tensor:
    """Mean length of (..., 2) vectors; smooth at 0."""
    return (difference.square().sum(dim=-1) + 1e-8).sqrt().mean()


def _schedule(step: int, steps: int, final: float) -> float:
    """Learning rate factor: rises to 1 over a tenth of the steps, at most 500, then falls to `final` (cosine)."""
    warm = max(1, min(500, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
