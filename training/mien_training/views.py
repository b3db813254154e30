"""Views of labelled crops for the encoder: bent, moved, recoloured, covered; and pictures without a face.

Every view has a backward map from its coordinates to those of the stored crop, z -> A (z + bend(z)) + b, with a
thin-plate spline as the bend, as FOMM deforms pictures (Siarohin et al. 2019, section 3.3). Labels pass through the
same map exactly: a stored point p moves to the z that maps to p, and its Jacobian is multiplied by the map's inverse
derivative at z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid, inverse_2x2
from mien_shared.keypoints import EYES, FaceKeypoint
from mien_training.datasets import MIRRORED
from mien_training.deformation import ThinPlateSpline
from mien_training.labelled import DatasetError, LabelledSet

#: The spline's control points are a grid of this side over the crop.
_CONTROL = 5
#: Side of the coarse grid of exact map values. Between its points the spline deviates by a thousandth of the crop.
_COARSE = 33
_NEWTON_STEPS = 6
#: The kinds of pictures without a face: the edge of a crop, a close-up of a detail, a shuffled face, a cut-off face.
_NOTHING_KINDS = 4


@dataclass(frozen=True, slots=True)
class ViewAmount:
    """How much views are changed. Lengths in crop half sides, angles in radians; *_share are shares of all views."""

    shift: float = 0.35
    log_scale: float = 0.28
    rotation: float = 0.52
    stretch: float = 0.08
    bend: float = 0.006
    colour: float = 0.25
    gamma: float = 0.5
    noise: float = 0.06
    coarse_share: float = 0.3
    noisy_share: float = 0.3
    blocky_share: float = 0.15
    covered_share: float = 0.3
    grey_share: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class ViewBatch:
    """P pairs of views, both of one face. The first views of all pairs stand before the second views.

    pictures: (2P, 3, S, S) float32 in [0, 1]; keypoints: their labels; maps: from the views to the stored crops.
    nothing: (Q, 3, S, S), pictures without a face.
    """

    pictures: torch.Tensor
    keypoints: KeypointTensors
    maps: ThinPlateSpline
    nothing: torch.Tensor


class ViewSampler:
    """Draws views, of each kind of set by its weight. Half of them prefer frames with unusual eyes or mouth.

    Frames are on the device at `stored` pixels, hardly more than a view has, so that there is no aliasing. The same
    seed draws the same views.
    """

    def __init__(
        self,
        sets: Sequence[LabelledSet],
        weights: dict[str, float],
        amount: ViewAmount,
        *,
        device: torch.device,
        seed: int,
        size: int = 256,
        stored: int = 288,
    ) -> None:
        self._device, self._amount, self._size = device, amount, size
        self._random = torch.Generator(device=device).manual_seed(seed)
        frames = np.concatenate([_resized(labelled.frames, stored) for labelled in sets])
        self._frames = torch.from_numpy(frames).to(device)
        rows = torch.from_numpy(np.concatenate([each.keypoints for each in sets])).to(device)
        self._points, self._jacobians = rows[..., :2], rows[..., 2:].unflatten(-1, (2, 2))
        self._share = torch.from_numpy(_shares(sets, weights)).float().to(device)
        self._unusual = torch.from_numpy(np.concatenate([_unusual(each.keypoints) for each in sets])).float().to(device)
        self._control = coordinate_grid(_CONTROL, _CONTROL, device).flatten(0, 1)
        self._grid = coordinate_grid(size, size, device, pixel_centres=True).flatten(0, 1)

    @property
    def frames(self) -> int:
        """The number of frames to draw from."""
        return len(self._frames)

    def state(self) -> torch.Tensor:
        """The state of the random generator, for `restore`."""
        return self._random.get_state()

    def restore(self, state: torch.Tensor) -> None:
        self._random.set_state(state.cpu())

    def draw(self, pairs: int, nothing: int) -> ViewBatch:
        """Two views of each of `pairs` faces, and `nothing` pictures without a face."""
        chosen = self._chosen(pairs)
        frames = torch.cat([chosen, chosen])
        mirrored = self._uniform(pairs) < 0.5
        maps = self._maps(2 * pairs, torch.cat([mirrored, mirrored]))
        stored = KeypointTensors(self._points[frames], self._jacobians[frames])
        keypoints = shown(stored, maps, torch.cat([mirrored, mirrored]))
        pictures = self._sampled(frames, maps)
        return ViewBatch(
            self._covered(self._degraded(pictures)), keypoints, maps, self._degraded(self._without_face(nothing))
        )

    def plain(self, indices: torch.Tensor) -> tuple[torch.Tensor, KeypointTensors]:
        """Frames resized but otherwise unchanged, with their labels, for evaluation."""
        pictures = self._frames[indices].permute(0, 3, 1, 2).float() / 255
        pictures = functional.interpolate(pictures, self._size, mode="bilinear", align_corners=False, antialias=True)
        return pictures, KeypointTensors(self._points[indices], self._jacobians[indices])

    def _chosen(self, count: int) -> torch.Tensor:
        """Half of the draws take the most unusual of six frames, because only one frame in forty has closed eyes."""
        six = torch.multinomial(self._share, 6 * count, replacement=True, generator=self._random).view(count, 6)
        most = six.gather(1, self._unusual[six].argmax(dim=1, keepdim=True))[:, 0]
        return torch.where(self._uniform(count) < 0.5, most, six[:, 0])

    def _maps(self, count: int, mirrored: torch.Tensor) -> ThinPlateSpline:
        amount = self._amount
        angle = self._spread(count) * amount.rotation
        scale = torch.exp(self._spread(count) * amount.log_scale)
        stretch = torch.exp(self._spread(count, 2) * amount.stretch)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        matrix = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2)) * stretch[:, None]
        flip = torch.diag(torch.tensor([-1.0, 1.0], device=self._device))
        matrix = torch.where(mirrored[:, None, None], flip @ matrix, matrix)
        # Triangular distribution: mostly where a tracked face is, sometimes at the limit that a tracker allows.
        offset = (self._spread(count, 2) + self._spread(count, 2)) / 2 * amount.shift * 1.4
        bend = amount.bend * torch.randn(count, _CONTROL**2, 2, generator=self._random, device=self._device)
        return ThinPlateSpline(matrix, offset, self._control, bend * self._uniform(count, 1, 1) @ matrix.mT)

    def _sampled(self, frames: torch.Tensor, maps: ThinPlateSpline) -> torch.Tensor:
        places = everywhere(maps, self._size)
        pictures = self._frames[frames].float().div_(255).permute(0, 3, 1, 2)
        padding = "border" if float(self._uniform(1)) < 0.6 else "zeros"
        taken = functional.grid_sample(pictures, places, padding_mode=padding, align_corners=False)
        if padding == "zeros":  # fill the outside of the stored crop with a random colour
            outside = (places.abs().amax(dim=-1) > 1)[:, None]
            taken = torch.where(outside, self._uniform(len(taken), 3, 1, 1), taken)
        return taken

    def _without_face(self, count: int) -> torch.Tensor:
        if not count:
            return torch.empty(0, 3, self._size, self._size, device=self._device)
        frames = torch.multinomial(self._share, count, replacement=True, generator=self._random)
        kind = torch.randint(_NOTHING_KINDS, (count,), generator=self._random, device=self._device)
        side = self._uniform(count, 2).round() * 2 - 1
        along = self._spread(count)
        edge = torch.stack([side[:, 0], along], dim=1)
        edge = torch.where((side[:, 1] > 0)[:, None], edge, edge.flip(1))
        # The face fills the middle of a stored crop; the corners and edges show hair, shoulders and rooms.
        reach = torch.where(kind == 0, 0.1 + 0.14 * self._uniform(count), 0.06 + 0.14 * self._uniform(count))
        offset = torch.where((kind == 0)[:, None], edge * 0.8, 0.5 * self._spread(count, 2))
        whole, cut_off = kind == 2, kind == 3
        reach = torch.where(whole, torch.full_like(reach, 0.8), torch.where(cut_off, torch.ones_like(reach), reach))
        far = edge * (1.25 + 0.5 * self._uniform(count, 1))
        offset = torch.where(whole[:, None], torch.zeros_like(offset), torch.where(cut_off[:, None], far, offset))
        matrix = torch.eye(2, device=self._device) * reach[:, None, None]
        flat = torch.zeros(count, _CONTROL**2, 2, device=self._device)
        maps = ThinPlateSpline(matrix, offset, self._control, flat)
        pictures = self._sampled(frames, maps)
        pieces = 4
        cells = pictures.unflatten(3, (pieces, -1)).unflatten(2, (pieces, -1)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        order = torch.rand(count, pieces**2, generator=self._random, device=self._device).argsort(dim=1)
        shuffled = cells.gather(1, order[:, :, None, None, None].expand_as(cells))
        shuffled = shuffled.unflatten(1, (pieces, pieces)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return torch.where(whole[:, None, None, None], shuffled, pictures)

    def _degraded(self, pictures: torch.Tensor) -> torch.Tensor:
        """Change light and colour, and add coarse pixels, blocks and noise."""
        amount, count = self._amount, len(pictures)
        if not count:
            return pictures
        pictures = self._coarse(pictures)
        saturation = 1 + self._spread(count, 1, 1) * 0.6
        saturation = saturation * (self._uniform(count, 1, 1) > amount.grey_share)
        gain = 1 + amount.colour * (0.5 * self._spread(count, 3, 1) + self._spread(count, 1, 1))
        # Saturation and gain are one 3x3 matrix over the channels: grey is their mean.
        eye = torch.eye(3, device=self._device)
        mixing = gain * torch.lerp(torch.full_like(eye, 1 / 3), eye, saturation)
        bias = amount.colour * 0.5 * self._spread(count, 1, 1)
        # Light from one side: a slope of brightness across the picture.
        ramp = (self._grid @ (0.15 * self._spread(count, 2, 1))).mT
        pictures = torch.baddbmm(bias + ramp, mixing, pictures.flatten(2)).unflatten(2, (self._size, self._size))
        pictures = pictures.clamp_(1e-3, 1).pow_(torch.exp(amount.gamma * self._spread(count, 1, 1, 1)))
        noisy = torch.randperm(count, generator=self._random, device=self._device)[: round(amount.noisy_share * count)]
        if len(noisy):
            noise = torch.randn(pictures[noisy].shape, generator=self._random, device=self._device)
            pictures.index_add_(0, noisy, noise.mul_(amount.noise * self._uniform(len(noisy), 1, 1, 1)))
        return pictures.clamp_(0, 1)

    def _coarse(self, pictures: torch.Tensor) -> torch.Tensor:
        """Make some pictures coarse, as from a small camera, and some blocky, as after strong compression."""
        amount, count = self._amount, len(pictures)
        order = torch.randperm(count, generator=self._random, device=self._device)
        coarse, blocky = round(amount.coarse_share * count), round(amount.blocky_share * count)
        if coarse:
            which = order[:coarse]
            side = int(self._size * (0.19 + 0.44 * float(self._uniform(1))))
            small = functional.interpolate(pictures[which], side, mode="bilinear", align_corners=False, antialias=True)
            mode = "bicubic" if float(self._uniform(1)) < 0.5 else "bilinear"
            large = functional.interpolate(small, self._size, mode=mode, align_corners=False).clamp(0, 1)
            pictures.index_copy_(0, which, large)
        if blocky:
            which = order[coarse : coarse + blocky]
            means = functional.avg_pool2d(pictures[which], 8).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
            pictures.index_copy_(0, which, torch.lerp(pictures[which], means, 0.4 * float(self._uniform(1))))
        return pictures

    def _covered(self, pictures: torch.Tensor) -> torch.Tensor:
        """Cover part of some pictures with a box of one colour or of another picture, like a hand or a cup would."""
        count = len(pictures)
        which = torch.nonzero(self._uniform(count) < self._amount.covered_share)[:, 0].tolist()
        for index in which:
            sides = self._size * (0.06 + 0.25 * self._uniform(2))
            width, height = (int(side) for side in sides.tolist())
            x, y = (int(place) for place in (self._uniform(2) * (self._size - sides)).tolist())
            if float(self._uniform(1)) < 0.5:
                cover = self._uniform(3, 1, 1)
            else:
                cover = pictures[(index + 1) % count, :, :height, :width].clone()
            pictures[index, :, y : y + height, x : x + width] = cover
        return pictures

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self._random, device=self._device)

    def _spread(self, *shape: int) -> torch.Tensor:
        return self._uniform(*shape) * 2 - 1


def shown(stored: KeypointTensors, maps: ThinPlateSpline, mirrored: torch.Tensor) -> KeypointTensors:
    """The keypoints of stored crops in their views. mirrored: (B,), whether a view's map mirrors."""
    z = (stored.points - maps.offset[:, None]) @ inverse_2x2(maps.matrix).mT
    for _ in range(_NEWTON_STEPS):
        missing = (stored.points - maps.at(z))[..., None]
        z = z + (inverse_2x2(maps.slope_at(z)) @ missing)[..., 0]
    jacobians = inverse_2x2(maps.slope_at(z)) @ stored.jacobians
    flip = torch.diag(torch.tensor([-1.0, 1.0], device=z.device))
    return KeypointTensors(
        torch.where(mirrored[:, None, None], z[:, MIRRORED], z),
        torch.where(mirrored[:, None, None, None], jacobians[:, MIRRORED] @ flip, jacobians),
    )


