"""Decodes uploaded bytes to an RGB picture. Pure. It runs in a process that may be killed: see portrait_worker.py."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from mien_gateway.portrait_contract import PictureRefused, Refusal

RgbPicture = NDArray[np.uint8]

#: The longest side of a decoded picture. It leaves four times the still picture's area to choose a window from.
LONGEST_SIDE = 2560

_FORMATS = ("JPEG", "PNG", "WEBP")
#: The errors that Pillow raises for damaged files, depending on the operation that fails.
_PILLOW_RAISES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_ORIENTATION_TAG = 0x0112  # Exif 2.3, section 4.6.4
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: The background colour of a transparent picture.
_BACKDROP = (236, 238, 241)

#: How files of other formats begin, to name the format in the answer. HEIC is the camera format of some phones.
_OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"<svg", "SVG"),
)


def decode(data: bytes, max_pixels: int) -> RgbPicture:
    """Decode a JPEG, PNG or WebP file to (H, W, 3) RGB: upright, opaque, sRGB, longer side at most LONGEST_SIDE.

    The size in the file's header is checked before any pixel is decoded. Raises PictureRefused.
    """
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise PictureRefused(
            Refusal.TOO_MANY_PIXELS,
            f"the picture has {image.width} x {image.height} pixels; at most {max_pixels} pixels are accepted",
        )
    # A phone's JPEG may contain a second picture after the first (MPO). That is not an animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PictureRefused(Refusal.ANIMATED_IMAGE, "the picture is animated; send a still picture")
    turn = _ORIENTATIONS.get(_orientation(image))
    try:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # a JPEG can be decoded at 1/2, 1/4 or 1/8 size
        image.load()
        image = _eight_bit(image)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    except MemoryError as error:
        raise PictureRefused(Refusal.TOO_MUCH_MEMORY, "the picture needs too much memory to decode") from error
    except _PILLOW_RAISES as error:
        raise _damaged() from error
    if turn is not None:
        image = image.transpose(turn)
    return np.asarray(_opaque_srgb(image))


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at its own limit and raises at twice that limit. Ours is checked afterwards, from the header.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise PictureRefused(Refusal.TOO_MANY_PIXELS, "the picture has far too many pixels") from error
        except _PILLOW_RAISES as error:
            raise _unidentified(data) from error


def _unidentified(data: bytes) -> PictureRefused:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return _damaged()
    for offset, magic, name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return PictureRefused(Refusal.UNSUPPORTED_FORMAT, f"{name} is not taken; send a JPEG, PNG or WebP picture")
    return PictureRefused(Refusal.NOT_AN_IMAGE, "the file is not a picture; send a JPEG, PNG or WebP picture")


def _damaged() -> PictureRefused:
    return PictureRefused(Refusal.TRUNCATED_IMAGE, "the picture is damaged or cut short")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _PILLOW_RAISES:
        return 1  # the picture can be used without its broken metadata


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert any mode that the three formats decode to into L, RGB or RGBA."""
    if image.mode in {"L", "RGB", "RGBA"} and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey
        return Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in {"LA", "PA", "La", "RGBa"}:
        return image.convert("RGBA")
    return image.convert("RGB")


def _opaque_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode == "RGBA":
        opaque = Image.new("RGB", image.size, _BACKDROP)
        opaque.paste(image, mask=image.getchannel("A"))
    else:
        opaque = image.convert("RGB")
    if profile and image.mode != "L":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(opaque, source, ImageCms.createProfile("sRGB"))
        except (ImageCms.PyCMSError, OSError, ValueError):
            return opaque  # the profile cannot be read, or is for CMYK and the picture is RGB by now
        assert converted is not None
        return converted
    return opaque
