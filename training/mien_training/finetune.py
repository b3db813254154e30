"""Step four: encoder and generator together, without supervision (the ultra-lightweight paper, section 3.2).

The encoder finds the keypoints of both pictures of a pair, and the generator makes one picture from the other. The
losses compare only the pictures and require that keypoints move as the picture does (L_eq); there is no teacher. A
small loss (`anchor`) pulls the keypoints to the encoder's earlier output. This keeps them on the parts of the face that
FaceKeypoint names, which `warp` and already prepared avatars rely on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mien_encoder.keypoints import CROP_SIZE
from mien_generator.face.fomm.first_order import KeypointTensors
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator, resized
from mien_training.config import at_least
from mien_training.datasets import PairBatch, PairSampler, attention
from mien_training.deformation import ThinPlateSpline
from mien_training.encoder_network import EncoderNetwork
from mien_training.losses import FeatureLoss, edges, equivariance, pyramid_l1
from mien_training.run import Average, Meter, Progress, Run


@dataclass(frozen=True, slots=True)
class FinetuneLosses:
    """The weight of each loss. painted: of the picture before the source's residual is added, as in step three."""

    pixels: float = 10.0
    painted: float = 8.0
    edges: float = 4.0
    features: float = 0.5
    equivariance_points: float = 10.0
    equivariance_jacobians: float = 1.0
    anchor: float = 2.0


