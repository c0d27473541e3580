"""Run the app as a deployment on this machine, with four SuperNodes: ``python run_local.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from codream_secure.deployment.demo import prepare

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_flower import LocalFlower, free_port  # noqa: E402 - it lies beside the examples

PATIENCE_S = 1200


def main(folder: Path) -> int:
    """Run it; every party's state is in the folder, logs beside them. The exit status."""
    folder = folder.resolve()
    clients = prepare(folder).config.data.clients
    streams = f"127.0.0.1:{free_port()}"
    shared: dict[str, object] = {
        "terms": folder / "training.toml",
        "roster": folder / "roster.toml",
        "tls": folder / "tls",
    }
    with LocalFlower(folder) as flower:
        for number in range(clients):
            flower.add_node(
                {
                    **shared,
                    "member": number,
                    "key": folder / f"member{number}.key",
                    "passphrase-file": folder / "passphrase",
                    "tls-name": f"member{number}",
                    "data": f"npz:{folder / f'member{number}.npz'}",
                    "state": folder / f"client{number}",
                    "server": streams,
                }
            )
        settings: dict[str, object] = {**shared, "listen": streams, "state": folder / "server"}
        status = flower.run(HERE, settings, patience_s=PATIENCE_S)
    metrics = folder / "server" / "metrics.jsonl"
    if metrics.is_file():
        print(metrics.read_text(), end="")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
