"""Step three: the half-width generator, with the teacher's keypoints (the ultra-lightweight paper, section 3.2).

There are three kinds of stages, in the order given by the configuration:

- `appearance`: encoder, bottleneck and decoder reproduce patches under small known motions, so that features moved by a
  fraction of a pixel are decoded as a picture moved by that fraction;
- `motion`: dense motion and occlusion alone, judged by the moved source picture and by the known motion;
- `joint`: everything, on pairs, with the losses of losses.py.

The first two cost a tenth of the third and leave it little to learn. In `joint` the normalisations keep their
statistics: batches are small, and the network is trained exactly as it will run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from mien_generator.face.fomm.config import HALF_WIDTH, FommConfig
from mien_generator.face.fomm.dense_motion import DenseMotion
from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid, sample
from mien_generator.face.fomm.occlusion_generator import GeneratedFace, OcclusionAwareGenerator, enlarged, resized
from mien_training.config import TrainingConfigError, at_least
from mien_training.datasets import PairBatch, PairSampler
from mien_training.losses import (
    Discriminator,
    FeatureLoss,
    adversarial,
    discriminator_loss,
    edges,
    feature_matching,
    known_motion,
    pyramid_l1,
)
from mien_training.run import Average, Meter, Progress, Run

#: The paper's generator with coordinates on pixel centres and with the source's residual (docs/decisions/0010).
MIEN_HALF = replace(HALF_WIDTH, pixel_centres=True, source_residual=True)


@dataclass(frozen=True, slots=True)
class Losses:
    """The weight of each loss of a joint stage. With 0 a loss is not computed.

    painted: of the picture before the source's residual is added, which would otherwise hide its errors.
    known: of the deformation, where the motion is known. unexplained: the additional weight of pixels that no motion
    explains, such as the inside of an opened mouth: they are few, and only the network can paint them.
    """

    pixels: float = 10.0
    edges: float = 4.0
    features: float = 0.5
    moved: float = 2.0
    painted: float = 8.0
    occlusion: float = 0.3
    known: float = 20.0
    unexplained: float = 6.0
    adversarial: float = 0.0
    feature_matching: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `steps` batches of `batch` at `size` pixels; the learning rate falls to a tenth along a cosine.

    window: side in pixels of the part of the picture that a joint stage decodes, mostly near eyes and mouth; 0 decodes
    the whole picture. The source's residual needs whole pictures, so a window is judged without it.
    """

    kind: Literal["appearance", "motion", "joint"]
    steps: int
    batch: int
    size: int
    learning_rate: float
    losses: Losses = field(default_factory=Losses)
    window: int = 0

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, batch=self.batch)
        at_least(32, size=self.size)
        if self.window % 4 or not 0 <= self.window <= self.size or (self.window and self.kind != "joint"):
            raise TrainingConfigError(
                f"window must be 0, or in a joint stage a multiple of 4 up to its size, not {self.window}"
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a run reports, saves and writes a sample sheet, in steps."""

    report: int = 20
    save: int = 200
    sheet: int = 200


class GeneratorTrainer:
    """Trains all stages; continues from the run's checkpoint if there is one."""

    def __init__(
        self,
        run: Run,
        stages: Sequence[Stage],
        sampler: PairSampler,
        validation: PairSampler | None,
        *,
        device: torch.device,
        bf16: bool,
        config: FommConfig = MIEN_HALF,
        schedule: Schedule = Schedule(),
        average_decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.run, self._stages, self.sampler = run, stages, sampler
        self._device, self._bf16, self._schedule = device, bf16, schedule
        self.config = config
        self.network = initialised(OcclusionAwareGenerator(config)).to(device, memory_format=torch.channels_last)
        self.average = Average(self.network, average_decay)
        self._discriminator: Discriminator | None = None
        self._features: FeatureLoss | None = None
        self._shown = validation.pairs(4, stages[-1].size) if validation else None

    def train(self) -> OcclusionAwareGenerator:
        """Run the remaining stages; returns the averaged network in eval mode."""
        state = self.run.checkpoint(self._device)
        first_stage, first_step = 0, 0
        if state is not None:
            first_stage, first_step = int(state["stage"]), int(state["step"])
            self.network.load_state_dict(state["network"])
            self.average.restore(state["average"])
            self.sampler.restore(state["random"].cpu())
        for number in range(first_stage, len(self._stages)):
            self._stage(number, first_step if number == first_stage else 0, state if number == first_stage else None)
            self.run.save(self._state(number + 1, 0, {}))
        network = OcclusionAwareGenerator(self.config).to(self._device)
        network.load_state_dict(self.average.weights)
        network.eval().requires_grad_(False)
        return network

    def _stage(self, number: int, first_step: int, state: dict[str, Any] | None) -> None:
        stage = self._stages[number]
        parameters = list(_trained(self.network, stage.kind))
        optimizer = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=(0.5, 0.999))
        critic_optimizer = None
        if stage.kind != "appearance" and first_step == 0 and number > 0:
            revive(self.network, self.sampler.pairs(16, stage.size))
        if stage.kind == "joint":
            self._features = self._feature_loss(state)
            if stage.losses.adversarial:
                self._discriminator = Discriminator().to(self._device)
                critic_optimizer = torch.optim.Adam(
                    self._discriminator.parameters(), lr=stage.learning_rate, betas=(0.5, 0.999)
                )
        if state is not None and state["optimizer"]:
            optimizer.load_state_dict(state["optimizer"])
        if state is not None and critic_optimizer is not None and state.get("critic") and self._discriminator:
            self._discriminator.load_state_dict(state["critic"])
            critic_optimizer.load_state_dict(state["critic_optimizer"])
        meter, progress = Meter(), Progress(f"{number + 1}/{len(self._stages)} {stage.kind} {stage.size}", stage.steps)
        self.set_modes(stage.kind)
        for step in range(first_step, stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
            optimizer.zero_grad(set_to_none=True)
            losses = self._losses(stage)
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            self.average.update(self.network)
            if critic_optimizer is not None:
                losses["critic"] = self._train_critic(critic_optimizer)
            meter.add(losses)
            done = step + 1
            if done % self._schedule.report == 0 or done == stage.steps:
                values = meter.take()
                self.run.report(f"{number + 1}-{stage.kind}", done, values)
                progress.at(done, values)
            if done % self._schedule.sheet == 0 or done == stage.steps:
                self._sheet(f"{number + 1}-{stage.kind}-{done:06d}", stage)
            if done % self._schedule.save == 0:
                self.run.save(self._state(number, done, optimizer.state_dict(), critic_optimizer))

    def _losses(self, stage: Stage) -> dict[str, torch.Tensor]:
        if stage.kind == "appearance":
            return self._appearance(self.sampler.patches(stage.batch, stage.size))
        pairs = self.sampler.pairs(stage.batch, stage.size)
        if stage.kind == "motion":
            return self._motion(pairs, stage.losses.known)
        return self.window_losses(pairs, stage) if stage.window else self.joint_losses(pairs, stage.losses)

    def _appearance(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        count, size = patches.shape[0], patches.shape[2]
        motion = torch.eye(2).expand(count, 2, 2) + 0.12 * (torch.rand(count, 2, 2) * 2 - 1)
        offset = 0.12 * (torch.rand(count, 2) * 2 - 1)
        motion, offset = motion.to(self._device), offset.to(self._device)

        def places(side: int) -> torch.Tensor:
            grid = coordinate_grid(side, side, self._device, pixel_centres=True)
            return (grid.flatten(0, 1) @ motion.mT + offset[:, None]).unflatten(1, (side, side))

        with self._autocast():
            features = self.network.encode(patches.contiguous(memory_format=torch.channels_last))
            made = self.network.decode(sample(features, places(features.shape[2])))
        looked_up = places(size)
        wanted = nn.functional.grid_sample(
            patches, looked_up, mode="bicubic", padding_mode="border", align_corners=False
        ).clamp(0, 1)
        inside = (looked_up.abs().amax(dim=-1, keepdim=True) < 0.85).permute(0, 3, 1, 2).float() + 1e-3
        return {"pixels": 10 * pyramid_l1(made, wanted, inside, levels=2), "edges": 10 * edges(made, wanted, inside)}

    def _motion(self, pairs: PairBatch, known: float) -> dict[str, torch.Tensor]:
        dense = self.network.dense_motion_network
        with self._autocast():
            motion = dense(dense.prepare(pairs.source, pairs.source_keypoints), pairs.driving_keypoints)
        size = pairs.source.shape[2] // 2
        moved = _moved(pairs.source, motion.deformation, size)
        wanted, weight = nn.functional.avg_pool2d(pairs.driving, 2), nn.functional.avg_pool2d(pairs.attention, 2)
        return {
            "moved": 10 * pyramid_l1(moved, wanted, weight, levels=3),
            "edges": 2 * edges(moved, wanted, weight),
            "occlusion": _occlusion(motion.occlusion_map, moved, wanted, weight),
            "known": known * known_motion(motion.deformation, pairs.known, pairs.attention),
        }

    def window_losses(self, pairs: PairBatch, stage: Stage) -> dict[str, torch.Tensor]:
        """A joint step that decodes only part of the picture, for a third of the work."""
        amount, side = stage.losses, stage.window // 4
        source = pairs.source.contiguous(memory_format=torch.channels_last)
        dense = self.network.dense_motion_network
        top, left = self.sampler.window(stage.size // 4, side)
        rows, columns = slice(top, top + side), slice(left, left + side)
        pixels = (..., slice(4 * top, 4 * (top + side)), slice(4 * left, 4 * (left + side)))
        with self._autocast():
            features = self.network.encode(source)
            motion = dense(dense.prepare(source, pairs.source_keypoints), pairs.driving_keypoints)
            moved = sample(features, motion.deformation[:, rows, columns])
            painted = self.network.decode(moved * motion.occlusion_map[..., rows, columns])
        losses, attention = self.motion_losses(pairs, motion, amount)
        wanted, attention = pairs.driving[pixels], attention[pixels]
        both = amount.pixels + amount.painted
        losses["pixels"] = both * pyramid_l1(painted, wanted, attention)
        losses["edges"] = amount.edges * edges(painted, wanted, attention)
        if amount.features and self._features is not None:
            with self._autocast():
                losses["features"] = amount.features * self._features(painted, wanted)
        return losses

    def joint_losses(self, pairs: PairBatch, amount: Losses) -> dict[str, torch.Tensor]:
        """The losses of a joint step on whole pictures, by name."""
        with self._autocast():
            made_face = self.made(pairs.source, pairs.source_keypoints, pairs.driving_keypoints)
        made, wanted = made_face.prediction.float(), pairs.driving
        losses, attention = self.motion_losses(pairs, made_face.motion, amount)
        losses["pixels"] = amount.pixels * pyramid_l1(made, wanted, attention)
        losses["edges"] = amount.edges * edges(made, wanted, attention)
        if amount.features and self._features is not None:
            with self._autocast():
                losses["features"] = amount.features * self._features(made, wanted)
        if amount.painted:
            losses["painted"] = amount.painted * pyramid_l1(made_face.painted, wanted, attention)
        if amount.adversarial and self._discriminator is not None:
            self._discriminator.requires_grad_(False)
            with self._autocast():
                of_made, of_wanted = self._discriminator(made), self._discriminator(wanted)
            losses["adversarial"] = amount.adversarial * adversarial(of_made)
            if amount.feature_matching:
                losses["matching"] = amount.feature_matching * feature_matching(of_wanted, of_made)
            self._last = (made.detach(), wanted)
        return losses

    def motion_losses(
        self, pairs: PairBatch, motion: DenseMotion, amount: Losses
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The losses of a joint step's motion, and the attention for the losses of its picture."""
        moved = _moved(pairs.source, motion.deformation, pairs.source.shape[2] // 2)
        small = nn.functional.avg_pool2d(pairs.driving, 2)
        weight = nn.functional.avg_pool2d(pairs.attention, 2)
        losses = {
            "moved": amount.moved * pyramid_l1(moved, small, weight, levels=2),
            "occlusion": amount.occlusion * _occlusion(motion.occlusion_map, moved, small, weight),
        }
        if amount.known:
            losses["known"] = amount.known * known_motion(motion.deformation, pairs.known, pairs.attention)
        unexplained = 1 - resized(_explained(moved, small), *pairs.driving.shape[2:])
        return losses, pairs.attention * (1 + amount.unexplained * unexplained)

    def _train_critic(self, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        assert self._discriminator is not None
        made, wanted = self._last
        self._discriminator.requires_grad_(True)
        optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = discriminator_loss(self._discriminator(wanted), self._discriminator(made))
        loss.backward()
        optimizer.step()
        return loss

    def made(self, source: torch.Tensor, at_rest: KeypointTensors, driving: KeypointTensors) -> GeneratedFace:
        """What the network makes of source pictures, (B, 3, H, W) in [0, 1], with these driving keypoints."""
        picture = source.contiguous(memory_format=torch.channels_last)
        made: GeneratedFace = self.network(self.network.prepare(picture, at_rest), driving)
        return made

    def _feature_loss(self, state: dict[str, Any] | None) -> FeatureLoss:
        """A frozen copy of the encoder from the start of the first joint stage."""
        if self._features is not None:
            return self._features
        frozen = OcclusionAwareGenerator(self.config)
        frozen.load_state_dict(state["features"] if state and state.get("features") else self.network.state_dict())
        self._frozen = {name: value.clone() for name, value in frozen.state_dict().items()}
        return FeatureLoss(frozen).to(self._device, memory_format=torch.channels_last)

    def set_modes(self, kind: str) -> None:
        """Set those parts of the network to training that a stage of this kind trains."""
        self.network.eval()
        if kind == "appearance":
            for part in (self.network.first, self.network.down_blocks, self.network.bottleneck, self.network.up_blocks):
                part.train()
        elif kind == "motion":
            self.network.dense_motion_network.train()

    def _state(
        self, stage: int, step: int, optimizer: dict[str, Any], critic: torch.optim.Optimizer | None = None
    ) -> dict[str, Any]:
        return {
            "stage": stage,
            "step": step,
            "network": self.network.state_dict(),
            "average": self.average.state(),
            "optimizer": optimizer,
            "random": self.sampler.state(),
            "features": getattr(self, "_frozen", None),
            "critic": self._discriminator.state_dict() if self._discriminator and critic else None,
            "critic_optimizer": critic.state_dict() if critic else None,
        }

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _sheet(self, name: str, stage: Stage) -> None:
        """Validation faces in columns: source, driving, moved source, occlusion map, and the network's face."""
        if self._shown is None:
            return
        pairs = self._shown
        network = OcclusionAwareGenerator(self.config).to(self._device).eval()
        network.load_state_dict(self.network.state_dict() if stage.kind != "joint" else self.average.weights)
        face = network(network.prepare(pairs.source, pairs.source_keypoints), pairs.driving_keypoints)
        size = pairs.source.shape[2]
        moved = _moved(pairs.source, face.motion.deformation, size)
        visible = resized(face.motion.occlusion_map, size, size).expand(-1, 3, -1, -1)
        self.run.sheet(name, torch.stack([pairs.source, pairs.driving, moved, visible, face.prediction], dim=1))

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)


def initialised(network: OcclusionAwareGenerator) -> OcclusionAwareGenerator:
    """Initial weights: the residual blocks are identities, and the occlusion map says that everything is visible."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in network.bottleneck:
        nn.init.zeros_(block.conv2.weight)
    dense = network.dense_motion_network
    nn.init.normal_(dense.mask.weight, std=1e-3)
    nn.init.normal_(dense.occlusion.weight, std=1e-3)
    nn.init.constant_(dense.occlusion.bias, 2.0)
    return network


@torch.no_grad()  # type: ignore[untyped-decorator]
def revive(network: OcclusionAwareGenerator, pairs: PairBatch, least: float = 0.01) -> list[int]:
    """Reset the masks of dead keypoints, which no pixel follows. Returns their indices.

    While motion is learnt, a neighbour's mask may win a keypoint's place for good, for example a brow's mask the place
    of an eye. The softmax then passes no gradient to the losing mask. Such a keypoint gets a copy of the winner's mask
    weights with some noise, and both share the place until they differ.
    least: a keypoint is dead if its mask's greatest value over all pixels of all pairs is below this.
    """
    dense = network.dense_motion_network
    was_training = dense.training
    mask = dense.eval()(
        dense.prepare(pairs.source, pairs.source_keypoints), pairs.driving_keypoints
    ).mask  # (B, 1+K, h, w)
    dense.train(was_training)
    dead = [keypoint for keypoint in range(mask.shape[1] - 1) if mask[:, keypoint + 1].amax() < least]
    height, width = mask.shape[2:]
    for keypoint in dead:
        column, row = (
            (pairs.driving_keypoints.points[:, keypoint] + 1) / 2 * mask.new_tensor([width, height])
        ).T.long()
        there = mask[torch.arange(len(mask)), 1:, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        winner = 1 + int(there.mean(dim=0).argmax())
        dense.mask.weight[keypoint + 1] = dense.mask.weight[winner] * (
            1 + 0.01 * torch.randn_like(dense.mask.weight[winner])
        )
        dense.mask.bias[keypoint + 1] = dense.mask.bias[winner]
    return dead


def _trained(network: OcclusionAwareGenerator, kind: str) -> Iterator[nn.Parameter]:
    for name, parameter in network.named_parameters():
        of_motion = name.startswith("dense_motion_network.")
        if kind == "joint" or of_motion == (kind == "motion"):
            yield parameter


def _occlusion(
    occlusion_map: torch.Tensor, moved: torch.Tensor, wanted: torch.Tensor, attention: torch.Tensor
) -> torch.Tensor:
    """Weighted cross-entropy of the occlusion map: it should be 0 where the moved source cannot explain the picture.

    With an absolute difference the map would only learn its median, because most of a picture is visible.
    """
    height, width = occlusion_map.shape[2:]
    visible = resized(_explained(moved, wanted), height, width)
    weight = resized(attention / attention.mean(dim=(2, 3), keepdim=True), height, width)
    predicted = occlusion_map.float().clamp(1e-4, 1 - 1e-4)
    return nn.functional.binary_cross_entropy(predicted, visible, weight)


def _explained(moved: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): 1 where the moved source (B, 3, H, W) matches the wanted picture, 0 where it differs strongly."""
    off = nn.functional.avg_pool2d((moved.detach() - wanted).abs().mean(dim=1, keepdim=True), 5, 1, 2)
    return torch.exp(-12 * (off - 0.04).clamp_min(0))


def _moved(source: torch.Tensor, deformation: torch.Tensor, size: int) -> torch.Tensor:
    """The source picture moved by the deformation, (B, 3, size, size)."""
    places = enlarged(deformation, size, size)
    picture = (
        resized(source, size, size)
        if size >= source.shape[2]
        else nn.functional.avg_pool2d(source, source.shape[2] // size)
    )
    return nn.functional.grid_sample(picture, places, mode="bilinear", padding_mode="border", align_corners=False)
