"""Motion as a stream: `python -m mien_landmarks serve`, a child process to which a sender writes camera pictures.

The protocol is little-endian, with one answer to each question, in order:

    question on stdin   u16 width, u16 height, u32 capture_ms, then width * height * 3 bytes of RGB, rows from the top
    answer on stdout    128 bytes: a motion packet of version 1 with that capture_ms, or 128 zero bytes for no face

The process exits with status 0 at the end of input. If the input ends within a picture, or a picture has no pixels, it
writes a line to stderr and exits with status 1. Only answers are written to stdout.

Motion is relative to an initial frame: the most neutral one of the first two seconds with a face. During these two
seconds a better frame may replace it; each packet that sets a new one has the flag NEW_INITIAL_FRAME, also the first
packet. With --absolute every packet instead holds keypoints in the crop and has the flag ABSOLUTE. The crop follows the
face slowly, over several seconds, and is chosen again after a second without a face. With --unsmoothed the sender has
to smooth the motion.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

import numpy as np

from mien_encoder.smoothing import OneEuro
from mien_landmarks.geometry import Array, CropSquare, crop_box_of, keypoints_of, motion_since, strain
from mien_landmarks.track import keypoints_at, motion_of
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionFlags, MotionPacket
from mien_shared.wire.motion_v1 import PACKET_BYTES

HEADER = struct.Struct("<HHI")
NO_FACE = bytes(PACKET_BYTES)

#: During this time a better initial frame may replace the first one.
SETTLING_MS = 2000
#: After this time without a face the crop and the initial frame are chosen again.
FORGET_MS = 1000
#: Time constant with which the crop follows the face.
FOLLOW_MS = 8000


class ProtocolError(ValueError):
    """The input is not a valid question."""


class LiveMotion:
    """Makes motion packets from the landmarks of successive frames. Its only clock is the sender's capture_ms."""

    def __init__(self, *, absolute: bool = False, smoothed: bool = True) -> None:
        self._absolute = absolute
        self._smoothed = smoothed
        self._sequence = 0
        self._last_ms: int | None = None
        self._box: CropSquare | None = None
        self._euro = OneEuro()
        self._initial: Keypoints | None = None
        self._initial_strain = 0.0
        self._settled_after_ms = 0

    def packet(self, landmarks: Array, capture_ms: int) -> MotionPacket:
        """The packet for a face, (478, 2) in picture pixels, captured at capture_ms of the sender's clock."""
        self._follow(crop_box_of(landmarks), capture_ms)
        assert self._box is not None
        framed = self._box.to_crop(landmarks)
        keypoints = keypoints_of(framed)
        if self._smoothed:
            keypoints = keypoints_at(self._euro.filter(motion_of([keypoints])[0], capture_ms / 1000)[None], 0)
        flags = MotionFlags.ABSOLUTE
        if not self._absolute:
            flags = self._consider_initial(keypoints, strain(framed), capture_ms)
            assert self._initial is not None
            keypoints = motion_since(keypoints, self._initial)
        packet = MotionPacket(self._sequence, capture_ms, keypoints, flags)
        self._sequence = (self._sequence + 1) & 0xFFFF
        return packet

    def _follow(self, box: CropSquare, capture_ms: int) -> None:
        if self._box is None or self._last_ms is None or not 0 <= capture_ms - self._last_ms <= FORGET_MS:
            self._box = box
            self._euro = OneEuro()
            self._initial = None
        else:
            elapsed_ms = capture_ms - self._last_ms
            self._box = self._box.towards(box, elapsed_ms / (elapsed_ms + FOLLOW_MS))
        self._last_ms = capture_ms

    def _consider_initial(self, keypoints: Keypoints, strain_now: float, capture_ms: int) -> MotionFlags:
        if self._initial is None:
            self._settled_after_ms = capture_ms + SETTLING_MS
        elif capture_ms > self._settled_after_ms or strain_now >= self._initial_strain:
            return MotionFlags.NONE
        self._initial, self._initial_strain = keypoints, strain_now
        return MotionFlags.NEW_INITIAL_FRAME


def read_question(source: BinaryIO) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int] | None:
    """The next picture, (H, W, 3) RGB, and its capture_ms; None at the end of input. Raises ProtocolError."""
    header = source.read(HEADER.size)
    if not header:
        return None
    if len(header) < HEADER.size:
        raise ProtocolError("the input ends within a header")
    width, height, capture_ms = HEADER.unpack(header)
    if not width or not height:
        raise ProtocolError(f"a picture must have pixels; this one is {width}x{height}")
    pixels = source.read(width * height * 3)
    if len(pixels) < width * height * 3:
        raise ProtocolError(f"the input ends within a picture of {width}x{height}")
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3), capture_ms


def serve(*, absolute: bool, smoothed: bool) -> int:
    """Answer the questions on stdin until it ends; returns the exit status."""
    # Native libraries may print to file descriptor 1. Redirect that to stderr.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    from mien_landmarks.mesh import FaceMesh

    motion = LiveMotion(absolute=absolute, smoothed=smoothed)
    with FaceMesh() as mesh, answers:
        try:
            while (question := read_question(sys.stdin.buffer)) is not None:
                rgb, capture_ms = question
                landmarks = mesh.find(rgb)
                answers.write(NO_FACE if landmarks is None else motion.packet(landmarks, capture_ms).pack())
        except ProtocolError as error:
            sys.stderr.write(f"mien_landmarks: {error}\n")
            return 1
        except BrokenPipeError:  # the sender has exited
            return 0
    return 0
