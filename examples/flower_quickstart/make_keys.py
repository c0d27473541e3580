"""Make identities and a roster for the nodes of one machine, to try the example out.

In a deployment each node makes its own identity, keeps it, and hands out its public key alone; the roster that comes of
it reaches everybody on a way that the server cannot change.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from protocols import Identity


def make_keys(folder: Path, nodes: int) -> None:
    """Write ``identity-N.hex`` for each node and ``roster.json``; nothing is overwritten."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = {}
    for number in range(nodes):
        identity = Identity.generate()
        handle = os.open(folder / f"identity-{number}.hex", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(identity.private_bytes().hex() + "\n")
        keys[str(number)] = identity.public_key.hex()
    with (folder / "roster.json").open("x") as stream:
        json.dump(keys, stream, indent=2)


if __name__ == "__main__":
    make_keys(Path(sys.argv[1]), int(sys.argv[2]))
