from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training runs on torch")

import torch

from mien_training.deformation import ThinPlateSpline

CPU = torch.device("cpu")


def _spline(seed: int = 0, **spreads: float) -> ThinPlateSpline:
    return ThinPlateSpline.random(3, generator=torch.Generator().manual_seed(seed), device=CPU, **spreads)  # type: ignore[arg-type]


def test_the_slope_is_the_derivative() -> None:
    spline = _spline(sigma_spline=0.05)
    points = torch.rand(3, 7, 2, dtype=torch.float64) * 2 - 1
    spline = ThinPlateSpline(
        spline.matrix.double(), spline.offset.double(), spline.centres.double(), spline.weights.double()
    )
    step = 1e-6
    measured = torch.stack(
        [
            (spline.at(points + step * axis) - spline.at(points - step * axis)) / (2 * step)
            for axis in torch.eye(2, dtype=torch.float64)
        ],
        dim=-1,
    )
    torch.testing.assert_close(spline.slope_at(points), measured, atol=1e-6, rtol=1e-6)


def test_without_spread_nothing_moves() -> None:
    still = _spline(sigma_affine=0.0, sigma_spline=0.0)
    pictures = torch.rand(3, 3, 12, 12)
    torch.testing.assert_close(still.deformed(pictures), pictures, atol=1e-5, rtol=0)
    points = torch.rand(3, 5, 2)
    torch.testing.assert_close(still.at(points), points)


def test_a_picture_shows_at_z_what_it_showed_at_t_of_z() -> None:
    spline = _spline(sigma_affine=0.0, sigma_spline=0.0)
    shift = torch.tensor([0.25, 0.0])
    moved = ThinPlateSpline(spline.matrix, shift.expand(3, 2), spline.centres, spline.weights)
    pictures = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(moved.deformed(pictures)[..., :-1], pictures[..., 1:], atol=1e-5, rtol=0)


def test_the_same_seed_bends_alike_and_another_does_not() -> None:
    assert torch.equal(_spline(4).weights, _spline(4).weights)
    assert not torch.equal(_spline(4).weights, _spline(5).weights)
