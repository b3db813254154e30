"""The command: `python -m mien_draw_avatar -o FOLDER` writes mien.png and mien.json, in any pose.

`--person NAME` writes NAME.png, NAME.json and NAME.webp (a small picture of the face) of another person, at rest.

The keypoints in the JSON are points of the sculpture, projected by the same camera, so they are exact in every pose.
Their Jacobians are relative to the pose at rest and always written as unit matrices.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_draw_avatar.backdrop import HEIGHT, WIDTH, backdrop
from mien_draw_avatar.groom import make_groom, skin_depth
from mien_draw_avatar.people import PEOPLE, groom_of, picture_of, stretched_keypoints
from mien_draw_avatar.render import developed, project, trace
from mien_draw_avatar.sculpture import (
    EYE_RADIUS,
    EYE_TILT,
    EYE_X,
    EYE_Y,
    EYE_Z,
    LID_THICKNESS,
    Array,
    Groom,
    Pose,
    half_gap,
    lid_edges,
)

#: The face crop: its side is 1.75 times the height from hairline to chin, and the face lies a little above its middle.
CROP_X, CROP_Y, CROP_SIZE = 448, 94, 384
#: The side of a gallery's small picture in pixels.
THUMBNAIL = 160


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_draw_avatar", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True, help="Output folder.")
    parser.add_argument("--name", default="mien", help="Base name of the two files.")
    parser.add_argument("--samples", type=int, default=3, help="Rays per pixel in each direction.")
    for angle in ("yaw", "pitch", "roll"):
        parser.add_argument(f"--{angle}", type=float, default=0.0, help="Angle in degrees.")
    for share in ("mouth", "left-eye", "right-eye"):
        parser.add_argument(
            f"--{share}", type=float, default=0.0, help="From 0, at rest, to 1: open mouth or closed eye."
        )
    parser.add_argument("--person", choices=PEOPLE, help="A person of the gallery. Default: the bundled avatar, Mien.")
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.person is not None:
        person = PEOPLE[chosen.person]
        points = stretched_keypoints(keypoints(Pose(), groom_of(person)), person)
        _write(chosen.output, chosen.person, person.name, picture_of(person, chosen.samples), points)
        return 0
    pose = Pose(
        math.radians(chosen.yaw),
        math.radians(chosen.pitch),
        math.radians(chosen.roll),
        chosen.mouth,
        chosen.left_eye,
        chosen.right_eye,
    )
    groom = make_groom()
    picture = trace(0, 0, WIDTH, HEIGHT, chosen.samples, pose, groom)
    light = picture[..., :3] + backdrop() * (1 - picture[..., 3:])
    _write(chosen.output, chosen.name, "Mien", developed(light), keypoints(pose, groom))
    return 0


def _write(folder: Path, name: str, title: str, picture: NDArray[np.uint8], points: Array) -> None:
    """The picture, the small picture of its face for a gallery, and the description."""
    bgr = picture[..., ::-1]
    cv2.imwrite(str(folder / f"{name}.png"), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    face = bgr[CROP_Y - 40 : CROP_Y + CROP_SIZE + 40, CROP_X - 40 : CROP_X + CROP_SIZE + 40]
    small = cv2.resize(face, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / f"{name}.webp"), small, [cv2.IMWRITE_WEBP_QUALITY, 82])
    described = {
        "name": title,
        "crop": {"x": CROP_X, "y": CROP_Y, "size": CROP_SIZE},
        "keypoints": [[round(float(v), 4) for v in point] + [1, 0, 0, 1] for point in points],
    }
    lines = json.dumps(described, indent=1).replace("\n   ", " ").replace("\n  ]", "]")
    (folder / f"{name}.json").write_text(lines + "\n")


def keypoints(pose: Pose, groom: Groom) -> Array:
    """(10, 2) in the crop's [-1, 1], in FaceKeypoint order, at the places where the landmark tool would find them."""
    brow = groom.brow[:, :3]
    drop = 0.12 * pose.mouth
    mouth_gap = half_gap(0.0, pose.mouth)
    upper, lower = -0.500 + mouth_gap + 0.02, -0.500 - mouth_gap - 0.03 - 0.02 * pose.mouth
    chin, cheek = (0.0, -0.83, skin_depth(0.0, -0.83)), (0.51, -0.43, skin_depth(0.51, -0.43))
    parts = [
        brow * (-1, 1, 1),
        brow,
        _lids(pose, -1.0),
        _lids(pose, 1.0),
        np.array([[0.0, -0.215, 0.966]]),
        np.array([[x, upper + 0.85 * x * x, 0.775 - x * x] for x in (-0.1, 0.0, 0.1)]),
        np.array([[x, lower + 0.85 * x * x, 0.775 - x * x] for x in (-0.1, 0.0, 0.1)]),
        np.array([[chin[0], chin[1] - drop, chin[2]]]),
        np.array([cheek]) * (-1, 1, 1),
        np.array([cheek]),
    ]
    seen = np.array([np.mean([project(x, y, z, pose) for x, y, z in part], axis=0) for part in parts])
    return np.asarray((seen - (CROP_X, CROP_Y)) * (2 / CROP_SIZE) - 1)


def _lids(pose: Pose, side: float) -> Array:
    """Points along both lid edges of an eye, in head axes. side: -1 for the picture's left, 1 for its right."""
    radius = EYE_RADIUS + LID_THICKNESS
    c, s = math.cos(EYE_TILT), math.sin(EYE_TILT)
    points = []
    for elevation in lid_edges(side, pose):
        for angle in np.linspace(-1.0, 1.0, 9):
            x, forward = radius * math.sin(angle), radius * math.cos(angle)
            y, z = forward * math.sin(elevation), forward * math.cos(elevation)
            points.append((side * (EYE_X + c * x - s * y), EYE_Y + s * x + c * y, EYE_Z + z))
    return np.array(points)


if __name__ == "__main__":
    sys.exit(main())
