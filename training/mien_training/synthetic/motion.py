"""The motion of a synthetic head: its pose and expression from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: Mean number of frames that a mood or a target pose lasts: sequences are sampled at a few frames per second.
_HOLD = 2.0

#: Mouth shapes of speech as expression weights: rest, a, e, i, o, u, m, f, and teeth.
_MOUTHS: tuple[dict[str, float], ...] = (
    {},
    {},
    {"jawOpen": 0.55, "mouthLowerDown": 0.2, "mouthUpperUp": 0.15},
    {"jawOpen": 0.32, "mouthStretch": 0.35, "mouthUpperUp": 0.25, "mouthLowerDown": 0.3},
    {"jawOpen": 0.12, "mouthSmile": 0.35, "mouthUpperUp": 0.35, "mouthLowerDown": 0.45},
    {"jawOpen": 0.38, "mouthFunnel": 0.55},
    {"jawOpen": 0.14, "mouthPucker": 0.75},
    {"mouthPress": 0.4, "mouthRollLower": 0.3, "mouthRollUpper": 0.3},
    {"jawOpen": 0.1, "mouthUpperUp": 0.4, "mouthRollLower": 0.35},
    {"jawOpen": 0.05, "mouthSmile": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.6},
    {"jawOpen": 0.9},
    {"jawOpen": 0.22, "mouthLowerDown": 0.25},
)

#: Moods, which are mixed with the mouth shapes.
_MOODS: tuple[dict[str, float], ...] = (
    {},
    {},
    {"mouthSmile": 0.6, "cheekSquint": 0.5, "eyeSquint": 0.25},
    {"mouthSmile": 0.35, "mouthDimple": 0.2},
    {"browInnerUp": 0.7, "browOuterUp": 0.5, "eyeWide": 0.4},
    {"browInnerUp": 0.5},
    {"browDown": 0.8, "eyeSquint": 0.4, "noseSneer": 0.2},
    {"browDown": 0.4, "mouthFrown": 0.5},
    {"browOuterUp_L": 0.8},
    {"browOuterUp_R": 0.8},
    {"mouthSmile_L": 0.6},
    {"mouthSmile_R": 0.6},
    {"mouthFrown": 0.6, "mouthShrugLower": 0.5},
    {"cheekPuff": 0.7, "mouthPress": 0.3},
    {"jawLeft": 0.5},
    {"jawRight": 0.5},
    {"mouthLeft": 0.5},
    {"mouthRight": 0.5},
)


@dataclass(frozen=True, slots=True)
class State:
    """One frame of a head: angles in radians (see head.rotation_of), shift in cm, expression weights by name."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    weights: dict[str, float] = field(default_factory=dict)


def sequence(rng: np.random.Generator, frames: int) -> list[State]:
    """A head that talks, looks around and blinks; the first frame is about neutral and frontal."""
    reach = rng.uniform(0.4, 1.0)  # some people keep still
    yaw = _path(rng, frames, np.radians(16) * reach, np.radians(32))
    pitch = _path(rng, frames, np.radians(9) * reach, np.radians(21))
    roll = _path(rng, frames, np.radians(8) * reach, np.radians(21))
    shifts = np.stack([_path(rng, frames, spread * reach, 3 * spread) for spread in (0.9, 0.7, 2.5)], axis=1)
    states = []
    mood: dict[str, float] = {}
    for frame in range(frames):
        if frame == 0:
            weights: dict[str, float] = {"jawOpen": float(rng.uniform(0, 0.03))}
        else:
            if rng.random() < 1 / _HOLD:
                mood = _MOODS[rng.integers(len(_MOODS))]
            weights = _mixed(rng, mood, _MOUTHS[rng.integers(len(_MOUTHS))], _MOUTHS[rng.integers(len(_MOUTHS))])
            _add_eyes(rng, weights)
        x, y, z = shifts[frame]
        states.append(
            State(float(yaw[frame]), float(pitch[frame]), float(roll[frame]), (float(x), float(y), float(z)), weights)
        )
    return states


def _path(rng: np.random.Generator, frames: int, spread: float, furthest: float) -> np.ndarray:
    """A smooth random path about zero that starts near zero."""
    keys = np.append(rng.normal(0, spread * 0.15, 1), rng.normal(0, spread, max(2, round(frames / _HOLD))))
    at = np.linspace(0, len(keys) - 1, frames)
    part = at - np.floor(at)
    eased = np.floor(at) + part * part * (3 - 2 * part)
    return np.clip(np.interp(eased, np.arange(len(keys)), keys), -furthest, furthest)


def _mixed(
    rng: np.random.Generator, mood: dict[str, float], mouth: dict[str, float], other: dict[str, float]
) -> dict[str, float]:
    share, strength, felt = rng.uniform(0, 1), rng.uniform(0.6, 1.1), rng.uniform(0.5, 1.1)
    weights: dict[str, float] = {}
    for part, amount in ((mouth, share * strength), (other, (1 - share) * strength), (mood, felt)):
        for name, weight in part.items():
            weights[name] = min(1.0, weights.get(name, 0.0) + amount * weight)
    return weights


def _add_eyes(rng: np.random.Generator, weights: dict[str, float]) -> None:
    across, up = rng.normal(0, 0.3), rng.normal(0, 0.22)
    left, right = ("Out", "In") if across > 0 else ("In", "Out")
    weights[f"eyeLook{left}_L"] = weights[f"eyeLook{right}_R"] = float(min(abs(across), 0.8))
    weights["eyeLookUp" if up > 0 else "eyeLookDown"] = float(min(abs(up), 0.6))
    if rng.random() < 0.22:
        weights["eyeBlink"] = float(rng.choice([0.35, 0.7, 1.0, 1.06]))
        weights.pop("eyeWide", None)
        weights.pop("eyeSquint", None)
    elif rng.random() < 0.06:
        weights[str(rng.choice(["eyeBlink_L", "eyeBlink_R"]))] = 1.06
        weights.pop("eyeWide", None)
        weights.pop("eyeSquint", None)
