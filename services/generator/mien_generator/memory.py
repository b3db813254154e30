"""Memory that ended sessions leave behind in the allocator goes back to the machine.

An encoder takes some 20 MB in many pieces, from the arena of whichever thread opened it. Freed, they stay with glibc:
eight sessions that had ended still held 110 MB. `malloc_trim` hands whole pages back; elsewhere there is nothing to do.
"""

from __future__ import annotations

import ctypes


def trim_heap() -> None:
    """Return free pages of all arenas; a few milliseconds in which allocations may wait, so not for every session."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
