"""Moved stills: `warp` moves a picture with motions of real people, and the origin of every pixel is recorded.

Few people whose pictures may be used are on film, but many are in stills. The pictures that `warp` makes are simple,
but their motion is exact, lids shut and lips part, and the driving keypoints are the labels.
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

#: Number of pictures made from one still, and from the first frame of a rendered head or a drawn character.
FRAMES = {"still": 40, "ict": 6, "drawn": 12}

#: A still is left out if its lips are this far apart, relative to the eyes' distance (`expressions`): it shows teeth,
#: and `warp` would leave them on the lower lip when the mouth opens farther.
LIPS_APART = 0.4

#: `warp` reduces motions that would fold the picture. If the origins of the driving keypoints miss the still's
#: keypoints by this much in the mean, in crop units, the motion was reduced and its keypoints are wrong labels.
MAX_MISS = 0.015
_TRIES = 6

_EYES = (FaceKeypoint.LEFT_EYE, FaceKeypoint.RIGHT_EYE)
_MOUTH = (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.CHIN)


@dataclass(frozen=True)
class Motions:
    """Motions (N, 10, 6) of real people, each relative to a frame of its clip with open eyes and closed lips.

    wide, shut: indices of the motions with the widest open mouths and with the most closed lids.
    """

    relative: NDArray[np.float32]
    wide: NDArray[np.int64]
    shut: NDArray[np.int64]

    @classmethod
    def of(cls, clips: Sequence[LabelledSet]) -> Motions:
        """The motions of the clips. Raises ValueError if there is no clip."""
        relative = np.concatenate([_since_rest(clip.keypoints) for clip in clips])
        openness = relative[:, FaceKeypoint.LOWER_LIP, 1] - relative[:, FaceKeypoint.UPPER_LIP, 1]
        lids = relative[:, _EYES, 5].max(axis=1)
        few = max(1, len(relative) // 30)
        return cls(relative, np.argsort(-openness)[: 2 * few], np.argsort(lids)[:few])

    def drawn(self, rng: np.random.Generator) -> Keypoints:
        """A random motion, scaled, often with the wide open mouth or the shut eyes of another motion."""
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
    """(N, 10, 6) motion relative to the frame that is nearest to a closed mouth and open eyes."""
    lips = rows[:, FaceKeypoint.LOWER_LIP, 1] - rows[:, FaceKeypoint.UPPER_LIP, 1]
    away = lips - 0.15 * rows[:, _EYES, 5].mean(axis=1)
    rest = Keypoints.from_rows(rows[int(np.argmin(away))])
    return np.stack([Keypoints.from_rows(each).relative_to(rest).rows() for each in rows])


@dataclass(frozen=True)
class MovedSequence:
    """A still and its moved pictures. frames: (N, S, S, 3), the still first. keypoints: (N, 10, 6).

    lookups: (N, h, w, 3) float16: x and y of the place that each place was taken from, in crop coordinates, and the
    share taken: 1, or 0 where the inside of a mouth was painted.
    """

    frames: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    lookups: NDArray[np.float16]


def moved(still: LabelledSet, motions: Motions, frames: int, rng: np.random.Generator) -> MovedSequence:
    """The still's first frame and `frames` moved ones; fewer if `warp` has to reduce most motions."""
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
    """Mean distance between the source's keypoints and the origins of the driving keypoints."""
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
    """Each still with closed lips, with its sequence."""
    motions = Motions.of(clips)
    for number, still in enumerate(stills):
        if float(_openness(still)) < LIPS_APART:
            yield still, moved(still, motions, FRAMES[still.kind], np.random.default_rng((seed, number)))


def _openness(still: LabelledSet) -> torch.Tensor:
    rows = torch.from_numpy(still.keypoints[:1])
    return expressions(rows[..., :2], rows[..., 2:].unflatten(-1, (2, 2)))[0, 0]


def write(still: LabelledSet, sequence: MovedSequence, folder: Path) -> None:
    """Write one folder atomically, with the still's identity."""
    arrays: dict[str, NDArray[Any]] = {
        "frames": sequence.frames,
        "keypoints": sequence.keypoints,
        "lookups": sequence.lookups,
    }
    write_set(folder, arrays, identity=still.identity, kind="moved", source=f"{still.name}, moved by Mien's warp")
