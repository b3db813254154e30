"""The generator turns motion into encoded video."""

import os

# numpy's BLAS starts a thread for every core, and these threads spin between two matrices: one session would cost a
# whole core. BLAS reads this when numpy is first imported, which is after this package.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# ONNX Runtime reports its use to its vendor and writes a device id, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
