"""The names of PyAV that aiortc imports, without PyAV: for signaling's image.

aiortc uses PyAV only in its own encoders and decoders. Signaling forwards H.264 and Opus and decodes nothing, so
its image has no FFmpeg: 100 MB less, and no decoder that a stranger's packet could reach. Making an object of these
classes raises NoCodecs.
"""

from __future__ import annotations

from typing import NoReturn


class NoCodecs(RuntimeError):
    """aiortc tried to encode or decode."""


class FFmpegError(Exception):
    """Never raised: there is no FFmpeg."""


class _Absent:
    def __init__(self, *_: object, **__: object) -> None:
        raise NoCodecs("this image has no encoders and decoders: signaling only forwards media")

    @classmethod
    def create(cls, *_: object, **__: object) -> NoReturn:
        raise NoCodecs("this image has no encoders and decoders: signaling only forwards media")


class Packet(_Absent):
    """PyAV's encoded packet."""


class Frame(_Absent):
    """PyAV's decoded frame."""


class AudioFrame(Frame):
    """PyAV's decoded audio."""


class VideoFrame(Frame):
    """PyAV's decoded picture."""


class AudioResampler(_Absent):
    """PyAV's resampler."""


class CodecContext(_Absent):
    """PyAV's encoder or decoder."""


class VideoCodecContext(CodecContext):
    """PyAV's encoder or decoder of video."""
