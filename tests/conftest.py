"""What all tests share: one thread, as the figures assume, and a terminal wide enough for every table."""

import os

os.environ["COLUMNS"] = "160"
os.environ.setdefault("OMP_NUM_THREADS", "1")
