"""Figures and recordings of the video that a viewer received."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType

from mien_client.sound_track import Moment, SoundTrack
from mien_client.whep import ReceivedFrame, ReceivedSound
from mien_shared.media.clock import VIDEO_CLOCK_HZ, elapsed_ms_u32
from mien_shared.media.frame_trace import FrameTrace
from mien_shared.media.synthetic_mark import DIGITAL_SOURCE_TYPE, is_mark

_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
#: No visible loss against the received video. udu_sei: a picture keeps its trace and its synthetic mark.
_QUALITY = {"crf": "18", "preset": "veryfast", "udu_sei": "1"}


@dataclass
class ViewReport:
    """Figures of one viewer. Latency runs from the sender's capture to the decoded picture.

    Sender and viewer must read the same clock.
    """

    arrivals_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    idle_frames: int = 0
    key_frames: int = 0
    marked_key_frames: int = 0
    width: int = 0
    height: int = 0

    def add(self, frame: ReceivedFrame) -> FrameTrace | None:
        """Count one frame. Returns its trace, or None if it carries none."""
        self.arrivals_s.append(frame.received_unix_s)
        self.width, self.height = frame.picture.width, frame.picture.height
        if frame.picture.key_frame:
            self.key_frames += 1
            self.marked_key_frames += is_synthetic(frame.picture)
        trace = trace_of(frame.picture)
        if trace is None:
            return None
        if trace.is_stalled:
            self.idle_frames += 1
        else:
            now_ms = round(frame.received_unix_s * 1000)
            self.latencies_ms.append(elapsed_ms_u32(now_ms, trace.capture_ms))
        return trace

    @property
    def seconds(self) -> float:
        return self.arrivals_s[-1] - self.arrivals_s[0] if len(self.arrivals_s) > 1 else 0.0

    @property
    def synthetic(self) -> bool | None:
        """Whether every key frame carried the synthetic mark; None before the first."""
        return self.marked_key_frames == self.key_frames if self.key_frames else None

    def as_json(self) -> dict[str, float | int | bool | None]:
        """Frames, frames per second, percentiles of the latency in milliseconds, and whether the stream is marked."""
        enough = len(self.latencies_ms) > 1
        cuts = statistics.quantiles(self.latencies_ms, n=100) if enough else []
        return {
            "frames": len(self.arrivals_s),
            "seconds": round(self.seconds, 3),
            "fps": round((len(self.arrivals_s) - 1) / self.seconds, 2) if self.seconds else None,
            "width": self.width,
            "height": self.height,
            "idle_frames": self.idle_frames,
            "synthetic": self.synthetic,
            "latency_ms_p50": round(statistics.median(self.latencies_ms), 1) if enough else None,
            "latency_ms_p99": round(cuts[98], 1) if enough else None,
        }


def trace_of(picture: av.VideoFrame) -> FrameTrace | None:
    """The frame trace that a decoded picture carries as SEI, or None if it carries none."""
    return next((trace for trace in map(FrameTrace.unpack, _user_data(picture)) if trace is not None), None)


def captured_unix_s(frame: ReceivedFrame) -> float | None:
    """When a picture's motion was recorded, by the sender's clock; None for default motion and without a trace."""
    trace = trace_of(frame.picture)
    if trace is None or trace.is_stalled:
        return None
    return frame.received_unix_s - elapsed_ms_u32(round(frame.received_unix_s * 1000), trace.capture_ms) / 1000


def is_synthetic(picture: av.VideoFrame) -> bool:
    """Whether a decoded picture carries the synthetic mark. Every key frame of ours does."""
    return any(map(is_mark, _user_data(picture)))


def _user_data(picture: av.VideoFrame) -> Iterator[bytes]:
    """The payloads of the SEI messages "user data unregistered" of a decoded picture, UUID first."""
    entries: Iterable[object] = picture.side_data  # its type says mapping, but iteration yields the values
    for entry in entries:
        assert isinstance(entry, SideData)
        if entry.type == SideDataType.SEI_UNREGISTERED:
            yield bytes(entry)


class Recorder:
    """Writes received pictures to an MP4, each at its presentation time. with_sound: it gets a voice beside them."""

    def __init__(self, path: Path, *, with_sound: bool = False) -> None:
        # The format is named, because FFmpeg refuses a file whose name does not end in one.
        self._container = av.open(str(path), "w", format="mp4")
        self._container.metadata["comment"] = f"Synthetic: an avatar that a computer animates ({DIGITAL_SOURCE_TYPE})"
        self._stream: av.VideoStream | None = None
        self._first_pts: int | None = None
        self._last_pts = -1
        self._with_sound = with_sound
        self._sound: SoundTrack | None = None
        self._newest: Moment | None = None

    def write(self, frame: ReceivedFrame) -> None:
        """Add one picture. A picture that is not later than the last one is dropped."""
        picture = frame.picture
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=30, options=_QUALITY)
            self._stream.width, self._stream.height = picture.width, picture.height
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = _TIME_BASE
            self._sound = SoundTrack(self._container) if self._with_sound else None
        pts = picture.pts or 0
        if self._first_pts is None:
            self._first_pts = pts
        since_first = (pts - self._first_pts) & 0xFFFF_FFFF  # RTP time wraps at 32 bits
        if since_first <= self._last_pts:
            return
        self._last_pts = since_first
        copy = picture.reformat(format="yuv420p")
        copy.pts, copy.time_base = since_first, _TIME_BASE
        self._container.mux(self._stream.encode(copy))
        media_s = since_first / VIDEO_CLOCK_HZ
        self._newest = Moment(media_s, frame.received_unix_s, captured_unix_s(frame))
        if self._sound is not None:
            self._sound.follow(media_s)

    def write_sound(self, sound: ReceivedSound) -> None:
        """Add 20 ms of the voice. What comes before the first picture is dropped."""
        if self._sound is not None and self._newest is not None:
            self._sound.add(sound, self._newest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        if self._sound is not None and self._newest is not None:
            self._sound.close(self._newest)
        self._container.close()
