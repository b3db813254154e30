"""The encoder: what it writes is decoded and looked at."""

from collections.abc import Iterator

import av
import cv2
import numpy as np
import pytest
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_generator.h264.encoder import (
    DEFAULT_BITRATE_BPS,
    MAX_BITRATE_BPS,
    MIN_BITRATE_BPS,
    EncodedPicture,
    H264Encoder,
    NoH264Encoder,
    choose_h264_encoder,
    is_constrained_baseline,
    probe,
)
from mien_shared.media.annexb import NalType, nal_type, nal_units
from mien_shared.media.synthetic_mark import MARK_NAL, has_mark

Yuv = NDArray[np.uint8]
FACE = (slice(100, 356), slice(480, 736))


@pytest.fixture(scope="module")
def still() -> Yuv:
    rng = np.random.default_rng(3)
    coarse = rng.integers(20, 235, (36, 64, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_CUBIC)
    yuv: Yuv = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
    return yuv


@pytest.fixture
def encoder() -> H264Encoder:
    return H264Encoder()


def moving(still: Yuv, count: int, noise: float = 0.0) -> Iterator[av.VideoFrame]:
    """Frames in which a square moves, with noise of its own where asked for."""
    rng = np.random.default_rng(4)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (400, 400), dtype=np.uint8), (0, 0), 4)
    for i in range(count):
        yuv = still.copy()
        dx, dy = int(30 * np.sin(i / 6)) + 40, int(20 * np.cos(i / 9)) + 40
        patch = texture[dy : dy + 256, dx : dx + 256] + rng.normal(0, noise, (256, 256))
        yuv[:FRAME_HEIGHT][FACE] = np.clip(patch, 16, 235).astype(np.uint8)
        yield av.VideoFrame.from_ndarray(yuv, format="yuv420p")


def encode_all(encoder: H264Encoder, frames: Iterator[av.VideoFrame], idr_at: set[int]) -> list[EncodedPicture]:
    return [encoder.encode(frame, i * 3000, i in idr_at) for i, frame in enumerate(frames)]


def decode_each(pictures: list[EncodedPicture]) -> list[av.VideoFrame]:
    """Decode as a live receiver does: one frame out at once for each access unit."""
    decoder = av.video.codeccontext.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = []
    for picture in pictures:
        decoded = decoder.decode(av.Packet(picture.data))
        assert len(decoded) == 1
        frames.extend(decoded)
    return frames


def luma(frame: av.VideoFrame) -> Yuv:
    return np.asarray(frame.to_ndarray(), np.uint8)[:FRAME_HEIGHT]


def pixels_of(plane: VideoPlane) -> Yuv:
    pixels: Yuv = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # the stubs lack the buffer protocol
    return pixels


