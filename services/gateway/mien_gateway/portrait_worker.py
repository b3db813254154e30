"""The process that decodes uploads: `python -m mien_gateway.portrait_worker DEADLINE_S MEMORY_BYTES MAX_PIXELS`.

Malicious files are decoded here. The process has no secrets in its environment, a limit on its memory, and a time
limit: the kernel ends it if it runs longer than its alarm. It handles one picture at a time over its standard streams
and ends when its standard input ends. So it outlives a killed gateway by at most one deadline.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import BinaryIO

from mien_encoder.keypoints import KeypointEncoder
from mien_gateway.portrait import make_portrait
from mien_gateway.portrait_contract import LENGTH, Answer, PictureRefused, Refusal


def main() -> None:
    deadline_s, memory_bytes, max_pixels = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Native libraries sometimes print to descriptor 1. So answers use a copy of it, and descriptor 1 becomes stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would contain the picture
    encoder = KeypointEncoder()
    _limit_memory(memory_bytes)
    while (data := _read(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, deadline_s)  # SIGALRM's default action also ends native code
        answer, png = _work(data, max_pixels, encoder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for part in (answer.model_dump_json().encode(), png):
            answers.write(LENGTH.pack(len(part)) + part)
        answers.flush()


def _limit_memory(memory_bytes: int, system: str = sys.platform) -> None:
    # macOS does not enforce this limit, and refuses it on Apple silicon, where every process maps more than that. There
    # only the number of pixels and the time are limited.
    if system == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _work(data: bytes, max_pixels: int, encoder: KeypointEncoder) -> tuple[Answer, bytes]:
    try:
        portrait = make_portrait(data, max_pixels, encoder)
    except PictureRefused as error:
        return Answer(refusal=error.refusal, detail=error.detail), b""
    except MemoryError:
        return Answer(refusal=Refusal.TOO_MUCH_MEMORY, detail="the picture needs too much memory to decode"), b""
    return Answer(face_box=portrait.face_box, keypoints=portrait.keypoints.rows().tolist()), portrait.png


def _read(source: BinaryIO) -> bytes | None:
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    data = source.read(length)
    return data if len(data) == length else None


if __name__ == "__main__":
    main()
