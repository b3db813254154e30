"""Nothing that Mien runs reports to a vendor: ONNX Runtime would, unless it is told not to before its import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import {package}
import numpy as np
from mien_encoder.keypoints import CROP_SIZE, KeypointEncoder
KeypointEncoder().encode(np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8))
"""


@pytest.mark.parametrize("package", ["mien_encoder", "mien_generator"])
def test_the_runtime_writes_no_device_id_and_keeps_no_log(package: str, tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", RUN.format(package=package)], env=environment, check=True)
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
