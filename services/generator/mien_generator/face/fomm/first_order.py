"""First-order motion in torch: keypoint tensors, coordinate grids, and sampling on them.

Motion is always float32, also if the networks run in half precision. A half-precision coordinate near the border of a
384-pixel picture is off by a tenth of a pixel, which is visible as shimmer from frame to frame.
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
        """A batch on the device from keypoints in numpy form."""
        return cls(
            torch.from_numpy(np.stack([each.points for each in keypoints])).to(device, torch.float32),
            torch.from_numpy(np.stack([each.jacobians for each in keypoints])).to(device, torch.float32),
        )

    @classmethod
    def stack(cls, batches: Sequence[KeypointTensors]) -> KeypointTensors:
        """Several batches as one batch."""
        return cls(torch.cat([each.points for each in batches]), torch.cat([each.jacobians for each in batches]))

    def unstack(self) -> list[Keypoints]:
        """The batch as keypoints in numpy form."""
        points, jacobians = self.points.float().cpu().numpy(), self.jacobians.float().cpu().numpy()
        return [Keypoints(point, jacobian) for point, jacobian in zip(points, jacobians, strict=True)]


def coordinate_grid(height: int, width: int, device: torch.device, *, pixel_centres: bool = False) -> torch.Tensor:
    """(H, W, 2) float32: the (x, y) coordinates of each pixel.

    As published, the centres of the corner pixels are at -1 and 1. With `pixel_centres` their outer edges are at -1 and
    1, so that every centre has the coordinates at which `sample` reads it.
    """
    right, bottom = (1 - 1 / width, 1 - 1 / height) if pixel_centres else (1.0, 1.0)
    y, x = torch.meshgrid(
        torch.linspace(-bottom, bottom, height, device=device),
        torch.linspace(-right, right, width, device=device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def keypoint_gaussians(points: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """(B, K, 2) and (H, W, 2) -> (B, K, H, W): a Gaussian of height 1 at each keypoint (FOMM, eq. 6)."""
    offset = grid - points[:, :, None, None, :]
    return torch.exp(-0.5 * offset.square().sum(dim=-1) / KEYPOINT_VARIANCE)


def inverse_2x2(matrices: torch.Tensor) -> torch.Tensor:
    """(..., 2, 2) -> (..., 2, 2), written out, because torch.inverse has no ONNX operator.

    Finite for every finite input: for a singular matrix the determinant SMALLEST_DETERMINANT is used. If a sender
    transmits a singular matrix, its face is wrong, but no NaN spreads through the network, and no check has to
    synchronise with the device.
    """
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    determinant = a * d - b * c
    magnitude = determinant.abs().clamp_min(SMALLEST_DETERMINANT)
    return adjugate / torch.where(determinant < 0, -magnitude, magnitude)[..., None, None]


def sparse_motions(source: KeypointTensors, driving: KeypointTensors, grid: torch.Tensor) -> torch.Tensor:
    """(B, 1 + K, H, W, 2): each driving pixel's position in the source, for the background and for each keypoint.

    T_k(z) = p_source + J_source J_driving^-1 (z - p_driving) (FOMM, eq. 4). The background does not move (T_0(z) = z).
    """
    jacobians = source.jacobians @ inverse_2x2(driving.jacobians)  # (B, K, 2, 2)
    offset = grid - driving.points[:, :, None, None, :]  # (B, K, H, W, 2)
    moved = (jacobians[:, :, None, None] @ offset[..., None]).squeeze(-1) + source.points[:, :, None, None, :]
    still = grid.expand(moved.shape[0], 1, *grid.shape)
    return torch.cat([still, moved], dim=1)


def sample(pictures: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample (B, C, H, W) pictures or features at (B, h, w, 2) float32 -> (B, C, h, w) of the same dtype, 0 outside.

    `align_corners` is False, although coordinate_grid places -1 and 1 on the centres of the corner pixels. The
    published code uses this default, so the published weights were trained with the half-pixel shrink.
    """
    sampled = nn.functional.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.to(pictures.dtype)
