"""The hourglass network: encoder, decoder, and a skip connection at every scale. Tensors are (B, C, H, W)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from mien_generator.face.fomm.blocks import DownBlock, UpBlock
from mien_generator.face.fomm.config import HourglassConfig


class _Encoder(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(DownBlock(wide, deep) for wide, deep in pairwise(widths))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps of every scale, the input first and the deepest last."""
        scales = [x]
        for block in self.down_blocks:
            scales.append(block(scales[-1]))
        return scales


class _Decoder(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        deepest = len(widths) - 1
        self.up_blocks = nn.ModuleList(
            # Except at the deepest level, the input is the previous block's output and the skip of the same width.
            UpBlock(widths[level] if level == deepest else 2 * widths[level], widths[level - 1])
            for level in range(deepest, 0, -1)
        )

    def forward(self, scales: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = scales
        for block, skip in zip(self.up_blocks, reversed(skips), strict=True):
            x = torch.cat([block(x), skip], dim=1)
        return x


class Hourglass(nn.Module):
    """(B, in_features, H, W) -> (B, out_features, H, W); H and W are multiples of 2^num_blocks."""

    def __init__(self, config: HourglassConfig, in_features: int) -> None:
        super().__init__()
        inner = [min(config.max_features, config.block_expansion * 2**level) for level in range(config.num_blocks + 1)]
        self.encoder = _Encoder([in_features, *inner[1:]])
        self.decoder = _Decoder(inner)
        self.out_features = inner[0] + in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))
