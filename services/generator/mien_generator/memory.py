"""Returns the memory of ended sessions to the operating system.

An H.264 encoder takes about 20 MB in many pieces, from the malloc arena of the thread that opened it. glibc keeps freed
pieces: after eight sessions had ended, the process still held 110 MB. `malloc_trim` returns whole pages. Other C
libraries have no such function, and nothing happens there.
"""

from __future__ import annotations

import ctypes


def trim_heap() -> None:
    """Return the free pages of all arenas. Allocations may wait a few milliseconds, so do not call it per session."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
