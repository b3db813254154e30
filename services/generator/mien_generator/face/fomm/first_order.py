"""First-order motion in torch: keypoints, their coordinate grids, and sampling along them.

Motion is always float32, whatever the networks run in: a half-precision coordinate near the border of a 384-pixel
picture is off by a tenth of a pixel, which shows as shimmer from frame to frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mien_generator.face.fomm.config import KEYPOINT_VARIANCE, SMALLEST_DETERMINANT
from mien_shared.keypoints import Keypoints


@dataclass(frozen=True, slots=True, eq=False)
class KeypointTensors:
    """points: (B, K, 2) float32; jacobians: (B, K, 2, 2) float32."""

    points: torch.Tensor
    jacobians: torch.Tensor

    @classmethod
    def of(cls, keypoints: Sequence[Keypoints], device: torch.device) -> KeypointTensors:
        """A batch from keypoints as they travel."""
        return cls(
            torch.from_numpy(np.stack([each.points for each in keypoints])).to(device, torch.float32),
            torch.from_numpy(np.stack([each.jacobians for each in keypoints])).to(device, torch.float32),
        )

    @classmethod
    def stack(cls, batches: Sequence[KeypointTensors]) -> KeypointTensors:
        """One batch of several."""
        return cls(torch.cat([each.points for each in batches]), torch.cat([each.jacobians for each in batches]))

    def unstack(self) -> list[Keypoints]:
        """The batch as keypoints that can travel."""
        points, jacobians = self.points.float().cpu().numpy(), self.jacobians.float().cpu().numpy()
        return [Keypoints(point, jacobian) for point, jacobian in zip(points, jacobians, strict=True)]


def coordinate_grid(height: int, width: int, device: torch.device, *, pixel_centres: bool = False) -> torch.Tensor:
    """(H, W, 2) float32 of (x, y): where each pixel lies.

    The corner pixels' centres are at -1 and 1 as published; with `pixel_centres` their outer edges are, and every
    centre lies where `sample` reads it.
    """
    right, bottom = (1 - 1 / width, 1 - 1 / height) if pixel_centres else (1.0, 1.0)
    y, x = torch.meshgrid(
        torch.linspace(-bottom, bottom, height, device=device),
        torch.linspace(-right, right, width, device=device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def keypoint_gaussians(points: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """(B, K, 2) and (H, W, 2) -> (B, K, H, W): a bell of height 1 at each keypoint (FOMM, eq. 6)."""
    offset = grid - points[:, :, None, None, :]
    return torch.exp(-0.5 * offset.square().sum(dim=-1) / KEYPOINT_VARIANCE)


def inverse_2x2(matrices: torch.Tensor) -> torch.Tensor:
    """(..., 2, 2) -> (..., 2, 2), written out: torch.inverse has no ONNX operator.

    Finite for every finite input: a singular matrix is taken to have a determinant of SMALLEST_DETERMINANT. A sender
    may transmit one; its face is then wrong, but no NaN spreads through the network, and nothing waits for a check.
    """
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    determinant = a * d - b * c
    magnitude = determinant.abs().clamp_min(SMALLEST_DETERMINANT)
    return adjugate / torch.where(determinant < 0, -magnitude, magnitude)[..., None, None]


def sparse_motions(source: KeypointTensors, driving: KeypointTensors, grid: torch.Tensor) -> torch.Tensor:
    """(B, 1 + K, H, W, 2): where each driving pixel comes from in the source, by the background and by each keypoint.

    T_k(z) = p_source + J_source J_driving^-1 (z - p_driving) (FOMM, eq. 4); the background stays (T_0(z) = z).
    """
    jacobians = source.jacobians @ inverse_2x2(driving.jacobians)  # (B, K, 2, 2)
    offset = grid - driving.points[:, :, None, None, :]  # (B, K, H, W, 2)
    moved = (jacobians[:, :, None, None] @ offset[..., None]).squeeze(-1) + source.points[:, :, None, None, :]
    still = grid.expand(moved.shape[0], 1, *grid.shape)
    return torch.cat([still, moved], dim=1)


def sample(pictures: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) pictures or features at (B, h, w, 2) float32 -> (B, C, h, w), black outside, in their own dtype.

    `align_corners` is False although coordinate_grid puts -1 and 1 on the corner pixels' centres: the published code
    leaves it at its default, so the published weights have learnt that half-pixel shrink.
    """
    sampled = nn.functional.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.to(pictures.dtype)
