"""Makes an avatar from uploaded bytes: decode, find the face, fit the picture, choose crop box and keypoints."""

from __future__ import annotations

import io

from PIL import Image

from mien_encoder.crop import CropSquare, cut
from mien_encoder.finder import SIZES, faces_in
from mien_encoder.framing import CROP_SIDE_IN_FACE_HEIGHTS, crop_box, fit_layout, framing_of
from mien_encoder.keypoints import CROP_SIZE, EncodedFace, KeypointEncoder
from mien_encoder.tracker import FOUND_PRESENCE
from mien_gateway.image import RgbPicture, decode
from mien_gateway.picture import choose_window, compose
from mien_gateway.portrait_contract import PictureRefused, Portrait, Refusal
from mien_shared.avatars import FaceBox
from mien_shared.keypoints import Keypoints

#: A face that is lower than this in the upload, from hairline to chin, has too little detail for a 720p picture.
MIN_FACE_HEIGHT_PX = 56
#: Grids for the search (see finder.SIZES). The second one finds a person who stands farther away; it has five times as
#: many crops, so it is used only where the first one finds no face.
_GRIDS = (SIZES, (0.2,))


def make_portrait(data: bytes, max_pixels: int, encoder: KeypointEncoder) -> Portrait:
    """All steps between upload and store; raises PictureRefused."""
    upload = decode(data, max_pixels)
    head = _largest_face(upload, encoder)
    face_height = head.size / CROP_SIDE_IN_FACE_HEIGHTS
    if face_height < MIN_FACE_HEIGHT_PX:
        raise PictureRefused(
            Refusal.FACE_TOO_SMALL,
            f"the largest face is {round(face_height)} pixels high; at least {MIN_FACE_HEIGHT_PX} are needed",
        )
    placement = choose_window(upload.shape[1], upload.shape[0], head)
    picture = compose(upload, placement)
    return Portrait(_png(picture), *_framed(picture, placement.place(head), encoder))


def _largest_face(upload: RgbPicture, encoder: KeypointEncoder) -> CropSquare:
    for sizes in _GRIDS:
        faces = faces_in(upload, encoder, sizes)
        if faces:
            return faces[0]
    raise _no_face()


def _framed(picture: RgbPicture, head: CropSquare, encoder: KeypointEncoder) -> tuple[FaceBox, Keypoints]:
    """Crop box and keypoints by the encoder that senders use, so that keypoints mean the same on both sides."""
    box = crop_box(head)
    first = _encoded(picture, box, encoder)
    if first.presence < FOUND_PRESENCE:
        raise _no_face()
    # The face has other pixels in the still picture, and its crop must lie inside.
    closer = crop_box(framing_of(fit_layout(first.keypoints), _square(box)))
    second = _encoded(picture, closer, encoder)
    return (closer, second.keypoints) if second.presence >= FOUND_PRESENCE else (box, first.keypoints)


def _encoded(picture: RgbPicture, box: FaceBox, encoder: KeypointEncoder) -> EncodedFace:
    return encoder.encode(cut(picture, _square(box), CROP_SIZE))


def _square(box: FaceBox) -> CropSquare:
    return CropSquare(box.x, box.y, box.size)


def _no_face() -> PictureRefused:
    return PictureRefused(Refusal.NO_FACE, "no face was found in the picture")


def _png(picture: RgbPicture) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=4)  # a third of the time of 6, 5 % larger
    return out.getvalue()
