"""What a face generator is: avatar in once, keypoints in per frame, a face picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mien_shared.motion import Keypoints

RgbArray = NDArray[np.uint8]

#: The widest face picture a generator makes (paper, section 3.4).
MAX_FACE_SIZE = 384


@dataclass(frozen=True, slots=True)
class AvatarFace:
    """The face crop of an avatar picture.

    rgb: (S, S, 3) uint8, the square crop at the picture's own resolution.
    keypoints: where the avatar's ten keypoints lie in that crop, [-1, 1].
    """

    rgb: RgbArray
    keypoints: Keypoints


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
        """Compute once what depends on the avatar alone."""

    def animate(self, requests: Sequence[FaceRequest[P]]) -> list[RgbArray]:
        """One (size, size, 3) uint8 RGB face for each request, in order. Runs on the device's owner thread."""

    def close(self) -> None:
        """Give the device's memory back."""
