"""What is freed goes back to the machine."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import numpy as np
import pytest

from mien_generator.memory import trim_heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep nothing, or cannot be asked")
def test_many_small_pieces_that_were_freed_go_back() -> None:
    pieces = [np.ones(100_000, np.uint8) for _ in range(2000)]  # below the size that is mapped by itself
    last = np.ones(100, np.uint8)
    full_bytes = resident_bytes()
    pieces.clear()
    trim_heap()
    assert resident_bytes() < full_bytes - 100e6
    assert last[0] == 1


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
