"""What pytest needs to know before it collects: one thread a process, and parts whose dependencies are missing."""

from __future__ import annotations

import importlib.util
import os

# Before anything imports numpy or torch: threads of theirs that wait for each other, on as many cores as there are
# test processes, make the many small products of the tests several times slower. Processes that tests start inherit it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

collect_ignore = [] if importlib.util.find_spec("flwr") else ["codream_secure/flower", "tests/flower/flower_harness.py"]
