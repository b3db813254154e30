"""A picture animated offline by a clip or a motion track: `mien model animate`."""

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
from mien_shared.wire.motion import PACKET_BYTES, MotionFlags, MotionPacket, MotionPacketError

#: Motion tracks run at 30 fps.
TRACK_RATE = Fraction(30)
#: Frames whose faces are made together.
_BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One frame to make: its keypoints in the avatar's crop, and the driving picture where there is one."""

    driving: Keypoints
    picture: RgbArray | None


def best_initial(found: Sequence[FoundFace | None], source: Keypoints, name: str) -> Keypoints:
    """The frame whose pose is closest to the source's, by eq. 2 of the paper: what motion is best taken relative to.

    A call finds it as it goes (mien_encoder.judgement); here the whole clip is at hand, as for FOMM's find_best_frame.
    Raises ClipError where no frame has a face, or none with Jacobians that have inverses.
    """
    faces = [face.keypoints for face in found if face is not None]
    if not faces:
        raise ClipError(f"no face in {name}")
    usable = [face for face in faces if is_invertible(face)]
    if not usable:
        raise ClipError(f"{name}: no frame has Jacobians with inverses")
    return min(usable, key=lambda face: l2(face.relative_to(source)))


def clip_steps(path: Path, found: Sequence[FoundFace | None], source: Keypoints, size: int) -> Iterator[Step]:
    """Motion since the clip's best initial frame, applied to the source (paper, section 3.3).

    found: the face of each frame; one without a face keeps the motion of the last that had one. Raises ClipError as
    best_initial does, or where the source's own Jacobians have no inverses.
    """
    if not is_invertible(source):
        raise ClipError("the source picture's keypoints have a Jacobian without an inverse")
    initial = best_initial(found, source, path.name)
    last = next(face for face in found if face is not None)
    for rgb, face in zip(clip_pictures(path), found, strict=True):
        last = face or last
        yield Step(last.keypoints.relative_to(initial).applied_to(source), cut(rgb, last.square, size))


def track_steps(path: Path, source: Keypoints) -> Iterator[Step]:
    """Motion of a track, applied to the source; absolute packets are taken relative to the first of them."""
    data = path.read_bytes()
    if not data or len(data) % PACKET_BYTES:
        raise ClipError(f"{path.name} is not a motion track: {len(data)} bytes are no whole number of packets")
    initial: Keypoints | None = None
    for offset in range(0, len(data), PACKET_BYTES):
        number = offset // PACKET_BYTES
        try:
            packet = MotionPacket.unpack(data[offset : offset + PACKET_BYTES])
        except MotionPacketError as error:
            raise ClipError(f"{path.name}, packet {number}: {error}") from error
        motion = packet.keypoints
        if packet.flags & MotionFlags.ABSOLUTE:
            initial = motion if initial is None or packet.flags & MotionFlags.NEW_INITIAL_FRAME else initial
            if not is_invertible(initial):
                raise ClipError(f"{path.name}, packet {number}: an initial frame's Jacobian has no inverse")
            motion = motion.relative_to(initial)
        yield Step(motion.applied_to(source), None)


def animated(generator: FaceGenerator[P], avatar: AvatarFace, steps: Iterable[Step]) -> Iterator[tuple[Step, RgbArray]]:
    """Every step with the face that the generator made for it."""
    prepared = generator.prepare(avatar)
    iterator = iter(steps)
    while batch := list(islice(iterator, _BATCH)):
        faces = generator.animate([FaceRequest(prepared, step.driving) for step in batch])
        yield from zip(batch, map(as_rgb, faces), strict=True)
