"""Losses of FOMM (Siarohin et al. 2019, section 3.3), on pictures (B, 3, H, W) in [0, 1].

The published reconstruction loss compares features of a VGG trained on ImageNet, whose weights may not be available
where Mien is trained. `FeatureLoss` replaces them by the features of this model's own encoder, frozen after it has
learnt to reproduce pictures. README.md has the results of training with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mien_generator.face.fomm.first_order import KeypointTensors, inverse_2x2
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator
from mien_training.datasets import KnownMotion


def pyramid_l1(made: torch.Tensor, wanted: torch.Tensor, attention: torch.Tensor, levels: int = 4) -> torch.Tensor:
    """Mean absolute difference at full, half, quarter ... size, summed: FOMM's multi-scale reconstruction on pixels.

    attention: (B, 1, H, W) weights; they are normalised to a mean of 1 at every level.
    """
    total = made.new_zeros(())
    for level in range(levels):
        if level:
            made, wanted, attention = (nn.functional.avg_pool2d(each, 2) for each in (made, wanted, attention))
        weight = attention / attention.mean(dim=(2, 3), keepdim=True)
        total = total + (weight * (made - wanted).abs()).mean()
    return total


def edges(made: torch.Tensor, wanted: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the horizontal and vertical gradients. It penalises blur, which L1 hardly does."""
    difference = made - wanted
    weight = attention / attention.mean(dim=(2, 3), keepdim=True)
    across = (weight[..., 1:] * difference.diff(dim=3).abs()).mean()
    down = (weight[..., 1:, :] * difference.diff(dim=2).abs()).mean()
    return across + down


def known_motion(deformation: torch.Tensor, known: KnownMotion, attention: torch.Tensor) -> torch.Tensor:
    """Mean distance of a deformation (B, h, w, 2) from the known motion: at landmarks, and where lookups exist.

    A comparison of pictures cannot place parts that look like their surroundings, such as a lid or the line between
    closed lips. This loss gives them their origin.
    attention: (B, 1, H, W), as for the pictures. The loss is 0 for a batch without known motion.
    """
    fields = deformation.permute(0, 3, 1, 2)
    there = known.landmarks.isfinite().all(dim=-1) & known.source_landmarks.isfinite().all(dim=-1)
    there = there & (known.landmarks.abs().amax(dim=-1) < 1)
    places = torch.where(there[..., None], known.landmarks, 0.0)[:, None]
    predicted = nn.functional.grid_sample(fields, places, mode="bilinear", padding_mode="border", align_corners=False)[
        :, :, 0
    ].mT  # (B, L, 2)
    off = (predicted - torch.where(there[..., None], known.source_landmarks, 0.0)).norm(dim=-1)
    of_landmark = nn.functional.grid_sample(attention, places, padding_mode="border", align_corners=False)[:, 0, 0]
    at_landmarks = _weighted_mean(off, of_landmark * there)
    weight = nn.functional.adaptive_avg_pool2d(attention, known.shown.shape[1:])[:, 0] * known.shown
    return at_landmarks + _weighted_mean((deformation - known.lookup).norm(dim=-1), weight)


def _weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


class FeatureLoss(nn.Module):
    """L1 between features of a frozen copy of the generator's encoder: first block and down blocks, three scales.

    Each channel is divided by its standard deviation over the wanted pictures, so that all scales and channels count.
    """

    def __init__(self, network: OcclusionAwareGenerator) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([network.first, *network.down_blocks])
        self.eval().requires_grad_(False)

    def forward(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        total = made.new_zeros(())
        for block in self.blocks:
            made = block(made)
            with torch.no_grad():
                wanted = block(wanted)
                spread = wanted.float().std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-2)
            total = total + ((made - wanted).float().abs() / spread).mean()
        return total


def equivariance(
    found: KeypointTensors, found_deformed: KeypointTensors, points_back: torch.Tensor, slope_back: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """FOMM, eqs. 8 to 11: keypoints of a deformed picture, mapped back, must equal those of the picture.

    points_back: (B, K, 2), the deformation's backward map at found_deformed's points; slope_back: (B, K, 2, 2), its
    derivative there. Returns the losses of points and of Jacobians: |p - T(p')| and |1 - J^-1 T'(p') J'|.
    """
    points = (found.points - points_back).abs().mean()
    identity = torch.eye(2, device=found.jacobians.device)
    ratio = inverse_2x2(found.jacobians) @ slope_back @ found_deformed.jacobians
    return points, (identity - ratio).abs().mean()


class Discriminator(nn.Module):
    """FOMM's patch discriminator, at full and half size, without conditioning (FOMM's `use_kp: False`).

    forward: (B, 3, H, W) -> for each scale a list of the features of every block, with the map of scores last.
    """

    def __init__(self, width: int = 32, blocks: int = 4, scales: Sequence[int] = (1, 2)) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.discriminators = nn.ModuleList(_PatchDiscriminator(width, blocks) for _ in self.scales)

    def forward(self, picture: torch.Tensor) -> list[list[torch.Tensor]]:
        return [
            discriminator(nn.functional.avg_pool2d(picture, scale) if scale > 1 else picture)
            for scale, discriminator in zip(self.scales, self.discriminators, strict=True)
        ]


class _PatchDiscriminator(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        widths = [3, *(min(512, width * 2**level) for level in range(blocks))]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.utils.parametrizations.spectral_norm(nn.Conv2d(widths[level], widths[level + 1], 4)),
                nn.InstanceNorm2d(widths[level + 1], affine=True) if level else nn.Identity(),
                nn.LeakyReLU(0.2),
                nn.AvgPool2d(2) if level < blocks - 1 else nn.Identity(),
            )
            for level in range(blocks)
        )
        self.score = nn.utils.parametrizations.spectral_norm(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return [*maps, self.score(x)]


def discriminator_loss(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Least squares: pulls real scores to 1 and scores of made pictures to 0."""
    losses = [(1 - r[-1]).square().mean() + m[-1].square().mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).sum()


def adversarial(made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Least squares: pulls the scores of made pictures to 1."""
    return torch.stack([(1 - maps[-1]).square().mean() for maps in made]).sum()


def feature_matching(real: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Mean absolute difference of the discriminator's features over all blocks and scales, without the scores."""
    differences = [
        (r.detach() - m).abs().mean()
        for of_real, of_made in zip(real, made, strict=True)
        for r, m in zip(of_real[:-1], of_made[:-1], strict=True)
    ]
    return torch.stack(differences).sum()
