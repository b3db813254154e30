"""Uploaded bytes to an RGB picture. Pure, and meant for a process that may be killed: see portrait_worker.py."""

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

#: What decoding keeps at most of a picture's longer side; four times the still picture's area is plenty to choose from.
LONGEST_SIDE = 2560

_FORMATS = ("JPEG", "PNG", "WEBP")
#: Damaged files make Pillow raise whatever its next operation on them happens to raise.
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
#: What a transparent picture is laid on.
_BACKDROP = (236, 238, 241)

#: How files of other kinds begin, to name them in the answer; HEIC is what a phone sends when nobody converts it.
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
    """A JPEG, PNG or WebP file as (H, W, 3) RGB, upright, opaque, in sRGB, its longer side LONGEST_SIDE at most.

    The size in the file's header is checked before a pixel is decoded. Raises PictureRefused.
    """
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise PictureRefused(
            Refusal.TOO_MANY_PIXELS,
            f"the picture has {image.width} x {image.height} pixels, more than the {max_pixels} that are taken",
        )
    # A phone's JPEG may carry a second picture behind the first (MPO); that is no animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PictureRefused(Refusal.ANIMATED_IMAGE, "the picture is animated; a still one is needed")
    turn = _ORIENTATIONS.get(_orientation(image))
    try:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # a JPEG decodes at a half, a quarter or an eighth
        image.load()
        image = _eight_bit(image)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    except MemoryError as error:
        raise PictureRefused(Refusal.TOO_MUCH_MEMORY, "the picture needs more memory than a picture may") from error
    except _PILLOW_RAISES as error:
        raise _damaged() from error
    if turn is not None:
        image = image.transpose(turn)
    return np.asarray(_opaque_srgb(image))


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at a limit of its own and raises at twice that; ours is checked from the header right after.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise PictureRefused(Refusal.TOO_MANY_PIXELS, "the picture has far more pixels than are taken") from error
        except _PILLOW_RAISES as error:
            raise _unidentified(data) from error


def _unidentified(data: bytes) -> PictureRefused:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return _damaged()
    for offset, magic, name in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return PictureRefused(Refusal.UNSUPPORTED_FORMAT, f"{name} is not taken; send a JPEG, PNG or WebP picture")
    return PictureRefused(Refusal.NOT_AN_IMAGE, "this is no picture; send a JPEG, PNG or WebP picture")


def _damaged() -> PictureRefused:
    return PictureRefused(Refusal.TRUNCATED_IMAGE, "the picture is damaged or cut short")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _PILLOW_RAISES:
        return 1  # broken metadata spoils no picture


def _eight_bit(image: Image.Image) -> Image.Image:
    """Any mode that the three formats decode to, as L, RGB or RGBA."""
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
            return opaque  # a profile that cannot be read, or of a CMYK file that is RGB by now
        assert converted is not None
        return converted
    return opaque
