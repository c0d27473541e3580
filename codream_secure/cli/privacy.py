"""``codream-secure dp``: what noise costs, and how much of it a budget asks for, before anything is trained."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codream_secure.cli.tables import flat, plain_table, show
from codream_secure.errors import PrivacyError

if TYPE_CHECKING:
    from codream_secure.privacy import Adjacency, Adversary, PrivacyUnit, SampledGaussianRelease, Signal
    from codream_secure.releases import Releases

dp_app = typer.Typer(no_args_is_help=True, help="Differential privacy: epsilon for noise, and noise for epsilon.")

Steps = Annotated[int, typer.Option("--steps", help="T, releases with fresh noise.", show_default=False)]
Delta = Annotated[float, typer.Option("--delta", help="Below 1/n for n units.", show_default=False)]
SampleRate = Annotated[float, typer.Option("--sample-rate", help="q, where each unit joins a step by chance.")]
Clients = Annotated[int | None, typer.Option("--clients", help="K; with --dimension: what survives the noise.")]
Dimension = Annotated[int | None, typer.Option("--dimension", help="d, coordinates released in a step.")]
Unit = Annotated[str, typer.Option("--unit", help="client, example or local.")]
Neighbours = Annotated[str, typer.Option("--adjacency", help="add_remove or replace_one.")]
Against = Annotated[
    str | None,
    typer.Option(
        "--adversary",
        help="server, sum_server or recipient; default: server, for unit client sum_server. "
        "Sampling clients amplifies only against recipient, who does not see the cohort.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@dp_app.command("epsilon")
def dp_epsilon(
    noise_multiplier: Annotated[
        float, typer.Option("--noise-multiplier", help="z: the noise's deviation over the norm C.", show_default=False)
    ],
    steps: Steps,
    delta: Delta,
    sample_rate: SampleRate = 1.0,
    clients: Clients = None,
    dimension: Dimension = None,
    unit: Unit = "client",
    adjacency: Neighbours = "add_remove",
    adversary: Against = None,
    as_json: AsJson = False,
) -> None:
    """Epsilon that this much noise costs over all steps."""
    plan = _plan(
        unit, adjacency, adversary, steps=steps, delta=delta, rate=sample_rate, clients=clients, dimension=dimension
    )
    plan.check()
    _report(plan, noise_multiplier, as_json=as_json)


@dp_app.command("noise")
def dp_noise(
    epsilon: Annotated[float, typer.Option("--epsilon", help="The most that may be spent.", show_default=False)],
    steps: Steps,
    delta: Delta,
    sample_rate: SampleRate = 1.0,
    clients: Clients = None,
    dimension: Dimension = None,
    unit: Unit = "client",
    adjacency: Neighbours = "add_remove",
    adversary: Against = None,
    as_json: AsJson = False,
) -> None:
    """Least noise with which all steps together cost at most this epsilon."""
    from codream_secure.privacy import noise_multiplier_for

    plan = _plan(
        unit, adjacency, adversary, steps=steps, delta=delta, rate=sample_rate, clients=clients, dimension=dimension
    )
    # Settings that are refused are refused before any noise is searched for.
    plan.check()
    found = noise_multiplier_for(epsilon, delta, count=steps, adjacency=plan.adjacency, sample_rate=sample_rate)
    _report(plan, found, as_json=as_json)


def announce(releases: Releases) -> None:
    """Say on standard error, before anything is trained, what noise there will be and what it leaves."""
    for stream, multiplier in releases.noise_multipliers().items():
        print(f"noise multiplier of {stream}: {multiplier:.4g}", file=sys.stderr)
    if releases.signal is not None:
        print(releases.signal, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that both commands are told, but for the noise."""

    unit: PrivacyUnit
    adjacency: Adjacency
    adversary: Adversary
    steps: int
    delta: float
    rate: float
    clients: int | None
    dimension: int | None

    def event(self, noise_multiplier: float) -> SampledGaussianRelease:
        from codream_secure.privacy import PrivacyUnit, SampledGaussianRelease

        name = "gradients of local training" if self.unit is PrivacyUnit.EXAMPLE else "dream updates"
        return SampledGaussianRelease(name, noise_multiplier, sample_rate=self.rate, steps=self.steps)

    def signal(self, noise_multiplier: float) -> Signal | None:
        from codream_secure.privacy import signal

        if self.clients is None or self.dimension is None:
            return None
        mu = self.rate * math.sqrt(self.steps) / noise_multiplier
        return signal(mu, clients=self.clients, dimension=self.dimension, unit=self.unit)

    def check(self) -> None:
        """Refuse what no noise could make right.

        Raises:
            PrivacyError: a setting is out of range, or a claim does not hold.
        """
        from codream_secure.privacy import PrivacyUnit
        from codream_secure.privacy.accountant import check_claims
        from codream_secure.privacy.checks import whole
        from codream_secure.privacy.ledger import check_delta

        if self.clients is not None:
            whole("--clients", self.clients)
        if self.dimension is not None and self.clients is None:
            raise PrivacyError(f"--dimension is {self.dimension}, without --clients: signal and noise need both")
        check_claims([self.event(1.0)], unit=self.unit, adversary=self.adversary)
        check_delta(self.delta, units=self.clients if self.unit is PrivacyUnit.CLIENT else None)
        self.signal(1.0)


def _plan(unit: str, adjacency: str, adversary: str | None, **settings: Any) -> _Plan:
    from codream_secure.privacy import Adjacency, Adversary, PrivacyUnit
    from codream_secure.privacy.checks import member

    whose = member("--unit", unit, PrivacyUnit)
    against = Adversary.SUM_SERVER if whose is PrivacyUnit.CLIENT else Adversary.SERVER
    if adversary is not None:
        names = {found.name.lower(): found for found in Adversary}
        if adversary not in names:
            raise PrivacyError(f"--adversary is {adversary!r}: choose one of {', '.join(names)}")
        against = names[adversary]
    return _Plan(unit=whose, adjacency=member("--adjacency", adjacency, Adjacency), adversary=against, **settings)


def _report(plan: _Plan, noise_multiplier: float, *, as_json: bool) -> None:
    from codream_secure.privacy import spent

    statement = spent(
        [plan.event(noise_multiplier)],
        delta=plan.delta,
        unit=plan.unit,
        adjacency=plan.adjacency,
        adversary=plan.adversary,
    )
    signal = plan.signal(noise_multiplier)
    if as_json:
        stated = statement.to_json()
        found = {
            "epsilon": stated["epsilon"],
            "delta": stated["delta"],
            "noise_multiplier": noise_multiplier,
            "steps": plan.steps,
            "accountant": stated["accountant"],
            "unit": stated["unit"],
            "adjacency": stated["adjacency"],
            "adversary": stated["adversary"],
            "signal": None
            if signal is None
            else {"value": signal.value, "verdict": signal.verdict, "clients_for_one": signal.clients_for_one},
        }
        print(json.dumps(found, indent=2))
        return
    print(statement)
    if signal is not None:
        print(signal)
    # All digits of it: rounded down, it would cost more than what is printed above.
    shown = {"noise multiplier": repr(noise_multiplier), "steps": plan.steps, "sample rate": plan.rate}
    show(plain_table(("setting", "value"), flat(shown)))
