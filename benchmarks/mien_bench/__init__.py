"""How fast Mien is. Each module is one `mien bench` command; nothing that runs imports them."""

import os

# As in a generator: the figures of this process count one thread where the service uses one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
