"""Turns a generated face into its picture's YUV rectangle, on the device: scale, feather, convert (paper, section 3.4).

Gives the same result as Compositor with cv2: the conversion is equal in every bit, scaling and feathering differ only
by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mien_generator.face.contract import FacePicture, YuvPatch
from mien_generator.face.picture import resampling
from mien_generator.face.region import PasteRegion, border_mask

# BT.601 limited range as in cv2: weights of red, green and blue with 20 fraction bits, and the offset.
_FRACTION_BITS = 20
_LUMA = (269484, 528482, 102760, 16)
_U = (-155188, -305135, 460324, 128)
_V = (460324, -385875, -74448, 128)


class _Shape(NamedTuple):
    """Height and width of a region; the corner and the side of the crop in it."""

    height: int
    width: int
    x: int
    y: int
    size: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Geometry:
    """Device tensors that all regions of one shape share.

    mask: (H, W) float32 weight of the face, 0 outside the crop. down: (H, S) and across: (S, W) resize a face and move
    it to the crop; None if the face already has the region's size.
    """

    height: int
    width: int
    mask: torch.Tensor
    down: torch.Tensor | None
    across: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The place for one avatar's faces: a geometry, and the still picture's pixels there, (3, H, W) uint8."""

    geometry: Geometry
    still: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Group:
    """Faces of a batch that are finished together. shape: of each finished face, (rows, ...) uint8."""

    geometry: Geometry | None
    members: list[int]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packing:
    """Layout of a batch's finished faces in one byte buffer: group after group, and in a group face after face."""

    groups: list[_Group]

    @property
    def num_bytes(self) -> int:
        return sum(len(group.members) * int(np.prod(group.shape)) for group in self.groups)

    def blocks(self, data: torch.Tensor) -> list[torch.Tensor]:
        """Views of the (num_bytes,) buffer, (faces, *shape) for each group."""
        parts = data.split([len(group.members) * int(np.prod(group.shape)) for group in self.groups])
        return [part.view(-1, *group.shape) for part, group in zip(parts, self.groups, strict=True)]

    def pictures(self, data: NDArray[np.uint8]) -> list[FacePicture]:
        """The faces in the order of the batch, as views of the buffer."""
        pictures: dict[int, FacePicture] = {}
        for group, block in zip(self.groups, self.blocks(torch.from_numpy(data)), strict=True):
            for index, values in zip(group.members, block.numpy(), strict=True):
                pictures[index] = values if group.geometry is None else _patch(values, group.geometry)
        return [pictures[index] for index in range(len(pictures))]


class Finisher:
    """Finishes faces that are `size` pixels wide. Faces of one geometry share one sequence of kernels."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._size = size
        self._device = device
        # The error of a half float is at most an eighth of a level, and tensor cores can use it.
        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._geometries: WeakValueDictionary[_Shape, Geometry] = WeakValueDictionary()

    def place(self, region: PasteRegion) -> Placement:
        """Copy an avatar's region to the device."""
        shape = _Shape(*region.shape, region.x, region.y, region.size)
        geometry = self._geometries.get(shape)
        if geometry is None:
            geometry = self._geometries[shape] = self._geometry(shape)
        still = torch.from_numpy(np.ascontiguousarray(region.still.transpose(2, 0, 1)))
        return Placement(geometry, still.to(self._device))

    def finish(self, faces: torch.Tensor, placements: Sequence[Placement | None]) -> tuple[torch.Tensor, Packing]:
        """(B, 3, S, S) float32 in [0, 1] -> uint8 on the device: YUV rectangles, or RGB faces without a placement."""
        members: dict[Geometry | None, list[int]] = {}
        for index, placement in enumerate(placements):
            members.setdefault(placement.geometry if placement else None, []).append(index)
        packing = Packing([_Group(geometry, of_it, self._shape(geometry)) for geometry, of_it in members.items()])
        packed = torch.empty(packing.num_bytes, dtype=torch.uint8, device=self._device)
        for group, block in zip(packing.groups, packing.blocks(packed), strict=True):
            alone = len(group.members) == len(placements)
            chosen = faces if alone else torch.stack([faces[index] for index in group.members])
            if group.geometry is None:
                block.copy_(chosen.mul(255).round_().permute(0, 2, 3, 1))
            else:
                stills = torch.stack([place.still for index in group.members if (place := placements[index])])
                _write_yuv(self._pasted(chosen, stills, group.geometry), block)
        return packed, packing

    def _shape(self, geometry: Geometry | None) -> tuple[int, ...]:
        if geometry is None:
            return self._size, self._size, 3
        return geometry.height * 3 // 2, geometry.width

    def _geometry(self, shape: _Shape) -> Geometry:
        height, width, x, y, size = shape
        mask = torch.zeros(height, width)
        mask[y : y + size, x : x + size] = torch.from_numpy(border_mask(size))
        mask = mask.to(self._device)
        if size == self._size == height == width:
            return Geometry(height, width, mask, None, None)
        resampled = torch.from_numpy(resampling(self._size, size))
        down = nn.functional.pad(resampled, (0, 0, y, height - size - y))
        across = nn.functional.pad(resampled, (0, 0, x, width - size - x)).T
        return Geometry(
            height, width, mask, down.to(self._device, self._dtype), across.to(self._device, self._dtype).contiguous()
        )

    def _pasted(self, faces: torch.Tensor, stills: torch.Tensor, geometry: Geometry) -> torch.Tensor:
        """Paste (n, 3, S, S) in [0, 1] into (n, 3, H, W) uint8 -> (n, 3, H, W) int32 RGB levels."""
        if geometry.down is not None and geometry.across is not None:
            faces = (geometry.down @ (faces.to(self._dtype) @ geometry.across)).float()
        return torch.lerp(stills.float(), faces * 255, geometry.mask).round_().int()


def _write_yuv(rgb: torch.Tensor, out: torch.Tensor) -> None:
    """(n, 3, H, W) int32 -> (n, H * 3/2, W) uint8, I420. As in cv2, chroma comes from the upper left of 2x2 pixels."""
    height, width = rgb.shape[2:]
    chroma = out[:, height:].flatten(1).unflatten(1, (2, height // 2, width // 2))
    upper_left = rgb[:, :, ::2, ::2]
    out[:, :height].copy_(_level(rgb, _LUMA))
    chroma[:, 0].copy_(_level(upper_left, _U))
    chroma[:, 1].copy_(_level(upper_left, _V))


def _level(rgb: torch.Tensor, weights: tuple[int, int, int, int]) -> torch.Tensor:
    """(n, 3, h, w) int32 -> (n, h, w) int32, rounded half up; 8 + 20 bits do not overflow."""
    red, green, blue = rgb.unbind(1)
    of_red, of_green, of_blue, added = weights
    level = red * of_red
    level.add_(green, alpha=of_green).add_(blue, alpha=of_blue)
    return level.add_((added << _FRACTION_BITS) + (1 << _FRACTION_BITS - 1)).bitwise_right_shift_(_FRACTION_BITS)


def _patch(values: NDArray[np.uint8], geometry: Geometry) -> YuvPatch:
    u, v = values[geometry.height :].reshape(2, geometry.height // 2, geometry.width // 2)
    return YuvPatch(values[: geometry.height], u, v)
