"""``dp epsilon`` and ``dp noise``: figures with their statements, and settings that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

KEYS = ["epsilon", "delta", "noise_multiplier", "steps", "accountant", "unit", "adjacency", "adversary", "signal"]
EPSILON = ("dp", "epsilon", "--noise-multiplier", 20, "--steps", 200, "--delta", 1e-5)
NOISE = ("dp", "noise", "--epsilon", 3, "--steps", 200, "--delta", 1e-5)

Command = Callable[..., Any]


def read(command: Command, *arguments: object) -> dict[str, Any]:
    done = command(*arguments, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    assert list(found) == KEYS
    return found


def test_epsilon_for_noise(command: Command) -> None:
    found = read(command, *EPSILON)
    assert found["epsilon"] == pytest.approx(2.943, abs=5e-4)
    assert (found["delta"], found["noise_multiplier"], found["steps"]) == (1e-5, 20, 200)
    assert (found["accountant"], found["unit"], found["adjacency"]) == ("closed form", "client", "add_remove")
    assert found["adversary"] == "server that sees the sums with their noise and who takes part"
    assert found["signal"] is None


def test_noise_for_epsilon(command: Command) -> None:
    found = read(command, *NOISE)
    assert found["noise_multiplier"] == pytest.approx(19.7, abs=0.05)
    assert 2.9999 < found["epsilon"] <= 3
    doubled = read(command, *NOISE, "--adjacency", "replace_one")
    assert doubled["noise_multiplier"] == pytest.approx(2 * found["noise_multiplier"])
    assert doubled["adjacency"] == "replace_one"


def test_replacing_one_costs_more(command: Command) -> None:
    assert read(command, *EPSILON, "--adjacency", "replace_one")["epsilon"] == pytest.approx(6.573, abs=5e-4)


def test_sampling_examples_and_clients(command: Command) -> None:
    sampled = ("dp", "epsilon", "--noise-multiplier", 2, "--steps", 50, "--delta", 1e-5, "--sample-rate", 0.05)
    example = read(command, *sampled, "--unit", "example")
    assert (example["accountant"], example["unit"]) == ("PLD", "example")
    assert 0 < example["epsilon"] < 1
    unseen = read(command, *sampled, "--adversary", "recipient")
    assert unseen["epsilon"] == example["epsilon"]
    assert unseen["adversary"] == "recipient of the results that does not see who takes part"


def test_the_signal_beside_the_noise(command: Command) -> None:
    shape = ("--clients", 4, "--dimension", 786_432)
    found = read(command, "dp", "noise", "--epsilon", 8, "--steps", 200, "--delta", 1e-5, *shape)
    assert found["signal"] == {
        "value": pytest.approx(0.0075, abs=5e-5),
        "verdict": "noise will drown it",
        "clients_for_one": 532,
    }
    replaced = read(command, *EPSILON, *shape, "--adjacency", "replace_one")
    assert replaced["signal"] == read(command, *EPSILON, *shape)["signal"], "the noise is the same"


def test_text_holds_the_whole_statement_and_the_ways_out(command: Command) -> None:
    done = command(*EPSILON, "--clients", 4, "--dimension", 786_432)
    assert (done.code, done.err) == (0, "")
    first, second, *_ = done.out.splitlines()
    for part in ("2.943", "1e-05", "one client added or removed", "who takes part", "dream updates", "closed form"):
        assert part in first
    assert "noise will drown it" in second
    assert "latents" in second
    assert repr(read(command, *NOISE)["noise_multiplier"]) in command(*NOISE).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*EPSILON, "--sample-rate", 0.1), "whoever sees the cohort gains nothing"),
        ((*NOISE, "--sample-rate", 0.1), "whoever sees the cohort gains nothing"),
        ((*NOISE, "--sample-rate", 0.1, "--unit", "local"), "for the unit local"),
        ((*NOISE, "--sample-rate", 1.5, "--unit", "example"), "sample_rate is 1.5"),
        ((*EPSILON, "--unit", "user"), "--unit is 'user': choose one of 'client'"),
        ((*EPSILON, "--adjacency", "swap"), "--adjacency is 'swap'"),
        ((*EPSILON, "--adversary", "me"), "--adversary is 'me': choose one of server"),
        ((*EPSILON, "--dimension", 10), "without --clients"),
        ((*EPSILON, "--dimension", 10, "--clients", 0), "--clients is 0"),
        ((*EPSILON, "--clients", 100_000), "delta is 1e-05 with 100000 units"),
        ((*EPSILON, "--clients", 4, "--dimension", 9, "--unit", "example"), "unit is example"),
        (("dp", "epsilon", "--noise-multiplier", 0, "--steps", 1, "--delta", 1e-5), "no finite epsilon"),
        (("dp", "epsilon", "--noise-multiplier", -1, "--steps", 1, "--delta", 1e-5), "noise_multiplier is -1"),
        (("dp", "epsilon", "--noise-multiplier", 1, "--steps", 0, "--delta", 1e-5), "steps is 0"),
        (("dp", "epsilon", "--noise-multiplier", 1, "--steps", 1, "--delta", 0), "delta is 0"),
        (("dp", "noise", "--epsilon", 0, "--steps", 1, "--delta", 1e-5), "epsilon is 0"),
        (("dp", "noise", "--epsilon", "inf", "--steps", 1, "--delta", 1e-5), "epsilon is inf"),
        (("dp", "noise", "--epsilon", 1, "--steps", 1), "--delta"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(
    command: Command, arguments: tuple[object, ...], message: str
) -> None:
    done = command(*arguments, "--json")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
