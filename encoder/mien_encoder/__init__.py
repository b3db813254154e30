"""The encoder K: computes ten keypoints with Jacobians from a picture with a face, and keeps the face's crop steady."""

import os

# ONNX Runtime reports its use to its vendor and writes a device id, unless this is set before its import. Nothing about
# a device may leave it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
