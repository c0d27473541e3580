"""The rounds that are recorded."""

from __future__ import annotations

from protocols import FixedPoint, Terms
from protocols.parties import AUTHORITY

from .rounds import Plan, Step

_COHORT = (1, 200, 70_000, 4_294_967_295)
"""Numbers of every width that they can have in a message."""


def _terms(clients: int, *, steps: int, dropout: float = 0.3, active: bool = False) -> Terms:
    return Terms(
        streams={
            "gradients": FixedPoint(clip=1.0, clients=clients, max_weight=100),
            "labels": FixedPoint(clip=2.5, clients=clients, ring_bits=64, rounding="toward_zero"),
        },
        steps=steps,
        dropout=dropout,
        min_cohort=4 if active else None,
        active=active,
    )


def _encrypted_terms(clients: int, *, steps: int, wide: FixedPoint, narrow: FixedPoint | None = None) -> Terms:
    streams = {"gradients": wide} if narrow is None else {"gradients": wide, "labels": narrow}
    return Terms(streams=streams, steps=steps, dropout=0.5, corruption=0.0, min_cohort=clients)


_SHOWN = b"the dreams that everybody was shown"
_STEPS = (
    Step("gradients", 5, context=_SHOWN),
    Step("labels", 3),
    Step("gradients", 2, context=bytes(range(200))),
    Step("gradients", 2, context=bytes(range(200)), exactly=(1, 70_000, 4_294_967_295)),
    Step("labels", 1, context=_SHOWN),
)
_LATE = (("Contribution", 1, 200), ("Contribution", 2, 200))

PLANS: tuple[tuple[Plan, str], ...] = (
    (
        Plan(
            name="passive",
            protocol="masked",
            terms=_terms(4, steps=5),
            cohort=_COHORT,
            steps=_STEPS,
            missing=(("Openings", 0, 70_000), *_LATE, ("Openings", 2, 1)),
        ),
        "Five steps of four clients. The shares of one come too late in step 0, the vector of another in steps 1 and "
        "2. Step 2 is given up while it is opened and repeated, as step 3, over the same three; step 4 is everybody's.",
    ),
    (
        Plan(
            name="active",
            protocol="masked",
            terms=_terms(4, steps=5, active=True),
            cohort=_COHORT,
            bystanders=(300,),
            steps=_STEPS,
            missing=(("Vote", 0, 70_000), *_LATE, ("Vote", 2, 1)),
        ),
        "The same, guarding against an active server: votes come too late where shares did. The roster has a fifth "
        "member that is not in the cohort, so min_cohort is set.",
    ),
    (
        Plan(
            name="sparse",
            protocol="masked",
            terms=Terms(
                streams={"counts": FixedPoint(clip=1000.0, clients=21, value_bits=11)},
                steps=1,
                dropout=0.15,
                corruption=0.1,
            ),
            cohort=tuple(range(21)),
            steps=(Step("counts", 2),),
            missing=(("Advertise", None, 3), ("Shares", None, 8), ("Contribution", 0, 5)),
        ),
        "Twenty-one clients with ten neighbours each; two are lost in the set-up and one in the step.",
    ),
    (
        Plan(
            name="plain",
            protocol="plain",
            terms=_terms(4, steps=3, dropout=0.5),
            cohort=(0, 1, 128, 256),
            steps=(
                Step("gradients", 5, context=_SHOWN),
                Step("gradients", 5, context=_SHOWN, exactly=(0, 1, 256)),
                Step("labels", 3),
            ),
            missing=(("Contribution", 0, 128), ("Contribution", 1, 256)),
        ),
        "Three steps of four clients without protection. Two vectors are enough in steps 0 and 2; step 1 is for three "
        "members exactly, and given up because one of theirs is missing.",
    ),
    (
        Plan(
            name="bfv",
            protocol="bfv",
            terms=_encrypted_terms(
                4,
                steps=2,
                wide=FixedPoint(clip=1.0, clients=4, max_weight=100, ring_bits=64),
                narrow=FixedPoint(clip=2.5, clients=4, value_bits=8, rounding="toward_zero"),
            ),
            cohort=_COHORT,
            steps=(
                Step("gradients", 1024, context=_SHOWN, shared=b"the dreams that no server was shown"),
                Step("labels", 9),
            ),
            missing=(("SealedKeys", None, 1), ("Ciphertexts", 1, 4_294_967_295)),
        ),
        "Two steps of four clients that hold the key of a BFV scheme. The first is lost in the set-up, so the second's "
        "secret counts. Step 0 has weights, a ring of 64 bits and two ciphertexts; in step 1, with four values in an "
        "integer, the last member's come too late: it learns the sum all the same.",
    ),
    (
        Plan(
            name="ckks",
            protocol="ckks",
            terms=_encrypted_terms(
                3,
                steps=3,
                wide=FixedPoint(clip=1.0, clients=4, max_weight=100, ring_bits=64),
                narrow=FixedPoint(clip=2.5, clients=4, value_bits=8, rounding="toward_zero"),
            ),
            cohort=_COHORT[1:],
            steps=(Step("gradients", 5), Step("labels", 4, context=_SHOWN)),
            missing=(("Ciphertexts", 1, 200),),
        ),
        "Two steps of three clients that hold the key of a CKKS scheme. One with weights and a ring of 64 bits; one "
        "with three values in an integer, to which one client comes too late.",
    ),
    (
        Plan(
            name="bfv_authority",
            protocol="bfv-authority",
            terms=_encrypted_terms(
                3,
                steps=3,
                wide=FixedPoint(clip=1.0, clients=3, max_weight=100, ring_bits=64, value_bits=16),
                narrow=FixedPoint(clip=2.5, clients=3, value_bits=21, rounding="toward_zero"),
            ),
            cohort=_COHORT[1:],
            steps=(
                Step("gradients", 3, context=_SHOWN),
                Step("labels", 4),
                Step("labels", 4, exactly=(200, 4_294_967_295)),
            ),
            missing=(("Ciphertexts", 1, 70_000), ("Opened", 1, AUTHORITY)),
        ),
        "Three steps of three clients that encrypt with BFV for a key authority. Step 0 has weights and a ring of 64 "
        "bits. In step 1 one vector comes too late, and what the authority answers, too: the step is given up, and "
        "repeated over the same two as step 2.",
    ),
    (
        Plan(
            name="ckks_authority",
            protocol="ckks-authority",
            terms=_encrypted_terms(3, steps=2, wide=FixedPoint(clip=1.0, clients=4, value_bits=18)),
            cohort=(0, 1, 128),
            steps=(Step("gradients", 3), Step("gradients", 2, context=_SHOWN)),
            missing=(("Advertise", None, 1),),
        ),
        "Two steps of two clients, a third being lost in the set-up, that encrypt with CKKS for a key authority.",
    ),
)
