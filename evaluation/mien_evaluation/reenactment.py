"""Self-reenactment (FOMM, section 4.1): a clip's first frame is the avatar, and every frame drives it.

Each frame's keypoints pass through a motion packet first, so they have the same FP16 rounding as in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, Literal, Protocol

import numpy as np

from mien_evaluation.clips import ClipError
from mien_evaluation.detectors import FaceReader
from mien_evaluation.metrics import RgbArray, Scores, Tally, mean_scores
from mien_generator.face.contract import AvatarFace, FaceGenerator, FaceRequest, as_rgb
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket, MotionPacketError

#: Frames that a generator makes in one batch.
_BATCH = 8
#: The baseline that shows the first frame all the time. The other baseline, warp, is an engine.
STILL = "still"

#: What a packet carries: the driving frame's keypoints, or their change since the first frame. In self-reenactment the
#: two differ only by FP16 rounding.
Motion = Literal["absolute", "relative"]


@dataclass(frozen=True, slots=True, eq=False)
class DrivingFrame:
    """One frame of a driving clip: its crop, (S, S, 3) uint8 RGB, and its keypoints, or None if there are none."""

    picture: RgbArray
    keypoints: Keypoints | None


class DrivingClip(Protocol):
    """A clip with one fixed crop, taken from the first frame that has a face."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """The person in the clip: clips of one person count as one in a mean."""

    def count(self) -> int:
        """Number of frames, approximately: a container may announce one more frame than it has."""

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        """Every N-th frame, starting at the first frame with keypoints; raises ClipError if the clip has no face."""


@dataclass(frozen=True, slots=True, eq=False)
class Reenacted:
    """One driving frame and the picture that each method made for it, in the order of the methods."""

    number: int
    driving: RgbArray
    made: Mapping[str, RgbArray]


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The scores of one clip.

    frames: number of frames compared. held: how many of them have no keypoints, or keypoints that a packet cannot
    carry; the last motion is used for them, as in a call. unread: in how many of the driving frames the landmark
    detector finds no face.
    """

    clip: str
    identity: str
    frames: int
    held: int
    unread: int
    methods: Mapping[str, Scores]


class Reenactment:
    """One clip, reenacted frame by frame. `held` is updated during the iteration."""

    def __init__(
        self, clip: DrivingClip, faces: Mapping[str, FaceGenerator[Any]], *, motion: Motion = "absolute", every: int = 1
    ) -> None:
        """faces: generators by the name that reports use. every: use every N-th frame."""
        self._clip = clip
        self._faces = faces
        self._motion = motion
        self._every = every
        self.held = 0

    def __iter__(self) -> Iterator[Reenacted]:
        frames: Iterator[tuple[int, DrivingFrame]] = zip(count(0, self._every), self._clip.frames(self._every))
        first = next(frames, None)
        if first is None:
            raise ClipError(f"{self._clip.name} has no frames")
        avatar = _avatar(self._clip.name, first[1])
        prepared = {name: generator.prepare(avatar) for name, generator in self._faces.items()}
        driving = avatar.keypoints
        frames = chain([first], frames)
        while batch := list(islice(frames, _BATCH)):
            moved = []
            for _, frame in batch:
                driving = self._received(frame.keypoints, avatar.keypoints) or driving
                moved.append(driving)
            made = {STILL: [avatar.rgb] * len(batch)} | {
                name: [
                    as_rgb(face)
                    for face in generator.animate([FaceRequest(prepared[name], keypoints) for keypoints in moved])
                ]
                for name, generator in self._faces.items()
            }
            for i, (number, frame) in enumerate(batch):
                yield Reenacted(number, frame.picture, {name: faces[i] for name, faces in made.items()})

    def _received(self, found: Keypoints | None, initial: Keypoints) -> Keypoints | None:
        """A frame's keypoints as the generator reads them from a packet; None if the last motion has to be used."""
        try:
            if found is not None:
                return carried(found, initial, self._motion)
        except MotionPacketError:
            pass
        self.held += 1
        return None


def is_invertible(keypoints: Keypoints) -> bool:
    """Whether motion can be computed relative to these keypoints: each Jacobian is finite and clearly invertible."""
    determinants = np.linalg.det(keypoints.jacobians.astype(np.float64))
    return bool(np.isfinite(determinants).all() and (np.abs(determinants) > 1e-6).all())


def carried(found: Keypoints, initial: Keypoints, motion: Motion) -> Keypoints:
    """Keypoints after packing and unpacking a motion packet; raises MotionPacketError if it cannot carry them."""
    if motion == "absolute":
        return MotionPacket.unpack(MotionPacket(0, 0, found, MotionFlags.ABSOLUTE).pack()).keypoints
    packet = MotionPacket(0, 0, found.relative_to(initial))
    return MotionPacket.unpack(packet.pack()).keypoints.applied_to(initial)


def measured(
    clip: DrivingClip,
    faces: Mapping[str, FaceGenerator[Any]],
    reader: FaceReader,
    *,
    motion: Motion = "absolute",
    every: int = 1,
    watch: Callable[[Reenacted], None] | None = None,
) -> ClipScores:
    """L1, AKD and AED of every method over one clip, including the still first frame.

    watch: called with every frame (used for the sheet). Raises ClipError.
    """
    reenactment = Reenactment(clip, faces, motion=motion, every=every)
    tallies = {name: Tally() for name in (STILL, *faces)}
    frames = unread = 0
    still = None
    for shown in reenactment:
        wanted = reader.read(shown.driving)
        unread += wanted is None
        frames += 1
        if still is None:
            still = reader.read(shown.made[STILL])  # the same picture for every frame
        for name, picture in shown.made.items():
            read = still if name == STILL else reader.read(picture)
            tallies[name].add(picture, shown.driving, read, wanted)
        if watch is not None:
            watch(shown)
    if unread == frames:
        raise ClipError(f"{clip.name}: the landmark detector finds no face in any of {frames} frames")
    methods = {name: tally.scores() for name, tally in tallies.items()}
    return ClipScores(clip.name, clip.identity, frames, reenactment.held, unread, methods)


def over_identities(clips: Sequence[ClipScores]) -> dict[str, Scores]:
    """For each method the mean over people. A person counts once, with the mean over that person's clips."""
    people: dict[str, list[ClipScores]] = {}
    for clip in clips:
        people.setdefault(clip.identity, []).append(clip)
    methods = clips[0].methods if clips else ()
    return {
        method: mean_scores(mean_scores(clip.methods[method] for clip in own) for own in people.values())
        for method in methods
    }


def _avatar(name: str, first: DrivingFrame) -> AvatarFace:
    if first.keypoints is None:
        raise ClipError(f"{name}: no keypoints found in the first frame")
    if not is_invertible(first.keypoints):
        raise ClipError(f"{name}: a keypoint of the first frame has a singular Jacobian")
    return AvatarFace(first.picture, first.keypoints)
