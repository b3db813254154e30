"""Self-reenactment (FOMM, section 4.1): a clip's first frame is the avatar, and every frame drives it.

What drives is what travels: each frame's keypoints go through a motion packet, FP16 and all.
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

#: Frames that a generator makes together.
_BATCH = 8
#: The baseline that shows the first frame throughout; warp, the other one, is an engine.
STILL = "still"

#: How keypoints travel: the driving frame's own, or what changed since the first frame. In self-reenactment the two
#: differ by what FP16 rounds.
Motion = Literal["absolute", "relative"]


@dataclass(frozen=True, slots=True, eq=False)
class DrivingFrame:
    """One frame of a driving clip: its crop, (S, S, 3) uint8 RGB, and where its keypoints lie, None if not found."""

    picture: RgbArray
    keypoints: Keypoints | None


class DrivingClip(Protocol):
    """A clip with its face framed once, from the first frame that has one."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Who is to be seen: clips of one person count as one in a mean."""

    def count(self) -> int:
        """How many frames there are, or nearly: a container may promise one more than it holds."""

    def frames(self, every: int = 1) -> Iterator[DrivingFrame]:
        """Every so many-th frame, the first one with keypoints; raises ClipError where there is no face at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Reenacted:
    """One driving frame and what each method made of it, in the order of the methods."""

    number: int
    driving: RgbArray
    made: Mapping[str, RgbArray]


@dataclass(frozen=True, slots=True)
class ClipScores:
    """One clip, measured.

    frames: compared. held: of these, frames without keypoints, or with keypoints that no packet carries: the last
    motion stands, as in a call. unread: of these, driving frames in which the landmark detector finds no face.
    """

    clip: str
    identity: str
    frames: int
    held: int
    unread: int
    methods: Mapping[str, Scores]


class Reenactment:
    """One clip, reenacted frame by frame. `held` counts as it goes."""

    def __init__(
        self, clip: DrivingClip, faces: Mapping[str, FaceGenerator[Any]], *, motion: Motion = "absolute", every: int = 1
    ) -> None:
        """faces: generators by the name to report them under. every: take every so many-th frame."""
        self._clip = clip
        self._faces = faces
        self._motion = motion
        self._every = every
        self.held = 0

    def __iter__(self) -> Iterator[Reenacted]:
        frames: Iterator[tuple[int, DrivingFrame]] = zip(count(0, self._every), self._clip.frames(self._every))
        first = next(frames, None)
        if first is None:
            raise ClipError(f"{self._clip.name} holds no frame")
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
        """A frame's keypoints as the generator gets them from a packet, None for a frame that moves nothing."""
        try:
            if found is not None:
                return carried(found, initial, self._motion)
        except MotionPacketError:
            pass
        self.held += 1
        return None


def is_invertible(keypoints: Keypoints) -> bool:
    """Whether motion can be taken relative to them: every Jacobian finite and far enough from flat."""
    determinants = np.linalg.det(keypoints.jacobians.astype(np.float64))
    return bool(np.isfinite(determinants).all() and (np.abs(determinants) > 1e-6).all())


def carried(found: Keypoints, initial: Keypoints, motion: Motion) -> Keypoints:
    """Keypoints after a journey in a motion packet; raises MotionPacketError for what none carries."""
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
    """L1, AKD and AED of every method over one clip, the still first frame among them.

    watch: is shown every frame (the sheet's). Raises ClipError.
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
            still = reader.read(shown.made[STILL])  # one picture throughout
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
    """By method: the mean over people, each the mean of their clips: whoever is seen more weighs no more."""
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
        raise ClipError(f"{name}: no keypoints are found in the first frame")
    if not is_invertible(first.keypoints):
        raise ClipError(f"{name}: a keypoint of the first frame has a Jacobian without an inverse")
    return AvatarFace(first.picture, first.keypoints)
