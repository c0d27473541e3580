"""The errors that this package raises on purpose, so that callers can tell them from bugs.

Each is also a :class:`ValueError`: the fault lies in something that was handed in, and the message
names the argument, the value it had and what to do about it.
"""

from __future__ import annotations


class CodreamError(ValueError):
    """Base of every deliberate error of this package."""


class ConfigError(CodreamError):
    """A configuration file, a ``--set`` override or a combination of options is not usable."""


class DataError(CodreamError):
    """A data set is missing, unreadable or inconsistent."""


class PartitionError(DataError):
    """A partition asks for more than the data set holds; the message says what is feasible."""


class IdentityError(CodreamError):
    """A key file, a passphrase, a public half or a roster file is missing, malformed, exposed or contradictory.

    No message holds a private key or a passphrase.
    """


class ModelError(CodreamError):
    """A model is unknown, or cannot take the images or classes it was asked to take."""


class NumericalError(CodreamError):
    """A NaN or an infinity appeared where training cannot go on with it."""


class CheckpointError(CodreamError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class StorageError(CodreamError):
    """The disk takes no more, or fails; what was written before is whole."""


class PrivacyError(CodreamError):
    """A claim of differential privacy cannot be made as asked, or a release cannot be accounted for."""


class BudgetExceededError(PrivacyError):
    """A release would spend more than the privacy budget; it was not recorded and must not be made."""
