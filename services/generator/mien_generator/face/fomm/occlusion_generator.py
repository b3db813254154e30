"""FOMM's occlusion-aware generator: moves source features and inpaints (section 3.2). The source is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from mien_generator.face.fomm.blocks import DownBlock, ResBlock, SameBlock, UpBlock
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.dense_motion import DenseMotion, DenseMotionNetwork, DenseMotionSource
from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid, sample


@dataclass(frozen=True, slots=True, eq=False)
class GeneratorSource:
    """Everything that depends only on the source.

    features: (B, C, H/4, W/4) with two down blocks.
    residual: (B, 3, H, W) float32, the source minus the network's picture of it at rest; None in a model without it.
    """

    features: torch.Tensor
    dense_motion: DenseMotionSource
    residual: torch.Tensor | None = None

    @classmethod
    def stack(cls, sources: Sequence[GeneratorSource]) -> GeneratorSource:
        """Several sources as one batch."""
        residuals = [each.residual for each in sources if each.residual is not None]
        return cls(
            torch.cat([each.features for each in sources]),
            DenseMotionSource.stack([each.dense_motion for each in sources]),
            torch.cat(residuals) if residuals else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedFace:
    """prediction: (B, 3, H, W) in [0, 1]. motion: the motion that was applied to the source.

    painted: (B, 3, H, W), the network's output; equal to the prediction in a model without a source residual.
    """

    prediction: torch.Tensor
    motion: DenseMotion
    painted: torch.Tensor


class OcclusionAwareGenerator(nn.Module):
    """The network in two steps: `prepare` runs once for a source, `forward` runs for every frame."""

    def __init__(self, config: FommConfig) -> None:
        super().__init__()
        generator = config.generator
        depth = generator.num_down_blocks
        self._source_residual = config.source_residual
        widths = [min(generator.max_features, generator.block_expansion * 2**level) for level in range(depth + 1)]
        self.dense_motion_network = DenseMotionNetwork(config)
        self.first = SameBlock(config.num_channels, widths[0], kernel_size=7)
        self.down_blocks = nn.ModuleList(DownBlock(widths[level], widths[level + 1]) for level in range(depth))
        self.bottleneck = nn.Sequential(
            OrderedDict((f"r{index}", ResBlock(widths[-1])) for index in range(generator.num_bottleneck_blocks))
        )
        self.up_blocks = nn.ModuleList(UpBlock(widths[level], widths[level - 1]) for level in range(depth, 0, -1))
        self.final = nn.Conv2d(widths[0], config.num_channels, 7, padding=3)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C, H/4, W/4)."""
        features = self.first(picture)  # (B, C, H, W)
        for block in self.down_blocks:
            features = block(features)
        return features

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, 3, 4h, 4w) float32 in [0, 1]."""
        x = self.bottleneck(features)
        for block in self.up_blocks:
            x = block(x)
        return torch.sigmoid(self.final(x).float())

    def prepare(self, picture: torch.Tensor, keypoints: KeypointTensors) -> GeneratorSource:
        """picture: (B, 3, H, W) in [0, 1]."""
        source = GeneratorSource(self.encode(picture), self.dense_motion_network.prepare(picture, keypoints))
        if not self._source_residual:
            return source
        with torch.no_grad():  # training treats the residual as an input, without a gradient
            residual = picture.float() - self(source, keypoints).prediction
        return replace(source, residual=residual)

    def forward(self, source: GeneratorSource, driving: KeypointTensors) -> GeneratedFace:
        motion = self.dense_motion_network(source.dense_motion, driving)
        height, width = source.features.shape[2:]
        visible = resized(motion.occlusion_map, height, width)  # (B, 1, H/4, W/4)
        x = sample(source.features, deformation_at(motion, height, width)) * visible  # (B, C, H/4, W/4)
        painted = self.decode(x)  # (B, 3, H, W)
        prediction = painted
        if source.residual is not None:
            height, width = source.residual.shape[2:]
            moved = sample(source.residual, enlarged(motion.deformation, height, width))
            prediction = (painted + moved * resized(motion.occlusion_map.float(), height, width)).clamp(0, 1)
        return GeneratedFace(prediction, motion, painted)


def deformation_at(motion: DenseMotion, height: int, width: int) -> torch.Tensor:
    """The motion's deformation as a (B, height, width, 2) sampling grid."""
    return resized(motion.deformation.permute(0, 3, 1, 2), height, width).permute(0, 2, 3, 1)


def enlarged(deformation: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, h, w, 2) -> (B, height, width, 2) on pixel centres.

    Interpolates the difference from rest, not the coordinates. Interpolated coordinates are constant beyond the
    outermost centres, which would pull the picture's border pixels inward.
    """
    rows, columns = deformation.shape[1:3]
    small = coordinate_grid(rows, columns, deformation.device, pixel_centres=True)
    large = coordinate_grid(height, width, deformation.device, pixel_centres=True)
    return large + resized((deformation - small).permute(0, 3, 1, 2), height, width).permute(0, 2, 3, 1)


def resized(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, C, h, w) -> (B, C, height, width), bilinear. Returns maps that already have this size unchanged."""
    if maps.shape[2:] == (height, width):
        return maps
    return nn.functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
