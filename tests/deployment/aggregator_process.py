"""An aggregator as a process of its own, to be killed: one round, and a line of output for every sum.

Its argument is a JSON object: folder, port, members, values, steps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from codream_secure.deployment.streams import Aggregator
from codream_secure.deployment.streams.certificates import load
from protocols import Roster, make_protocol


def main() -> None:
    # Beside this file, which is where a program finds modules and a test collector does not.
    from member_process import make_terms

    settings = json.loads(sys.argv[1])
    folder = Path(settings["folder"])
    keys = json.loads((folder / "roster.json").read_text())
    aggregator = Aggregator(
        f"127.0.0.1:{settings['port']}",
        protocol=make_protocol("masked"),
        terms=make_terms(len(keys)),
        roster=Roster({int(member): bytes.fromhex(key) for member, key in keys.items()}),
        tls=load(folder, "server"),
    )
    with aggregator:
        round_id = aggregator.open_round(settings["members"])
        for step in range(settings["steps"]):
            aggregator.broadcast([np.array([step])])
            result = aggregator.sum("gradients", settings["values"])
            said = {"round": round_id.hex(), "step": step, "who": result.contributors, "ring": result.ring.tolist()}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
