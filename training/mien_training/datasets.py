"""Pairs of labelled crops. Keypoints and all known motion are transformed exactly as their pictures are.

All frames are on the training device from the start, and a batch is sampled there, so no worker processes are needed.

A picture and its keypoints pass through the same map. Maps are backward: they go from the picture that is made to the
picture it is taken from, z -> M z + b, with a displacement of the head added for stills. Keypoints take the inverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mien_generator.face.fomm.first_order import KeypointTensors, coordinate_grid, inverse_2x2
from mien_shared.keypoints import FaceKeypoint
from mien_training.labelled import LOOKUP_SIDE, NUM_LANDMARKS, DatasetError, LabelledSet

#: The keypoint whose place each keypoint takes in a mirrored picture.
MIRRORED = torch.tensor(
    [
        FaceKeypoint.RIGHT_BROW,
        FaceKeypoint.LEFT_BROW,
        FaceKeypoint.RIGHT_EYE,
        FaceKeypoint.LEFT_EYE,
        FaceKeypoint.NOSE,
        FaceKeypoint.UPPER_LIP,
        FaceKeypoint.LOWER_LIP,
        FaceKeypoint.CHIN,
        FaceKeypoint.RIGHT_CHEEK,
        FaceKeypoint.LEFT_CHEEK,
    ]
)

_FEATURES = [FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE, FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP]


@dataclass(frozen=True, slots=True, eq=False)
class KnownMotion:
    """Where parts of the driving pictures lie in their source pictures, in crop coordinates.

    landmarks: (B, 478, 2) in the driving picture, source_landmarks: the same in the source; NaN where unknown.
    lookup: (B, h, w, 2), the place that each place was taken from; shown: (B, h, w), the share taken, 0 where unknown.
    """

    landmarks: torch.Tensor
    source_landmarks: torch.Tensor
    lookup: torch.Tensor
    shown: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Pairs of pictures, both of one face. source, driving: (B, 3, S, S) float32 in [0, 1].

    attention: (B, 1, S, S), weights: at least 1, higher around the driving picture's eyes and mouth.
    """

    source: torch.Tensor
    driving: torch.Tensor
    source_keypoints: KeypointTensors
    driving_keypoints: KeypointTensors
    attention: torch.Tensor
    known: KnownMotion


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far both pictures of a pair are moved and recoloured alike. Lengths in crop half sides, angles in radians."""

    shift: float = 0.12
    log_scale: float = 0.16
    rotation: float = 0.22
    head_shift: float = 0.14
    head_rotation: float = 0.22
    head_log_scale: float = 0.12
    bend: float = 0.02
    colour: float = 0.25
    keypoint_noise: float = 0.003
    jacobian_noise: float = 0.015


class PairSampler:
    """Draws an identity by the weight of its kind, then one of its sets, then two frames.

    A still has one frame: its driving picture is the same frame with the head moved. The same seed draws the same pairs
    on every device.
    """

    def __init__(
        self,
        sets: Sequence[LabelledSet],
        weights: dict[str, float],
        augmentation: Augmentation,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        self._device = device
        self._augmentation = augmentation
        self._random = torch.Generator().manual_seed(seed)
        self._sets = list(sets)
        offsets = np.cumsum([0, *(len(each.frames) for each in sets)])
        self._offsets = torch.from_numpy(offsets)
        self._frames = torch.cat([torch.from_numpy(np.array(each.frames)) for each in sets]).to(device)
        rows = torch.from_numpy(np.concatenate([each.keypoints for each in sets]))
        self._points, self._jacobians = rows[..., :2], rows[..., 2:].unflatten(-1, (2, 2))
        self._expressions = expressions(self._points, self._jacobians)
        self._landmarks = torch.from_numpy(np.concatenate([_landmarks(each) for each in sets]))
        # Few sets have lookups: each frame's row in self._lookups, -1 if it has none.
        known = [each.lookups for each in sets if each.lookups is not None]
        empty = np.zeros((1, LOOKUP_SIDE, LOOKUP_SIDE, 3), np.float16)
        self._lookups = torch.from_numpy(np.concatenate([*known, empty]))
        has = np.concatenate([np.full(len(each.frames), each.lookups is not None) for each in sets])
        self._lookup_rows = torch.from_numpy(np.where(has, np.cumsum(has) - 1, -1))
        self._groups = _by_identity(sets)
        kinds = [sets[members[0]].kind for members in self._groups]
        share = torch.tensor([weights.get(kind, 0.0) / kinds.count(kind) for kind in kinds])
        if not share.sum() > 0:
            raise DatasetError(
                f"no set is of a kind with a weight; the sets' kinds are {', '.join(sorted(set(kinds)))}"
            )
        # Some identities have hours of clips, others seconds: weigh each by the square root of its length.
        lengths = torch.tensor([float(sum(len(sets[i].frames) for i in members)) for members in self._groups])
        self._share = share * lengths.sqrt()
        for kind in set(kinds):
            of_kind = torch.tensor([each == kind for each in kinds])
            self._share[of_kind] *= weights.get(kind, 0.0) / self._share[of_kind].sum().clamp_min(1e-9)

    @property
    def frames(self) -> int:
        """The number of frames to draw from."""
        return len(self._frames)

    def state(self) -> torch.Tensor:
        """The state of the random generator, for `restore`."""
        return self._random.get_state()

    def restore(self, state: torch.Tensor) -> None:
        self._random.set_state(state)

    def pairs(self, count: int, size: int) -> PairBatch:
        """`count` pairs at `size` pixels."""
        first, second, still = self._choose(count)
        amount = self._augmentation
        matrix, offset, mirrored = self._affine(count, amount.shift, amount.log_scale, amount.rotation, mirror=True)
        source_map = _affine_map(matrix, offset, size)
        source_kp = _moved(self._labels(first), matrix, offset, mirrored)
        driving_kp = _moved(self._labels(second), matrix, offset, mirrored)
        driving_map = source_map
        if still.any():
            driving_map, driving_kp = self._move_heads(source_map, driving_kp, matrix, offset, still)
        known = self._known(first, second, matrix, offset, still, size // 4)
        source = _sampled(self._pictures(first), source_map.to(self._device))
        driving = _sampled(self._pictures(second), driving_map.to(self._device))
        both = self._recoloured(torch.stack([source, driving]))
        noisy = KeypointTensors(
            driving_kp.points + amount.keypoint_noise * self._normal(count, 10, 2),
            driving_kp.jacobians + amount.jacobian_noise * self._normal(count, 10, 2, 2),
        )
        return PairBatch(
            both[0],
            both[1],
            self._on_device(source_kp),
            self._on_device(noisy),
            attention(self._on_device(driving_kp), size),
            known,
        )

    def _known(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        matrix: torch.Tensor,
        offset: torch.Tensor,
        still: torch.Tensor,
        side: int,
    ) -> KnownMotion:
        """The known motion of the pairs, transformed as their pictures are; NaN for stills with one frame."""
        back = inverse_2x2(matrix)

        def along(places: torch.Tensor) -> torch.Tensor:
            return (places - offset[:, None]) @ back.mT

        of_source, of_driving = self._landmarks[first], self._landmarks[second]
        # In a mirrored picture a landmark has its twin's number. That is harmless, because both pictures of a pair
        # agree.
        nothing = torch.where(still[:, None, None], torch.nan, 0.0)
        rows = self._lookup_rows[second]
        lookups = self._lookups[rows].float()  # row -1 is the empty lookup
        grid = _affine_map(matrix, offset, side)
        there = nn.functional.grid_sample(
            lookups.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        inside = (grid.abs().amax(dim=-1) < 1).float()
        lookup = along(there[:, :2].flatten(2).mT).unflatten(1, (side, side))
        return KnownMotion(
            (along(of_driving) + nothing).to(self._device),
            (along(of_source) + nothing).to(self._device),
            lookup.to(self._device),
            (there[:, 2] * inside).to(self._device),
        )

    def patches(self, count: int, size: int, scale: float = 1.0) -> torch.Tensor:
        """(count, 3, size, size) random cut-outs of single frames; scale: crop pixels per patch pixel."""
        first, _, _ = self._choose(count)
        side = self._frames.shape[1]
        reach = size * scale / side
        centre = (self._uniform(count, 2) * 2 - 1) * max(0.0, 1 - reach)
        grid = coordinate_grid(size, size, torch.device("cpu"), pixel_centres=True)
        places = grid * reach + centre[:, None, None]
        patches = _sampled(self._pictures(first), places.to(self._device))
        return self._recoloured(patches[None])[0]

    def window(self, side: int, part: int) -> tuple[int, int]:
        """Top and left of a random square of side `part` within one of `side`; in two of three cases near the face."""
        top, left = (self._uniform(2) * (side - part + 1)).long().tolist()
        if float(self._uniform(1)) < 1 / 3:
            return top, left
        centre = torch.tensor([0.53, 0.5]) + 0.06 * self._normal(2)  # where the framing puts the face; row first
        near = (centre * side - part / 2).round().long().clamp(0, side - part)
        return int(near[0]), int(near[1])

    def _choose(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each pair the indices of its two frames, and whether its set is a still, which has one frame."""
        groups = torch.multinomial(self._share, count, replacement=True, generator=self._random).tolist()
        first, second, still = [], [], []
        for group in groups:
            members = self._groups[group]
            chosen = members[int(self._uniform(1) * len(members))]
            start, end = int(self._offsets[chosen]), int(self._offsets[chosen + 1])
            a = start + int(self._uniform(1) * (end - start))
            if self._lookup_rows[start] >= 0:
                a = start  # lookups refer to the set's first frame
            others = start + (self._uniform(4) * (end - start)).long()
            # Speech is mostly small motion. So in a third of the pairs the second frame is the one of four with the
            # largest motion, and in a third the one with the largest change of expression, because a shutting lid
            # hardly counts in the motion of a whole head.
            moved = (self._points[others] - self._points[a]).norm(dim=-1).sum(dim=-1)
            changed = (self._expressions[others] - self._expressions[a]).abs().sum(dim=-1)
            wish = float(self._uniform(1))
            b = int(others[moved.argmax()] if wish < 1 / 3 else others[changed.argmax()] if wish < 2 / 3 else others[0])
            first.append(a)
            second.append(b)
            still.append(end - start == 1)
        return torch.tensor(first), torch.tensor(second), torch.tensor(still)

    def _pictures(self, indices: torch.Tensor) -> torch.Tensor:
        return self._frames[indices.to(self._device)].permute(0, 3, 1, 2).float() / 255

    def _labels(self, indices: torch.Tensor) -> KeypointTensors:
        return KeypointTensors(self._points[indices], self._jacobians[indices])

    def _affine(
        self, count: int, shift: float, log_scale: float, rotation: float, *, mirror: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 2, 2) matrices, (B, 2) offsets, and (B,) whether the matrix mirrors."""
        angle = self._spread(count) * rotation
        scale = torch.exp((self._spread(count) - (0.5 if mirror else 0)) * log_scale)  # more often nearer than farther
        mirrored = (self._uniform(count) < 0.5) & mirror
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        matrix = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
        matrix = torch.where(mirrored[:, None, None], torch.diag(torch.tensor([-1.0, 1.0])) @ matrix, matrix)
        return matrix, self._spread(count, 2) * shift, mirrored

    def _move_heads(
        self,
        source_map: torch.Tensor,
        keypoints: KeypointTensors,
        matrix: torch.Tensor,
        offset: torch.Tensor,
        still: torch.Tensor,
    ) -> tuple[torch.Tensor, KeypointTensors]:
        """Move the heads of stills over their backgrounds, by a map whose displacement fades out around the head."""
        amount = self._augmentation
        count, size = source_map.shape[:2]
        turn, shift, _ = self._affine(count, amount.head_shift, amount.head_log_scale, amount.head_rotation)
        frequency = 2 + 3 * self._uniform(count, 2, 2)
        phase, strength = self._uniform(count, 2) * 2 * torch.pi, self._spread(count, 2) * amount.bend
        centre = keypoints.points.mean(dim=1)
        reach = (keypoints.points - centre[:, None]).norm(dim=-1).amax(dim=1)

        def displaced(z: torch.Tensor) -> torch.Tensor:
            """(B, N, 2) -> (B, N, 2), the backward map of the moved head."""
            local = z - centre[:, None]
            # Hair reaches farther above the keypoints than the chin below them.
            along = torch.stack([local[..., 0], local[..., 1] * torch.where(local[..., 1] < 0, 0.62, 0.95)], dim=-1)
            beyond = (along.norm(dim=-1) / reach[:, None] - 1.15) / 1.1
            fade = 1 - beyond.clamp(0, 1)
            edge = ((1 - z.abs()) / 0.25).clamp(
                0, 1
            )  # no displacement at the crop's border, where the picture continues
            window = (fade * fade * (3 - 2 * fade))[..., None] * (edge * edge * (3 - 2 * edge)).prod(-1, keepdim=True)
            bent = strength[:, None] * torch.sin(z @ frequency.mT + phase[:, None])
            moved = (local @ turn.mT) + centre[:, None] + shift[:, None] + bent
            return z + window * (moved - z)

        chosen = still[:, None, None]
        grid = coordinate_grid(size, size, torch.device("cpu"), pixel_centres=True).flatten(0, 1)
        places = displaced(grid.expand(count, -1, 2))
        taken = places @ matrix.mT + offset[:, None]
        driving_map = torch.where(chosen, taken, source_map.flatten(1, 2)).unflatten(1, (size, size))
        points = keypoints.points
        for _ in range(12):  # fixed-point iteration for p = displaced(z): the displacement is a contraction
            points = points - (displaced(points) - keypoints.points)
        step = 1e-3
        along_x, along_y = (
            (displaced(points + step * axis) - displaced(points - step * axis)) / (2 * step) for axis in torch.eye(2)
        )
        jacobians = inverse_2x2(torch.stack([along_x, along_y], dim=-1)) @ keypoints.jacobians
        moved = KeypointTensors(
            torch.where(chosen, points, keypoints.points),
            torch.where(chosen[..., None], jacobians, keypoints.jacobians),
        )
        return driving_map, moved

    def _recoloured(self, pictures: torch.Tensor) -> torch.Tensor:
        """Change brightness, contrast, saturation and tint of (P, B, 3, H, W), alike for all P pictures of one B."""
        count, amount = pictures.shape[1], self._augmentation.colour

        def factor(*shape: int) -> torch.Tensor:
            return torch.exp(self._spread(*shape) * amount).to(self._device)

        gain = factor(count, 1, 1, 1) * factor(count, 3, 1, 1) ** 0.3
        saturation = factor(count, 1, 1, 1)
        lift = (self._spread(count, 1, 1, 1) * 0.3 * amount).to(self._device)
        grey = pictures.mean(dim=2, keepdim=True)
        return ((grey + saturation * (pictures - grey)) * gain + lift).clamp(0, 1)

    def _on_device(self, keypoints: KeypointTensors) -> KeypointTensors:
        return KeypointTensors(keypoints.points.to(self._device), keypoints.jacobians.to(self._device))

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=self._random)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._random)

    def _spread(self, *shape: int) -> torch.Tensor:
        """Random values in [-1, 1], triangularly distributed about 0."""
        return self._uniform(*shape) + self._uniform(*shape) - 1


def expressions(points: torch.Tensor, jacobians: torch.Tensor) -> torch.Tensor:
    """(N, 10, 2) and (N, 10, 2, 2) -> (N, 3): the mouth's opening over the eyes' distance, and both eyes' opening."""
    left, right = FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE
    between_eyes = (points[:, right] - points[:, left]).norm(dim=-1)
    lips = (points[:, FaceKeypoint.LOWER_LIP] - points[:, FaceKeypoint.UPPER_LIP]).norm(dim=-1)
    lids = 0.5 * jacobians[:, [left, right]].diagonal(dim1=-2, dim2=-1)[..., 1]
    return torch.cat([(2 * lips / between_eyes)[:, None], lids], dim=1)


