"""Folded dense motion: all motions in one sampling, both heads in one convolution (compare fomm/dense_motion.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mien_generator.face.fomm.config import KEYPOINT_VARIANCE, FommConfig
from mien_generator.face.fomm.dense_motion import DenseMotionNetwork
from mien_generator.face.fomm.device.blocks import Convolution, Folding, down_convolution, kernel, up_convolution
from mien_generator.face.fomm.first_order import coordinate_grid, inverse_2x2, sample
from mien_generator.face.fomm.hourglass import Hourglass


class FoldedHourglass(nn.Module):
    """(B, in_features, H, W) -> (B, out_features, H, W), both padded according to `folding`."""

    def __init__(self, hourglass: Hourglass, folding: Folding) -> None:
        super().__init__()
        self.down = nn.ModuleList(down_convolution(block, folding) for block in hourglass.encoder.down_blocks)
        self.up = nn.ModuleList(up_convolution(block, folding) for block in hourglass.decoder.up_blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return x


class FoldedDenseMotion(nn.Module):
    """Small source pictures (B, 3, h, w), keypoints (B, 2, K, 6) float32 -> deformation and occlusion map.

    Keypoints are rows of x, y, j00, j01, j10, j11, as in a motion packet: first the source's, then the driving ones.
    The deformation is (B, h, w, 2) float32, the occlusion map (B, 1, h, w).
    """

    x: torch.Tensor
    y: torch.Tensor
    still: torch.Tensor

    def __init__(self, network: DenseMotionNetwork, config: FommConfig, side: int, folding: Folding) -> None:
        """side: side of the small picture, in pixels."""
        super().__init__()
        grid = coordinate_grid(side, side, torch.device("cpu"), pixel_centres=config.pixel_centres)
        self.register_buffer("x", grid[0, :, 0].clone())
        self.register_buffer("y", grid[:, 0, 1].clone())
        self.register_buffer("still", torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        self.hourglass = FoldedHourglass(network.hourglass, folding)
        (mask, mask_bias), (occlusion, occlusion_bias) = kernel(network.mask), kernel(network.occlusion)
        self.heads = Convolution(
            np.concatenate([mask, occlusion]), np.concatenate([mask_bias, occlusion_bias]), folding, relu=False
        )
        self._num_motions = config.num_keypoints + 1
        features = self._num_motions * (config.num_channels + 1)
        self._in_features = features + -features % folding.channel_multiple

    def forward(self, small: torch.Tensor, keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        motions = self._motions(keypoints)  # (B, 1 + K, h, w, 2)
        logits = self.heads(self.hourglass(self._hourglass_input(small, motions, keypoints)))
        mask = torch.softmax(logits[:, : self._num_motions].float(), dim=1)  # (B, 1 + K, h, w)
        occlusion_map = torch.sigmoid(logits[:, self._num_motions : self._num_motions + 1])
        return (motions * mask[..., None]).sum(dim=1), occlusion_map

    def _motions(self, keypoints: torch.Tensor) -> torch.Tensor:
        """FOMM, eq. 4, as an affine map for each keypoint; the first motion is the identity."""
        jacobians = keypoints[..., 2:].unflatten(-1, (2, 2))  # (B, 2, K, 2, 2)
        linear = jacobians[:, 0] @ inverse_2x2(jacobians[:, 1])  # (B, K, 2, 2)
        shift = keypoints[:, 0, :, :2] - (linear * keypoints[:, 1, :, None, :2]).sum(dim=-1)  # (B, K, 2)
        affine = torch.cat([linear, shift[..., None]], dim=-1)  # (B, K, 2, 3)
        affine = torch.cat([self.still.expand(len(affine), 1, 2, 3), affine], dim=1)
        of_x, of_y, constant = affine[:, :, None, None].unbind(-1)  # (B, 1 + K, 1, 1, 2) each
        # A part for each row plus a part for each column: the whole grid is one addition.
        return (of_x * self.x[:, None] + constant) + of_y * self.y[:, None, None]

    def _hourglass_input(self, small: torch.Tensor, motions: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        """For each motion its heatmap and the moved picture, (B, C, h, w), channels innermost."""
        batch, count, height, width = motions.shape[:4]
        moved = sample(small, motions.flatten(1, 2))  # (B, 3, (1 + K)*h, w)
        # A Gaussian is the product of one over x and one over y.
        points = keypoints[..., None, :2]  # (B, 2, K, 1, 2)
        over_x = torch.exp((self.x - points[..., 0]).square() / (-2 * KEYPOINT_VARIANCE))[..., None, :]
        over_y = torch.exp((self.y - points[..., 1]).square() / (-2 * KEYPOINT_VARIANCE))[..., None]
        heatmaps = over_y[:, 1] * over_x[:, 1] - over_y[:, 0] * over_x[:, 0]  # (B, K, h, w)

        seen = small.new_zeros(batch, height, width, self._in_features)
        by_motion = seen[..., : count * 4].unflatten(-1, (count, 4))
        by_motion[..., 1:, 0] = heatmaps.permute(0, 2, 3, 1)  # the heatmap of the identity motion is zero
        by_motion[..., 1:] = moved.unflatten(2, (count, height)).permute(0, 3, 4, 2, 1)
        return seen.permute(0, 3, 1, 2)
