"""From uploaded bytes to an avatar: decode, find the face, fit the picture, choose crop box and keypoints."""

from __future__ import annotations

import io

from PIL import Image

from mien_encoder.crop import Face, crop_box, crop_wish, source_keypoints
from mien_encoder.finder import FaceFinder
from mien_gateway.image import RgbPicture, decode
from mien_gateway.picture import choose_window, compose
from mien_gateway.portrait_contract import PictureRefused, Portrait, Refusal

#: A face lower than this in the upload has too little to show in a 720p picture.
MIN_FACE_HEIGHT_PX = 64
#: How far the face may seem to move when it is looked for again, in its own heights, before it is another face.
_SAME_FACE = 0.25


def make_portrait(data: bytes, max_pixels: int, finder: FaceFinder) -> Portrait:
    """Everything between upload and store; raises PictureRefused."""
    upload = decode(data, max_pixels)
    faces = finder.find(upload)
    if not faces:
        raise PictureRefused(Refusal.NO_FACE, "no face was found in the picture")
    face = faces[0]
    if face.height < MIN_FACE_HEIGHT_PX:
        raise PictureRefused(
            Refusal.FACE_TOO_SMALL,
            f"the largest face is {round(face.height)} pixels high, less than the {MIN_FACE_HEIGHT_PX} that are needed",
        )
    placement = choose_window(upload.shape[1], upload.shape[0], crop_wish(face))
    picture = compose(upload, placement)
    face = _seen_again(placement.place(face), finder.find(picture))
    box = crop_box(crop_wish(face))
    return Portrait(_png(picture), box, source_keypoints(face, box))


def _seen_again(expected: Face, faces: list[Face]) -> Face:
    """The same face as found in the still picture, where it is larger and its landmarks finer, if it is there."""
    for face in faces:
        near = abs(face.landmarks - expected.landmarks).max() < _SAME_FACE * expected.height
        if near and abs(face.height - expected.height) < _SAME_FACE * expected.height:
            return face
    return expected


def _png(picture: RgbPicture) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=4)  # a third of the time of 6, 5 % larger
    return out.getvalue()
