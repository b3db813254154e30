"""FOMM's dense motion network: blends the keypoint motions into one motion for every pixel (section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.blocks import AntiAliasDownscale
from mien_generator.face.fomm.config import FommConfig
from mien_generator.face.fomm.first_order import (
    KeypointTensors,
    coordinate_grid,
    keypoint_gaussians,
    sample,
    sparse_motions,
)
from mien_generator.face.fomm.hourglass import Hourglass


@dataclass(frozen=True, slots=True, eq=False)
class DenseMotionSource:
    """The inputs of dense motion that depend only on the source; h, w are the picture's size times scale_factor.

    picture: (B, 3, h, w). background: (B, 3, h, w), the picture sampled with the identity motion.
    gaussians: (B, K, h, w) float32.
    """

    keypoints: KeypointTensors
    picture: torch.Tensor
    background: torch.Tensor
    gaussians: torch.Tensor

    @classmethod
    def stack(cls, sources: Sequence[DenseMotionSource]) -> DenseMotionSource:
        """Several sources as one batch."""
        return cls(
            KeypointTensors.stack([each.keypoints for each in sources]),
            torch.cat([each.picture for each in sources]),
            torch.cat([each.background for each in sources]),
            torch.cat([each.gaussians for each in sources]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class DenseMotion:
    """deformation: (B, h, w, 2) float32, each pixel's position in the source. mask: (B, 1 + K, h, w) float32.

    occlusion_map: (B, 1, h, w) in [0, 1]; 0 where the source does not show the area and the network must inpaint it.
    """

    deformation: torch.Tensor
    mask: torch.Tensor
    occlusion_map: torch.Tensor


class DenseMotionNetwork(nn.Module):
    """The network in two steps: `prepare` runs once for a source, `forward` runs for every frame."""

    def __init__(self, config: FommConfig) -> None:
        super().__init__()
        hourglass = config.generator.dense_motion
        motions = config.num_keypoints + 1
        self._pixel_centres = config.pixel_centres
        self.down = AntiAliasDownscale(config.num_channels, hourglass.scale_factor)
        self.hourglass = Hourglass(hourglass, motions * (config.num_channels + 1))
        self.mask = nn.Conv2d(self.hourglass.out_features, motions, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_features, 1, 7, padding=3)

    def prepare(self, picture: torch.Tensor, keypoints: KeypointTensors) -> DenseMotionSource:
        """picture: (B, 3, H, W) in [0, 1]."""
        small = self.down(picture)  # (B, 3, h, w)
        height, width = small.shape[2:]
        grid = self._grid(height, width, small.device)
        background = sample(small, grid.expand(small.shape[0], height, width, 2))
        return DenseMotionSource(keypoints, small, background, keypoint_gaussians(keypoints.points, grid))

    def forward(self, source: DenseMotionSource, driving: KeypointTensors) -> DenseMotion:
        height, width = source.picture.shape[2:]
        grid = self._grid(height, width, source.picture.device)
        motions = sparse_motions(source.keypoints, driving, grid)  # (B, 1 + K, h, w, 2)
        keypoint_motions = motions[:, 1:]
        num_keypoints = keypoint_motions.shape[1]

        # One sampling for all keypoints of a source: their grids are stacked along the height, so that the picture need
        # not be copied K times.
        moved = sample(source.picture, keypoint_motions.flatten(1, 2))  # (B, 3, K*h, w)
        moved = moved.unflatten(2, (num_keypoints, height)).transpose(1, 2)  # (B, K, 3, h, w)
        pictures = torch.cat([source.background[:, None], moved], dim=1)  # (B, 1 + K, 3, h, w)

        heatmaps = keypoint_gaussians(driving.points, grid) - source.gaussians  # (B, K, h, w)
        heatmaps = torch.cat([torch.zeros_like(heatmaps[:, :1]), heatmaps], dim=1)[:, :, None].to(pictures.dtype)

        # Channel order of the published weights: for each motion its heatmap, then its picture.
        features = self.hourglass(torch.cat([heatmaps, pictures], dim=2).flatten(1, 2))  # (B, C, h, w)
        mask = torch.softmax(self.mask(features).float(), dim=1)  # (B, 1 + K, h, w)
        deformation = (motions * mask[..., None]).sum(dim=1)  # (B, h, w, 2)
        return DenseMotion(deformation, mask, torch.sigmoid(self.occlusion(features)))

    def _grid(self, height: int, width: int, device: torch.device) -> torch.Tensor:
        return coordinate_grid(height, width, device, pixel_centres=self._pixel_centres)
