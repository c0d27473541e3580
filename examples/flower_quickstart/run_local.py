"""Run the example as a deployment on this machine, with four SuperNodes: ``python run_local.py FOLDER [ROUNDS]``."""

from __future__ import annotations

import sys
from pathlib import Path

from make_keys import make_keys

from codream_secure.deployment.passphrase import VARIABLE

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_flower import LocalFlower, LocalFlowerError  # noqa: E402 - it lies beside the examples

NODES = 4
PATIENCE_S = 900


def main(folder: Path, rounds: int = 2) -> int:
    """Run it; the final arrays are in ``folder/final.npz``, logs beside them. The exit status."""
    folder = folder.resolve()
    keys = folder / "keys"
    passphrases = make_keys(keys, NODES)
    with LocalFlower(folder) as flower:
        for number, passphrase in enumerate(passphrases):
            config: dict[str, object] = {
                "partition-id": number,
                "num-partitions": NODES,
                "key": keys / f"node-{number}.key",
                "roster": keys / "roster.toml",
                "state": folder / f"state-{number}",
            }
            # A SuperNode has the passphrase of its own key, and of no other.
            flower.add_node(config, **{VARIABLE: passphrase})
        settings: dict[str, object] = {
            "num-server-rounds": rounds,
            "roster": keys / "roster.toml",
            "out": folder / "final.npz",
        }
        return flower.run(HERE, settings, patience_s=PATIENCE_S)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2))
    except KeyboardInterrupt:
        print("interrupted; all processes have ended", file=sys.stderr)
        sys.exit(130)
    except LocalFlowerError as error:
        sys.exit(f"error: {error}")
