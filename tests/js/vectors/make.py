"""Make the vectors beside this file; README.md says how, and what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from js.drawn_face import Pose, draw, speaking

from mien_client.outgoing import OutgoingMotion
from mien_encoder.crop import CropSquare, Points, RgbArray, cut
from mien_encoder.finder import LOOKS_A_PICTURE, SEARCH_INTERVAL_S, Search, grid_of
from mien_encoder.framing import TEN_KEYPOINTS, change_of, fit_layout, framing_of
from mien_encoder.keypoints import CROP_SIZE, EncodedFace, KeypointEncoder
from mien_encoder.tracker import FaceTracker
from mien_shared.keypoints import FaceKeypoint, Keypoints

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
AVATAR = ROOT / "services/gateway/mien_gateway/bundled/mien.json"

#: A crop is compared by the sums of its squares of so many pixels.
BLOCK = 16
#: Crops of the drawn face: framed, close, far and averaged, beyond two edges, small.
SQUARES = (
    CropSquare(177.25, 123.5, 285.125),
    CropSquare(222.4, 170.3, 190.7),
    CropSquare(-120.2, -300.6, 900.3),
    CropSquare(400.6, 250.1, 300.9),
    CropSquare(300.5, 200.5, 40.25),
    CropSquare(192, 112, 256),
)
SEED = 7
START_MS = 1_800_000_000_000
#: What the finder of a call claims.
CLAIMED = CropSquare.around(321.0, 272.6088, 267.96)
#: Pictures to search: faces of usual sizes and places, a small one, one with shut eyes, and a wall without a face.
SEARCHED = (
    Pose(),
    Pose(height=330, y=250),
    Pose(height=110, x=140, y=120, lids=4, lips=2),
    Pose(height=90, x=520, y=330, lids=3, lips=1),
    Pose(height=200, x=120, y=300, lids=1, turn=20),
    None,
)
LAYOUT: Points = np.array([TEN_KEYPOINTS[keypoint] for keypoint in FaceKeypoint])
GRIDS = ((640, 480), (480, 640), (1280, 720), (300, 300), (1000, 41), (30, 30))


class ClaimingFinder:
    """A FaceFinder that claims the same face in every search, so that a call begins with the same crop everywhere."""

    def __init__(self) -> None:
        self._searched_at_s = float("-inf")

    def find(self, rgb: RgbArray, time_s: float) -> list[CropSquare]:
        if time_s - self._searched_at_s < SEARCH_INTERVAL_S:
            return []
        self._searched_at_s = time_s
        return [CLAIMED]


def performance() -> list[Pose | None]:
    """Speech, a face that is gone for 0.4 s and for 0.1 s, a jump aside that the crop follows: 210 pictures."""
    poses: list[Pose | None] = [speaking(frame) for frame in range(150)]
    poses += [None] * 12 + [speaking(frame) for frame in range(30)]
    poses += [None] * 3 + [speaking(frame) for frame in range(30, 45)]
    return poses


def capture_ms(frame: int) -> int:
    return START_MS + round(frame * 1000 / 30)


def packets() -> bytes:
    """The packets of the performance, one behind the other: a motion track."""
    tracker = FaceTracker(KeypointEncoder(), ClaimingFinder())
    outgoing = OutgoingMotion(avatar(), seed=SEED)
    track = b""
    for frame, pose in enumerate(performance()):
        time_s = capture_ms(frame) / 1000
        face = tracker.find(draw(pose), time_s)
        track += outgoing.packet(None if face is None else face.keypoints, time_s, capture_ms(frame)).pack()
    return track


def crops() -> dict[str, Any]:
    encoder, picture = KeypointEncoder(), draw(Pose())
    entries = []
    for square in SQUARES:
        crop = cut(picture, square, CROP_SIZE)
        encoded = encoder.encode(crop)
        blocks = crop.reshape(CROP_SIZE // BLOCK, BLOCK, CROP_SIZE // BLOCK, BLOCK, 3).astype(np.int64).sum(axis=(1, 3))
        entries.append(
            {
                "square": {"x": square.x, "y": square.y, "size": square.size},
                "block_sums": blocks.ravel().tolist(),
                "keypoints": [round(float(value), 6) for value in encoded.keypoints.rows().ravel()],
                "presence": round(encoded.presence, 6),
            }
        )
    return {"picture_sha256": hashlib.sha256(picture.tobytes()).hexdigest(), "block": BLOCK, "crops": entries}


def finder() -> dict[str, Any]:
    """Grids; where keypoints lead; and what a search looks at and finds, in drawn pictures and for given answers."""
    return {
        "grids": [
            {"width": width, "height": height, "squares": [rounded(square) for square in grid_of(width, height)]}
            for width, height in GRIDS
        ],
        "framings": [framing(keypoints) for keypoints in scattered()],
        "searches": [searched(pose) for pose in SEARCHED],
        "answers": [answered(name) for name in ANSWERS],
    }


def rounded(square: CropSquare) -> list[float]:
    return [round(value, 4) for value in (square.x, square.y, square.size)]


def scattered() -> list[Keypoints]:
    """Keypoints of faces that are shifted, scaled, turned and, more and more, no faces."""
    random, layout = np.random.default_rng(SEED), avatar().points
    found = []
    for number in range(12):
        angle, scale = random.uniform(-0.4, 0.4), random.uniform(0.5, 1.6)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = layout @ turn.T + random.uniform(-0.4, 0.4, 2) + random.normal(0, 0.015 * number, layout.shape)
        found.append(Keypoints(points.round(4).astype(np.float32), Keypoints.at_rest().jacobians))
    return found


def framing(keypoints: Keypoints) -> dict[str, Any]:
    box = CropSquare(100.5, -20.25, 300.0)
    fit = fit_layout(keypoints)
    target = framing_of(fit, box)
    change = change_of(box, target)
    return {
        "points": [round(float(value), 4) for value in keypoints.points.ravel()],
        "box": rounded(box),
        "framed": rounded(target),
        "misfit": round(fit.misfit, 6),
        "shift": round(change.shift, 6),
        "growth": round(change.growth, 6),
    }


def searched(pose: Pose | None) -> dict[str, Any]:
    """A search of one picture: the crops that it looks at, step by step, and what it finds."""
    encoder, picture = KeypointEncoder(), draw(pose)
    search = Search(picture.shape[1], picture.shape[0])
    steps = []
    while not search.ended:
        looks = search.looks(LOOKS_A_PICTURE)
        search.saw(encoder.encode_all([cut(picture, look, CROP_SIZE) for look in looks]))
        steps.append([rounded(look) for look in looks])
    return {"pose": None if pose is None else asdict(pose), "steps": steps, "found": list(map(rounded, search.found))}


#: Where the face of `answered` is.
FACE = CropSquare(150.0, 120.0, 260.0)
#: An encoder's answers to its look number n at a crop in which the face's keypoints lie at `points`: presence, points.
ANSWERS: dict[str, Callable[[int, Points], tuple[float, Points]]] = {
    "a face": lambda n, points: (0.995, points),
    "a face that a hand hides now and then": lambda n, points: (0.2 if n in {18, 20} else 1.0, points),
    "too uncertain": lambda n, points: (0.65, points),
    "not as a face's": lambda n, points: (1.0, points + 0.15 * np.array([(-1.0) ** k for k in range(10)])[:, None]),
    "in every crop at its place": lambda n, points: (1.0, LAYOUT),
    "on and on to the right": lambda n, points: (1.0, points + np.array([0.05 * n - 0.85, 0.0])),
    "denied now and again, to no end": lambda n, points: (0.2 if n % 4 == 0 else 1.0, points),
}


def answered(name: str) -> dict[str, Any]:
    """A search whose encoder gives ANSWERS[name]: the answers, and what it finds."""
    search = Search(480, 480)
    answers: list[list[float]] = []
    while not search.ended:
        faces = []
        for look in search.looks(LOOKS_A_PICTURE):
            presence, points = ANSWERS[name](len(answers), look.to_crop(FACE.to_picture(LAYOUT)))
            near = np.abs(look.to_crop(np.array(FACE.centre))).max() < 0.6
            rounded_points = points.round(4).astype(np.float32)
            faces.append(
                EncodedFace(Keypoints(rounded_points, Keypoints.at_rest().jacobians), presence if near else 0.0)
            )
            answers.append([faces[-1].presence, *(round(float(value), 4) for value in rounded_points.ravel())])
        search.saw(faces)
    return {"name": name, "answers": answers, "found": list(map(rounded, search.found))}


def call() -> dict[str, Any]:
    return {
        "seed": SEED,
        "start_ms": START_MS,
        "avatar": avatar().rows().ravel().tolist(),
        "claimed": {"x": CLAIMED.x, "y": CLAIMED.y, "size": CLAIMED.size},
    }


def avatar() -> Keypoints:
    return Keypoints.from_rows(json.loads(AVATAR.read_text())["keypoints"])


if __name__ == "__main__":
    (FOLDER / "crops.json").write_text(json.dumps(crops(), separators=(",", ":")) + "\n")
    (FOLDER / "finder.json").write_text(json.dumps(finder(), separators=(",", ":")) + "\n")
    (FOLDER / "call.json").write_text(json.dumps(call(), separators=(",", ":")) + "\n")
    (FOLDER / "call.motion").write_bytes(packets())