@dataclass(frozen=True, slots=True)
class FinetuneStage:
    """`steps` batches of `batch` pairs at `size` pixels. encoder_rate: the encoder's rate over the generator's."""

    steps: int
    batch: int
    size: int
    learning_rate: float
    encoder_rate: float = 0.2
    losses: FinetuneLosses = field(default_factory=FinetuneLosses)

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch=self.batch)
        at_least(32, size=self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """Both averaged networks, in eval mode."""

    encoder: EncoderNetwork
    generator: OcclusionAwareGenerator


class Finetuner:
    """Trains both networks with fixed normalisation statistics; continues from the run's checkpoint if there is one."""

    def __init__(
        self,
        run: Run,
        stage: FinetuneStage,
        encoder: EncoderNetwork,
        generator: OcclusionAwareGenerator,
        sampler: PairSampler,
        *,
        device: torch.device,
        bf16: bool,
        report: int = 20,
        save: int = 200,
        average_decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        self._run, self._stage, self._sampler, self._device, self._bf16 = run, stage, sampler, device, bf16
        self._report, self._save = report, save
        self.encoder = encoder.to(device).eval().requires_grad_(True)
        self.generator = generator.to(device, memory_format=torch.channels_last).eval().requires_grad_(True)
        self._before = copy.deepcopy(self.encoder).requires_grad_(False)
        self._features = FeatureLoss(copy.deepcopy(self.generator))
        self._averages = (Average(self.encoder, average_decay), Average(self.generator, average_decay))
        self._random = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(
            [
                {"params": self.generator.parameters(), "rate": stage.learning_rate},
                {"params": self.encoder.parameters(), "rate": stage.learning_rate * stage.encoder_rate},
            ],
            betas=(0.5, 0.999),
        )

    def train(self) -> Finetuned:
        """Run the remaining steps; returns the averaged networks."""
        stage, first = self._stage, 0
        state = self._run.checkpoint(self._device)
        if state is not None:
            first = int(state["step"])
            self._restore(state)
        meter, progress = Meter(), Progress("finetune", stage.steps)
        for step in range(first, stage.steps):
            for group in self._optimizer.param_groups:
                group["lr"] = group["rate"] * (0.1 + 0.45 * (1 + math.cos(math.pi * step / stage.steps)))
            losses = self.losses(self._sampler.pairs(stage.batch, stage.size))
            self._optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_([*self.generator.parameters(), *self.encoder.parameters()], 1.0)
            self._optimizer.step()
            for average, network in zip(self._averages, (self.encoder, self.generator), strict=True):
                average.update(network)
            meter.add(losses)
            done = step + 1
            if done % self._report == 0 or done == stage.steps:
                values = meter.take()
                self._run.report("finetune", done, values)
                progress.at(done, values)
            if done % self._save == 0 or done == stage.steps:
                self._run.save(self._state(done))
                self._sheet(f"finetune-{done:06d}")
        return self.averaged()

    def losses(self, pairs: PairBatch) -> dict[str, torch.Tensor]:
        """Each loss with its weight. The labels of the pairs are not used."""
        amount, count = self._stage.losses, len(pairs.source)
        both = torch.cat([pairs.source, pairs.driving])
        spline = ThinPlateSpline.random(count, generator=self._random, device=self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            found = self._found(torch.cat([both, spline.deformed(pairs.driving)]))
            at_rest, driving, deformed = _split(found, count)
            picture = pairs.source.contiguous(memory_format=torch.channels_last)
            face = self.generator(self.generator.prepare(picture, at_rest), driving)
        made = face.prediction.float()
        weight = attention(KeypointTensors(driving.points.detach(), driving.jacobians.detach()), made.shape[2])
        with torch.no_grad():
            before = self._keypoints_of(self._before, both)
        points, jacobians = equivariance(
            driving, deformed, spline.at(deformed.points), spline.slope_at(deformed.points)
        )
        moved_off = (torch.cat([at_rest.points, driving.points]) - before.points).abs().mean()
        bent_off = (torch.cat([at_rest.jacobians, driving.jacobians]) - before.jacobians).abs().mean()
        losses = {
            "pixels": amount.pixels * pyramid_l1(made, pairs.driving, weight),
            "painted": amount.painted * pyramid_l1(face.painted, pairs.driving, weight),
            "edges": amount.edges * edges(made, pairs.driving, weight),
            "eq_points": amount.equivariance_points * points,
            "eq_jacobians": amount.equivariance_jacobians * jacobians,
            "anchor": amount.anchor * (moved_off + 0.2 * bent_off),
        }
        if amount.features:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                losses["features"] = amount.features * self._features(made, pairs.driving)
        return losses

    def averaged(self) -> Finetuned:
        """Copies of both networks with their averaged weights."""
        encoder, generator = copy.deepcopy(self.encoder), copy.deepcopy(self.generator)
        for network, average in zip((encoder, generator), self._averages, strict=True):
            network.load_state_dict(average.weights)
            network.eval().requires_grad_(False)
        return Finetuned(encoder, generator)

    def _found(self, pictures: torch.Tensor) -> KeypointTensors:
        return self._keypoints_of(self.encoder, pictures)

    def _keypoints_of(self, encoder: EncoderNetwork, pictures: torch.Tensor) -> KeypointTensors:
        found = encoder(resized(pictures, CROP_SIZE, CROP_SIZE) * 2 - 1).keypoints
        return KeypointTensors(found.points.float(), found.jacobians.float())

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "encoder": self.encoder.state_dict(),
            "encoder_config": self.encoder.config.as_json(),
            "generator": self.generator.state_dict(),
            "before": self._before.state_dict(),
            "averages": [average.state() for average in self._averages],
            "optimizer": self._optimizer.state_dict(),
            "random": self._sampler.state(),
            "spline_random": self._random.get_state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.generator.load_state_dict(state["generator"])
        self._before.load_state_dict(state["before"])
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.restore(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._sampler.restore(state["random"].cpu())
        self._random.set_state(state["spline_random"].cpu())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _sheet(self, name: str) -> None:
        """Write a sheet with source, driving, and the face that the averaged networks make from them."""
        pairs, both = self._sampler.pairs(4, self._stage.size), self.averaged()
        at_rest, driving = (self._keypoints_of(both.encoder, each) for each in (pairs.source, pairs.driving))
        made = both.generator(both.generator.prepare(pairs.source, at_rest), driving).prediction
        self._run.sheet(name, torch.stack([pairs.source, pairs.driving, made], dim=1))


def _split(found: KeypointTensors, count: int) -> Sequence[KeypointTensors]:
    return [
        KeypointTensors(points, jacobians)
        for points, jacobians in zip(found.points.split(count), found.jacobians.split(count), strict=True)
    ]
