"""The convolutional blocks of FOMM's networks. Tensors are (B, C, H, W).

Attribute names are those of the published checkpoints (Siarohin et al. 2019), so that their tensors load by name.
Batch normalisation uses its stored statistics: the code that loads the weights puts all blocks in eval mode.
"""

from __future__ import annotations

import torch
from torch import nn


class SameBlock(nn.Module):
    """Convolution, normalisation, ReLU at one resolution: (B, Cin, H, W) -> (B, Cout, H, W)."""

    def __init__(self, in_features: int, out_features: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_features, out_features, kernel_size, padding=kernel_size // 2)
        self.norm = nn.BatchNorm2d(out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.conv(x)))


class DownBlock(SameBlock):
    """A SameBlock, then 2x2 averages: (B, Cin, H, W) -> (B, Cout, H/2, W/2)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(super().forward(x), 2)


class UpBlock(SameBlock):
    """Nearest-neighbour doubling, then a SameBlock: (B, Cin, H, W) -> (B, Cout, 2H, 2W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


class ResBlock(nn.Module):
    """Pre-activation residual block: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(features)
        self.norm2 = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(nn.functional.relu(self.norm1(x)))
        y = self.conv2(nn.functional.relu(self.norm2(y)))
        return x + y


class AntiAliasDownscale(nn.Module):
    """Gaussian blur, then every n-th pixel: (B, C, H, W) -> (B, C, H/n, W/n), n = 1 / scale_factor.

    The convolution has the stride, so pixels that would be dropped are never blurred (a sixteenth of the work at n = 4,
    the same values). The kernel is a stored tensor, not a parameter, as in the published checkpoints. With n = 1 there
    is no kernel, and the input is returned unchanged.
    """

    def __init__(self, channels: int, scale_factor: float) -> None:
        super().__init__()
        self.channels = channels
        self.step = round(1 / scale_factor)
        if self.step == 1:
            return
        sigma = (self.step - 1) / 2
        radius = round(sigma * 4)
        bell = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float32).square() / (2 * sigma**2))
        kernel = torch.outer(bell, bell)
        self.register_buffer("weight", (kernel / kernel.sum()).repeat(channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.step == 1:
            return x
        return nn.functional.conv2d(
            x, self.weight, stride=self.step, padding=self.weight.shape[-1] // 2, groups=self.channels
        )
