"""Whole rounds, run by the protocol's machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocols import Credentials, Identity, Phase, Roster, RoundLog, SumClient, Terms, make_protocol
from protocols.errors import ProtocolError
from protocols.machines import Outbox, SumAuthority, SumResult
from protocols.parties import AUTHORITY

from .randomness import Seeded, in_place_of_the_system
from .terms import terms_json

Missing = tuple[str, int | None, int]
"""The message that is lost or late, its step (None in the set-up), and whose it is."""

Contribution = tuple[np.ndarray[Any, Any], int | None]
"""Values, and their weight."""

_NUMBERS = {
    1: "Offer", 2: "Advertise", 3: "Keys", 4: "Shares", 5: "Inbox", 6: "StepRequest",
    7: "Contribution", 8: "OpenRequest", 9: "Vote", 10: "Ballots", 11: "Openings", 12: "Abort",
    13: "SealedKeys", 14: "Grant", 15: "Welcome", 16: "Ciphertexts", 17: "Total", 18: "Opened",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What a step asks for.

    With ``exactly`` it asks these members alone, for the same vectors as the step before. ``shared`` is what only
    clients know of what the vectors answer.
    """

    stream: str
    values: int
    context: bytes = b""
    exactly: tuple[int, ...] | None = None
    shared: bytes = b""


@dataclass(kw_only=True)
class Plan:
    """One round to run."""

    name: str
    protocol: str
    terms: Terms
    cohort: Sequence[int]
    steps: Sequence[Step]
    bystanders: Sequence[int] = ()
    """Who is on the roster and not in the cohort."""
    missing: Collection[Missing] = field(default_factory=tuple)


