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
from mien_shared.default_motion import DefaultMotion
from mien_shared.keypoints import EYES, FloatArray, Keypoints
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


VECTORS = {
    "judgement.json": judgement_vectors,
    "l2.json": l2_vectors,
    "default_motion.json": default_motion_vectors,
    "smoothing.json": smoothing_vectors,
}

if __name__ == "__main__":
    for name, make in VECTORS.items():
        (FOLDER / name).write_text(json.dumps(make(), separators=(",", ":")) + "\n")
