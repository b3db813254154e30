"""Makes an avatar from uploaded bytes: decode, find the face, fit the picture, choose crop box and keypoints."""

from __future__ import annotations

import io

from PIL import Image

from mien_encoder.crop import CropSquare, Face, crop_box, crop_wish, cut, source_keypoints
from mien_encoder.finder import FaceFinder
from mien_encoder.keypoints import CROP_SIZE, EncodedFace, KeypointEncoder
from mien_encoder.tracker import FOUND_PRESENCE, framing_of
from mien_gateway.image import RgbPicture, decode
from mien_gateway.picture import choose_window, compose
from mien_gateway.portrait_contract import PictureRefused, Portrait, Refusal
from mien_shared.avatars import FaceBox
from mien_shared.keypoints import Keypoints

#: A face that is lower than this in the upload has too little detail for a 720p picture.
MIN_FACE_HEIGHT_PX = 64
#: If a face differs by more than this share of its height between two searches, it is another face.
_SAME_FACE = 0.25


def make_portrait(data: bytes, max_pixels: int, finder: FaceFinder, encoder: KeypointEncoder) -> Portrait:
    """All steps between upload and store; raises PictureRefused."""
    upload = decode(data, max_pixels)
    faces = finder.find(upload)
    if not faces:
        raise PictureRefused(Refusal.NO_FACE, "no face was found in the picture")
    face = faces[0]
    if face.height < MIN_FACE_HEIGHT_PX:
        raise PictureRefused(
            Refusal.FACE_TOO_SMALL,
            f"the largest face is {round(face.height)} pixels high; at least {MIN_FACE_HEIGHT_PX} are needed",
        )
    placement = choose_window(upload.shape[1], upload.shape[0], crop_wish(face))
    picture = compose(upload, placement)
    face = _seen_again(placement.place(face), finder.find(picture))
    return Portrait(_png(picture), *_framed(picture, face, encoder))


def _framed(picture: RgbPicture, face: Face, encoder: KeypointEncoder) -> tuple[FaceBox, Keypoints]:
    """Crop box and keypoints by the encoder that senders use, so that keypoints mean the same on both sides.

    MTCNN also accepts drawings and masks. If the encoder sees no face there, keypoints are computed from MTCNN's
    landmarks.
    """
    box = crop_box(crop_wish(face))
    first = _encoded(picture, box, encoder)
    if first.presence < FOUND_PRESENCE:
        return box, source_keypoints(face, box)
    # MTCNN's box is uncertain by a tenth of its size. The encoder's own keypoints frame the face as in training.
    closer = crop_box(framing_of(first.keypoints, _square(box)).wish())
    second = _encoded(picture, closer, encoder)
    return (closer, second.keypoints) if second.presence >= FOUND_PRESENCE else (box, first.keypoints)


def _encoded(picture: RgbPicture, box: FaceBox, encoder: KeypointEncoder) -> EncodedFace:
    return encoder.encode(cut(picture, _square(box), CROP_SIZE))


def _square(box: FaceBox) -> CropSquare:
    return CropSquare(box.x, box.y, box.size)


def _seen_again(expected: Face, faces: list[Face]) -> Face:
    """The same face as detected in the still picture, where it is larger, or `expected` if it is not detected there."""
    for face in faces:
        near = abs(face.landmarks - expected.landmarks).max() < _SAME_FACE * expected.height
        if near and abs(face.height - expected.height) < _SAME_FACE * expected.height:
            return face
    return expected


def _png(picture: RgbPicture) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=4)  # a third of the time of 6, 5 % larger
    return out.getvalue()
