"""What masking adds to training: its CPU seconds beside the seconds of the work that it protects.

    python -m experiments.protection_cost --out runs/protection_cost.json [--repeats 3]

Two settings. ``digits``: whole rounds of ``configs/digits_iid.toml``, four small-CNN clients, plain and masked in turn.
``resnet18``: one dream step of ten ResNet-18 clients on 256 dreams of 3x32x32, and the sum of their gradients, plain
and masked in turn, without the set-up, which is shared by all steps of a round and printed apart. All parties run in
one thread of one process, so their CPU seconds add up to wall time.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from codream_secure.channel import Channel
from codream_secure.cli.app import guarded
from codream_secure.config import Config, load_config, make_config
from codream_secure.dreaming import DreamObjective
from codream_secure.files import write_json
from codream_secure.ledger import Ledger
from codream_secure.models import build_model
from codream_secure.runs import run
from codream_secure.runs.environment import describe_environment
from codream_secure.seeding import generator, seeded
from codream_secure.streams import make_terms
from protocols import SERVER, make_protocol

DIGITS = Path(__file__).parent / "configs" / "digits_iid.toml"
PROTECTIONS = ("plain", "masked")


def sums_cpu(ledger: Ledger, clients: int, *, setup: bool) -> float:
    """CPU seconds of all parties in sums, or in set-ups."""
    return sum(
        seconds
        for party in (SERVER, *range(clients))
        for phase, seconds in ledger.cpu_by_phase(party).items()
        if (phase == "protocol_setup") == setup
    )


def measure_rounds(config: Config, *, repeats: int) -> dict[str, Any]:
    """Rounds of a configuration under each protection, in turn.

    Returns:
        ``round_s``, the median plain round; ``plain_cpu_s`` and ``masked_cpu_s``, CPU seconds of all sums in a round,
        set-ups included; ``added``, their difference over ``round_s``; ``wall_ratio``, the median masked round over the
        median plain one; ``identical``, whether all runs ended with the same weights.
    """
    rounds: dict[str, list[float]] = {name: [] for name in PROTECTIONS}
    cpu: dict[str, list[float]] = {name: [] for name in PROTECTIONS}
    weights = set()
    for _ in range(repeats):
        for name in PROTECTIONS:
            protocol = config.protocol.model_copy(update={"protection": name})
            found = run(config.model_copy(update={"protocol": protocol}))
            starts = [row["seconds"] for row in found.rows]
            rounds[name] += [after - before for before, after in itertools.pairwise(starts)]
            costs = found.summary["protocol_cpu"]
            total = config.data.clients * costs["client"] + costs["server"]
            cpu[name].append(total / (config.run.rounds + 1))  # the warm-up's evaluation counts as a round of sums
            weights.add(found.summary["weights_sha256"])
    plain, masked = (statistics.median(cpu[name]) for name in PROTECTIONS)
    round_s = statistics.median(rounds["plain"])
    return {
        "round_s": round_s,
        "plain_cpu_s": plain,
        "masked_cpu_s": masked,
        "added": (masked - plain) / round_s,
        "wall_ratio": statistics.median(rounds["masked"]) / round_s,
        "identical": len(weights) == 1,
    }


def measure_step(*, clients: int, images: int, architecture: str, repeats: int) -> dict[str, Any]:
    """One dream step of freshly initialised clients, and the sum of their gradients under each protection.

    Returns:
        ``step_s``, wall seconds of all clients' gradients; ``plain_cpu_s`` and ``masked_cpu_s``, the median CPU seconds
        of all parties in one sum; ``added``, their difference over ``step_s``; ``setup_cpu_s``, of all parties in the
        masked set-up; ``identical``, whether both sums are the same bits.
    """
    dreams = torch.randn(images, 3, 32, 32, generator=generator(0, "dreams"))
    own = torch.randn(8, 3, 32, 32, generator=generator(0, "own"))
    gradients, step_s = {}, 0.0
    for client in range(clients):
        with seeded(0, "model", client):
            model = build_model(architecture, channels=3, image_size=(32, 32), num_classes=10)
        with DreamObjective(model, own, moments="channel") as objective:
            started = time.perf_counter()
            gradients[client] = [objective.gradient(dreams)]
            step_s += time.perf_counter() - started
    terms = make_terms(make_config({}, [f"data.clients={clients}"]))
    channels = {name: Channel(make_protocol(name), clients, terms=terms) for name in PROTECTIONS}
    cpu: dict[str, list[float]] = {name: [] for name in PROTECTIONS}
    means = {}
    for _ in range(repeats):
        for name, channel in channels.items():
            before = sums_cpu(channel.ledger, clients, setup=False)
            means[name] = channel.mean(gradients, phase="dream_updates")[0]
            cpu[name].append(sums_cpu(channel.ledger, clients, setup=False) - before)
    plain, masked = (statistics.median(cpu[name]) for name in PROTECTIONS)
    return {
        "step_s": step_s,
        "plain_cpu_s": plain,
        "masked_cpu_s": masked,
        "added": (masked - plain) / step_s,
        "setup_cpu_s": sums_cpu(channels["masked"].ledger, clients, setup=True),
        "identical": torch.equal(means["plain"], means["masked"]),
    }


def main(
    out: Annotated[Path, typer.Option("--out", help="JSON file for the figures.")],
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Of each protection, in turn.")] = 3,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of each run on digits.")] = 3,
    clients: Annotated[int, typer.Option("--clients", min=2, help="With ResNet-18.")] = 10,
    images: Annotated[int, typer.Option("--images", min=1, help="Dreams, with ResNet-18.")] = 256,
) -> None:
    """Measure both settings and print what masking adds."""
    torch.set_num_threads(1)
    digits = measure_rounds(load_config(DIGITS, [f"run.rounds={rounds}"]), repeats=repeats)
    print(
        f"digits, 4 clients: a round takes {digits['round_s']:.2f} s; its sums {1000 * digits['plain_cpu_s']:.1f} ms "
        f"plain, {1000 * digits['masked_cpu_s']:.1f} ms masked: {100 * digits['added']:.2f} % more",
        flush=True,
    )
    resnet = measure_step(clients=clients, images=images, architecture="resnet18", repeats=repeats)
    print(
        f"ResNet-18, {clients} clients: a dream step takes {resnet['step_s']:.1f} s; its sum "
        f"{1000 * resnet['plain_cpu_s']:.0f} ms plain, {1000 * resnet['masked_cpu_s']:.0f} ms masked: "
        f"{100 * resnet['added']:.2f} % more; one set-up {1000 * resnet['setup_cpu_s']:.0f} ms"
    )
    write_json(
        out,
        {
            "environment": describe_environment(torch.device("cpu"), threads=1),
            "digits": digits,
            "resnet18": {"clients": clients, "images": images, **resnet},
        },
    )


if __name__ == "__main__":
    guarded(lambda: typer.run(main))
