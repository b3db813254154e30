"""The `warp` generator: first-order motion without learned parts (FOMM, Siarohin et al. 2019, eq. 4).

Each pixel z of the frame is read from the avatar at T(z). T is a chain of three maps. None of them folds the picture,
so the chain does not fold it either:

1. head (`head.py`): one affine motion of the whole head, fitted to all keypoints, fading to the identity at the crop's
   border;
2. jaw (`mouth.py`): if the lips open wider than the avatar's, the part of the face below the line between the lips
   moves down, and the inside of a mouth is painted into the gap;
3. features (`features.py`): the additional motion of each keypoint, blended by Gaussian weights.

A map is injective on a convex domain if the symmetric part of its derivative is positive definite. Maps 1 and 3 are
scaled down if the smallest eigenvalue of that part would fall below MIN_SLOPE. So impossible motions degrade towards
stillness.

Many speakers share an interpreter, and a thread that computes on small arrays keeps its lock. So the maps are computed
by few calls on large arrays, which release the lock: at every second pixel, in preallocated memory. Where the map bends
sharply, at the lips of an open mouth and at closing eyes, it is computed at every pixel. Pictures have four channels,
because cv2.remap reads four in less than half of the time that it takes for three.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_generator.face.contract import AvatarFace, FaceRequest, RgbArray
from mien_generator.face.features import FeatureModel, FeatureSpace
from mien_generator.face.head import HeadModel, Samples, seen
from mien_generator.face.layout import find_mouth, reach_of
from mien_generator.face.mouth import Gap, MouthModel, open_mouth, split_opening
from mien_shared.keypoints import FaceKeypoint, FloatArray, Keypoints

#: The maps are smooth, so they are computed only at every second pixel.
_STRIDE = 2
#: Motion with a larger number shows the avatar at rest: its squares could overflow. Packets are limited far below.
_LARGEST_NUMBER = 1e3
#: Number of crop sizes for which a thread keeps its workspace (11 MB at 640 pixels). Most avatars have the same size.
_MAX_WORKSPACES = 6


class AvatarShapeError(ValueError):
    """An avatar crop is not a square RGB picture."""


@dataclass(frozen=True, slots=True)
class WarpFace:
    """A prepared avatar: its crop, and what each map needs of it.

    rgba: (S, S, 4) uint8. mouth: None if no mouth was found. places: the head's map at every second pixel. pixels: at
    every pixel.
    """

    rgba: NDArray[np.uint8]
    source: Keypoints
    head: HeadModel
    features: FeatureModel
    mouth: MouthModel | None
    places: Samples
    pixels: Samples

    @property
    def size(self) -> int:
        return int(self.rgba.shape[0])

    @property
    def rgb(self) -> RgbArray:
        """The crop as it was given, (S, S, 3)."""
        return self.rgba[..., :3]


class Workspace:
    """Working memory for one face of `size` pixels. It is reused, because fresh pages cost more than the arithmetic."""

    def __init__(self, size: int) -> None:
        n = places_of(size)
        self.features = FeatureSpace(n)
        self.lookup = np.empty((2, n, n), np.float32)
        self.moved = np.empty((2, n, n), np.float32)
        self.flow = np.empty((2, size, size), np.float32)
        self.picture = np.empty((size, size, 4), np.uint8)


class _KeptWorkspaces(threading.local):
    """The workspaces of each thread, most recently used last."""

    def __init__(self) -> None:
        self.workspaces: dict[int, Workspace] = {}

    def of_size(self, size: int) -> Workspace:
        workspace = self.workspaces.pop(size, None) or Workspace(size)
        self.workspaces[size] = workspace
        if len(self.workspaces) > _MAX_WORKSPACES:
            del self.workspaces[next(iter(self.workspaces))]
        return workspace


class WarpGenerator:
    """Makes faces by moving the avatar's pixels. Needs no weights and one CPU core; the fallback below the network."""

    name = "warp"

    def __init__(self) -> None:
        self._kept = _KeptWorkspaces()

    def prepare(self, avatar: AvatarFace) -> WarpFace:
        """Analyse the avatar's keypoints and lips once. Raises AvatarShapeError unless rgb is (S, S, 3), S >= 32."""
        shape = avatar.rgb.shape
        if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or shape[0] < 32:
            raise AvatarShapeError(f"an avatar's face crop must be (S, S, 3) with S >= 32, not {shape}")
        size, points = shape[0], avatar.keypoints.points
        reach, line = reach_of(points), find_mouth(avatar.rgb, points)
        head = HeadModel.of(avatar.keypoints, reach.rigidity)
        # The positions of the samples when cv2.resize enlarges a picture from n to S.
        n = places_of(size)
        places = ((np.arange(n) + 0.5) * (size / n) - 0.5) * (2 / (size - 1)) - 1
        return WarpFace(
            cv2.cvtColor(avatar.rgb, cv2.COLOR_RGB2RGBA),
            avatar.keypoints,
            head,
            FeatureModel.of(avatar.keypoints, reach, places),
            None if line is None else MouthModel.of(avatar.rgb, line, points),
            Samples.of(places, head.limits),
            Samples.of(np.linspace(-1, 1, size), head.limits),
        )

    def animate(self, requests: Sequence[FaceRequest[WarpFace]]) -> list[RgbArray]:
        """One face for each request. If a motion is not finite, the face is the avatar at rest. Thread-safe."""
        return [self._animate_one(request.prepared, request.driving) for request in requests]

    def close(self) -> None:
        """Free the workspaces of the calling thread; those of another thread are freed when it ends."""
        self._kept.workspaces.clear()

    def _animate_one(self, face: WarpFace, driving: Keypoints) -> RgbArray:
        workspace = self._kept.of_size(face.size)
        gap = _compute_flow(face, driving, workspace)
        picture, (x, y) = workspace.picture, workspace.flow
        cv2.remap(face.rgba, x, y, cv2.INTER_LINEAR, dst=picture, borderMode=cv2.BORDER_REPLICATE)
        if gap is not None and face.mouth is not None:
            gap.paint(picture, face.mouth.inside)
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), np.uint8)


