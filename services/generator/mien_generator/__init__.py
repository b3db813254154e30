"""The generator: motion in, encoded pictures out."""

import os

# numpy's BLAS starts a thread for every core, even for the smallest matrix, and lets them spin until the next one: a
# whole core lost to one session. It reads this when numpy is first imported, which is after this package.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
