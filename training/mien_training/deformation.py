"""Random thin-plate-spline deformations with exact derivatives, for the equivariance losses (FOMM, section 3.3).

T(z) = A z + b + sum_i w_i U(|z - c_i|), U(r) = r^2 log r over a grid of control points c_i (Bookstein 1989). T is a
backward map: the deformed picture shows at z what the original shows at T(z).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mien_generator.face.fomm.first_order import coordinate_grid

#: Below this squared distance, U and its derivative are set to 0, their limit.
_NEAR = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ThinPlateSpline:
    """A batch of deformations. matrix: (B, 2, 2). offset: (B, 2). centres: (P, 2). weights: (B, P, 2)."""

    matrix: torch.Tensor
    offset: torch.Tensor
    centres: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def random(
        cls,
        count: int,
        *,
        generator: torch.Generator,
        device: torch.device,
        sigma_affine: float = 0.05,
        sigma_spline: float = 0.005,
        grid: int = 5,
    ) -> ThinPlateSpline:
        """`count` random deformations. The defaults are the published standard deviations: 0.05 for an affine map's
        entries, 0.005 for the weights of 25 control points."""

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        centres = coordinate_grid(grid, grid, torch.device("cpu")).flatten(0, 1)
        return cls(
            (torch.eye(2) + sigma_affine * normal(count, 2, 2)).to(device),
            (sigma_affine * normal(count, 2)).to(device),
            centres.to(device),
            (sigma_spline * normal(count, grid * grid, 2)).to(device),
        )

    def at(self, points: torch.Tensor) -> torch.Tensor:
        """(B, N, 2) -> (B, N, 2): T(z)."""
        squared = (points[:, :, None] - self.centres).square().sum(dim=-1)  # (B, N, P)
        bend = 0.5 * squared * torch.log(squared.clamp_min(_NEAR))
        return points @ self.matrix.mT + self.offset[:, None] + bend @ self.weights

    def slope_at(self, points: torch.Tensor) -> torch.Tensor:
        """(B, N, 2) -> (B, N, 2, 2): T'(z), row i the gradient of T_i."""
        apart = points[:, :, None] - self.centres  # (B, N, P, 2)
        squared = apart.square().sum(dim=-1, keepdim=True)
        gradient = apart * (torch.log(squared.clamp_min(_NEAR)) + 1) * (squared > _NEAR)  # of U: z (log r^2 + 1)
        return self.matrix[:, None] + torch.einsum("bpi,bnpj->bnij", self.weights, gradient)

    def deformed(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W); outside the picture its border is repeated."""
        height, width = pictures.shape[2:]
        grid = coordinate_grid(height, width, pictures.device, pixel_centres=True).flatten(0, 1)
        places = self.at(grid.expand(len(pictures), -1, 2)).unflatten(1, (height, width))
        return nn.functional.grid_sample(pictures, places, mode="bilinear", padding_mode="border", align_corners=False)
