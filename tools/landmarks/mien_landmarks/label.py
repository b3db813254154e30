"""Converts clips and stills to labelled crops, which training and evaluation read.

A labelled set is a folder of plain arrays:

    frames.npy     (N, SIZE, SIZE, 3) uint8 RGB crops; the box is fixed for a whole clip, and the head moves in it
    keypoints.npy  (N, 10, 6) float32: x, y, j00, j01, j10, j11 in crop coordinates
    landmarks.npy  (N, 478, 2) float32 in crop coordinates
    meta.json      {"identity", "kind": "clip" | "still", "source", "frames_without_face"}

Keypoints are not smoothed: each depends on its own frame only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mien_landmarks.geometry import Array, CropSquare, crop_box_of, keypoints_of
from mien_landmarks.mesh import FaceMesh, pictures_of
from mien_landmarks.track import TrackError, motion_of

SIZE = 384
#: The crop box is the mean over this many frames with a face.
FRAMING_FRAMES = 15

Picture = NDArray[np.uint8]

PICTURES = (".jpg", ".jpeg", ".png")


def label(source: Path, folder: Path, identity: str, segment_frames: int | None = None) -> list[int]:
    """Write the labelled sets of one clip or still; returns the number of frames of each.

    segment_frames: cut a clip into sets of this many frames, FOLDER_0, FOLDER_1 ..., each with its own box, for heads
    that move far. Raises TrackError if there is no face.
    """
    is_still = source.suffix.lower() in PICTURES
    pictures = _still(source) if is_still else [(rgb, landmarks) for rgb, _, landmarks in pictures_of(source)]
    found = [(rgb, landmarks) for rgb, landmarks in pictures if landmarks is not None]
    if not found:
        raise TrackError(f"no face in {source.name}")
    meta = {
        "identity": identity,
        "kind": "still" if is_still else "clip",
        "source": source.name,
        "frames_without_face": len(pictures) - len(found),
    }
    if segment_frames is None:
        _write(found, folder, meta)
        return [len(found)]
    segments = [found[start : start + segment_frames] for start in range(0, len(found), segment_frames)]
    for number, segment in enumerate(segments):
        _write(segment, folder.with_name(f"{folder.name}_{number}"), meta)
    return [len(segment) for segment in segments]


def _write(found: list[tuple[Picture, Array]], folder: Path, meta: dict[str, str | int]) -> None:
    boxes = [crop_box_of(landmarks) for _, landmarks in found[:FRAMING_FRAMES]]
    box = CropSquare(*(float(np.mean([getattr(box, part) for box in boxes])) for part in ("x", "y", "size")))
    framed = [box.to_crop(landmarks) for _, landmarks in found]
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "frames.npy", np.stack([cropped(rgb, box) for rgb, _ in found]))
    np.save(partial / "keypoints.npy", motion_of([keypoints_of(face) for face in framed]).astype(np.float32))
    np.save(partial / "landmarks.npy", np.stack(framed).astype(np.float32))
    (partial / "meta.json").write_text(json.dumps(meta) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def cropped(rgb: Picture, box: CropSquare) -> Picture:
    """(SIZE, SIZE, 3): the box cut out of a picture. Outside the picture its border is repeated."""
    scale = SIZE / box.size
    shift = 0.5 * scale - 0.5  # warpAffine maps the centres of pixels, not their corners
    place = np.array([[scale, 0, shift - box.x * scale], [0, scale, shift - box.y * scale]])
    if scale < 0.75:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.5 / scale), np.uint8)
    taken = cv2.warpAffine(rgb, place, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(taken, np.uint8)


def _still(picture: Path) -> list[tuple[Picture, Array | None]]:
    bgr = cv2.imread(str(picture))
    if bgr is None:
        raise TrackError(f"{picture.name} is not a picture")
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    with FaceMesh() as mesh:
        return [(rgb, mesh.find(rgb))]
