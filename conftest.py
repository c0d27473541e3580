"""What pytest needs to know before it collects: parts with optional dependencies are passed over without them."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("flwr") else ["codream_secure/flower", "tests/flower/flower_harness.py"]
