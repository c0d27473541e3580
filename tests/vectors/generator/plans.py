"""The rounds that are recorded."""

from __future__ import annotations

from protocols import FixedPoint, Terms

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
)
