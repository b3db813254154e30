"""The contract of face generators: they take an avatar once and keypoints per frame, and make face pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien_generator.face.region import PasteRegion
from mien_shared.keypoints import Keypoints

RgbArray = NDArray[np.uint8]

#: Side in pixels of the largest face picture that a generator makes (paper, section 3.4).
MAX_FACE_SIZE = 384


class FaceRefused(RuntimeError):
    """The face generator cannot take another avatar now, because it has no memory or room. Other avatars continue."""


@dataclass(frozen=True, slots=True)
class AvatarFace:
    """The face crop of an avatar picture.

    rgb: (S, S, 3) uint8, the square crop at the picture's own resolution.
    keypoints: where the avatar's ten keypoints lie in that crop, [-1, 1].
    region: the part of the still picture that the face changes, for generators that paste the face there themselves.
    It must be the compositor's own region. None asks for RGB faces.
    """

    rgb: RgbArray
    keypoints: Keypoints
    region: PasteRegion | None = None


@dataclass(frozen=True, slots=True, eq=False)
class YuvPatch:
    """A face that is scaled, feathered and converted for its avatar's PasteRegion: YUV 4:2:0, BT.601 limited range.

    luma: (H, W) uint8, the region's even height and width. u, v: (H/2, W/2) uint8.
    """

    luma: NDArray[np.uint8]
    u: NDArray[np.uint8]
    v: NDArray[np.uint8]


#: A generator's result: (size, size, 3) uint8 RGB, or a patch of the picture that the device has finished.
FacePicture = RgbArray | YuvPatch


class PreparedFace(Protocol):
    """Data that a generator computed from the avatar alone. Only the generator that made it knows its content."""

    @property
    def size(self) -> int:
        """Width and height in pixels of the faces that `animate` returns for this avatar."""


P = TypeVar("P", bound=PreparedFace)


@dataclass(frozen=True, slots=True)
class FaceRequest(Generic[P]):
    """One face to make: a prepared avatar, and the driving keypoints in its crop."""

    prepared: P
    driving: Keypoints


class FaceGenerator(Protocol[P]):
    """Makes face pictures. `warp` bends the avatar's own pixels; `onnx` and `torch` run the paper's network.

    Only one thread at a time calls `animate` of a generator that runs on a device. Several threads at once call that of
    a generator without a device (`warp`).
    """

    name: str

    def prepare(self, avatar: AvatarFace) -> P:
        """Compute the data that depends on the avatar alone. Its memory is freed with the returned object.

        Raises FaceRefused.
        """

    def animate(self, requests: Sequence[FaceRequest[P]]) -> Sequence[FacePicture]:
        """One face for each request, in the order of the requests. RGB if the avatar has no region."""

    def close(self) -> None:
        """Free the device's memory."""


@runtime_checkable
class Overlapping(Protocol):
    """A generator whose device works in the background: it takes the next batch before the last one is collected."""

    def submit(self, requests: Sequence[FaceRequest[Any]]) -> Any:
        """Start to make faces. Returns at once, with a ticket for them."""

    def collect(self, ticket: Any) -> Sequence[FacePicture]:
        """Wait for the faces of a ticket. Returns them in the order of its requests."""


def as_rgb(face: FacePicture) -> RgbArray:
    """The face as RGB. Generators make RGB faces for avatars without a region. Raises TypeError for a patch."""
    if isinstance(face, YuvPatch):
        raise TypeError("a YUV patch cannot be used as RGB: prepare the avatar without a region")
    return face
