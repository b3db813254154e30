"""FOMM's generator, folded: the same pictures as OcclusionAwareGenerator, with fewer and larger operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.blocks import AntiAliasDownscale
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.device.blocks import (
    Convolution,
    Doubling,
    Folding,
    Residual,
    UpConvolution,
    down_convolution,
    kernel,
    same_convolution,
    up_convolution,
)
from mien_generator.face.fomm.device.dense_motion import FoldedDenseMotion
from mien_generator.face.fomm.first_order import sample
from mien_generator.face.fomm.occlusion_generator import OcclusionAwareGenerator, enlarged, resized


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """Layout of a source in one row of numbers: features with channels innermost, pictures with channels outermost.

    residual_side: 0 for a model without a source residual.
    """

    channels: int
    feature_side: int
    small_side: int
    residual_side: int

    @classmethod
    def of(cls, config: FommConfig, size: int) -> SourceLayout:
        """The layout for faces `size` pixels wide."""
        generator = config.generator
        return cls(
            channels=min(generator.max_features, generator.block_expansion * 2**generator.num_down_blocks),
            feature_side=size // 2**generator.num_down_blocks,
            small_side=round(size * generator.dense_motion.scale_factor),
            residual_side=size if config.source_residual else 0,
        )

    @property
    def numbers(self) -> int:
        """Length of a row."""
        return sum(self._lengths)

    @property
    def _lengths(self) -> list[int]:
        return [self.channels * self.feature_side**2, 3 * self.small_side**2, 3 * self.residual_side**2]

    def parts(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, numbers) -> features (B, C, H/4, W/4), small (B, 3, h, w), residual (B, 3, H, W) or empty: views."""
        features, small, residual = rows.split(self._lengths, dim=1)
        return (
            features.unflatten(1, (self.feature_side, self.feature_side, self.channels)).permute(0, 3, 1, 2),
            small.unflatten(1, (3, self.small_side, self.small_side)),
            residual.unflatten(1, (3, self.residual_side, self.residual_side)),
        )


class FoldedSource(nn.Module):
    """(1, 3, H, W) float32 in [0, 1] -> features and small picture of one avatar, for a SourceLayout."""

    def __init__(self, generator: OcclusionAwareGenerator, folding: Folding) -> None:
        super().__init__()
        self.small: AntiAliasDownscale = generator.dense_motion_network.down
        self.first = same_convolution(generator.first, folding)
        self.down = nn.ModuleList(down_convolution(block, folding) for block in generator.down_blocks)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self.first.weight
        padding = weight.shape[1] - picture.shape[1]
        x = nn.functional.pad(picture, (0, 0, 0, 0, 0, padding)).to(weight.dtype, memory_format=torch.channels_last)
        features = self.first(x)
        for block in self.down:
            features = block(features)
        return features, self.small(picture)


class FoldedGenerator(nn.Module):
    """(B, numbers) source rows and (B, 2, K, 6) float32 keypoints, source then driving -> (B, 3, H, W) float32."""

    def __init__(
        self, generator: OcclusionAwareGenerator, config: FommConfig, layout: SourceLayout, folding: Folding
    ) -> None:
        super().__init__()
        self._layout = layout
        self._channels = config.num_channels
        self.dense_motion = FoldedDenseMotion(generator.dense_motion_network, config, layout.small_side, folding)
        self.bottleneck = nn.Sequential(*(Residual(block, folding) for block in generator.bottleneck))
        self.up = nn.Sequential(*(up_convolution(block, folding) for block in generator.up_blocks))
        self.final = Convolution(*kernel(generator.final), folding, relu=False)

    def forward(self, rows: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        features, small, residual = self._layout.parts(rows)
        deformation, occlusion_map = self.dense_motion(small, keypoints)
        side = self._layout.feature_side
        grid = resized(deformation.permute(0, 3, 1, 2), side, side).permute(0, 2, 3, 1)
        x = sample(features, grid) * resized(occlusion_map, side, side)
        x = self.final(self.up(self.bottleneck(x.contiguous(memory_format=torch.channels_last))))
        prediction = torch.sigmoid(x[:, : self._channels].float())
        if not (side := self._layout.residual_side):
            return prediction
        moved = sample(residual, enlarged(deformation, side, side)).float()
        return prediction.addcmul_(moved, resized(occlusion_map.float(), side, side)).clamp_(0, 1)

    def doublings(self) -> list[Doubling | None]:
        """The way in which each up block doubles its picture; None if the block has not been timed yet."""
        return [module.doubling for module in self.modules() if isinstance(module, UpConvolution)]


def channel_multiple(config: FommConfig) -> int:
    """8, for tensor cores, if all widths except input and output are multiples of 8; otherwise 1."""
    parts = config.generator, config.generator.dense_motion
    widths = [width for part in parts for width in (part.block_expansion, part.max_features)]
    return 8 if all(width % 8 == 0 for width in widths) else 1
