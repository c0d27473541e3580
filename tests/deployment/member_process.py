"""One member as a process of its own: what it answers follows from its number and from what was shown.

Its argument is a JSON object; see ``Deployment.start_member`` in conftest.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from codream_secure.deployment.streams import Asked, Backoff, Limits, Member, Participant, Shown
from codream_secure.deployment.streams.certificates import load
from codream_secure.deployment.streams.errors import StreamError
from protocols import Credentials, FileRoundLog, FixedPoint, Identity, Roster, Terms, make_protocol


def vector(number: int, step: int, values: int) -> np.ndarray:
    return np.random.default_rng([number, step]).uniform(-1, 1, values).astype(np.float32)


def make_terms(clients: int, *, active: bool = False) -> Terms:
    streams = {
        "gradients": FixedPoint(clip=1.0, clients=clients),
        "weighted": FixedPoint(clip=1.0, clients=clients, max_weight=100),
    }
    return Terms(streams=streams, steps=200, dropout=0.4, corruption=0.25, active=active)


def main() -> None:
    settings = json.loads(sys.argv[1])
    number, folder = settings["number"], Path(settings["folder"])
    identity = Identity((folder / f"{number}.identity").read_bytes())
    keys = json.loads((folder / "roster.json").read_text())
    roster = Roster({int(member): bytes.fromhex(key) for member, key in keys.items()})
    log = (folder / f"{number}.jsonl").open("a", buffering=1)

    def note(**event: object) -> None:
        log.write(json.dumps({"pid": os.getpid(), **event}) + "\n")

    step = -1

    def on_shown(shown: Shown) -> None:
        nonlocal step
        step = int(shown.tensors[0].flat[0])
        note(shown=step)

    def compute(asked: Asked) -> np.ndarray | tuple[np.ndarray, int]:
        note(asked=step, stream=asked.stream, round=asked.round_id.hex())
        time.sleep(settings.get("delay_s", 0))
        made = vector(number, step, asked.values)
        return (made, number + 1) if asked.stream == "weighted" else made

    round_id = bytes.fromhex(settings.get("round_id", ""))
    member = Member(
        number,
        protocol=make_protocol("masked"),
        terms=make_terms(len(keys), active=settings.get("active", False)),
        credentials=Credentials(identity=identity, roster=roster, rounds=FileRoundLog(folder / f"{number}.rounds")),
        compute=compute,
        on_shown=on_shown,
        round_id=round_id,
    )
    participant = Participant(
        settings["address"],
        member,
        identity=identity,
        roster=roster,
        tls=load(folder, "member"),
        limits=Limits(**settings.get("limits", {})),
        backoff=Backoff(first_s=0.05, most_s=0.3, patience_s=settings.get("patience_s", 60)),
        round_id=round_id,
    )
    try:
        participant.run(settings.get("rounds"))
        note(ended="well", connections=participant.connections)
    except StreamError as error:
        note(ended=type(error).__name__, reason=str(error))


if __name__ == "__main__":
    main()
