"""Speed measurements. Each module holds `mien bench` commands; the services never import this package."""

import os

# A generator sets the same value, so this process measures one OpenBLAS thread, like the service.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