def everywhere(maps: ThinPlateSpline, size: int) -> torch.Tensor:
    """(B, size, size, 2), the maps at every pixel's centre: exact on a coarse grid, linear in between."""
    coarse = coordinate_grid(_COARSE, _COARSE, maps.offset.device) * (1 - 1 / size)
    places = maps.at(coarse.flatten(0, 1).expand(len(maps.offset), -1, 2)).unflatten(1, (_COARSE, _COARSE))
    fine = functional.interpolate(places.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _shares(sets: Sequence[LabelledSet], weights: dict[str, float]) -> NDArray[np.float64]:
    """The relative probability of each frame. Raises DatasetError if no set's kind has a weight.

    A minute of one person teaches more than a still of another, but not a thousand times as much.
    """
    per_identity: dict[str, int] = {}
    for each in sets:
        per_identity[each.identity] = per_identity.get(each.identity, 0) + len(each.frames)
    raw = [np.full(len(each.frames), per_identity[each.identity] ** -0.6) for each in sets]
    of_kind = {kind: sum(r.sum() for r, each in zip(raw, sets, strict=True) if each.kind == kind) for kind in weights}
    if not any(of_kind[kind] * weights[kind] > 0 for kind in weights):
        raise DatasetError(
            f"no set is of a kind with a weight; the sets' kinds are {', '.join(sorted({s.kind for s in sets}))}"
        )
    return np.concatenate(
        [
            r * weights.get(each.kind, 0.0) / max(of_kind.get(each.kind, 1.0), 1e-9)
            for r, each in zip(raw, sets, strict=True)
        ]
    )


def _unusual(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each frame's eyes and mouth are from the set's median; a closed eye gives about 0.9."""
    lids = keypoints[:, list(EYES), 5]
    gap = keypoints[:, FaceKeypoint.LOWER_LIP, 1] - keypoints[:, FaceKeypoint.UPPER_LIP, 1]
    closing = np.abs(lids / np.median(lids, axis=0).clip(0.1) - 1).max(axis=1)
    return np.maximum(closing, np.abs(gap - np.median(gap)) / 0.15)


def _resized(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if frames.shape[1] == side:
        return np.array(frames)
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])