class Recording:
    """Runs a plan, and keeps every message and private input."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.messages: list[dict[str, Any]] = []
        self.step: int | None = None
        self.randomness = {member: Seeded(f"{plan.name}: client {member}") for member in plan.cohort}
        setting = Seeded(f"{plan.name}: setting")
        self.round_id = setting.bytes(16)
        self.identities = {member: Identity(setting.bytes(32)) for member in (*plan.cohort, *plan.bystanders)}
        self.values: list[dict[int, Contribution]] = []
        for step in plan.steps:
            self.values.append(self._contributions(step, setting))
        keys = {member: identity.public_key for member, identity in self.identities.items()}
        self.protocol = make_protocol(plan.protocol)
        if self.protocol.has_authority:
            self.identities[AUTHORITY] = Identity(setting.bytes(32))
            self.randomness[AUTHORITY] = Seeded(f"{plan.name}: authority")
            self.roster = Roster(keys, authority=self.identities[AUTHORITY].public_key)
        else:
            self.roster = Roster(keys)
        self.clients: dict[int, SumClient] = {
            member: self.protocol.client(member, terms=plan.terms, credentials=self._credentials(member))
            for member in plan.cohort
        }
        self.authority: SumAuthority | None = None
        if self.protocol.has_authority:
            self.authority = self.protocol.authority(terms=plan.terms, credentials=self._credentials(AUTHORITY))
        self.server = self.protocol.server(plan.cohort, terms=plan.terms, round_id=self.round_id, roster=self.roster)

    def _credentials(self, party: int) -> Credentials:
        return Credentials(identity=self.identities[party], roster=self.roster, rounds=RoundLog())

    def _contributions(self, step: Step, randomness: Seeded) -> dict[int, Contribution]:
        """Values up to a little beyond the bound, so that some are clipped."""
        if step.exactly is not None:
            return {member: self.values[-1][member] for member in step.exactly}
        encoding = self.plan.terms.streams[step.stream]
        found = {}
        for member in self.plan.cohort:
            drawn = np.frombuffer(randomness.bytes(4 * step.values), dtype="<i4")
            values = (drawn / 2.0**31 * encoding.clip * 1.125).astype(np.float32)
            weight = None if encoding.max_weight is None else randomness.bytes(1)[0] % (encoding.max_weight + 1)
            found[member] = (values, weight)
        return found

    def run(self) -> dict[str, Any]:
        """The case."""
        self._until_ready(self.server.open())
        sums = []
        for step, about in enumerate(self.plan.steps):
            self.step = step
            asked = self.server.request(about.stream, about.values, context=about.context, exactly=about.exactly)
            self._deliver(asked)
            for member in asked:
                self._answer(member, self._contribute(member, about))
            self._until_ready(self.server.advance())
            if self.server.failure is None:
                result = self._result()
                sums.append(
                    {
                        "step": step,
                        "contributors": list(result.contributors),
                        "ring": result.ring.tobytes().hex(),
                        "total": self._numbers(result.total),
                        "weight": result.weight,
                    }
                )
        return {"kind": "round", "name": self.plan.name, "given": self._given(), "expected": self._expected(sums)}

    def _contribute(self, member: int, about: Step) -> bytes:
        assert self.step is not None
        values, weight = self.values[self.step][member]
        return self.clients[member].contribute(values, stream=about.stream, weight=weight, context=about.context)

    def _result(self) -> SumResult:
        """The latest sum."""
        return self.server.result()

    def _numbers(self, values: np.ndarray[Any, Any]) -> Any:
        """Values or sums of them as the file has them."""
        return [float(value).hex() for value in values]

    def _expected(self, sums: list[dict[str, Any]]) -> dict[str, Any]:
        return {"messages": self.messages, "sums": sums}

    def _until_ready(self, outbox: Outbox) -> None:
        self._deliver(outbox)
        while self.server.phase not in (Phase.READY, Phase.CLOSED):
            self._deliver(self.server.advance())

    def _deliver(self, outbox: Outbox) -> None:
        together = len(set(outbox.values())) == 1 and _name(next(iter(outbox.values()))) not in ("Keys", "Inbox")
        for group in [list(outbox)] if together else [[member] for member in outbox]:
            self._note("server", group, outbox[group[0]], taken=True)
        answers = {member: self._hand_over(member, message) for member, message in outbox.items()}
        for member, answer in answers.items():
            if answer is not None:
                self._answer(member, answer)

    def _hand_over(self, member: int, message: bytes) -> bytes | None:
        with in_place_of_the_system(self.randomness[member]):
            try:
                return self._machine(member).receive(message)
            except ProtocolError:
                if _name(message) != "Abort":
                    raise
                return None

    def _machine(self, party: int) -> SumClient | SumAuthority:
        if party != AUTHORITY:
            return self.clients[party]
        assert self.authority is not None
        return self.authority

    def _answer(self, member: int, message: bytes) -> None:
        taken = (_name(message), self.step, member) not in self.plan.missing
        if taken:
            self.server.receive(member, message)
        self._note(member, "server", message, taken=taken)

    def _note(self, sender: object, to: object, message: bytes, *, taken: bool) -> None:
        self.messages.append(
            {
                "step": self.step,
                "name": _name(message),
                "from": sender,
                "to": to,
                "taken": taken,
                "frame": message.hex(),
            }
        )

    # What is given

    def _given(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "protocol": self.plan.protocol,
            "terms": terms_json(self.plan.terms),
            "round_id": self.round_id.hex(),
            "cohort": list(self.plan.cohort),
            "steps": [self._step(step) for step in range(len(self.plan.steps))],
            "missing": [{"message": name, "step": step, "member": member} for name, step, member in self.plan.missing],
        }
        if self.plan.protocol == "masked":
            given["roster"] = {str(member): key.public_key.hex() for member, key in self.identities.items()}
            given["clients"] = {str(member): self._private(member) for member in self.plan.cohort}
        return given

    def _step(self, step: int) -> dict[str, Any]:
        about = self.plan.steps[step]
        contributions = {
            str(member): {"values": self._numbers(values), "weight": weight}
            for member, (values, weight) in self.values[step].items()
        }
        return {
            "stream": about.stream,
            "values": about.values,
            "context": about.context.hex(),
            "exactly": None if about.exactly is None else list(about.exactly),
            "contributions": contributions,
        }

    def _private(self, member: int) -> Mapping[str, Any]:
        """What a client drew, in the order in which it draws: keys, self secrets, pair secrets, coefficients."""
        round_key, *drawn = (value.hex() for value in self.randomness[member].given)
        steps = self.plan.terms.steps
        each = self.plan.terms.topology(len(self.plan.cohort)).threshold - 1
        rest = drawn[2 * steps :]
        return {
            "identity": self.identities[member].private_bytes().hex(),
            "round_key": round_key,
            "self_secrets": drawn[:steps],
            "pair_secrets": drawn[steps : 2 * steps],
            "coefficients": [rest[at : at + each] for at in range(0, len(rest), each)],
        }


def _name(message: bytes) -> str:
    return _NUMBERS[message[2]]
