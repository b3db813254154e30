"""Views of labelled crops: labels pass exactly through the same map as the picture."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mien_generator.face.fomm.first_order import KeypointTensors  # noqa: E402
from mien_training.datasets import MIRRORED  # noqa: E402
from mien_training.deformation import ThinPlateSpline  # noqa: E402
from mien_training.labelled import DatasetError, LabelledSet, Split, open_sets  # noqa: E402
from mien_training.views import ViewAmount, ViewSampler, everywhere, shown  # noqa: E402

CPU = torch.device("cpu")
WEIGHTS = {"clip": 1.0, "still": 1.0}


def sets(folder: Path) -> list[LabelledSet]:
    return open_sets(folder, Split(("held",)))[0]


def sampler(folder: Path, amount: ViewAmount | None = None, seed: int = 3) -> ViewSampler:
    return ViewSampler(sets(folder), WEIGHTS, amount or ViewAmount(), device=CPU, seed=seed, size=64, stored=72)


def random_keypoints(count: int) -> KeypointTensors:
    random = torch.Generator().manual_seed(1)
    jacobians = torch.eye(2) + 0.2 * torch.randn(count, 10, 2, 2, generator=random)
    return KeypointTensors(torch.rand(count, 10, 2, generator=random) - 0.5, jacobians)


def test_a_label_lies_where_the_map_takes_it_from() -> None:
    maps = ThinPlateSpline.random(4, generator=torch.Generator().manual_seed(2), device=CPU)
    stored = random_keypoints(4)
    seen = shown(stored, maps, torch.zeros(4, dtype=torch.bool))
    assert torch.allclose(maps.at(seen.points), stored.points, atol=1e-5)
    assert torch.allclose(maps.slope_at(seen.points) @ seen.jacobians, stored.jacobians, atol=1e-4)


def test_a_mirrored_face_changes_sides_and_keeps_its_handedness() -> None:
    flip = torch.diag(torch.tensor([-1.0, 1.0]))
    centres = torch.zeros(1, 2)
    maps = ThinPlateSpline(flip[None], torch.zeros(1, 2), centres, torch.zeros(1, 1, 2))
    stored = random_keypoints(1)
    seen = shown(stored, maps, torch.tensor([True]))
    assert torch.allclose(seen.points, stored.points[:, MIRRORED] * torch.tensor([-1.0, 1.0]), atol=1e-6)
    assert torch.allclose(seen.jacobians, flip @ stored.jacobians[:, MIRRORED] @ flip, atol=1e-6)
    assert (torch.linalg.det(seen.jacobians) > 0).all()


def test_the_coarse_grid_matches_the_exact_map() -> None:
    maps = ThinPlateSpline.random(2, generator=torch.Generator().manual_seed(4), device=CPU)
    fine = everywhere(maps, 128)
    centres = (torch.arange(128) * 2 + 1) / 128 - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).flatten(0, 1)
    exact = maps.at(grid.expand(2, -1, 2)).unflatten(1, (128, 128))
    assert float((fine - exact).abs().max()) < 2e-3


def test_a_batch_holds_two_views_of_each_face_and_pictures_of_none(labelled: Path) -> None:
    batch = sampler(labelled).draw(5, 4)
    assert batch.pictures.shape == (10, 3, 64, 64)
    assert batch.nothing.shape == (4, 3, 64, 64)
    assert float(batch.pictures.min()) >= 0 and float(batch.pictures.max()) <= 1
    back = batch.maps.at(batch.keypoints.points)
    same = torch.minimum((back[:5] - back[5:]).norm(dim=-1).mean(dim=1), (back[:5] - back[5:]).abs().amax(dim=(1, 2)))
    assert float(same.max()) < 1e-3, "both views of a pair show the same stored face"


def test_without_any_change_a_view_is_the_stored_frame(labelled: Path) -> None:
    nothing = ViewAmount(*[0.0] * len(fields(ViewAmount)))
    batch = sampler(labelled, nothing).draw(8, 0)
    upright = torch.linalg.det(batch.maps.matrix) > 0
    turned = batch.keypoints.jacobians[:, 4]
    assert torch.allclose(torch.linalg.det(turned), torch.ones(16), atol=1e-4)
    assert upright.any()
    left_eye, right_eye = batch.keypoints.points[:, 2], batch.keypoints.points[:, 3]
    assert (left_eye[:, 0] < right_eye[:, 0]).all(), "left is the picture's left, also in mirrored views"


def test_the_same_seed_draws_the_same_and_continues_from_a_state(labelled: Path) -> None:
    one, other = sampler(labelled), sampler(labelled)
    one.draw(2, 1)
    other.draw(2, 1)
    state = one.state()
    expected = one.draw(2, 1)
    assert torch.equal(other.draw(2, 1).pictures, expected.pictures)
    other.restore(state)
    assert torch.equal(other.draw(2, 1).pictures, expected.pictures)


def test_kinds_without_a_weight_are_an_error(labelled: Path) -> None:
    with pytest.raises(DatasetError, match="no set is of a kind with a weight; the sets' kinds are clip, still"):
        ViewSampler(sets(labelled), {"ict": 1.0}, ViewAmount(), device=CPU, seed=0, size=64, stored=72)
