"""Animates a picture offline with a clip or a motion track: `mien model animate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from mien_encoder.crop import cut
from mien_encoder.judgement import l2
from mien_evaluation.clips import ClipError, clip_pictures
from mien_evaluation.keypoints import FoundFace
from mien_evaluation.reenactment import is_invertible
from mien_generator.face.contract import AvatarFace, FaceGenerator, FaceRequest, P, RgbArray, as_rgb
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags
from mien_shared.wire.track import MotionTrack, MotionTrackError

#: Motion tracks run at 30 fps.
TRACK_RATE = Fraction(30)
#: Frames that a generator makes in one batch.
_BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One frame to make: its keypoints in the avatar's crop, and the driving picture if there is one."""

    driving: Keypoints
    picture: RgbArray | None


def best_initial(found: Sequence[FoundFace | None], source: Keypoints, name: str) -> Keypoints:
    """The frame whose pose is closest to the source's, by eq. 2 of the paper: the best reference for relative motion.

    In a call, mien_encoder.judgement updates this choice with every frame. Here the whole clip is available, as for
    FOMM's find_best_frame. Raises ClipError if no frame has a face, or if no face has invertible Jacobians.
    """
    faces = [face.keypoints for face in found if face is not None]
    if not faces:
        raise ClipError(f"no face in {name}")
    usable = [face for face in faces if is_invertible(face)]
    if not usable:
        raise ClipError(f"{name}: every frame has a singular Jacobian")
    return min(usable, key=lambda face: l2(face.relative_to(source)))


def clip_steps(path: Path, found: Sequence[FoundFace | None], source: Keypoints, size: int) -> Iterator[Step]:
    """Motion since the clip's best initial frame, applied to the source (paper, section 3.3).

    found: the face of each frame; a frame without a face keeps the motion of the last frame that had one. Raises
    ClipError as best_initial does, or if a Jacobian of the source is singular.
    """
    if not is_invertible(source):
        raise ClipError("a keypoint of the source picture has a singular Jacobian")
    initial = best_initial(found, source, path.name)
    last = next(face for face in found if face is not None)
    for rgb, face in zip(clip_pictures(path), found, strict=True):
        last = face or last
        yield Step(last.keypoints.relative_to(initial).applied_to(source), cut(rgb, last.square, size))


def track_steps(path: Path, source: Keypoints) -> Iterator[Step]:
    """Motion of a track, applied to the source.

    Absolute packets are made relative to the first absolute packet, or to the last one flagged NEW_INITIAL_FRAME.
    """
    try:
        track = MotionTrack.load(path)
    except MotionTrackError as error:
        raise ClipError(str(error)) from error
    initial: Keypoints | None = None
    for number, packet in enumerate(track.packets):
        motion = packet.keypoints
        if packet.flags & MotionFlags.ABSOLUTE:
            initial = motion if initial is None or packet.flags & MotionFlags.NEW_INITIAL_FRAME else initial
            if not is_invertible(initial):
                raise ClipError(f"{path.name}, packet {number}: a Jacobian of the initial frame is singular")
            motion = motion.relative_to(initial)
        yield Step(motion.applied_to(source), None)


def animated(generator: FaceGenerator[P], avatar: AvatarFace, steps: Iterable[Step]) -> Iterator[tuple[Step, RgbArray]]:
    """Each step with the face that the generator made for it."""
    prepared = generator.prepare(avatar)
    iterator = iter(steps)
    while batch := list(islice(iterator, _BATCH)):
        faces = generator.animate([FaceRequest(prepared, step.driving) for step in batch])
        yield from zip(batch, map(as_rgb, faces), strict=True)
