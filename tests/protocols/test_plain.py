"""The plain sum, the registry, and what a sum refuses."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import protocols
from protocols import ContributionError, PlainSum, UnknownProtocolError, available_protocols, make_protocol
from protocols.plain import decode, encode


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(0, 20)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_the_sum_is_the_sum_and_costs_four_bytes_a_value(values: np.ndarray) -> None:
    outcome = PlainSum().sum(dict(enumerate(values)))
    np.testing.assert_array_equal(outcome.total, values.astype(np.float64).sum(axis=0))
    assert outcome.uploaded == dict.fromkeys(range(len(values)), 4 * values.shape[1])
    assert outcome.downloaded == dict.fromkeys(range(len(values)), 0)


def test_the_order_in_which_clients_arrive_does_not_change_a_bit() -> None:
    generator = np.random.default_rng(0)
    vectors = {client: (10.0 ** generator.uniform(-8, 8, 50)).astype(np.float32) for client in range(9)}
    forwards, backwards = PlainSum().sum(vectors), PlainSum().sum(dict(reversed(vectors.items())))
    np.testing.assert_array_equal(forwards.total, backwards.total)


@pytest.mark.parametrize(
    ("contributions", "message"),
    [
        ({}, "at least one client"),
        ({0: np.zeros(3, np.float32), 4: np.zeros(2, np.float32)}, "client 4 handed over 2 values where others gave 3"),
        ({1: np.zeros(3)}, "client 1 handed over float64"),
        ({1: np.zeros((2, 2), np.float32)}, r"shape \(2, 2\)"),
        ({1: [0.0]}, "flatten it"),
        ({2: np.array([0, np.nan], np.float32)}, "client 2's vector is NaN at index 1"),
        ({2: np.array([0, 1, -np.inf], np.float32)}, "client 2's vector is infinite at index 2"),
    ],
)
def test_bad_contributions_are_refused_by_name(contributions: dict[int, object], message: str) -> None:
    with pytest.raises(ContributionError, match=message):
        PlainSum().sum(contributions)


def test_the_message_names_no_private_value() -> None:
    with pytest.raises(ContributionError) as caught:
        PlainSum().sum({0: np.array([123.456, np.nan], np.float32)})
    assert "123" not in str(caught.value)


def test_wire_bytes_are_little_endian_and_checked() -> None:
    vector = np.array([1.0, -2.5], np.float32)
    assert encode(vector) == bytes.fromhex("0000803f000020c0")
    np.testing.assert_array_equal(decode(encode(vector), 2), vector)
    for wrong in (b"", b"\0" * 7, b"\0" * 12):
        with pytest.raises(ContributionError, match="bytes"):
            decode(wrong, 2)


def test_every_protocol_says_who_learns_what() -> None:
    for name in available_protocols():
        model = make_protocol(name).threat_model
        assert all(len(text) > 20 for text in (model.server, model.clients, model.outsider, model.assumes))


def test_an_unknown_protocol_suggests_the_nearest() -> None:
    with pytest.raises(UnknownProtocolError, match="did you mean 'plain'"):
        make_protocol("plian")


def test_the_package_stands_alone() -> None:
    """No torch, no models: imports reach only the standard library, numpy and the package itself."""
    allowed = {*sys.stdlib_module_names, "numpy", "protocols"}
    for path in Path(protocols.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed, path
