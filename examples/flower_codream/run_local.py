"""Run the app as a deployment on this machine, with four SuperNodes: ``python run_local.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from codream_secure.cli.tables import show_deployment
from codream_secure.deployment.demo import accuracies, prepare
from codream_secure.errors import CodreamError

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_flower import LocalFlower, LocalFlowerError, free_port  # noqa: E402 - it lies beside the examples

PATIENCE_S = 1200


def main(folder: Path) -> int:
    """Run it and print the accuracies; every party's state is in the folder, logs beside them. The exit status."""
    folder = folder.resolve()
    print(f"keys, certificates, images, states and logs: {folder}", flush=True)
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
            print(f"SuperNode {number} is registered, and has images of its own", flush=True)
        print(f"SuperLink at {flower.address} (TLS), sums at {streams} (TLS on both sides); training", flush=True)
        settings: dict[str, object] = {**shared, "listen": streams, "state": folder / "server"}
        status = flower.run(HERE, settings, patience_s=PATIENCE_S)
    if status == 0:
        show_deployment(accuracies(folder, clients))
    print(f"Logs: {folder}/*.log (the server's part is in superlink.log). All processes have ended.")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except KeyboardInterrupt:
        print("interrupted; all processes have ended", file=sys.stderr)
        sys.exit(130)
    except (CodreamError, LocalFlowerError) as error:
        sys.exit(f"error: {error}")
