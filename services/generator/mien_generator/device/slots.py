"""Shared memory in which the device hands faces to a worker.

The worker creates it and gives the device a descriptor. It has no name: the system frees it with the last process that
has it open, however the processes end.

    ┌────────┬────────┬────────┬────────┬─ ─ ─
    │ slot 0 │ slot 1 │ slot 2 │ slot 3 │          SLOT_BYTES each; two slots a session, used in turn
    └────────┴────────┴────────┴────────┴─ ─ ─
      session A         session B

States of a slot: FREE; ASKED, the session's request names it; WRITTEN, the device has written the face and has said so,
and the worker composes the frame from it. A request that replaces another names the same slot. So the device may write
the session's next face into one slot while the worker still reads the previous one in the other. The worker asks for a
third face only when it has finished the first. Neither waits for the other, and the death of one leaves nothing that
the other must repair.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np

from mien_generator.face.contract import FacePicture, RgbArray, YuvPatch

#: The largest picture is a patch of a crop as high as the frame: 722 * 722 * 3 / 2 bytes, in whole pages of 16 kB.
SLOT_BYTES = 48 * 16384
#: Sessions of one worker that can use the device at the same time. Memory is only used for slots that were written.
MOST_SESSIONS = 512


class SlotsFull(RuntimeError):
    """More sessions of one worker use the device than there are slots for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is in a written slot: an RGB face, or a YUV patch whose luma has this height and width."""

    is_patch: bool
    height: int
    width: int


def anonymous_file(size_bytes: int) -> int:
    """A descriptor of shared memory without a name. The caller closes it."""
    if hasattr(os, "memfd_create"):  # Linux
        descriptor = os.memfd_create("mien", os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_bytes)
        # Nobody can make it shorter: the other process would die when it reads what is missing.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile() as file:  # deleted at once
        os.ftruncate(file.fileno(), size_bytes)
        return os.dup(file.fileno())


class Slots:
    """The memory, in one process."""

    def __init__(self, descriptor: int) -> None:
        """The descriptor may be closed afterwards. Raises ValueError if it is too small, OSError if it is no memory."""
        self._memory = mmap.mmap(descriptor, 2 * MOST_SESSIONS * SLOT_BYTES)
        self._bytes = np.frombuffer(self._memory, np.uint8).reshape(2 * MOST_SESSIONS, SLOT_BYTES)

    @staticmethod
    def create() -> int:
        """A descriptor of new slots."""
        return anonymous_file(2 * MOST_SESSIONS * SLOT_BYTES)

    def write(self, slot: int, picture: FacePicture) -> Shape:
        """Write a face, on the device's side. Raises ValueError if it is larger than a slot."""
        planes = [picture.luma, picture.u, picture.v] if isinstance(picture, YuvPatch) else [picture]
        memory, at = self._bytes[slot], 0
        if sum(plane.size for plane in planes) > SLOT_BYTES:
            raise ValueError(f"a picture of {sum(plane.size for plane in planes)} bytes does not fit into a slot")
        for plane in planes:
            memory[at : at + plane.size].reshape(plane.shape)[:] = plane
            at += plane.size
        return Shape(isinstance(picture, YuvPatch), *planes[0].shape[:2])

    def read(self, slot: int, shape: Shape) -> FacePicture:
        """The face in a slot, on the worker's side: a view, valid until the session's second next request."""
        memory, height, width = self._bytes[slot], shape.height, shape.width
        if not shape.is_patch:
            rgb: RgbArray = memory[: height * width * 3].reshape(height, width, 3)
            return rgb
        luma, half = height * width, height * width // 4
        u, v = memory[luma : luma + half], memory[luma + half : luma + 2 * half]
        return YuvPatch(
            memory[:luma].reshape(height, width),
            u.reshape(height // 2, width // 2),
            v.reshape(height // 2, width // 2),
        )


class SlotTable:
    """Which session has which pair of slots, on the worker's side. Pure."""

    def __init__(self, sessions: int = MOST_SESSIONS) -> None:
        self._free = list(range(sessions - 1, -1, -1))
        self._pairs: dict[int, int] = {}
        self._turns: dict[int, int] = {}

    def next(self, session: int, replaces: bool) -> int:
        """The slot for the session's next request: its two slots in turn. Raises SlotsFull.

        replaces: the previous request has no answer yet, so this one gets the same slot.
        """
        if session not in self._pairs:
            if not self._free:
                raise SlotsFull(f"more than {len(self._pairs)} sessions of one worker use the device")
            self._pairs[session] = self._free.pop()
        turn = self._turns.get(session, 1)
        if not replaces:
            turn = self._turns[session] = 1 - turn
        return 2 * self._pairs[session] + turn

    def release(self, session: int) -> None:
        """Give the session's slots back. Does nothing if it has none."""
        if (pair := self._pairs.pop(session, None)) is not None:
            self._free.append(pair)
            self._turns.pop(session, None)
