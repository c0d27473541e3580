"""``watched_program.py REPORT ...``: the command line; to REPORT, every file it opened and every module it loaded."""

from __future__ import annotations

import atexit
import json
import signal
import sys
from pathlib import Path


def main() -> None:
    # Whoever runs the tests may have interrupts ignored, which processes inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = Path(sys.argv.pop(1))
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    atexit.register(lambda: report.write_text(json.dumps({"opened": opened, "modules": list(sys.modules)})))
    from codream_secure.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
