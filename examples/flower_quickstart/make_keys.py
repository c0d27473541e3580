"""Make identities and a roster for the nodes of one machine, to try the example out.

In a deployment each node makes its own identity with ``codream-secure keys new``, keeps it, and hands out its public
half alone; the roster that comes of it reaches everybody, and its digest is compared on a way that the server is no
part of. What is in here is what those commands do.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from codream_secure.deployment import identity, public_half
from codream_secure.deployment.files import make_private_folder
from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.roster import write_roster_file
from protocols.keys import Identity, Secret


def make_keys(folder: Path, nodes: int) -> list[str]:
    """Write ``node-N.key`` and ``node-N.pub`` for each node, and ``roster.toml``; nothing is overwritten.

    Returns:
        Node by node the passphrase of its key, random, and written nowhere.
    """
    make_private_folder(folder)
    passphrases, publics = [], []
    for number in range(nodes):
        name, passphrase, made = f"node-{number}", secrets.token_urlsafe(24), Identity.generate()
        identity.save_identity(made, folder / f"{name}.key", passphrase=Secret(passphrase.encode()))
        public = public_half.make_public_half(made, name)
        public_half.write_public_half(public, folder / f"{name}.pub")
        passphrases.append(passphrase)
        publics.append(public)
    write_roster_file(next_roster(None, publics), folder / "roster.toml")
    return passphrases
