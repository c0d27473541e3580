"""Ring elements as the integers that ciphertexts carry: several in one where they are small, one in several where not.

A client's element v lies in [-M, M], so v + M is unsigned and the sum over n clients stays below 2^field_bits. As many
such fields as fit stand side by side in one integer; their sums never touch, so the sum of the integers is the sums of
the fields. An element that is too long for one integer is cut into *limbs*, each with room for n clients' carries.
What comes out is the sum in the ring, exactly, once the n offsets M are taken off again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from protocols.encoding import FixedPoint, Ring
from protocols.errors import ContributionError, TermsError

Integers = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How elements of one stream stand in integers of ``message_bits``.

    Attributes:
        offset: M, the largest magnitude of one client's element, noise included.
        clients: n.
        fields: elements in one integer.
        field_bits: room for one element's sum.
        limbs: integers for one element; above 1 only where ``fields`` is 1.
        limb_bits: of one client's limb.
    """

    offset: int
    clients: int
    fields: int
    field_bits: int
    limbs: int
    limb_bits: int

    @classmethod
    def fit(cls, encoding: FixedPoint, *, headroom: int, message_bits: int) -> Packing:
        """The densest packing into integers whose sums stay below 2^message_bits.

        Args:
            encoding: of the stream; bounds elements and clients.
            headroom: of the noise that each client adds.
            message_bits: of the sum.

        Raises:
            TermsError: not even one bit of an element fits beside the carries.
        """
        clients = encoding.clients
        offset = encoding.largest * (encoding.max_weight or 1) + headroom
        field_bits = (2 * offset * clients).bit_length()
        if field_bits <= message_bits:
            fields = message_bits // field_bits
            return cls(
                offset=offset,
                clients=clients,
                fields=fields,
                field_bits=field_bits,
                limbs=1,
                limb_bits=(2 * offset).bit_length(),
            )
        limb_bits = message_bits - (clients - 1).bit_length()
        if limb_bits < 1:
            raise TermsError(f"sums of {clients} clients have no room in {message_bits} bits")
        limbs = -(-(2 * offset).bit_length() // limb_bits)
        return cls(offset=offset, clients=clients, fields=1, field_bits=message_bits, limbs=limbs, limb_bits=limb_bits)

    def __str__(self) -> str:
        """All of the above in a fixed form, for parties to compare."""
        return (
            f"offset={self.offset} clients={self.clients} fields={self.fields} field={self.field_bits} "
            f"limbs={self.limbs} limb={self.limb_bits}"
        )

    @property
    def message_bits(self) -> int:
        """Bits that a sum of integers takes."""
        return self.fields * self.field_bits

    @property
    def largest(self) -> int:
        """The largest integer that one client encrypts."""
        if self.limbs > 1:
            return (1 << self.limb_bits) - 1
        return sum(2 * self.offset << (self.field_bits * place) for place in range(self.fields))

    def integers(self, elements: int) -> int:
        """How many integers carry that many elements."""
        return -(-elements // self.fields) * self.limbs

    def pack(self, ring: Ring) -> Integers:
        """One client's elements.

        Args:
            ring: ``(d,)``, two's complement.

        Returns:
            ``(integers(d),)`` uint64: fields side by side, limbs one after the other (all lowest limbs first).

        Raises:
            ContributionError: an element is beyond the offset: noise beyond its headroom.
        """
        # Wraps around mod 2^ring_bits, so an element out of range ends up above 2 M, if M has room below 2^ring_bits.
        unsigned = (ring + ring.dtype.type(self.offset)).astype(np.uint64)
        if unsigned.size and int(unsigned.max()) > 2 * self.offset:
            raise ContributionError("an element is beyond the bound of its stream: noise beyond its headroom")
        if self.limbs > 1:
            mask = np.uint64((1 << self.limb_bits) - 1)
            return np.concatenate(
                [(unsigned >> np.uint64(self.limb_bits * place)) & mask for place in range(self.limbs)]
            )
        if self.fields == 1:
            return unsigned
        padded = np.zeros(self.integers(len(ring)) * self.fields, dtype=np.uint64)
        padded[: len(ring)] = unsigned
        columns = padded.reshape(-1, self.fields)
        packed = columns[:, 0].copy()
        for place in range(1, self.fields):
            packed |= columns[:, place] << np.uint64(self.field_bits * place)
        return packed

    def possible(self, sums: Integers, *, contributors: int) -> bool:
        """Whether these can be sums of so many contributors' integers: none is larger than they can make it.

        Args:
            sums: as for :meth:`unpack`.
            contributors: how many vectors are in it.
        """
        if self.limbs == 1:
            return not sums.size or int(sums.max()) <= contributors * self.largest
        parts = sums.reshape(self.limbs, -1)
        limits = (min(2 * self.offset >> (self.limb_bits * place), self.largest) for place in range(self.limbs))
        return not sums.size or all(
            int(part.max()) <= contributors * limit for part, limit in zip(parts, limits, strict=True)
        )

    def unpack(self, sums: Integers, *, elements: int, contributors: int, dtype: np.dtype[Any]) -> Ring:
        """The sum in the ring.

        Args:
            sums: ``(integers(elements),)`` uint64, sums of packed integers.
            elements: d.
            contributors: how many vectors are in it.
            dtype: of the ring.
        """
        if self.limbs > 1:
            parts = sums.reshape(self.limbs, elements)
            total = np.zeros(elements, dtype=np.uint64)
            for place, part in enumerate(parts):
                total += part << np.uint64(self.limb_bits * place)
        else:
            mask = np.uint64((1 << self.field_bits) - 1)
            columns = np.empty((len(sums), self.fields), dtype=np.uint64)
            for place in range(self.fields):
                columns[:, place] = (sums >> np.uint64(self.field_bits * place)) & mask
            total = columns.reshape(-1)[:elements]
        total = total - np.uint64(contributors * self.offset % (1 << 64))
        return cast(Ring, total.astype(dtype))
