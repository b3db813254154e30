"""Turns the keypoints found in each frame into motion packets: smooths, judges and numbers them.

While there is no face to show, the voice opens the mouth. Reactions are added to whatever the face does.

Pure: the caller passes the time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from mien_encoder.judgement import Judgement, JudgementPolicy
from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother, Unsmoothed
from mien_encoder.voice_mouth import VoiceMouth
from mien_shared.keypoints import Keypoints
from mien_shared.reactions import Reactions, demand_known
from mien_shared.wire.motion import MAX_COORDINATE, MAX_JACOBIAN, MotionPacket

SMOOTHING: dict[str, Callable[[], Smoother]] = {
    "one-euro": lambda: DeadZones(OneEuro()),
    "savitzky-golay": lambda: DeadZones(SavitzkyGolay()),
    "none": Unsmoothed,
}


class OutgoingMotion:
    """The packets of one speaker.

    source: the avatar's own keypoints. smoothing: a key of SMOOTHING. judged: whether frames above tau are replaced;
    frames that a packet cannot carry are always replaced. seed: seed of the default motion.
    """

    def __init__(self, source: Keypoints, smoothing: str = "one-euro", *, judged: bool = True, seed: int = 0) -> None:
        self._smoother = SMOOTHING[smoothing]()
        self._judgement = Judgement(source, JudgementPolicy() if judged else JudgementPolicy(tau=math.inf), seed)
        # Capture times of the frames that the smoother still holds back.
        self._captured: deque[tuple[float, int]] = deque(maxlen=self._smoother.delay_frames + 1)
        self._sequence = 0
        self._mouth = VoiceMouth()
        self._reactions = Reactions()
        self._reacting: list[str] = []

    def hear(self, bands_db: Sequence[float], time_s: float) -> None:
        """Take a measurement of the speaker's voice (`VoiceBands`). time_s: by the clock of `packet`."""
        self._mouth.hear(bands_db, time_s)

    def react(self, name: str) -> None:
        """Begin a reaction (`mien_shared.reactions`) with the next packet. Raises UnknownReaction."""
        demand_known(name)
        if name not in self._reacting:
            self._reacting.append(name)

    def packet(self, found: Keypoints | None, time_s: float, capture_ms: int) -> MotionPacket:
        """The packet to send for one picture.

        found: keypoints in the crop, None if there is no face. time_s: when the picture was captured. capture_ms: the
        same moment on the clock that packets carry. If the smoother delays, the packet carries the motion and the
        capture time of an earlier picture. Raises TimeRanBackwards.
        """
        if found is None or not np.isfinite(found.rows()).all():
            # The next face may be another person's, so the smoother starts again. Judgement rejects non-finite values.
            self._smoother.reset()
            self._captured.clear()
        else:
            self._captured.append((time_s, capture_ms))
            found = Keypoints.from_rows(self._smoother.filter(found.rows().astype(np.float64), time_s))
            time_s, capture_ms = self._captured[0]
        judged = self._judgement.judge(found, time_s, self._mouth.opening(time_s))
        packet = MotionPacket(self._sequence, capture_ms, self._with_reactions(judged.motion, time_s), judged.flags)
        self._sequence = (self._sequence + 1) & 0xFFFF
        return packet

    def _with_reactions(self, motion: Keypoints, time_s: float) -> Keypoints:
        for name in self._reacting:
            self._reactions.begin(name, time_s)
        self._reacting.clear()
        shown = self._reactions.applied_to(motion, time_s)
        if shown is motion:
            return motion
        # What a packet could just so carry may lie beyond its limits with a reaction.
        return Keypoints(
            shown.points.clip(-MAX_COORDINATE, MAX_COORDINATE), shown.jacobians.clip(-MAX_JACOBIAN, MAX_JACOBIAN)
        )

    def account(self) -> str:
        """A summary for the speaker: how many frames were sent as they are, and how many were replaced and why."""
        judgement = self._judgement
        return (
            f"{judgement.accepted} frames with the speaker's motion; {judgement.rejected} rejected and"
            f" {judgement.lost} without a face, replaced by default motion; {judgement.initial_frames} initial frames"
        )
