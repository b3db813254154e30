"""Decoding: every kind of good picture comes out upright, opaque RGB; every bad one has a name."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from mien_gateway.image import LONGEST_SIDE, decode
from mien_gateway.portrait_contract import PictureRefused, Refusal

MAX_PIXELS = 1_000_000


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green; blue, white: every turn of it looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def refusal(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Refusal, str]:
    with pytest.raises(PictureRefused) as caught:
        decode(data, max_pixels)
    return caught.value.refusal, caught.value.detail


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_reads_the_three_formats(kind: str) -> None:
    rgb = decode(encoded(quadrants(), kind, quality=95), MAX_PIXELS)
    assert rgb.shape == (48, 64, 3)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb[8, 8].astype(int) - (255, 0, 0)).max() < 12


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("1", (255,) * 3), ("L", (76,) * 3), ("P", (255, 0, 0)), ("RGBA", (255, 0, 0)), ("LA", (76,) * 3)],
)
def test_reads_every_mode_of_a_png(mode: str, colour: tuple[int, int, int]) -> None:
    rgb = decode(encoded(Image.new("RGB", (40, 40), (255, 0, 0)).convert(mode), "PNG"), MAX_PIXELS)
    assert rgb.shape == (40, 40, 3)
    if mode != "1":  # dithered
        assert np.abs(rgb[20, 20].astype(int) - colour).max() <= 1


def test_reads_sixteen_bit_grey() -> None:
    grey = np.full((30, 40), 0xAB00, np.uint16)
    assert (decode(encoded(Image.fromarray(grey), "PNG"), MAX_PIXELS) == 0xAB).all()


def test_reads_a_cmyk_jpeg() -> None:
    rgb = decode(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95), MAX_PIXELS)
    assert np.abs(rgb[16, 16].astype(int) - (255, 0, 0)).max() < 12


def test_lays_transparency_on_a_light_backdrop() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (decode(encoded(clear, "PNG"), MAX_PIXELS) > 220).all()
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([255, 0, 0] + [0] * 765)
    assert (decode(encoded(palette, "PNG", transparency=0), MAX_PIXELS) > 220).all()


@pytest.mark.parametrize(
    ("orientation", "top_left"),
    [
        (1, (255, 0, 0)),
        (2, (0, 255, 0)),
        (3, (255, 255, 255)),
        (4, (0, 0, 255)),
        (5, (255, 0, 0)),
        (6, (0, 0, 255)),
        (7, (255, 255, 255)),
        (8, (0, 255, 0)),
        (99, (255, 0, 0)),
    ],
)
def test_turns_the_picture_as_its_metadata_says(orientation: int, top_left: tuple[int, int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = decode(encoded(quadrants(), "PNG", exif=exif), MAX_PIXELS)
    assert tuple(rgb[4, 4]) == top_left
    assert rgb.shape[:2] == ((64, 48) if 5 <= orientation <= 8 else (48, 64))


def test_broken_metadata_spoils_no_picture() -> None:
    data = encoded(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0")
    assert decode(data, MAX_PIXELS).shape == (48, 64, 3)


def test_brings_colours_to_srgb_and_ignores_a_profile_it_cannot_read() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert tuple(decode(encoded(quadrants(), "PNG", icc_profile=lab), MAX_PIXELS)[4, 4]) == (255, 0, 0)
    assert tuple(decode(encoded(quadrants(), "PNG", icc_profile=b"none"), MAX_PIXELS)[4, 4]) == (255, 0, 0)


def test_keeps_no_more_than_it_needs() -> None:
    wide = decode(encoded(Image.new("RGB", (2 * LONGEST_SIDE, 40)), "JPEG"), MAX_PIXELS)
    assert wide.shape == (20, LONGEST_SIDE, 3)


@pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 1000, b"%PDF-1.7 ...", b"<html>"])
def test_what_is_no_picture(data: bytes) -> None:
    assert refusal(data) == (Refusal.NOT_AN_IMAGE, "the file is not a picture; send a JPEG, PNG or WebP picture")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO"])
def test_formats_that_are_not_taken(kind: str) -> None:
    assert refusal(encoded(quadrants(), kind)) == (
        Refusal.UNSUPPORTED_FORMAT,
        f"{kind} is not taken; send a JPEG, PNG or WebP picture",
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_pictures(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8))
    data = encoded(noise, kind)
    assert refusal(data[: int(len(data) * share)]) == (Refusal.TRUNCATED_IMAGE, "the picture is damaged or cut short")


def test_a_header_alone_is_truncated() -> None:
    assert refusal(b"\x89PNG\r\n\x1a\n")[0] is Refusal.TRUNCATED_IMAGE
    assert refusal(b"\xff\xd8\xff\xe0")[0] is Refusal.TRUNCATED_IMAGE


def test_a_colour_profile_of_nothing() -> None:
    data = encoded(quadrants(), "PNG")
    empty = b"iCCP"
    chunk = struct.pack(">I", 0) + empty + struct.pack(">I", zlib.crc32(empty))
    assert refusal(data[:33] + chunk + data[33:]) == (Refusal.TRUNCATED_IMAGE, "the picture is damaged or cut short")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_pictures(kind: str) -> None:
    data = encoded(quadrants(), kind, save_all=True, append_images=[quadrants().rotate(180)], duration=100)
    assert refusal(data) == (Refusal.ANIMATED_IMAGE, "the picture is animated; send a still picture")


def test_a_second_picture_behind_a_phones_jpeg_is_no_animation() -> None:
    data = encoded(quadrants(), "MPO", save_all=True, append_images=[quadrants()])
    assert decode(data, MAX_PIXELS).shape == (48, 64, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims any number of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 99)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    assert refusal(bomb(10_000, 10_000), 50_000_000) == (
        Refusal.TOO_MANY_PIXELS,
        "the picture has 10000 x 10000 pixels; at most 50000000 pixels are accepted",
    )


def test_what_pillow_itself_calls_a_bomb_has_the_same_name() -> None:
    assert refusal(bomb(20_000, 20_000), 50_000_000) == (
        Refusal.TOO_MANY_PIXELS,
        "the picture has far too many pixels",
    )


def test_the_limit_itself_is_taken() -> None:
    assert decode(encoded(Image.new("L", (100, 100)), "PNG"), 10_000).shape == (100, 100, 3)
    assert refusal(encoded(Image.new("L", (100, 101)), "PNG"), 10_000)[0] is Refusal.TOO_MANY_PIXELS


SAMPLES = [encoded(quadrants(), kind) for kind in ("PNG", "JPEG", "WEBP")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_anywhere_gives_a_picture_or_a_named_refusal(data: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for where, value in changes:
        damaged[int(where * len(data))] = value
    with contextlib.suppress(PictureRefused):  # any other error fails this
        assert decode(bytes(damaged), MAX_PIXELS).ndim == 3
