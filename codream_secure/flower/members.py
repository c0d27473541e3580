"""Who a node is: its member number, its key, everybody's keys, and where it keeps what it must not forget.

``protected_mod`` takes any function from Flower's ``Context`` to a :class:`Member`; the one here reads files that the
node's own configuration names, so that nothing of it comes from the server.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context

from codream_secure.errors import ConfigError
from protocols import Identity, Roster
from protocols.keys import KEY_BYTES

_SEALING = b"codream-secure flower state v1\0"
_MAX_FILE_BYTES = 64 * 1024 * 1024


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

    Keys: ``member`` (number), ``identity`` (file with the private key, 64 hexadecimal digits), ``roster`` (JSON file of
    member numbers and public keys), ``state`` (folder).

    Raises:
        ConfigError: a key is missing, or a file is not what it should be.
        RosterError: the roster is malformed.
    """
    config = context.node_config
    missing = [key for key in ("member", "identity", "roster", "state") if key not in config]
    if missing:
        raise ConfigError(
            f"the node's configuration lacks {', '.join(missing)}: start the SuperNode with --node-config "
            '\'member=0 identity="FILE" roster="FILE" state="FOLDER"\''
        )
    number = config["member"]
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigError(f"member is {number!r} in the node's configuration: a whole number is needed")
    return Member(
        number=number,
        identity=read_identity(Path(str(config["identity"]))),
        roster=read_roster(Path(str(config["roster"]))),
        folder=Path(str(config["state"])),
    )


def read_identity(path: Path) -> Identity:
    """An identity from a file that its owner alone may read.

    Raises:
        ConfigError: the file is not there, open to others, or holds no key. No message holds its content.
    """
    text = _read(path, "identity").strip()
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"the identity {str(path)!r} may be read by others: chmod 600")
    try:
        return Identity(bytes.fromhex(text))
    except ValueError:
        raise ConfigError(f"the identity {str(path)!r} is not {2 * KEY_BYTES} hexadecimal digits") from None


def read_roster(path: Path) -> Roster:
    """A roster from a JSON object of member numbers and public keys in hexadecimal digits.

    Raises:
        ConfigError: the file is not there, or no such object.
        RosterError: a key is malformed or listed twice.
    """
    return roster_from(_parsed(path))


def roster_from(keys: Mapping[str, Any]) -> Roster:
    """A roster from such an object.

    Raises:
        ConfigError: it is none.
        RosterError: a key is malformed or listed twice.
    """
    try:
        read = {int(number): bytes.fromhex(key) for number, key in keys.items()}
        if len(read) != len(keys):
            raise ConfigError("the roster lists a member twice")
        return Roster(read)
    except (TypeError, AttributeError):
        raise ConfigError("the roster is no object of member numbers and keys in hexadecimal digits") from None
    except ValueError as error:
        if type(error) is ValueError:
            raise ConfigError(f"the roster has a number or key that is none: {error}") from None
        raise


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_read(path, "roster"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"the roster {str(path)!r} is no JSON: line {error.lineno}") from None


def _read(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"the {what} {str(path)!r} has more than {_MAX_FILE_BYTES} bytes: that is none")
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"the {what} {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} {str(path)!r} is no text") from None
