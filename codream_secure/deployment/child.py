"""``python -m codream_secure.deployment.child PARENT ...``: the command line, for as long as PARENT lives."""

from __future__ import annotations

import sys

from codream_secure.deployment.processes import die_with

if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    from codream_secure.cli import main

    main()
