"""Make the vectors beside this file; README.md says how, and what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from js.drawn_face import Pose, draw, speaking

from mien_client.outgoing import OutgoingMotion
from mien_encoder.crop import CropSquare, Face, RgbArray, crop_wish, cut
from mien_encoder.finder import FaceFinder
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder
from mien_encoder.tracker import FaceTracker
from mien_shared.keypoints import Keypoints

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
#: What the finder of both sides says, as MTCNN would.
CLAIMED = Face(256.0, 168.0, 130.0, 174.0, 0.98, np.zeros((5, 2)))


class ClaimingFinder(FaceFinder):
    """Finds the same face in every picture: the one part of the tracker that is not the same in the browser."""

    def __init__(self) -> None: ...

    def find(self, rgb: RgbArray) -> list[Face]:
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


def call() -> dict[str, Any]:
    claimed = CropSquare.around(crop_wish(CLAIMED))
    return {
        "seed": SEED,
        "start_ms": START_MS,
        "avatar": avatar().rows().ravel().tolist(),
        "claimed": {"x": claimed.x, "y": claimed.y, "size": claimed.size},
    }


def avatar() -> Keypoints:
    return Keypoints.from_rows(json.loads(AVATAR.read_text())["keypoints"])


if __name__ == "__main__":
    (FOLDER / "crops.json").write_text(json.dumps(crops(), separators=(",", ":")) + "\n")
    (FOLDER / "call.json").write_text(json.dumps(call(), separators=(",", ":")) + "\n")
    (FOLDER / "call.motion").write_bytes(packets())