def places_of(size: int) -> int:
    """Number of places along a side at which the maps of a face of `size` pixels are computed."""
    return -(-size // _STRIDE)


def backward_map(face: WarpFace, driving: Keypoints, workspace: Workspace) -> tuple[FloatArray, Gap | None]:
    """The position in the avatar for each pixel of the frame, (S, S, 2) float32 pixels (x, y), and the open mouth.

    The map is stored in `workspace` and valid until its next use. For every motion the outermost pixels map to
    themselves, and the map does not fold.
    """
    gap = _compute_flow(face, driving, workspace)
    return workspace.flow.transpose(1, 2, 0), gap


def _compute_flow(face: WarpFace, driving: Keypoints, workspace: Workspace) -> Gap | None:
    if not _is_usable(driving):
        driving = face.source
    head = face.head.fit(driving.points)
    features = face.features.motion(face.head, head, driving)
    opening = 0.0 if face.mouth is None else split_opening(face.mouth, features)
    displacement = face.features.displacement(features, workspace.features)
    per_place, first = _to_places(face.size)
    forms = head.affine.coefficients((per_place,) * 2, (first,) * 2)
    _enlarge(face.places.map(forms, out=workspace.lookup), displacement, workspace)
    if displacement is not None:
        for box in face.features.steep(features):
            rows, columns = seen(head.affine, box, face.size)
            _insert(face.pixels.part(rows, columns).map(forms), rows, columns, displacement, workspace.flow)
    if face.mouth is None or opening == 0:
        return None
    upper = features[FaceKeypoint.UPPER_LIP]
    mouth = open_mouth(face.mouth, head.affine, face.pixels, forms, per_place, upper, opening)
    if mouth is None:
        return None
    _insert(mouth.at, mouth.rows, mouth.columns, displacement, workspace.flow)
    return mouth.gap


def _is_usable(driving: Keypoints) -> bool:
    """Whether all numbers are finite and small enough. A comparison with a NaN is false."""
    numbers = *driving.points.ravel().tolist(), *driving.jacobians.ravel().tolist()
    return all(-_LARGEST_NUMBER < number < _LARGEST_NUMBER for number in numbers)


def _to_places(size: int) -> tuple[float, float]:
    """(scale, shift) from crop coordinates to indices of the places."""
    n = places_of(size)
    return 0.5 * (size - 1) * n / size, 0.5 * (n - 1)


def _enlarge(lookup: FloatArray, displacement: FloatArray | None, workspace: Workspace) -> None:
    """Apply the features' displacement to the head's map, and enlarge the result to the flow of every pixel."""
    flow, moved = workspace.flow, workspace.moved
    size, n = flow.shape[1], lookup.shape[1]
    ratio, scale = size / n, 0.5 * (size - 1)
    if displacement is None:
        np.multiply(lookup, np.float32(ratio), out=moved)
        moved += np.float32(0.5 * ratio - 0.5)
    else:
        for i in (0, 1):
            cv2.remap(
                displacement[i],
                lookup[0],
                lookup[1],
                cv2.INTER_LINEAR,
                dst=moved[i],
                borderMode=cv2.BORDER_REPLICATE,
            )
            cv2.addWeighted(lookup[i], ratio, moved[i], scale, 0.5 * ratio - 0.5, dst=moved[i])
    for i in (0, 1):
        cv2.resize(moved[i], (size, size), dst=flow[i], interpolation=cv2.INTER_LINEAR)
    # The outermost pixels lie outside the places, and they do not move.
    flow[0, :, 0] = flow[1, 0] = 0
    flow[0, :, -1] = flow[1, -1] = size - 1


def _insert(at: FloatArray, rows: slice, columns: slice, displacement: FloatArray | None, flow: FloatArray) -> None:
    """Compute the flow of a rectangle at every pixel. at: (2, h, w) its map without the features', as place indices."""
    if at.size == 0:
        return
    size = flow.shape[1]
    ratio, scale = size / places_of(size), 0.5 * (size - 1)
    for i in (0, 1):
        if displacement is None:
            flow[i, rows, columns] = at[i] * np.float32(ratio) + np.float32(0.5 * ratio - 0.5)
            continue
        moved = cv2.remap(displacement[i], at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        flow[i, rows, columns] = cv2.addWeighted(at[i], ratio, moved, scale, 0.5 * ratio - 0.5)
