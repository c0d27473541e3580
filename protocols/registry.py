"""Protocols by name."""

from __future__ import annotations

import difflib

from protocols.errors import UnknownProtocolError
from protocols.homomorphic.sums import BfvAuthoritySum, BfvSum, CkksAuthoritySum, CkksSum
from protocols.machines import SumProtocol
from protocols.masked import MaskedSum
from protocols.plain import PlainSum

_PROTOCOLS: dict[str, type[SumProtocol]] = {
    protocol.name: protocol for protocol in (PlainSum, MaskedSum, BfvSum, CkksSum, BfvAuthoritySum, CkksAuthoritySum)
}


def available_protocols() -> tuple[str, ...]:
    """The names that :func:`make_protocol` takes."""
    return tuple(sorted(_PROTOCOLS))


def make_protocol(name: str) -> SumProtocol:
    """Build the protocol called ``name``.

    Raises:
        UnknownProtocolError: there is none; the message names the nearest and all that exist.
    """
    try:
        return _PROTOCOLS[name]()
    except KeyError:
        near = difflib.get_close_matches(name, _PROTOCOLS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownProtocolError(
            f"protection {name!r} is unknown: {hint}available: {', '.join(available_protocols())}"
        ) from None
