"""A turn stops once, where the face must come from the device, and goes on with it."""

from __future__ import annotations

import numpy as np
import pytest

from mien_generator.device.contract import Made
from mien_generator.engine.turn import FaceWanted, Stage, Turn, run
from mien_shared.keypoints import Keypoints

MADE = Made(np.zeros((4, 4, 3), np.uint8), 1.0, 2.0)
WANTED = FaceWanted(1, "prepared", Keypoints.at_rest())


class Frame:
    """A frame's work that awaits this many faces, and what became of it."""

    def __init__(self, faces: int, error: Exception | None = None) -> None:
        self.got: list[Made] = []
        self.is_closed = False
        self.work = self._work(faces, error)

    async def _work(self, faces: int, error: Exception | None) -> None:
        try:
            for _ in range(faces):
                self.got.append(await WANTED)
            if error is not None:
                raise error
        finally:
            self.is_closed = True


def test_work_without_a_face_of_the_device_is_done_at_once() -> None:
    frame = Frame(faces=0)
    assert run(frame.work) is None
    assert frame.is_closed


def test_work_stops_where_it_needs_a_face_and_goes_on_with_it() -> None:
    frame = Frame(faces=1)
    assert run(frame.work) is WANTED
    assert not frame.is_closed
    Turn(frame.work, 3.0, Stage.FRAMING, 1, MADE).finish()
    assert frame.got == [MADE]
    assert frame.is_closed


def test_work_that_needs_a_second_face_is_an_error() -> None:
    frame = Frame(faces=2)
    run(frame.work)
    turn = Turn(frame.work, 3.0, Stage.FRAMING, 1, MADE)
    with pytest.raises(RuntimeError, match=r"^a frame needs one face$"):
        turn.finish()
    frame.work.close()


@pytest.mark.parametrize("faces", [0, 1])
def test_an_error_of_the_work_is_raised_where_it_runs(faces: int) -> None:
    frame = Frame(faces, ValueError("no such picture"))
    if faces:
        run(frame.work)
        turn = Turn(frame.work, 3.0, Stage.FRAMING, 1, MADE)
        with pytest.raises(ValueError, match="no such picture"):
            turn.finish()
    else:
        with pytest.raises(ValueError, match="no such picture"):
            run(frame.work)


def test_work_that_is_dropped_cleans_up_without_a_face() -> None:
    frame = Frame(faces=1)
    run(frame.work)
    frame.work.close()
    assert frame.is_closed
    assert not frame.got
