"""Stills that move: `warp` carries a picture along motions of real people, and says where every pixel came from.

There are few people on film whose pictures may be used, and many in pictures. What `warp` makes of those is plain, but
its motion is exact, lids shut and lips part, and the keypoints that drove it are the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mien_generator.face.contract import AvatarFace, FaceRequest
from mien_generator.face.warp import WarpFace, WarpGenerator, Workspace, backward_map
from mien_shared.keypoints import FaceKeypoint, Keypoints
from mien_training.datasets import expressions
from mien_training.labelled import LOOKUP_SIDE, LabelledSet, write_set

#: Pictures made of one still, of one rendered head's first frame, of one drawn character's.
FRAMES = {"still": 40, "ict": 6, "drawn": 12}

#: A still whose lips are this far apart, in eyes' distances (`expressions`), shows teeth, and `warp` leaves them on the
#: lower lip when the mouth opens farther: it is left out.
LIPS_APART = 0.4

#: `warp` holds back what would fold a picture. A motion whose keypoints come from this far beside the still's, in the
#: mean, crop units, was held back, and is no example of itself.
MAX_MISS = 0.015
_TRIES = 6

_EYES = (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE)
_MOUTH = (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN)


@dataclass(frozen=True)
class Motions:
    """Motions (N, 10, 6) of real people since a frame of theirs with eyes open and lips closed.

    wide, shut: indices of those whose lips are farthest apart, whose lids are lowest.
    """

    relative: NDArray[np.float32]
    wide: NDArray[np.int64]
    shut: NDArray[np.int64]

    @classmethod
    def of(cls, clips: Sequence[LabelledSet]) -> Motions:
        """Raises ValueError where there is no clip."""
        relative = np.concatenate([_since_rest(clip.keypoints) for clip in clips])
        openness = relative[:, FaceKeypoint.LOWER_LIP, 1] - relative[:, FaceKeypoint.UPPER_LIP, 1]
        lids = relative[:, _EYES, 5].max(axis=1)
        few = max(1, len(relative) // 30)
        return cls(relative, np.argsort(-openness)[: 2 * few], np.argsort(lids)[:few])

    def drawn(self, rng: np.random.Generator) -> Keypoints:
        """One of them, farther or less far, often with another's wide mouth or shut eyes."""
        motion = self.relative[rng.integers(len(self.relative))].copy()
        for chosen, parts, often in ((self.wide, _MOUTH, 0.5), (self.shut, _EYES, 0.35)):
            if rng.random() < often:
                other = self.relative[rng.choice(chosen)]
                still_head = motion[FaceKeypoint.NOSE, :2] - other[FaceKeypoint.NOSE, :2]
                for part in parts:
                    motion[part] = other[part]
                    motion[part, :2] += still_head
        return Keypoints.at_rest().blended(Keypoints.from_rows(motion), float(rng.uniform(0.6, 1.25)))


def _since_rest(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 10, 6) motion since the frame that is nearest to a closed mouth and open eyes."""
    lips = rows[:, FaceKeypoint.LOWER_LIP, 1] - rows[:, FaceKeypoint.UPPER_LIP, 1]
    away = lips - 0.15 * rows[:, _EYES, 5].mean(axis=1)
    rest = Keypoints.from_rows(rows[int(np.argmin(away))])
    return np.stack([Keypoints.from_rows(each).relative_to(rest).rows() for each in rows])


@dataclass(frozen=True)
class MovedSequence:
    """A still and what became of it. frames: (N, S, S, 3), the still first. keypoints: (N, 10, 6).

    lookups: (N, h, w, 3) float16, where each place was taken from, x and y in crop coordinates, and 1 where it was, 0
    where a mouth's inside was painted.
    """

    frames: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    lookups: NDArray[np.float16]


def moved(still: LabelledSet, motions: Motions, frames: int, rng: np.random.Generator) -> MovedSequence:
    """The still's first frame, and `frames` of it in motion; fewer of one that `warp` can hardly move."""
    generator, source = WarpGenerator(), Keypoints.from_rows(still.keypoints[0])
    face = generator.prepare(AvatarFace(np.ascontiguousarray(still.frames[0]), source))
    workspace = Workspace(face.size)
    driven, lookups = [source], [_lookup(face, source, workspace)]
    for _ in range(_TRIES * frames):
        driving = motions.drawn(rng).applied_to(source)
        lookup = _lookup(face, driving, workspace)
        if _miss(lookup, source, driving) < MAX_MISS:
            driven.append(driving)
            lookups.append(lookup)
        if len(driven) > frames:
            break
    pictures = generator.animate([FaceRequest(face, driving) for driving in driven[1:]])
    return MovedSequence(np.stack([face.rgb, *pictures]), np.stack([each.rows() for each in driven]), np.stack(lookups))


def _miss(lookup: NDArray[np.float16], source: Keypoints, driving: Keypoints) -> float:
    """Mean distance between the source's keypoints and where the driving ones come from."""
    places = ((driving.points + 1) * (LOOKUP_SIDE / 2) - 0.5).reshape(-1, 1, 2)
    found = cv2.remap(
        lookup[..., :2].astype(np.float32), places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return float(np.linalg.norm(found[:, 0] - source.points, axis=1).mean())


def _lookup(face: WarpFace, driving: Keypoints, workspace: Workspace) -> NDArray[np.float16]:
    pixels, gap = backward_map(face, driving, workspace)
    shown = np.ones((face.size, face.size, 1), np.float32)
    if gap is not None:
        shown[gap.rows, gap.columns, 0] = 1 - gap.cover
    places = (pixels + 0.5) * (2 / face.size) - 1
    small = cv2.resize(np.concatenate([places, shown], axis=2), (LOOKUP_SIDE,) * 2, interpolation=cv2.INTER_AREA)
    return small.astype(np.float16)


def moved_sequences(
    stills: Sequence[LabelledSet], clips: Sequence[LabelledSet], seed: int
) -> Iterator[tuple[LabelledSet, MovedSequence]]:
    """Each still with closed lips, and its sequence."""
    motions = Motions.of(clips)
    for number, still in enumerate(stills):
        if float(_openness(still)) < LIPS_APART:
            yield still, moved(still, motions, FRAMES[still.kind], np.random.default_rng((seed, number)))


def _openness(still: LabelledSet) -> torch.Tensor:
    rows = torch.from_numpy(still.keypoints[:1])
    return expressions(rows[..., :2], rows[..., 2:].unflatten(-1, (2, 2)))[0, 0]


def write(still: LabelledSet, sequence: MovedSequence, folder: Path) -> None:
    """Write one folder, whole or not at all; its identity is the still's."""
    arrays: dict[str, NDArray[Any]] = {
        "frames": sequence.frames,
        "keypoints": sequence.keypoints,
        "lookups": sequence.lookups,
    }
    write_set(folder, arrays, identity=still.identity, kind="moved", source=f"{still.name}, moved by Mien's warp")