def attention(keypoints: KeypointTensors, size: int, gain: float = 8.0) -> torch.Tensor:
    """(B, 1, size, size) weights: 1, rising to 1 + gain around eyes and mouth, where viewers look."""
    grid = coordinate_grid(size, size, keypoints.points.device, pixel_centres=True)
    offset = grid - keypoints.points[:, _FEATURES, None, None, :]
    bells = torch.exp(-0.5 * (offset / torch.tensor([0.13, 0.09], device=grid.device)).square().sum(dim=-1))
    return 1 + gain * bells.amax(dim=1, keepdim=True)


def _landmarks(labelled: LabelledSet) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(N, 478, 2), NaN if the set has no landmarks."""
    if labelled.landmarks is None:
        return np.full((len(labelled.frames), NUM_LANDMARKS, 2), np.nan, np.float32)
    return labelled.landmarks.astype(np.float32)


def _by_identity(sets: Iterable[LabelledSet]) -> list[list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for index, labelled in enumerate(sets):
        groups.setdefault((labelled.kind, labelled.identity), []).append(index)
    return list(groups.values())


def _sampled(pictures: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Sample (B, 3, S, S) at (B, h, w, 2). Outside a picture its border is repeated, as in crops."""
    return nn.functional.grid_sample(pictures, places, mode="bilinear", padding_mode="border", align_corners=False)


def _affine_map(matrix: torch.Tensor, offset: torch.Tensor, size: int) -> torch.Tensor:
    """(B, size, size, 2): the place that each pixel is taken from."""
    grid = coordinate_grid(size, size, torch.device("cpu"), pixel_centres=True)
    return (grid.flatten(0, 1) @ matrix.mT + offset[:, None]).unflatten(1, (size, size))


def _moved(
    keypoints: KeypointTensors, matrix: torch.Tensor, offset: torch.Tensor, mirrored: torch.Tensor
) -> KeypointTensors:
    """The keypoints in the picture made by the backward map z -> matrix z + offset."""
    back = inverse_2x2(matrix)
    points = (keypoints.points - offset[:, None]) @ back.mT
    jacobians = back[:, None] @ keypoints.jacobians
    flip = torch.diag(torch.tensor([-1.0, 1.0]))
    return KeypointTensors(
        torch.where(mirrored[:, None, None], points[:, MIRRORED], points),
        torch.where(mirrored[:, None, None, None], jacobians[:, MIRRORED] @ flip, jacobians),
    )
