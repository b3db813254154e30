"""Finds a face once and then follows it by its keypoints, in a crop that stays still while the face hardly moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mien_encoder.crop import CropSquare, RgbArray, cut
from mien_encoder.finder import FaceFinder
from mien_encoder.framing import change_of, fit_layout, framing_of, is_usable
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder
from mien_shared.keypoints import Keypoints

#: From FOUND_PRESENCE on a searched face counts as found; below LOST_PRESENCE a followed face counts as not seen.
FOUND_PRESENCE = 0.6
LOST_PRESENCE = 0.3
#: A face that is not seen for longer than this is lost. Until then (a hand over the face, blur) its last keypoints are
#: used.
LOST_AFTER_S = 0.15
#: The box starts to move when the face's shift or the log of its growth exceeds these limits, as shares of the box
#: size. A talking head never does.
SHIFT_DEAD_ZONE = 0.1
SCALE_DEAD_ZONE = 0.12
#: A moving box approaches the face smoothly: this share of the distance remains after one second.
_REMAINING_AFTER_1_S = 0.02
#: The box stops when the remaining shift and growth are below this, as shares of its size.
_ARRIVED = 0.01


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """The face of one frame. box: its crop in the picture's pixels. keypoints: in that crop. presence: 0 to 1."""

    keypoints: Keypoints
    box: CropSquare
    presence: float


class FaceTracker:
    """Follows the largest face of a video. Not thread-safe."""

    def __init__(self, encoder: KeypointEncoder, finder: FaceFinder) -> None:
        self._encoder = encoder
        self._finder = finder
        self._box: CropSquare | None = None
        self._moving = False
        self._last: TrackedFace | None = None
        self._seen_at_s = 0.0

    def find(self, rgb: RgbArray, time_s: float) -> TrackedFace | None:
        """The face in the next picture, (H, W, 3) RGB, captured at time_s on a clock that never runs backwards.

        None while there is no face. A face that is hidden for a moment keeps its last keypoints and gets the low
        presence that the encoder reports.
        """
        if self._box is None or self._last is None:
            return self._search(rgb, time_s)
        seen = self._encoder.encode(cut(rgb, self._box, CROP_SIZE))
        if seen.presence < LOST_PRESENCE:
            if time_s - self._seen_at_s <= LOST_AFTER_S:
                return replace(self._last, presence=seen.presence)
            self._box = self._last = None
            return self._search(rgb, time_s)
        face = TrackedFace(seen.keypoints, self._box, seen.presence)
        self._follow(face, time_s - self._seen_at_s, rgb.shape[1], rgb.shape[0])
        self._last, self._seen_at_s = face, time_s
        return face

    def _search(self, rgb: RgbArray, time_s: float) -> TrackedFace | None:
        for box in self._finder.find(rgb, time_s):  # largest first
            tracked = self._refined(rgb, box)
            if tracked is not None:
                self._box, self._last, self._seen_at_s, self._moving = tracked.box, tracked, time_s, False
                return tracked
        return None

    def _refined(self, rgb: RgbArray, box: CropSquare) -> TrackedFace | None:
        """A face that the finder claims, in a crop corrected by its keypoints."""
        first = self._encoder.encode(cut(rgb, box, CROP_SIZE))
        if first.presence < FOUND_PRESENCE:
            return None
        box = framing_of(fit_layout(first.keypoints), box)
        if not is_usable(box, rgb.shape[1], rgb.shape[0]):
            return None
        seen = self._encoder.encode(cut(rgb, box, CROP_SIZE))
        return TrackedFace(seen.keypoints, box, seen.presence) if seen.presence >= FOUND_PRESENCE else None

    def _follow(self, face: TrackedFace, elapsed_s: float, width: int, height: int) -> None:
        """Set the crop for the next picture."""
        box = face.box
        target = framing_of(fit_layout(face.keypoints), box)
        change = change_of(box, target)
        if change.shift > SHIFT_DEAD_ZONE or change.growth > SCALE_DEAD_ZONE:
            self._moving = True
        elif change.shift < _ARRIVED and change.growth < _ARRIVED:
            self._moving = False
        if self._moving:
            box = box.towards(target, 1 - _REMAINING_AFTER_1_S ** max(elapsed_s, 0.0))
        self._box = box if is_usable(box, width, height) else None