def psnr_db(one: Yuv, other: Yuv) -> float:
    error = float(((one.astype(np.float64) - other) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def kinds(picture: EncodedPicture) -> list[int]:
    return [nal_type(unit) for _, unit in nal_units(picture.data)]


def test_the_stream_is_constrained_baseline_3_1(encoder: H264Encoder, still: Yuv) -> None:
    (picture,) = encode_all(encoder, moving(still, 1), set())
    sps = next(unit for _, unit in nal_units(picture.data) if nal_type(unit) == NalType.SPS)
    assert sps[1] == 66
    assert sps[2] & 0x40
    assert sps[3] == 31
    assert is_constrained_baseline(sps)
    assert not is_constrained_baseline(bytes([0x67, 77, 0x40, 31]))


def test_every_idr_has_its_parameter_sets_before_it_and_comes_when_asked_for(encoder: H264Encoder, still: Yuv) -> None:
    pictures = encode_all(encoder, moving(still, 30), {7, 20})
    assert [i for i, picture in enumerate(pictures) if picture.is_idr] == [0, 7, 20]
    for picture in pictures:
        if picture.is_idr:
            assert [kind for kind in kinds(picture) if kind != NalType.SEI] == [
                NalType.SPS,
                NalType.PPS,
                NalType.IDR_SLICE,
            ]
        else:
            assert kinds(picture) == [NalType.SLICE]


def test_every_idr_is_marked_as_synthetic_and_the_rest_of_the_stream_is_as_the_codec_wrote_it(
    encoder: H264Encoder, still: Yuv
) -> None:
    pictures = encode_all(encoder, moving(still, 30), {7, 20})
    assert [i for i, picture in enumerate(pictures) if has_mark(picture.data)] == [0, 7, 20]
    plain = [EncodedPicture(picture.data.replace(MARK_NAL, b""), picture.is_idr) for picture in pictures]
    bytes_more = [len(picture.data) - len(without.data) for picture, without in zip(pictures, plain, strict=True)]
    assert bytes_more == [len(MARK_NAL) if i in {0, 7, 20} else 0 for i in range(30)]
    for with_mark, without in zip(decode_each(pictures), decode_each(plain), strict=True):
        assert np.array_equal(with_mark.to_ndarray(), without.to_ndarray())


def test_a_late_joiner_starts_on_an_idr(encoder: H264Encoder, still: Yuv) -> None:
    frames = list(moving(still, 12))
    pictures = encode_all(encoder, iter(frames), {8})
    late = decode_each(pictures[8:])
    assert psnr_db(luma(late[-1]), luma(frames[-1])) > 34


def test_each_frame_leaves_in_the_call_that_brought_it_and_looks_like_it(encoder: H264Encoder, still: Yuv) -> None:
    frames = list(moving(still, 30))
    decoded = decode_each(encode_all(encoder, iter(frames), set()))
    assert len(decoded) == 30
    for sent, seen in zip(frames[10:], decoded[10:], strict=True):
        assert psnr_db(luma(seen)[FACE], luma(sent)[FACE]) > 36
        assert psnr_db(luma(seen)[400:], luma(sent)[400:]) > 38
    assert (decoded[0].width, decoded[0].height) == (FRAME_WIDTH, FRAME_HEIGHT)


def test_the_still_part_costs_next_to_nothing(encoder: H264Encoder, still: Yuv) -> None:
    frame = av.VideoFrame.from_ndarray(still, format="yuv420p")
    sizes = [len(encoder.encode(frame, i * 3000).data) for i in range(60)]
    assert max(sizes[40:]) < 150  # once the picture is as good as it gets


def test_the_colours_are_signalled(encoder: H264Encoder, still: Yuv) -> None:
    (frame,) = decode_each(encode_all(encoder, moving(still, 1), set()))
    assert frame.colorspace == 6  # SMPTE 170M, BT.601's matrix
    assert frame.color_range == ColorRange.MPEG


def test_one_buffer_serves_all_frames(still: Yuv) -> None:
    """The compositor writes into the same buffer while the codec is at rest: nothing of a frame may be read later."""
    apart = encode_all(H264Encoder(), moving(still, 25), {9})
    buffer = av.VideoFrame.from_ndarray(still, format="yuv420p")
    pixels = [pixels_of(plane) for plane in buffer.planes]
    encoder, together = H264Encoder(), []
    for i, frame in enumerate(moving(still, 25)):
        for target, plane in zip(pixels, frame.planes, strict=True):
            target[:] = pixels_of(plane)
        together.append(encoder.encode(buffer, i * 3000, i == 9))
        for target in pixels:
            target[:] = 0
    assert [picture.data for picture in together] == [picture.data for picture in apart]


@pytest.mark.slow
def test_a_new_target_bitrate_takes_effect_in_both_directions(still: Yuv) -> None:
    encoder = H264Encoder(bitrate_bps=1_500_000)
    sizes: list[int] = []
    for i, frame in enumerate(moving(still, 240, noise=14.0)):
        if i == 90:
            encoder.set_bitrate(300_000)
        if i == 180:
            encoder.set_bitrate(1_500_000)
        sizes.append(len(encoder.encode(frame, i * 3000).data))

    def rate_bps(start: int, stop: int) -> float:
        return sum(sizes[start:stop]) * 8 * 30 / (stop - start)

    assert 1_100_000 < rate_bps(60, 90) < 1_900_000
    assert rate_bps(120, 180) < 420_000  # from one second after the change on
    assert rate_bps(210, 240) > 1_100_000


def test_the_target_stays_within_its_limits() -> None:
    encoder = H264Encoder()
    assert encoder.bitrate_bps == DEFAULT_BITRATE_BPS
    encoder.set_bitrate(1)
    assert encoder.bitrate_bps == MIN_BITRATE_BPS
    encoder.set_bitrate(10**9)
    assert encoder.bitrate_bps == MAX_BITRATE_BPS


def test_time_may_jump_when_frames_were_skipped(encoder: H264Encoder, still: Yuv) -> None:
    times = [0, 3000, 6000, 36000, 39000, 900000]
    pictures = [encoder.encode(f, t) for f, t in zip(moving(still, len(times)), times, strict=True)]
    assert len(decode_each(pictures)) == len(times)


def test_the_encoder_is_chosen_by_encoding() -> None:
    probe("libx264")
    assert choose_h264_encoder(("libx264",)) == "libx264"
    assert choose_h264_encoder(("no_such_codec", "libx264")) == "libx264"
    assert choose_h264_encoder() in {"libx264", "h264_nvenc"}


def test_an_unknown_encoder_is_refused_by_name() -> None:
    with pytest.raises(NoH264Encoder, match=r"^unknown H\.264 encoder 'mpeg2': choose one of libx264, h264_nvenc$"):
        H264Encoder("mpeg2")
    with pytest.raises(NoH264Encoder, match=r"^no H\.264 encoder works on this machine; tried no_such_codec$"):
        choose_h264_encoder(("no_such_codec",))
