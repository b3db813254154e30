from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.blocks import AntiAliasDownscale, DownBlock, ResBlock, SameBlock, UpBlock
from mien_generator.face.fomm.config import HourglassConfig
from mien_generator.face.fomm.hourglass import Hourglass


def test_strided_blur_equals_blurring_everything_and_keeping_every_fourth_pixel() -> None:
    picture = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    down = AntiAliasDownscale(3, 0.25)
    blurred = torch.nn.functional.conv2d(picture, down.weight, padding=6, groups=3)
    torch.testing.assert_close(down(picture), blurred[:, :, ::4, ::4])


def test_blur_keeps_brightness_and_is_no_parameter() -> None:
    down = AntiAliasDownscale(3, 0.25)
    assert down(torch.ones(1, 3, 64, 64))[0, :, 8, 8].tolist() == pytest.approx([1, 1, 1])
    assert list(down.parameters()) == []
    assert [name for name, _ in down.named_buffers()] == ["weight"]


def test_scale_one_changes_nothing_and_stores_nothing() -> None:
    down = AntiAliasDownscale(3, 1.0)
    picture = torch.rand(1, 3, 8, 8)
    assert down(picture) is picture
    assert not down.state_dict()


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (SameBlock(3, 8, kernel_size=7), (1, 8, 16, 24)),
        (DownBlock(3, 8), (1, 8, 8, 12)),
        (UpBlock(3, 8), (1, 8, 32, 48)),
        (ResBlock(3), (1, 3, 16, 24)),
    ],
)
def test_block_shapes(block: torch.nn.Module, shape: tuple[int, ...]) -> None:
    assert block.eval()(torch.rand(1, 3, 16, 24)).shape == shape


def test_hourglass_gives_its_input_back_beside_its_features() -> None:
    hourglass = Hourglass(HourglassConfig(block_expansion=4, max_features=12, num_blocks=3), in_features=5).eval()
    x = torch.rand(1, 5, 16, 8)
    y = hourglass(x)
    assert y.shape == (1, 4 + 5, 16, 8)
    assert hourglass.out_features == 9
    torch.testing.assert_close(y[:, 4:], x)
