"""One thread a test process: the tensors here are far too small to share out."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
