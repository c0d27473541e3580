"""What a probe is: a view in, scores or reconstructions out.

A probe is given the view of one adversary, what is public and nothing else. It is a plain object with a few attributes
and one method, so that a probe of one's own is a few lines; see ``docs/own_probe.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from attacks.public import Public, Query
from attacks.views import Adversary, View

Signal = npt.NDArray[np.float64]


class Probe(ABC):
    """What all probes say of themselves.

    Attributes:
        name: short, for tables; unique within an audit.
        adversary: whose view it wants.
        active: whether the adversary deviates from the protocol. An active probe says by :meth:`queries` how, and its
            view is of the answers.
        assumptions: what the adversary knows and does, for the auditor to read.
        methods: names of the methods that it can look at; empty for all.
        colluders: how many clients help a curious client; -1 for all but one.
        streams: whose sums a passive probe looks at. Under protections that cost time others are not put through.
    """

    name: ClassVar[str]
    adversary: ClassVar[Adversary]
    active: ClassVar[bool] = False
    assumptions: ClassVar[str]
    methods: ClassVar[tuple[str, ...]] = ()
    colluders: ClassVar[int] = 0
    streams: ClassVar[tuple[str, ...]] = ()

    def queries(self, public: Public) -> Sequence[Query]:
        """What an active server asks clients, in order."""
        return ()


class MembershipProbe(Probe):
    """Scores candidates by how much a view says that they were trained on.

    What it returns is a signal, not yet a score: the audit observes the same signal on federations that the adversary
    trained itself, with and without each candidate, and compares (:mod:`attacks.membership`).
    """

    @abstractmethod
    def signal(self, view: View, public: Public) -> Signal:
        """One number per candidate, higher for members as a rule.

        Returns:
            (N,) float64, finite.

        Raises:
            NotInViewError: the view does not hold what is needed.
        """
