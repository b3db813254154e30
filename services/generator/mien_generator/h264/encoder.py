"""Stage 4, H.264: constrained baseline 3.1, one Annex-B access unit for each frame (ITU-T H.264).

The purpose of the libx264 options, measured on a talking head at 1280x720:
  - `zerolatency` and one thread: the call that takes a frame also returns it, and many sessions share the cores.
  - `ultrafast`, but with the deblocking filter and quarter-pixel motion (subme=1): +2.5 dB for 0.4 ms per frame. A
    macroblock of the still part costs one skip flag.
  - `qpmin=20`: an easy picture stops at about 46 dB, instead of spending the whole bitrate on invisible detail.
  - CBR at MAX_BITRATE_BPS when it is opened, lowered afterwards: x264 follows a changed bitrate only in a stream that
    began as CBR (ratecontrol.c: "if the stream starts as CBR, keep it CBR"). With another maxrate, or with none, the
    bitrate would not change.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from mien_generator.face.region import FRAME_HEIGHT, FRAME_WIDTH
from mien_shared.media.annexb import NalType, nal_type, nal_units
from mien_shared.media.clock import VIDEO_CLOCK_HZ
from mien_shared.media.synthetic_mark import insert_mark

FRAME_RATE = 30
DEFAULT_BITRATE_BPS = 1_500_000
MIN_BITRATE_BPS = 100_000
MAX_BITRATE_BPS = 6_000_000

#: Bits by which a burst may exceed the target: the size of an IDR. A new target is reached after about this many bits.
_BUFFER_BITS = 750_000
#: Frames after which the codec makes an IDR without a request. KeyframePolicy requests earlier; other callers need it.
_LONGEST_GOP = 20 * FRAME_RATE

#: sRGB pictures have BT.709 primaries and the sRGB curve. cv2 converts them to YUV by BT.601 (H.264 tables E-3 to E-5).
_PRIMARIES_BT709 = 1
_TRANSFER_SRGB = 13
_MATRIX_BT601 = 6
_RANGE_LIMITED = 1

_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)

_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "profile": "baseline",
        "level": "3.1",
        "forced-idr": "1",
        "x264-params": "no-deblock=0:subme=1:qpmin=20:log=1",
    },
    "h264_nvenc": {
        "preset": "p2",
        "tune": "ull",
        "profile": "baseline",
        "level": "3.1",
        "rc": "cbr",
        "zerolatency": "1",
        "delay": "0",
        "forced-idr": "1",
    },
}

_log = logging.getLogger(__name__)


class H264Error(RuntimeError):
    """The codec failed, or its output is not what the stream's receivers need."""


class NoH264Encoder(H264Error):
    """None of the requested H.264 encoders works on this machine."""


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One access unit in Annex B format. An IDR begins with SPS and PPS and carries the synthetic mark."""

    data: bytes
    is_idr: bool


class H264Encoder:
    """One session's H.264 encoder, 1280x720 at 30 frames per second. Only one thread at a time may use it."""

    def __init__(self, name: str = "libx264", bitrate_bps: int = DEFAULT_BITRATE_BPS) -> None:
        """name: libx264 or h264_nvenc, see choose_h264_encoder(). Raises NoH264Encoder if it cannot be opened."""
        if name not in _OPTIONS:
            raise NoH264Encoder(f"unknown H.264 encoder {name!r}: choose one of {', '.join(_OPTIONS)}")
        self.name = name
        limits = {"maxrate": str(MAX_BITRATE_BPS), "bufsize": str(_BUFFER_BITS)}
        try:
            context = CodecContext.create(name, "w")
            if not isinstance(context, VideoCodecContext):
                raise NoH264Encoder(f"{name} is not a video encoder")
            context.width, context.height, context.pix_fmt = FRAME_WIDTH, FRAME_HEIGHT, "yuv420p"
            context.framerate, context.time_base = Fraction(FRAME_RATE), _TIME_BASE
            context.bit_rate = MAX_BITRATE_BPS
            context.gop_size, context.max_b_frames, context.thread_count = _LONGEST_GOP, 0, 1
            context.color_primaries, context.color_trc = _PRIMARIES_BT709, _TRANSFER_SRGB
            context.colorspace, context.color_range = _MATRIX_BT601, _RANGE_LIMITED
            context.options = _OPTIONS[name] | limits
            context.open()
        except (av.FFmpegError, ValueError) as error:
            raise NoH264Encoder(f"the H.264 encoder {name} cannot be opened: {error}") from error
        self._context = context
        self._bitrate_bps = 0
        self.set_bitrate(bitrate_bps)

    @property
    def bitrate_bps(self) -> int:
        """The present bitrate target."""
        return self._bitrate_bps

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Set the bitrate target, clamped to MIN_BITRATE_BPS..MAX_BITRATE_BPS. The stream follows within a second."""
        self._bitrate_bps = min(max(int(bitrate_bps), MIN_BITRATE_BPS), MAX_BITRATE_BPS)
        self._context.bit_rate = self._bitrate_bps

    def encode(self, frame: av.VideoFrame, pts_90k: int, force_idr: bool = False) -> EncodedPicture:
        """Encode one frame (yuv420p, 1280x720). The caller may overwrite the frame as soon as this returns.

        pts_90k: media time; must rise. Raises H264Error if the codec fails or holds the frame back.
        """
        frame.pts, frame.time_base = pts_90k, _TIME_BASE
        frame.pict_type = PictureType.I if force_idr else PictureType.NONE
        try:
            packets = self._context.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            raise H264Error(f"{self.name} failed on a frame: {error}") from error
        if len(packets) != 1:
            raise H264Error(f"{self.name} returned {len(packets)} packets for one frame, not 1")
        data, is_idr = bytes(packets[0]), packets[0].is_keyframe
        return EncodedPicture(insert_mark(data) if is_idr else data, is_idr)


@cache
def choose_h264_encoder(candidates: tuple[str, ...] = ("h264_nvenc", "libx264")) -> str:
    """The first candidate that works on this machine. Each is tried once per process.

    The presence of a GPU is not enough: datacentre GPUs (A100, H100, H200) have no NVENC. Raises NoH264Encoder if no
    candidate works.
    """
    for name in candidates:
        try:
            probe(name)
        except H264Error as error:
            _log.info("H.264 encoder not usable", extra={"encoder": name, "reason": str(error)})
        else:
            _log.info("H.264 encoder chosen", extra={"encoder": name})
            return name
    raise NoH264Encoder(f"no H.264 encoder works on this machine; tried {', '.join(candidates)}")


def probe(name: str) -> None:
    """Encode two frames and check them. Raises H264Error if the stream is wrong."""
    encoder = H264Encoder(name)
    frame = av.VideoFrame.from_ndarray(np.full((FRAME_HEIGHT * 3 // 2, FRAME_WIDTH), 128, np.uint8), format="yuv420p")
    first, second = (encoder.encode(frame, i * VIDEO_CLOCK_HZ // FRAME_RATE) for i in range(2))
    units = [unit for _, unit in nal_units(first.data)]
    if [nal_type(unit) for unit in units[:2]] != [NalType.SPS, NalType.PPS] or not first.is_idr or second.is_idr:
        raise H264Error(f"{name} does not begin its stream with SPS, PPS and an IDR")
    if not is_constrained_baseline(units[0]):
        raise H264Error(f"{name} does not write the constrained baseline profile")


def is_constrained_baseline(sps: bytes) -> bool:
    """Whether an SPS declares profile_idc 66 with constraint_set1_flag (H.264 A.2.1.1)."""
    return sps[1] == 66 and bool(sps[2] & 0x40)
