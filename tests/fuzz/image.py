"""Fuzzes uploaded pictures: each is decoded to pixels of a bounded size, or refused with a named error."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from fuzz.harness import Target, main
from PIL import Image, ImageCms

from mien_gateway.image import LONGEST_SIDE, decode
from mien_gateway.portrait_contract import PictureRefused

_MAX_PIXELS = 200_000

# Pillow warns about the damaged metadata of many inputs.
warnings.filterwarnings("ignore", module="PIL")


def check(data: bytes) -> None:
    try:
        pixels = decode(data, _MAX_PIXELS)
    except PictureRefused:
        return
    height, width, channels = pixels.shape
    assert channels == 3 and pixels.dtype == np.uint8
    assert 1 <= max(height, width) <= LONGEST_SIDE and height * width <= _MAX_PIXELS


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _seeds() -> list[bytes]:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8)).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    animated = {"save_all": True, "append_images": [picture.rotate(180)], "duration": 100}
    return [
        _encoded(picture, "PNG"),
        _encoded(picture, "PNG", exif=exif, icc_profile=profile),
        _encoded(picture.convert("P"), "PNG", transparency=0),
        _encoded(picture.convert("RGBA"), "PNG"),
        _encoded(picture.convert("I;16"), "PNG"),
        _encoded(picture.convert("1"), "PNG"),
        _encoded(picture, "PNG", **animated),
        _encoded(picture, "JPEG", exif=exif, icc_profile=profile),
        _encoded(picture, "JPEG", progressive=True, subsampling=0),
        _encoded(picture.convert("CMYK"), "JPEG"),
        _encoded(picture.convert("L"), "JPEG"),
        _encoded(picture, "MPO", save_all=True, append_images=[picture]),
        _encoded(picture, "WEBP", exif=exif, icc_profile=profile),
        _encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        _encoded(picture, "WEBP", **animated),
        _encoded(picture, "GIF"),
    ]


_CHUNKS = b"IHDR PLTE tRNS IDAT IEND eXIf iCCP acTL fcTL fdAT zTXt RIFF WEBP VP8L VP8X ALPH ANIM ANMF ICCP EXIF".split()
_MARKERS = [bytes((0xFF, marker)) for marker in b"\xc0\xc2\xc4\xd8\xd9\xda\xdb\xdd\xe0\xe1\xe2\xee"]
TARGET = Target("image", check, _seeds(), [*_CHUNKS, *_MARKERS, b"VP8 ", b"Exif\0\0"])

if __name__ == "__main__":
    main(TARGET)
