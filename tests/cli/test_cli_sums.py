"""The commands that say what protections promise, and what ciphertexts take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Command = Callable[..., Any]


def plan(command: Command, *arguments: str) -> dict[str, Any]:
    done = command("protocols", "plan", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_plan_meets_the_precision_and_says_what_it_takes(command: Command) -> None:
    found = plan(command, "--clients", "100", "--values", "786432", "--precision", "1e-4")
    assert list(found) == ["bfv", "ckks"]
    for scheme, entry in found.items():
        assert entry["largest_rounding_error"] <= 1e-4 < 2 * entry["largest_rounding_error"]
        assert (entry["parameters"]["scheme"], entry["parameters"]["clients"]) == (scheme, 100)
        (chosen,) = [one for one in entry["considered"] if one["verdict"].startswith("chosen")]
        assert chosen["upload"] == min(one["upload"] for one in entry["considered"] if one["upload"] is not None)
        # A few bytes more: the last ciphertext is not full.
        assert 0 <= entry["upload_bytes"] / 786432 - chosen["upload"] < 0.05
        assert all(one["modulus_bits"] <= one["security_limit"] for one in entry["considered"])


@pytest.mark.parametrize("key", ["clients", "authority"])
def test_finer_values_and_public_keys_take_more_bytes(command: Command, key: str) -> None:
    sizes = [
        plan(command, "--clients", "10", "--precision", precision, "--key", key, "--scheme", "bfv")["bfv"][
            "upload_bytes"
        ]
        for precision in ("1e-1", "1e-3", "1e-9", "1e-15")
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] * 4 < sizes[-1]
    if key == "authority":
        other = plan(command, "--clients", "10", "--precision", "1e-15", "--scheme", "bfv")["bfv"]["upload_bytes"]
        assert sizes[-1] > other


def test_a_plan_is_shown_with_all_that_was_considered(command: Command) -> None:
    done = command("protocols", "plan", "--clients", "100", "--values", "5000", "--scheme", "bfv")
    assert done.code == 0
    assert done.out.count("N = 2048") == 3
    assert "chosen: fewest bytes a value" in done.out
    assert "5000 values: 1 ciphertexts" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clients", "100", "--precision", "1e-25"), "can be rounded to 6.9e-18 at best"),
        (("--clients", "100", "--precision", "0"), "precision is 0.0: it must be a positive number"),
        (("--clients", "100", "--precision", "1e-4", "--clip", "-1"), "clip is -1.0"),
        (("--clients", "1000000000", "--precision", "1e-4", "--key", "authority"), "clients can be summed"),
        (("--clients", "3", "--scheme", "rsa"), "rsa"),
    ],
)
def test_what_cannot_be_met_is_refused_with_what_can(
    command: Command, arguments: tuple[str, ...], message: str
) -> None:
    done = command("protocols", "plan", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""
