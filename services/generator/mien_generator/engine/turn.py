"""A session's turn: one frame in the making, from its motion to its publication.

    ASKED ──begun──▶ DRAWING ──made──▶ DRAWN ──taken──▶ FRAMING
      │ ▲
      └─┘ newer motion: another turn replaces this one

A turn on the last tier needs no device: the thread that begins it makes the whole frame. `work` is the pipeline's
coroutine. It stops once, where the face must come from the device, and goes on when `finish` gives it the face.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from mien_generator.device.contract import Made
from mien_shared.keypoints import Keypoints


class Stage(Enum):
    """Where a turn is. Guarded by the engine's lock."""

    ASKED = auto()  # the device has the request; newer motion may replace it
    DRAWING = auto()  # a batch of the device has taken the request
    DRAWN = auto()  # the face is done and waits for a thread
    FRAMING = auto()  # a thread works on it


@dataclass(frozen=True, slots=True)
class FaceWanted:
    """What a turn waits for: awaiting it returns the face from the device."""

    tier: int
    prepared: Any
    driving: Keypoints

    def __await__(self) -> Generator[FaceWanted, Made, Made]:
        made = yield self
        return made


#: The pipeline's coroutine for one frame.
FrameWork = Coroutine[FaceWanted, Made | None, None]


def run(work: FrameWork) -> FaceWanted | None:
    """Run the work up to the face that it needs from the device; None if the frame is done without it."""
    try:
        return work.send(None)
    except StopIteration:
        return None


@dataclass(slots=True, eq=False)
class Turn:
    """One frame of a session. deadline_s: viewers see a gap after it, monotonic. ticket: names the device's request."""

    work: FrameWork
    deadline_s: float
    stage: Stage
    ticket: int = 0
    made: Made | None = None

    def finish(self) -> None:
        """Run the rest of the work, with the face that the device has made."""
        try:
            self.work.send(self.made)
        except StopIteration:
            return
        raise RuntimeError("a frame needs one face")
