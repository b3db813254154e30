"""FOMM's blocks folded for inference: no separate normalisation, no doubled pictures, ReLU inside the convolution.

Tensors are (B, C, H, W), with channels innermost in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from mien_generator.face.fomm.blocks import ResBlock, SameBlock, UpBlock
from mien_generator.face.fomm.rewrite import BatchNorm, fold, padded, phase_kernels, transposed_kernel
from mien_shared.keypoints import FloatArray

#: How a block doubles its picture: as published, with four small convolutions, or with one transposed convolution.
Doubling = Literal["nearest", "phases", "transposed"]

_TIMED_RUNS = 10


@dataclass(frozen=True, slots=True)
class Folding:
    """Options that depend on the device.

    doubling: None means that each block times the three ways in its first run and keeps the fastest.
    fused_relu: use cuDNN's convolution with bias and ReLU in one kernel (CUDA only).
    channel_multiple: channel counts are padded with zeros to a multiple of this.
    """

    doubling: Doubling | None = "phases"
    fused_relu: bool = False
    channel_multiple: int = 1


class Convolution(nn.Module):
    """Convolution with bias and optional ReLU: (B, Cin, H, W) -> (B, Cout, H', W')."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, weight: FloatArray, bias: FloatArray, folding: Folding, *, relu: bool, padding: int | None = None
    ) -> None:
        """padding: by default the padding that keeps the picture's size."""
        super().__init__()
        weight = padded(weight, folding.channel_multiple)
        bias = np.pad(bias, (0, len(weight) - len(bias)))
        self.register_buffer("weight", torch.from_numpy(weight))
        self.register_buffer("bias", torch.from_numpy(bias))
        self._padding = weight.shape[-1] // 2 if padding is None else padding
        self._relu = relu
        self._fused = relu and folding.fused_relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._fused:
            padding = (self._padding, self._padding)
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, (1, 1), padding, (1, 1), 1)
        y = nn.functional.conv2d(x, self.weight, self.bias, padding=self._padding)
        return y.relu_() if self._relu else y


class DownConvolution(Convolution):
    """A SameBlock's convolution, then 2x2 averages: (B, Cin, H, W) -> (B, Cout, H/2, W/2)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(super().forward(x), 2)


class UpConvolution(nn.Module):
    """Doubling, convolution, ReLU: (B, Cin, H, W) -> (B, Cout, 2H, 2W). The three ways give the same result."""

    transposed: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: FloatArray, bias: FloatArray, folding: Folding) -> None:
        super().__init__()
        weight = padded(weight, folding.channel_multiple)
        bias = np.pad(bias, (0, len(weight) - len(bias)))
        four = phase_kernels(weight).reshape(-1, *weight.shape[1:2], 2, 2)  # (4 Cout, Cin, 2, 2), phases outermost
        self.nearest = Convolution(weight, bias, folding, relu=True)
        self.phases = Convolution(four, np.tile(bias, 4), folding, relu=True, padding=1)
        self.register_buffer("transposed", torch.from_numpy(transposed_kernel(weight)))
        self.register_buffer("bias", torch.from_numpy(bias))
        self.doubling = folding.doubling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.doubling is None:
            self.doubling = self._fastest(x)
        return self._doubled(x, self.doubling)

    def _fastest(self, x: torch.Tensor) -> Doubling:
        return min(get_args(Doubling), key=lambda doubling: device_seconds(lambda: self._doubled(x, doubling)))

    def _doubled(self, x: torch.Tensor, doubling: Doubling) -> torch.Tensor:
        if doubling == "nearest":
            return self.nearest(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
        if doubling == "transposed":
            return nn.functional.conv_transpose2d(x, self.transposed, self.bias, stride=2, padding=1).relu_()
        return self._by_phases(x)

    def _by_phases(self, x: torch.Tensor) -> torch.Tensor:
        y = self.phases(x).contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)  # (B, H+1, W+1, 4C)
        batch, height, width, channels = y.shape[0], y.shape[1] - 1, y.shape[2] - 1, y.shape[3] // 4
        by_picture, by_row, by_column, _ = y.stride()
        # Output (2i + p, 2j + q) is at row i + p, column j + q of phase (p, q): a strided view, then one copy.
        woven = y.as_strided(
            (batch, height, 2, width, 2, channels),
            (by_picture, by_row, by_row + 2 * channels, by_column, by_column + channels, 1),
        )
        return woven.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Pre-activation residual block: (B, C, H, W) -> (B, C, H, W)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, block: ResBlock, folding: Folding) -> None:
        super().__init__()
        # The first normalisation has no convolution before it and stays; the second folds into the first convolution.
        scale, shift = _norm(block.norm1).affine()
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("shift", torch.from_numpy(shift)[:, None, None])
        self.first = Convolution(*fold(*kernel(block.conv1), _norm(block.norm2)), folding, relu=True)
        self.second = Convolution(*kernel(block.conv2), folding, relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(torch.addcmul(self.shift, x, self.scale).relu_())
        return self.second(y).add_(x)


def same_convolution(block: SameBlock, folding: Folding) -> Convolution:
    """A SameBlock, folded."""
    return Convolution(*fold(*kernel(block.conv), _norm(block.norm)), folding, relu=True)


def down_convolution(block: SameBlock, folding: Folding) -> DownConvolution:
    """A DownBlock, folded."""
    return DownConvolution(*fold(*kernel(block.conv), _norm(block.norm)), folding, relu=True)


def up_convolution(block: UpBlock, folding: Folding) -> UpConvolution:
    """An UpBlock, folded."""
    return UpConvolution(*fold(*kernel(block.conv), _norm(block.norm)), folding)


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a folded network to a device: convolutions get `dtype`, channels innermost; the rest stays float32."""
    network.to(device)
    for module in network.modules():
        if isinstance(module, Convolution | UpConvolution | Residual):
            module.to(dtype, memory_format=torch.channels_last)


def kernel(convolution: nn.Conv2d) -> tuple[FloatArray, FloatArray]:
    """Weight and bias as numpy arrays, float32."""
    weight, bias = convolution.weight.detach().float().cpu(), convolution.bias.detach().float().cpu()
    return weight.numpy(), bias.numpy()


def _norm(norm: nn.BatchNorm2d) -> BatchNorm:
    stored = norm.weight, norm.bias, norm.running_mean, norm.running_var
    gamma, beta, mean, variance = (values.detach().float().cpu().numpy() for values in stored)
    return BatchNorm(gamma, beta, mean, variance)


def device_seconds(work: Callable[[], object]) -> float:
    """Mean device time of `work` on the current CUDA stream, after warm-up."""
    for _ in range(3):
        work()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(_TIMED_RUNS):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / _TIMED_RUNS
