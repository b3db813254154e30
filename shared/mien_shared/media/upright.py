"""Turns pictures of a clip upright. A phone stores what its sensor sees, and beside it a display matrix. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Nine integers in row order (ISO/IEC 14496-12, section 8.2.2); FFmpeg keeps them in the machine's byte order.
_MATRIX = struct.Struct("=9i")


@dataclass(frozen=True, slots=True)
class Orientation:
    """What to do with a stored picture before it is shown: first transpose it, then mirror columns and rows."""

    transposed: bool = False
    columns_mirrored: bool = False
    rows_mirrored: bool = False

    @classmethod
    def of(cls, frame: Any) -> Self:
        """The orientation that a decoded frame (`av.VideoFrame`) carries."""
        try:
            matrices = [bytes(entry) for entry in frame.side_data if entry.type.name == "DISPLAYMATRIX"]
        except ValueError:  # PyAV lists no side data of a frame that has a kind newer than PyAV
            return cls.from_rotation(frame.rotation)
        return cls.from_matrix(matrices[0]) if matrices else cls()

    @classmethod
    def from_rotation(cls, degrees: int) -> Self:
        """The orientation of a picture that must be rotated counterclockwise by these degrees. Multiples of 90."""
        quarter = round(degrees / 90) % 4
        return cls(quarter % 2 == 1, columns_mirrored=quarter in {2, 3}, rows_mirrored=quarter in {1, 2})

    @classmethod
    def from_matrix(cls, matrix: bytes) -> Self:
        """The orientation of a display matrix: multiples of 90 degrees, mirrored or not. Others are rounded to these.

        The matrix moves a point (x, y) to (a x + c y, b x + d y). A matrix of another length means nothing.
        """
        if len(matrix) != _MATRIX.size:
            return cls()
        a, b, _, c, d, *_ = _MATRIX.unpack(matrix)
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, columns_mirrored=c < 0, rows_mirrored=b < 0)
        return cls(False, columns_mirrored=a < 0, rows_mirrored=d < 0)

    def upright(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as a player shows it: (H, W, 3), or (W, H, 3) if it is transposed."""
        turned = rgb.swapaxes(0, 1) if self.transposed else rgb
        turned = turned[:: -1 if self.rows_mirrored else 1, :: -1 if self.columns_mirrored else 1]
        return np.ascontiguousarray(turned)
