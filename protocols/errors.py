"""What can go wrong in a sum, by name.

Every error is a :class:`ProtocolError`. None of their texts holds a key, a seed, a share or a private value.
"""

from __future__ import annotations


class ProtocolError(ValueError):
    """Base of every deliberate error of this package.

    Attributes:
        asked_to_open: the contributors of a step that ended with this error after they had been asked to open it (or,
            facing an active server, to vote on it); None otherwise. Shares that open the step's sum may be out. So its
            vectors must not be summed again over anybody else: the difference of the two sums would be the vectors of
            those in one and not in the other.
    """

    asked_to_open: tuple[int, ...] | None = None


class ContributionError(ProtocolError):
    """A vector cannot be summed: wrong shape, dtype or weight, a value out of bounds or not finite."""


class EncodingError(ProtocolError):
    """No fixed-point encoding has these properties: a sum could wrap around, or a bound makes no sense."""


class TermsError(ProtocolError):
    """Terms contradict themselves or each other, or cannot be met by a cohort of this size."""


class UnknownProtocolError(ProtocolError):
    """No protocol goes by that name."""


class MessageError(ProtocolError):
    """Bytes that are no message of this protocol: malformed, damaged, too long, or of another version or round."""


class PhaseError(ProtocolError):
    """A well-formed message, or a call, that has no place in the present phase."""


class SenderError(ProtocolError):
    """A message from somebody who is not expected: a stranger, or a member that has already answered."""


class StepError(ProtocolError):
    """A step that is over, was never asked for, or lies beyond the steps that were set up."""


class AlreadyAnsweredError(StepError):
    """A second request to open a step that this client has already opened: answering twice could reveal its values."""


class RosterError(ProtocolError):
    """A roster or an identity is malformed, or a member is not on the roster."""


class PeerKeyError(ProtocolError):
    """A peer's key carries no valid signature of that peer for this round, or is degenerate."""


class CohortError(ProtocolError):
    """A set of members that cannot be: strangers, repeated or missing members, or this client itself left out."""


class ShareError(ProtocolError):
    """Shares were tampered with, swapped or withheld, or do not open what they should."""


class EquivocationError(ProtocolError):
    """The server did not show the same set of survivors to enough clients."""


class RoundReuseError(ProtocolError):
    """A round id that this client has taken part in before."""


class TooFewSurvivorsError(ProtocolError):
    """Fewer members are left than a sum needs: it is not opened."""


class CiphertextError(ProtocolError):
    """Bytes that are no ciphertext under the parameters of the terms."""


class NoiseBudgetError(ProtocolError):
    """A sum of ciphertexts whose errors cannot be rounded off, or that is encrypted under another key."""


class VoucherError(ProtocolError):
    """A contribution's voucher is forged, answers another request, or does not vouch for the sum it came with."""


class ReplicaError(ProtocolError):
    """Clients that should hold the same state do not."""


class OpeningError(ProtocolError):
    """The key authority did not open a sum."""
