"""What Chromium plays, in a loop, as camera and microphone."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path

import av
import cv2
from js.drawn_face import HEIGHT, WIDTH, draw, speaking

import mien_client

FRAMES = 90
RATE_HZ = 48_000
VOICE = Path(mien_client.__file__).parent / "assets/speaker.ogg"


@cache
def y4m() -> bytes:
    """A face that speaks."""
    frames = [f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F30:1 Ip A1:1 C420jpeg\n".encode()]
    for frame in range(FRAMES):
        frames += [b"FRAME\n", cv2.cvtColor(draw(speaking(frame)), cv2.COLOR_RGB2YUV_I420).tobytes()]
    return b"".join(frames)


def write_voice(path: Path) -> None:
    """Write the demo's voice as a WAV file."""
    with av.open(str(VOICE)) as container, wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        for frame in container.decode(audio=0):
            for resampled in resampler.resample(frame):
                file.writeframes(resampled.to_ndarray().tobytes())
