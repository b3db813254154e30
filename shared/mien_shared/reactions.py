"""Reactions of a face: nod, shake, smile, laugh and others, blended into its motion and out again.

Each is a few curves over time that begin and end at 0 with slope 0 (raised cosines), so that nothing snaps. They add to
whatever the face does: the speaker's own motion or the default motion. Pure. `clients/js/motion/reactions.js` computes
the same; vectors in tests/shared/wire/vectors hold both together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mien_shared.keypoints import EYES, FaceKeypoint, FloatArray, Keypoints
from mien_shared.mouth import opened

_NOD_DIP = 0.085  # of the tip of the nose, share of half the crop
_NOD_SHORTENING = 0.06  # a head that looks down appears shorter
_TURN_SHIFT = 0.1
_TURN_NARROWING = 0.05
_SMILE_WIDENING = 0.2
_SMILE_LIFT = 0.026
_SMILE_SQUINT = 0.22
_BROW_LIFT = 0.045
_BROW_EYES = 0.12  # eyes open wider under raised brows
#: Reactions that play together may not nod or turn further than this.
_FURTHEST = 1.2

#: How far in front of the axis of the neck a keypoint lies, the tip of the nose at 1: it moves so much.
_DEPTH = {
    FaceKeypoint.NOSE: 1.0,
    FaceKeypoint.UPPER_LIP: 0.85,
    FaceKeypoint.LOWER_LIP: 0.85,
    FaceKeypoint.LEFT_CHEEK: 0.4,
    FaceKeypoint.RIGHT_CHEEK: 0.4,
}
_DEPTHS = np.array([_DEPTH.get(keypoint, 0.7) for keypoint in FaceKeypoint], np.float32)
_BROWS = (FaceKeypoint.LEFT_BROW, FaceKeypoint.RIGHT_BROW)
_SMILING = (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP, FaceKeypoint.LEFT_CHEEK, FaceKeypoint.RIGHT_CHEEK)
_LIPS = (FaceKeypoint.UPPER_LIP, FaceKeypoint.LOWER_LIP)


class UnknownReaction(ValueError):
    """No reaction has this name."""


@dataclass(frozen=True, slots=True)
class _Expression:
    """What a face adds at one moment. nod: below 0 the head goes up. turn: below 0 to the left in the picture."""

    nod: float = 0.0
    turn: float = 0.0
    smile: float = 0.0
    brows: float = 0.0
    mouth: float = 0.0


@dataclass(frozen=True, slots=True)
class _Preset:
    """A reaction: its length, and the expression at a time since its beginning."""

    length_s: float
    at: Callable[[float], _Expression]


def _bump(seconds: float, start_s: float, length_s: float) -> float:
    """A raised cosine: 0, up to 1 in the middle, and back to 0."""
    phase = (seconds - start_s) / length_s
    return math.sin(math.pi * phase) ** 2 if 0 < phase < 1 else 0.0


def _held(seconds: float, length_s: float, in_s: float, out_s: float) -> float:
    """Half a raised cosine up to 1, held there, and half of one down."""
    rise = min(seconds / in_s, 1.0)
    fall = min((length_s - seconds) / out_s, 1.0)
    return math.sin(math.pi / 2 * rise) ** 2 * math.sin(math.pi / 2 * fall) ** 2


def _nod(seconds: float) -> _Expression:
    return _Expression(nod=_bump(seconds, 0.0, 0.6) + 0.7 * _bump(seconds, 0.55, 0.6))


def _shake(seconds: float) -> _Expression:
    return _Expression(turn=math.sin(2 * math.pi * seconds / 0.55) * _bump(seconds, 0.0, 1.65))


def _smile(seconds: float) -> _Expression:
    return _Expression(smile=_held(seconds, 2.6, 0.35, 0.8))


def _laugh(seconds: float) -> _Expression:
    amount = _held(seconds, 2.4, 0.3, 0.7)
    shaking = math.sin(2 * math.pi * 4.2 * seconds)
    return _Expression(
        nod=amount * (0.12 * shaking - 0.3), smile=amount, mouth=amount * (0.45 + 0.25 * shaking), brows=0.4 * amount
    )


def _applause(seconds: float) -> _Expression:
    amount = _held(seconds, 2.2, 0.35, 0.7)
    nods = sum(_bump(seconds, start_s, 0.5) for start_s in (0.2, 0.7, 1.2))
    return _Expression(nod=0.4 * nods, smile=0.8 * amount, brows=0.3 * amount)


def _thumbs_up(seconds: float) -> _Expression:
    return _Expression(nod=0.8 * _bump(seconds, 0.1, 0.7), smile=0.6 * _held(seconds, 1.6, 0.3, 0.6))


def _heart(seconds: float) -> _Expression:
    amount = _held(seconds, 2.6, 0.4, 0.9)
    return _Expression(nod=-0.2 * amount, smile=amount, brows=0.5 * amount)


def _hand(seconds: float) -> _Expression:
    amount = _held(seconds, 1.6, 0.3, 0.6)
    return _Expression(nod=-0.35 * amount, smile=0.2 * amount, brows=amount)


#: Names as in a room's messages, and "hand" for a hand that is raised.
_PRESETS = {
    "nod": _Preset(1.15, _nod),
    "shake": _Preset(1.65, _shake),
    "smile": _Preset(2.6, _smile),
    "laugh": _Preset(2.4, _laugh),
    "applause": _Preset(2.2, _applause),
    "thumbs_up": _Preset(1.6, _thumbs_up),
    "heart": _Preset(2.6, _heart),
    "hand": _Preset(1.6, _hand),
}
REACTIONS = tuple(_PRESETS)


def demand_known(name: str) -> None:
    """Raises UnknownReaction for a name that is not in REACTIONS."""
    if name not in _PRESETS:
        raise UnknownReaction(f"there is no reaction {name!r}: choose one of {', '.join(REACTIONS)}")


class Reactions:
    """The reactions of one face. Those that play together add up; one that still plays does not begin again."""

    def __init__(self) -> None:
        self._begun_s: dict[str, float] = {}

    def begin(self, name: str, time_s: float) -> None:
        """Play a reaction of REACTIONS from `time_s` on. Raises UnknownReaction."""
        demand_known(name)
        self._forget_ended(time_s)
        self._begun_s.setdefault(name, time_s)

    def applied_to(self, motion: Keypoints, time_s: float) -> Keypoints:
        """A relative motion with the reactions of this moment."""
        self._forget_ended(time_s)
        if not self._begun_s:
            return motion
        playing = [_PRESETS[name].at(max(time_s - begun_s, 0.0)) for name, begun_s in self._begun_s.items()]
        return _shown(motion, _together(playing))

    def _forget_ended(self, time_s: float) -> None:
        ended = [name for name, begun_s in self._begun_s.items() if time_s - begun_s >= _PRESETS[name].length_s]
        for name in ended:
            del self._begun_s[name]


def _together(playing: list[_Expression]) -> _Expression:
    nod, turn = sum(one.nod for one in playing), sum(one.turn for one in playing)
    return _Expression(
        nod=min(max(nod, -_FURTHEST), _FURTHEST),
        turn=min(max(turn, -_FURTHEST), _FURTHEST),
        smile=max(one.smile for one in playing),
        brows=max(one.brows for one in playing),
        mouth=max(one.mouth for one in playing),
    )


def _shown(motion: Keypoints, face: _Expression) -> Keypoints:
    points = motion.points.copy()
    points[:, 0] += np.float32(_TURN_SHIFT * face.turn) * _DEPTHS
    points[:, 1] += np.float32(_NOD_DIP * face.nod) * _DEPTHS
    for part in _SMILING:
        points[part, 1] -= np.float32(_SMILE_LIFT * face.smile)
    for brow in _BROWS:
        points[brow, 1] -= np.float32(_BROW_LIFT * face.brows)
    head = _stretch(1 - _TURN_NARROWING * abs(face.turn), 1 - _NOD_SHORTENING * max(face.nod, 0.0))
    jacobians = motion.jacobians @ head
    for lip in _LIPS:
        jacobians[lip] = jacobians[lip] @ _stretch(1 + _SMILE_WIDENING * face.smile, 1)
    lid = _stretch(1, (1 - _SMILE_SQUINT * face.smile) * (1 + _BROW_EYES * face.brows))
    for eye in EYES:
        jacobians[eye] = jacobians[eye] @ lid
    return opened(Keypoints(points, jacobians), face.mouth)


def _stretch(x: float, y: float) -> FloatArray:
    return np.array([[x, 0], [0, y]], np.float32)
