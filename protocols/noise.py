"""Noise in the ring: the middle part of a sum, between encoding and protection.

A mechanism adds integers to a client's encoded vector before it is protected. Its headroom counts against the bound
that keeps a sum from wrapping.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from protocols.encoding import Ring


class Noise(ABC):
    """What a client adds to its own encoded vector."""

    name: ClassVar[str]

    @abstractmethod
    def parameters(self) -> Mapping[str, int | float | str]:
        """All that clients have to agree on for their noise to add up to what was accounted for."""

    @abstractmethod
    def headroom(self) -> int:
        """The largest magnitude, in ring units, that one client's noise adds to one value."""

    def contributors(self) -> int:
        """How many clients' noise has to be in a sum, at least, for it to be opened."""
        return 1

    @abstractmethod
    def add(self, ring: Ring) -> Ring:
        """The vector with this client's noise; the argument is unchanged or handed back as it is."""


@dataclass(frozen=True)
class NoNoise(Noise):
    """The null object: sums are exact."""

    name: ClassVar[str] = "none"

    def parameters(self) -> Mapping[str, int | float | str]:
        return {}

    def headroom(self) -> int:
        return 0

    def add(self, ring: Ring) -> Ring:
        return ring
