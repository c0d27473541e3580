"""Who a node is: its member number, its key, everybody's keys, and where it keeps what it must not forget.

``protected_mod`` takes any function from Flower's ``Context`` to a :class:`Member`; the one here reads files that the
node's own configuration names, so that nothing of it comes from the server. ``codream-secure keys`` makes those files.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context

from codream_secure.deployment import roster as rosters
from codream_secure.deployment.identity import load_identity
from codream_secure.deployment.passphrase import VARIABLE, find_passphrase
from codream_secure.errors import ConfigError, IdentityError
from protocols import Identity, Roster

_SEALING = b"codream-secure flower state v1\0"
_NEEDED = ("key", "roster", "state")
_OPTIONAL = ("passphrase-file", "roster-digest")


@dataclass(frozen=True)
class Member:
    """A node as a member of the sums.

    Attributes:
        number: on the roster.
        identity: its long-term key pair.
        roster: everybody's public keys.
        folder: for its log and sealed states; its owner's alone.
    """

    number: int
    identity: Identity = field(repr=False)
    roster: Roster = field(repr=False)
    folder: Path

    def sealing_key(self) -> bytes:
        """32 bytes that seal what this node keeps between messages."""
        return hmac.digest(self.identity.private_bytes(), _SEALING, "sha256")


CredentialsLoader = Callable[[Context], Member]


def from_node_config(context: Context) -> Member:
    """The member that a SuperNode's ``--node-config`` names.

    Keys: ``key`` (encrypted private key), ``roster`` (roster file), ``state`` (folder), and, if wanted,
    ``passphrase-file`` (default: the passphrase is in ``CODREAM_KEY_PASSPHRASE``) and ``roster-digest`` (what the
    roster's has to be, 64 hexadecimal digits). The member number is that of the key's holder on the roster.

    Raises:
        ConfigError: an entry is missing or no text.
        IdentityError: a file is missing, malformed or open to others; the passphrase is missing or another one; the
            roster has another digest; or the key is not a member's. No message holds any part of key or passphrase.
    """
    config = {name: _text(context, name) for name in (*_NEEDED, *_OPTIONAL) if name in context.node_config}
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        raise ConfigError(
            f"the node's configuration lacks {', '.join(missing)}: start the SuperNode with --node-config "
            '\'key="NAME.key" roster="roster.toml" state="FOLDER"\''
        )
    # The roster first: its path is the more likely to be wrong, and a key need not be opened for nothing.
    roster = rosters.read_roster_file(Path(config["roster"]), digest=config.get("roster-digest"))
    identity = _identity(Path(config["key"]), config.get("passphrase-file"))
    return Member(
        number=_number(roster, identity, config["key"]),
        identity=identity,
        roster=roster.roster(),
        folder=Path(config["state"]),
    )


def _text(context: Context, name: str) -> str:
    value = context.node_config[name]
    if not isinstance(value, str) or not value:
        # Not its value: a passphrase may stand in the wrong place.
        raise ConfigError(f"{name} is {type(value).__name__} in the node's configuration: a text in quotes is needed")
    return value


def _identity(key: Path, passphrase_file: str | None) -> Identity:
    """The node's key pair. Nobody is asked for a passphrase: nobody sits at a node, which would wait for ever."""
    if passphrase_file is None and VARIABLE not in os.environ:
        raise IdentityError(
            f"there is no passphrase for the key file {str(key)!r}: set {VARIABLE} in the SuperNode's environment, or "
            'name a file in the node\'s configuration, passphrase-file="FILE"'
        )
    passphrase = find_passphrase(None if passphrase_file is None else Path(passphrase_file))
    try:
        return load_identity(key, passphrase=passphrase)
    finally:
        passphrase.wipe()


def _number(roster: rosters.RosterFile, identity: Identity, key: str) -> int:
    holder = roster.holder(identity.public_key)
    if isinstance(holder, rosters.Member):
        return holder.number
    if isinstance(holder, rosters.Revoked):
        raise IdentityError(
            f"the key {key!r}, of {holder.name!r}, was revoked in version {holder.version} of the roster: use the key "
            "that took its place"
        )
    whose = "nobody" if holder is None else "the key authority, and to no member,"
    raise IdentityError(
        f"the key {key!r} belongs to {whose} on the roster, version {roster.version}: get a roster with this node's "
        "public half on it, or name the key that is"
    )
