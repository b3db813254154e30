"""Make the vectors beside this file: `python tests/shared/wire/vectors/make.py`. README.md says what they are for.

Inputs are the demo's recorded speaker (clients/python/mien_client/assets) and synthetic motion; no picture of anybody.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mien_encoder.judgement import Judgement, JudgementPolicy, l2
from mien_encoder.smoothing import DeadZones, OneEuro, SavitzkyGolay, Smoother
from mien_encoder.voice_mouth import HOP_S, VoiceBands, VoiceMouth
from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import EYES, FloatArray, Keypoints
from mien_shared.mouth import opened
from mien_shared.reactions import REACTIONS, Reactions
from mien_shared.wire.motion import MotionPacket
from mien_shared.wire.motion_v1 import PACKET_BYTES

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[3]
TRACK = ROOT / "clients/python/mien_client/assets/speaker.motion"
AVATAR = ROOT / "services/gateway/mien_gateway/bundled/mien.json"

Rows = list[list[float | None]]


def rounded(rows: np.ndarray[Any, Any], digits: int) -> Rows:
    """Rows as JSON numbers; what is not finite becomes null."""
    return [[round(float(x), digits) + 0.0 if math.isfinite(x) else None for x in row] for row in rows]


def read(rows: Rows) -> Keypoints:
    """The keypoints that such rows are; null is NaN."""
    return Keypoints.from_rows([[math.nan if x is None else x for x in row] for row in rows])


def avatar() -> Keypoints:
    return Keypoints.from_rows(json.loads(AVATAR.read_text())["keypoints"])


def speaker(start: int, count: int) -> list[FloatArray]:
    """Part of the recorded track as the keypoints of a person of other proportions than the avatar."""
    data = TRACK.read_bytes()
    source = avatar()
    person = Keypoints(
        (source.points * (1.08, 1.15) + (0.03, -0.02)).astype(np.float32), source.jacobians * np.float32(1.1)
    )
    packets = [data[i * PACKET_BYTES : (i + 1) * PACKET_BYTES] for i in range(start, start + count)]
    return [MotionPacket.unpack(packet).keypoints.applied_to(person).rows() for packet in packets]


def call() -> list[tuple[float, FloatArray | None]]:
    """(capture time, keypoints found) of a call in which everything happens, at about 25 frames a second."""
    talking = speaker(100, 190)
    shut, spoilt, far = talking[2].copy(), talking[70].copy(), talking[71].copy()
    shut[list(EYES), 4:] *= 0.12
    spoilt[5, 2] = np.nan
    far[:, 0] += 0.6
    frames: list[FloatArray | None] = [None] * 6  # the camera comes up
    frames += [shut, shut, *talking[:60]]  # eyes shut in the first frame, so that others are closer to the source pose
    frames += [far, *talking[60:66], spoilt, *talking[66:72]]  # single frames that are not fit
    for i in range(45):  # the head turns away, farther than anybody wants to see, and comes back
        amount = math.sin(math.pi * i / 44)
        turned = talking[72 + i].copy()
        turned[:, 0] += 0.3 * amount
        turned[:, [2, 4]] *= 1 - 0.45 * amount
        frames.append(turned)
    frames += [*talking[117:135], *[None] * 20, *talking[135:150]]  # gone for 0.8 s
    frames += [*[None] * 55, *talking[150:170]]  # gone for 2.2 s: another initial frame
    return [(round(5.0 + i / 25 + 0.004 * (i % 3), 4), frame) for i, frame in enumerate(frames)]


def judgement_vectors() -> dict[str, Any]:
    policy, seed = JudgementPolicy(), 3
    judgement = Judgement(avatar(), policy, seed)
    frames = []
    for time_s, rows in call():
        found = None if rows is None else rounded(rows, 4)
        judged = judgement.judge(None if found is None else read(found), time_s)
        frames.append(
            {
                "time_s": time_s,
                "found": found,
                "l2": None if judged.l2 is None else round(judged.l2, 6),
                "verdict": judged.verdict.value,
                "flags": int(judged.flags),
                "motion": rounded(judged.motion.rows(), 6),
            }
        )
    return {"policy": asdict(policy), "seed": seed, "source": rounded(avatar().rows(), 4), "frames": frames}


def l2_vectors() -> dict[str, Any]:
    faces = [Keypoints.from_rows(rows) for rows in speaker(0, 734)[::61]]
    motions = [rounded(face.relative_to(faces[0]).rows(), 6) for face in faces]
    return {
        "alpha": JudgementPolicy().alpha,
        "beta": JudgementPolicy().beta,
        "l2": [{"motion": motion, "l2": round(l2(read(motion)), 6)} for motion in motions],
    }


def default_motion_vectors() -> dict[str, Any]:
    entries = [
        {"seed": seed, "seconds": seconds, "motion": rounded(DefaultMotion(avatar(), seed).at(seconds).rows(), 6)}
        for seed in (0, 5)
        for seconds in (0.0, 0.5, 3.52, 5.47, 7.0, 10.25, 12.0, 14.5, 16.75, 20.0, 33.3, 61.0)
    ]
    return {"source": rounded(avatar().rows(), 4), "motions": entries}


def smoothing_vectors() -> dict[str, Any]:
    """A still face with noise, then speech: 20 and 25 frames."""
    random = np.random.default_rng(9)
    talking = speaker(300, 25)
    values = [talking[0] + random.normal(scale=0.001, size=(10, 6)) for _ in range(20)] + talking
    inputs = [{"time_s": round(i / 30, 4), "value": rounded(np.asarray(v), 4)} for i, v in enumerate(values)]
    smoothers: dict[str, Smoother] = {
        "one-euro": OneEuro(),
        "savitzky-golay": SavitzkyGolay(),
        "one-euro with dead zones": DeadZones(OneEuro()),
    }
    outputs = {
        name: {
            "delay_frames": smoother.delay_frames,
            "values": [
                rounded(smoother.filter(np.array(entry["value"], np.float64), float(str(entry["time_s"]))), 6)
                for entry in inputs
            ],
        }
        for name, smoother in smoothers.items()
    }
    return {"inputs": inputs, "outputs": outputs}


def mouth_vectors() -> dict[str, Any]:
    """A mouth over a moving face, and a call whose camera is switched off and on while its owner speaks."""
    moving = DefaultMotion(avatar(), 5).at(5.47)
    openings = [{"opening": share, "motion": rounded(opened(moving, share).rows(), 6)} for share in (0.0, 0.3, 1.0)]
    judgement, talking = Judgement(avatar(), seed=3), speaker(300, 30)
    frames: list[dict[str, Any]] = []
    for i in range(75):
        found = rounded(talking[i % 30], 4) if i < 15 or i >= 60 else None
        time_s, mouth = round(2.0 + i / 30, 4), round(0.5 - 0.5 * math.cos(i / 2), 4)
        judged = judgement.judge(None if found is None else read(found), time_s, mouth)
        motion = rounded(judged.motion.rows(), 6)
        frames.append({"time_s": time_s, "found": found, "mouth": mouth, "motion": motion})
    moved = rounded(moving.rows(), 6)
    return {"source": rounded(avatar().rows(), 4), "seed": 3, "moving": moved, "openings": openings, "frames": frames}


def voice(rate_hz: int, parts: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Sound: each part has a length and tones [hertz, amplitude], whose phases count from the first sample."""
    count = sum(round(part["seconds"] * rate_hz) for part in parts)
    times_s, sound, at = np.arange(count) / rate_hz, np.zeros(count), 0
    for part in parts:
        end = at + round(part["seconds"] * rate_hz)
        for hertz, amplitude in part["tones"]:
            sound[at:end] += amplitude * np.sin(2 * math.pi * hertz * times_s[at:end])
        at = end
    return sound


