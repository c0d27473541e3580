"""``sleeping_parent.py FOLDER``: supervises a server that waits for clients, says its process id, and waits itself."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from codream_secure.deployment.demo import prepare, server_command
from codream_secure.deployment.processes import Supervisor


def main() -> None:
    # A program that was started in the background may have been told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(sys.argv[1])
    prepare(folder)
    with Supervisor(folder, {"OMP_NUM_THREADS": "1"}) as supervisor:
        server = supervisor.start("server", server_command(folder, listen="127.0.0.1:0"))
        assert server.stdout is not None
        print(
            json.dumps({"server": server.pid, "parent": os.getpid(), **json.loads(server.stdout.readline())}),
            flush=True,
        )
        time.sleep(600)


if __name__ == "__main__":
    main()
