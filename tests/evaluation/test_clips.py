from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clip_files import MATRICES, blanked, corners, stored_for, turned, write_clip, write_sound

from mien_encoder.crop import CropSquare
from mien_evaluation.clips import (
    ClipError,
    ClipWriter,
    clip_length,
    clip_pictures,
    clip_rate,
    is_clip,
    parse_square,
    read_picture,
    within,
)

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]


def _write_clip(path: Path, rate: Fraction = Fraction(25)) -> Path:
    with ClipWriter(path, rate) as writer:
        for colour in COLOURS:
            writer.write(np.full((64, 96, 3), colour, np.uint8))
    return path


# --- pictures and crops -----------------------------------------------------------------------------------------------


def test_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 200
    cv2.imwrite(str(tmp_path / "red.png"), rgb[..., ::-1])
    np.testing.assert_array_equal(read_picture(tmp_path / "red.png"), rgb)


@pytest.mark.parametrize("text", ["hello", ""])
def test_text_is_no_picture(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(ClipError, match=r"^a.png is not a picture$"):
        read_picture(tmp_path / "a.png")


def test_a_crop_is_the_square_it_says() -> None:
    square = parse_square("2,1,4")
    assert square == CropSquare(2, 1, 4)
    assert within(square, np.zeros((6, 8, 3), np.uint8)) == square


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,3,4", ""])
def test_crop_text_that_is_none(text: str) -> None:
    with pytest.raises(ClipError) as error:
        parse_square(text)
    assert str(error.value) == f"a crop must be X,Y,SIZE in whole pixels, not {text!r}"


@pytest.mark.parametrize("text", ["5,0,4", "0,3,4", "-1,0,4", "0,0,0"])
def test_a_crop_outside_the_picture(text: str) -> None:
    with pytest.raises(ClipError) as error:
        within(parse_square(text), np.zeros((6, 8, 3), np.uint8))
    assert str(error.value) == f"crop {text} is not inside the picture of 8x6"


# --- clips ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = _write_clip(tmp_path / "a.mp4")
    assert clip_rate(path) == 25
    assert clip_length(path) == 3
    assert is_clip(path)
    pictures = list(clip_pictures(path))
    assert [picture.shape for picture in pictures] == [(64, 96, 3)] * 3
    for picture, colour in zip(pictures, COLOURS, strict=True):
        np.testing.assert_allclose(picture[32, 32].astype(int), colour, atol=6)


def test_a_folder_of_pictures_is_a_clip_in_the_order_of_their_names(tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS):
        cv2.imwrite(str(tmp_path / f"{i:07}.png"), np.full((4, 4, 3), colour[::-1], np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    assert is_clip(tmp_path)
    assert clip_rate(tmp_path) == 25
    assert clip_length(tmp_path) == 3
    assert [tuple(picture[0, 0]) for picture in clip_pictures(tmp_path)] == COLOURS


def test_a_folder_without_pictures_and_a_text_are_no_clips(tmp_path: Path) -> None:
    assert not is_clip(tmp_path)
    assert not is_clip(tmp_path / "README.md")


READS = pytest.mark.parametrize("read", [clip_rate, clip_length, lambda path: list(clip_pictures(path))])


@READS
def test_text_is_no_clip(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "a.mp4").write_text("hello, hello, hello")
    with pytest.raises(ClipError, match=r"^a.mp4 is not a clip, or it is cut off: Invalid data"):
        read(tmp_path / "a.mp4")


@READS
def test_an_empty_file_is_no_clip(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ClipError, match=r"^a.mp4 is empty$"):
        read(tmp_path / "a.mp4")


@READS
def test_a_clip_without_its_end_is_no_clip(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = _write_clip(tmp_path / "a.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])  # the index, which is written last, is missing
    with pytest.raises(ClipError, match=r"^a.mp4 is not a clip, or it is cut off: Invalid data"):
        read(path)


def test_a_video_without_a_picture_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(ClipError, match=r"^a.avi has a video in which no picture can be decoded$"):
        list(clip_pictures(path))


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipError, match=r"^empty has no pictures$"):
        list(clip_pictures(tmp_path / "empty"))


def test_a_damaged_clip_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"^a.mp4 is damaged or cut off: Invalid data"):
        list(clip_pictures(blanked(_write_clip(tmp_path / "a.mp4"))))


@pytest.mark.parametrize("name", MATRICES)
def test_a_phones_clip_is_read_upright(tmp_path: Path, name: str) -> None:
    shown = corners(64, 96)
    path = turned(write_clip(tmp_path / "phone.mp4", [stored_for(MATRICES[name], shown)]), MATRICES[name])
    (rgb,) = clip_pictures(path)
    assert rgb.shape == shown.shape
    np.testing.assert_allclose(rgb[8::16, 8::16].astype(int), shown[8::16, 8::16], atol=12)


def test_a_jump_in_the_time_stamps_does_not_change_the_rate(tmp_path: Path) -> None:
    stamps = [number if number < 5 else 3600 * 30 + number for number in range(10)]
    pictures = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]
    assert clip_rate(write_clip(tmp_path / "a.mp4", pictures, stamps, rate=30)) == 30


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", "pcm_s16le")
    with pytest.raises(ClipError, match=r"^a.wav has no video, only sound$"):
        clip_rate(tmp_path / "a.wav")


def test_an_mp4_is_h264_and_labelled_as_synthetic(tmp_path: Path) -> None:
    path = _write_clip(tmp_path / "a.mp4", Fraction(30000, 1001))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.metadata["comment"] == "Synthetic: animated by Mien from a still picture"


def test_a_failure_leaves_no_half_mp4(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path / "a.mp4", Fraction(30))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ClipError, match="midway"), writer:
        raise ClipError("midway")
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_of_nothing_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ClipError, match=r"^a.mp4 was not written: it would have no frames$"),
        ClipWriter(tmp_path / "a.mp4", Fraction(30)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
