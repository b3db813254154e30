from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.first_order import (
    KeypointTensors,
    coordinate_grid,
    inverse_2x2,
    keypoint_gaussians,
    sample,
    sparse_motions,
)
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints

CPU = torch.device("cpu")


def _keypoints(seed: int) -> Keypoints:
    random = np.random.default_rng(seed)
    return Keypoints(
        random.uniform(-0.5, 0.5, (NUM_KEYPOINTS, 2)).astype(np.float32),
        (np.eye(2) + random.normal(0, 0.2, (NUM_KEYPOINTS, 2, 2))).astype(np.float32),
    )


def test_grid_puts_the_corner_pixels_at_the_corners() -> None:
    grid = coordinate_grid(5, 9, CPU)
    assert grid.shape == (5, 9, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[0, -1].tolist() == [1, -1], "x comes first"
    assert grid[-1, -1].tolist() == [1, 1]


def test_inverse_is_torchs_own() -> None:
    matrices = torch.randn(4, 7, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse_2x2(matrices), torch.linalg.inv(matrices), rtol=1e-4, atol=1e-4)


def test_an_inverse_keeps_a_mirrored_matrix_mirrored() -> None:
    mirror = torch.tensor([[-1.0, 0.0], [0.0, 1e-3]])
    torch.testing.assert_close(inverse_2x2(mirror), torch.tensor([[-1.0, 0.0], [0.0, 1e3]]))


@pytest.mark.parametrize("singular", [torch.ones(2, 2), torch.zeros(2, 2), 8 * torch.ones(2, 2)])
def test_a_singular_jacobian_stays_finite(singular: torch.Tensor) -> None:
    assert torch.isfinite(inverse_2x2(singular)).all()


def test_gaussian_is_one_at_its_keypoint_and_falls_off_evenly() -> None:
    grid = coordinate_grid(21, 21, CPU)
    (bell,) = keypoint_gaussians(torch.tensor([[[0.2, -0.4]]]), grid)[0]
    assert bell[6, 12].item() == pytest.approx(1.0)
    assert bell[6, 11].item() == pytest.approx(bell[5, 12].item())
    assert bell[6, 11].item() == pytest.approx(np.exp(-0.5 * 0.1**2 / 0.01), rel=1e-4)


def test_a_face_that_does_not_move_comes_from_where_it_is() -> None:
    grid = coordinate_grid(8, 8, CPU)
    still = KeypointTensors.of([_keypoints(1)], CPU)
    motions = sparse_motions(still, still, grid)
    assert motions.shape == (1, NUM_KEYPOINTS + 1, 8, 8, 2)
    torch.testing.assert_close(motions, grid.expand_as(motions), rtol=0, atol=1e-5)


def test_each_keypoint_moves_its_neighbourhood_as_equation_4_says() -> None:
    source, driving = _keypoints(1), _keypoints(2)
    grid = coordinate_grid(4, 6, CPU)
    motions = sparse_motions(KeypointTensors.of([source], CPU), KeypointTensors.of([driving], CPU), grid)[0].numpy()
    for k in range(NUM_KEYPOINTS):
        linear = source.jacobians[k] @ np.linalg.inv(driving.jacobians[k])
        for row, column in ((0, 0), (3, 2), (1, 5)):
            z = grid[row, column].numpy()
            expected = source.points[k] + linear @ (z - driving.points[k])
            np.testing.assert_allclose(motions[k + 1, row, column], expected, atol=1e-5)
    np.testing.assert_array_equal(motions[0], grid.numpy(), "the background stays")


def test_keypoints_come_back_from_tensors_unchanged() -> None:
    keypoints = [_keypoints(1), _keypoints(2)]
    assert KeypointTensors.of(keypoints, CPU).unstack() == keypoints


def test_sampling_keeps_half_precision_but_not_its_coordinates() -> None:
    # An edge between pixels 364 and 365 of 384: in bfloat16 a coordinate of 0.9001 would be 0.8984, a third of a
    # pixel to the left, off the edge.
    edge = (torch.arange(384) >= 365).float().expand(1, 1, 1, 384)
    grid = torch.tensor([[[[0.9001, 0.0]]]])
    exact, sampled = sample(edge, grid).item(), sample(edge.to(torch.bfloat16), grid)
    assert exact == pytest.approx(0.32, abs=0.01)
    assert sampled.dtype == torch.bfloat16
    assert sampled.item() == pytest.approx(exact, abs=2e-3)


def test_on_pixel_centres_motion_at_rest_is_the_identity() -> None:
    picture = torch.rand(1, 3, 6, 10)
    centres = coordinate_grid(6, 10, CPU, pixel_centres=True)[None]
    torch.testing.assert_close(sample(picture, centres), picture)
    published = coordinate_grid(6, 10, CPU)[None]
    assert (sample(picture, published) - picture).abs().max() > 0.1  # black leaks in at the border
