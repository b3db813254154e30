"""What a face generator is: avatar in once, keypoints in per frame, a face picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien_generator.face.region import PasteRegion
from mien_shared.keypoints import Keypoints

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
    """Makes face pictures. `warp` bends the avatar's own pixels; `onnx` and `torch` run the paper's network.

    One thread calls `animate` at a time for a generator that runs on a device; a generator that needs none (`warp`) is
    called by several threads at once.
    """

    name: str

    def prepare(self, avatar: AvatarFace) -> P:
        """Compute once what depends on the avatar alone. Its memory is freed with the returned object.

        Raises FaceRefused.
        """

    def animate(self, requests: Sequence[FaceRequest[P]]) -> Sequence[FacePicture]:
        """One face for each request, in the order of the requests. RGB for an avatar that was given no region."""

    def close(self) -> None:
        """Free the device's memory."""


@runtime_checkable
class Overlapping(Protocol):
    """A generator whose device works on its own: the next batch may be submitted before the last one is collected."""

    def submit(self, requests: Sequence[FaceRequest[Any]]) -> Any:
        """Start to make faces and return at once, with a ticket for them."""

    def collect(self, ticket: Any) -> Sequence[FacePicture]:
        """Wait for the faces of a ticket, in the order of its requests."""


def as_rgb(face: FacePicture) -> RgbArray:
    """The face of an avatar without a region, which every generator makes as RGB; raises TypeError for a patch."""
    if isinstance(face, YuvPatch):
        raise TypeError("a patch holds no RGB: prepare the avatar without a region")
    return face
