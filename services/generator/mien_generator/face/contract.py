"""What a face generator is: avatar in once, keypoints in per frame, a face picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mien_generator.frame.region import PasteRegion
from mien_shared.motion import Keypoints

RgbArray = NDArray[np.uint8]

#: The widest face picture a generator makes (paper, section 3.4).
MAX_FACE_SIZE = 384


class FaceRefused(RuntimeError):
    """An avatar that the engine cannot take now, for want of memory or room; those it holds already go on."""


@dataclass(frozen=True, slots=True)
class AvatarFace:
    """The face crop of an avatar picture.

    rgb: (S, S, 3) uint8, the square crop at the picture's own resolution.
    keypoints: where the avatar's ten keypoints lie in that crop, [-1, 1].
    region: where the face goes on in the still picture, for engines that paste it there themselves; None where RGB
    faces are wanted. It must be the compositor's own.
    """

    rgb: RgbArray
    keypoints: Keypoints
    region: PasteRegion | None = None


@dataclass(frozen=True, slots=True, eq=False)
class YuvPatch:
    """A face scaled, feathered and converted for its avatar's PasteRegion: YUV 4:2:0, BT.601 limited range.

    luma: (H, W) uint8 of the region's even height and width. u, v: (H/2, W/2) uint8.
    """

    luma: NDArray[np.uint8]
    u: NDArray[np.uint8]
    v: NDArray[np.uint8]


#: What a generator makes: (size, size, 3) uint8 RGB, or a patch of the picture where the device finished it.
FacePicture = RgbArray | YuvPatch


class PreparedFace(Protocol):
    """What a generator computed from the avatar alone; opaque to everyone but the generator that made it."""

    @property
    def size(self) -> int:
        """Width and height in pixels of the faces that `animate` returns for this avatar."""


P = TypeVar("P", bound=PreparedFace)


@dataclass(frozen=True, slots=True)
class FaceRequest(Generic[P]):
    """One face to make: an avatar, prepared, and the driving keypoints in that avatar's crop."""

    prepared: P
    driving: Keypoints


class FaceGenerator(Protocol[P]):
    """Two implementations: `warp` (no weights) and `fomm` (the paper's network)."""

    name: str

    def prepare(self, avatar: AvatarFace) -> P:
        """Compute once what depends on the avatar alone. Raises FaceRefused; memory goes with what is returned."""

    def animate(self, requests: Sequence[FaceRequest[P]]) -> Sequence[FacePicture]:
        """One face for each request, in order, RGB wherever its avatar came without a region.

        Runs on the device's owner thread.
        """

    def close(self) -> None:
        """Give the device's memory back."""


def as_rgb(face: FacePicture) -> RgbArray:
    """The face of an avatar without a region, which every generator makes as RGB; raises TypeError for a patch."""
    if isinstance(face, YuvPatch):
        raise TypeError("a patch holds no RGB: prepare the avatar without a region")
    return face
