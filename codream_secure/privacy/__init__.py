"""Differential privacy: what is released, what it costs, and what is left of the budget.

Describe each release as an event, record it in a :class:`PrivacyLedger` before it is made, and print the
:class:`PrivacyStatement`. No function of this package's interface gives an epsilon in any other form.

>>> ledger = PrivacyLedger(
...     Budget(epsilon=3, delta=1e-5),
...     PrivacyUnit.CLIENT,
...     adjacency=Adjacency.ADD_REMOVE,
...     adversary=Adversary.SUM_SERVER,
... )
>>> ledger.record(GaussianRelease("dream updates", 20, count=200))
>>> print(ledger.statement())  # doctest: +NORMALIZE_WHITESPACE
epsilon = 2.943 at delta = 1e-05 for the unit client under add_remove (one client added or removed; absent, it
contributes zero), against a server that sees the sums with their noise and who takes part; it covers dream updates
(accountant: closed form).
>>> ledger.remaining(GaussianRelease("dream updates", 20))
6
"""

from codream_secure.privacy.accountant import noise_multiplier_for, spent
from codream_secure.privacy.events import (
    DiscreteGaussianSum,
    ExactRelease,
    GaussianRelease,
    Release,
    SampledGaussianRelease,
    SkellamSum,
    release_from_json,
)
from codream_secure.privacy.ledger import Budget, PrivacyLedger
from codream_secure.privacy.signal import Signal, signal
from codream_secure.privacy.statement import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit

__all__ = [
    "Accountant",
    "Adjacency",
    "Adversary",
    "Budget",
    "DiscreteGaussianSum",
    "ExactRelease",
    "GaussianRelease",
    "PrivacyLedger",
    "PrivacyStatement",
    "PrivacyUnit",
    "Release",
    "SampledGaussianRelease",
    "Signal",
    "SkellamSum",
    "noise_multiplier_for",
    "release_from_json",
    "signal",
    "spent",
]
