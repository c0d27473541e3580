"""Run the app as a deployment on this machine, with four SuperNodes: ``python run_local.py FOLDER [--messages]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codream_secure.cli.tables import show_deployment
from codream_secure.deployment.demo import accuracies, prepare
from codream_secure.errors import CodreamError

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_flower import LocalFlower, LocalFlowerError, free_port  # noqa: E402 - it lies beside the examples

PATIENCE_S = 1200


def main(folder: Path, *, messages: bool) -> int:
    """Run it and print the accuracies; every party's state is in the folder, logs beside them. The exit status.

    Args:
        folder: new.
        messages: Flower's messages carry the sums, and no other port is opened; else streams of the nodes' own do.
    """
    folder = folder.resolve()
    print(f"keys, certificates, images, states and logs: {folder}", flush=True)
    clients = prepare(folder, HERE / "messages.toml" if messages else None).config.data.clients
    shared: dict[str, object] = {"terms": folder / "training.toml", "roster": folder / "roster.toml"}
    streams = f"127.0.0.1:{free_port()}"
    carried: dict[str, object] = {} if messages else {"tls": folder / "tls", "server": streams}
    with LocalFlower(folder) as flower:
        for number in range(clients):
            flower.add_node(
                {
                    **shared,
                    **carried,
                    "member": number,
                    "key": folder / f"member{number}.key",
                    "passphrase-file": folder / "passphrase",
                    **({} if messages else {"tls-name": f"member{number}"}),
                    "data": f"npz:{folder / f'member{number}.npz'}",
                    "state": folder / f"client{number}",
                }
            )
            print(f"SuperNode {number} is registered, and has images of its own", flush=True)
        sums = "over its messages" if messages else f"at {streams} (TLS on both sides)"
        print(f"SuperLink at {flower.address} (TLS), sums {sums}; training", flush=True)
        settings: dict[str, object] = {**shared, "state": folder / "server", "tls": folder / "tls", "listen": streams}
        settings["transport"] = "messages" if messages else "streams"
        status = flower.run(HERE, settings, patience_s=PATIENCE_S)
    if status == 0:
        show_deployment(accuracies(folder, clients))
    print(f"Logs: {folder}/*.log (the server's part is in serverapp.log). All processes have ended.")
    return status


if __name__ == "__main__":
    try:
        parser = argparse.ArgumentParser(description="CoDream as a Flower deployment on this machine.")
        parser.add_argument("folder", type=Path, help="new; keys, images, states and logs go there")
        parser.add_argument("--messages", action="store_true", help="Flower's messages carry the sums: no second port")
        options = parser.parse_args()
        sys.exit(main(options.folder, messages=options.messages))
    except KeyboardInterrupt:
        print("interrupted; all processes have ended", file=sys.stderr)
        sys.exit(130)
    except (CodreamError, LocalFlowerError) as error:
        sys.exit(f"error: {error}")