def voice_vectors() -> dict[str, Any]:
    """Vowels, a hiss, pauses and noise, at the rates of two microphones."""
    hum: list[list[float]] = [[155, 0.001], [1250, 0.0006]]
    parts: list[dict[str, Any]] = [
        {"seconds": 0.3, "tones": hum},
        {"seconds": 0.25, "tones": [[150, 0.2], [750, 0.15], [1150, 0.1], [2500, 0.02]]},
        {"seconds": 0.1, "tones": [[4800, 0.06], [5600, 0.05]]},
        {"seconds": 0.2, "tones": hum},
        {"seconds": 0.2, "tones": [[150, 0.1], [300, 0.05], [2300, 0.01]]},
        {"seconds": 0.25, "tones": []},
    ]
    series = []
    for rate_hz in (48_000, 44_100):
        bands, mouth = VoiceBands(rate_hz), VoiceMouth()
        measured, openings = bands.push(voice(rate_hz, parts)), []
        for number, levels in enumerate(measured):
            mouth.hear(levels, 7.0 + number * HOP_S)
            openings.append(round(mouth.opening(7.0 + number * HOP_S), 6))
        after = [[round(7.0 + after_s, 3), round(mouth.opening(7.0 + after_s), 6)] for after_s in (1.3, 1.4, 1.5)]
        levels_db = [[round(level, 4) for level in levels] for levels in measured]
        series.append({"rate_hz": rate_hz, "bands_db": levels_db, "openings": openings, "after": after})
    return {"parts": parts, "begins_s": 7.0, "hop_s": HOP_S, "series": series}


def reaction_vectors() -> dict[str, Any]:
    """Each reaction alone, then some that overlap and one that is asked for twice, over a moving face."""
    moving = DefaultMotion(avatar(), 5).at(5.47)
    calls: list[list[tuple[str, float]]] = [[(name, 1.0)] for name in REACTIONS]
    overlapping = [
        ("smile", 1.0),
        ("nod", 1.2),
        ("laugh", 1.3),
        ("nod", 1.5),
        ("hand", 1.6),
        ("shake", 1.7),
        ("nod", 2.5),
    ]
    calls.append(overlapping)
    entries = []
    for begun in calls:
        reactions, shown = Reactions(), []
        for i in range(24):
            time_s = round(0.9 + i * 0.15, 4)
            for name, at_s in begun:
                if time_s - 0.15 < at_s <= time_s:
                    reactions.begin(name, at_s)
            shown.append([time_s, rounded(reactions.applied_to(moving, time_s).rows(), 6)])
        entries.append({"begun": begun, "shown": shown})
    return {"moving": rounded(moving.rows(), 6), "names": list(REACTIONS), "calls": entries}


VECTORS = {
    "mouth.json": mouth_vectors,
    "voice_mouth.json": voice_vectors,
    "reactions.json": reaction_vectors,
    "judgement.json": judgement_vectors,
    "l2.json": l2_vectors,
    "default_motion.json": default_motion_vectors,
    "smoothing.json": smoothing_vectors,
}

if __name__ == "__main__":
    for name, make in VECTORS.items():
        (FOLDER / name).write_text(json.dumps(make(), separators=(",", ":")) + "\n")
