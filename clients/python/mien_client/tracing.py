"""`mien trace`: the lives of a few frames of a running call, read from the messages that they carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mien_client.recording import is_synthetic, trace_of
from mien_client.viewer import Viewer
from mien_client.watching import whep_url_of
from mien_client.whep import ReceivedFrame
from mien_shared.media.clock import elapsed_ms_u32
from mien_shared.media.frame_trace import FrameTrace


@dataclass(frozen=True, slots=True)
class FrameLife:
    """One frame, from its motion to the decoded picture. Times are in milliseconds.

    default_motion: the uplink was silent, so nobody's motion is shown; then total_ms and rest_ms are None.
    wait_ms: between the stages, from the gateway's receipt on. total_ms: from capture to the decoded picture; sender
    and viewer must read the same clock. rest_ms: what no stage explains: network, jitter buffer and decoding.
    key_frame: whether it is an IDR. synthetic: whether it carries the synthetic mark, which every IDR has.
    """

    sequence: int
    capture_ms: int
    default_motion: bool
    wait_ms: float
    face_ms: float
    compose_ms: float
    encode_ms: float
    total_ms: float | None
    rest_ms: float | None
    key_frame: bool
    synthetic: bool

    @classmethod
    def of(cls, frame: ReceivedFrame, trace: FrameTrace) -> FrameLife:
        stages_us = (trace.uplink_wait_us, trace.face_us, trace.compose_us, trace.encode_us)
        wait_ms, face_ms, compose_ms, encode_ms = (round(us / 1000, 2) for us in stages_us)
        total_ms = rest_ms = None
        if not trace.is_stalled:
            total_ms = float(elapsed_ms_u32(round(frame.received_unix_s * 1000), trace.capture_ms))
            rest_ms = round(total_ms - sum(stages_us) / 1000, 2)
        return cls(
            sequence=trace.sequence,
            capture_ms=trace.capture_ms,
            default_motion=trace.is_stalled,
            wait_ms=wait_ms,
            face_ms=face_ms,
            compose_ms=compose_ms,
            encode_ms=encode_ms,
            total_ms=total_ms,
            rest_ms=rest_ms,
            key_frame=bool(frame.picture.key_frame),
            synthetic=is_synthetic(frame.picture),
        )

    def as_json(self) -> dict[str, float | int | bool | None]:
        return asdict(self)

    def sentence(self) -> str:
        """One line for a person."""
        source = "default motion" if self.default_motion else f"motion {self.sequence}"
        stages = (
            f"wait {self.wait_ms:g}, face {self.face_ms:g}, compose {self.compose_ms:g}, encode {self.encode_ms:g} ms"
        )
        total = "" if self.total_ms is None else f"; {self.rest_ms:g} ms on the way, {self.total_ms:g} ms in all"
        mark = "; IDR, marked as synthetic" if self.synthetic else "; IDR WITHOUT the synthetic mark" * self.key_frame
        return f"{source}: {stages}{total}{mark}"


async def trace(url: str, token: str | None, frames: int) -> list[FrameLife]:
    """The first frames that a viewer of the session gets. Fewer if the session ends. url: as for `mien watch`."""
    whep_url, token = await whep_url_of(url, token)
    lives: list[FrameLife] = []
    async with Viewer(whep_url, token) as viewer:
        async for frame in viewer.frames():
            if (found := trace_of(frame.picture)) is not None:
                lives.append(FrameLife.of(frame, found))
            if len(lives) == frames:
                break
    return lives
