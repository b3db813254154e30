"""From keypoints found, frame by frame, to the packets that go out: smoothed, judged, numbered. Pure; told the time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from mien_encoder.judgement import Judgement, JudgementPolicy
from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother, Unsmoothed
from mien_shared.keypoints import Keypoints
from mien_shared.wire.motion import MotionPacket

SMOOTHING: dict[str, Callable[[], Smoother]] = {
    "one-euro": lambda: DeadZones(OneEuro()),
    "savitzky-golay": lambda: DeadZones(SavitzkyGolay()),
    "none": Unsmoothed,
}


class OutgoingMotion:
    """One speaker's motion on its way out.

    source: the avatar's own keypoints. smoothing: a name of SMOOTHING. judged: whether frames beyond tau are replaced;
    frames that no packet can carry always are. seed: of the default motion.
    """

    def __init__(self, source: Keypoints, smoothing: str = "one-euro", *, judged: bool = True, seed: int = 0) -> None:
        self._smoother = SMOOTHING[smoothing]()
        self._judgement = Judgement(source, JudgementPolicy() if judged else JudgementPolicy(tau=math.inf), seed)
        # When the frames were captured that the smoother still holds back.
        self._captured: deque[tuple[float, int]] = deque(maxlen=self._smoother.delay_frames + 1)
        self._sequence = 0

    def packet(self, found: Keypoints | None, time_s: float, capture_ms: int) -> MotionPacket:
        """The packet to send for a picture captured at time_s, which is capture_ms of the clock that packets carry.

        found: keypoints in the crop, None where there is no face. With a smoother that delays, the packet shows, and
        names the time of, an earlier picture. Raises TimeRanBackwards.
        """
        if found is None or not np.isfinite(found.rows()).all():
            # Whoever is found next has nothing to do with whoever was lost; what is not finite the judgement rejects.
            self._smoother.reset()
            self._captured.clear()
        else:
            self._captured.append((time_s, capture_ms))
            found = Keypoints.from_rows(self._smoother.filter(found.rows().astype(np.float64), time_s))
            time_s, capture_ms = self._captured[0]
        judged = self._judgement.judge(found, time_s)
        packet = MotionPacket(self._sequence, capture_ms, judged.motion, judged.flags)
        self._sequence = (self._sequence + 1) & 0xFFFF
        return packet

    def account(self) -> str:
        """What became of the frames, for whoever speaks."""
        judgement = self._judgement
        return (
            f"{judgement.accepted} of the speaker's own motion; default motion in {judgement.rejected} rejected and"
            f" {judgement.lost} without a face; {judgement.initial_frames} initial frames"
        )
