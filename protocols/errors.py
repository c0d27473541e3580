"""What can go wrong in a sum, by name."""

from __future__ import annotations


class ProtocolError(ValueError):
    """Base of every deliberate error of this package."""


class ContributionError(ProtocolError):
    """One client's vector cannot be summed: wrong shape or dtype, or a value that is not finite."""


class UnknownProtocolError(ProtocolError):
    """No protocol goes by that name."""
