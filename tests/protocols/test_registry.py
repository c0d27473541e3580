"""Protocols by name."""

from __future__ import annotations

import pytest

from protocols import SumProtocol, UnknownProtocolError, available_protocols, make_protocol


def test_the_protocols_are_listed_in_order() -> None:
    assert {"masked", "plain"} <= set(available_protocols())
    assert list(available_protocols()) == sorted(available_protocols())


@pytest.mark.parametrize("name", available_protocols())
def test_a_protocol_goes_by_its_own_name(name: str) -> None:
    protocol = make_protocol(name)
    assert isinstance(protocol, SumProtocol)
    assert protocol.name == name
    assert isinstance(protocol.needs_credentials, bool)


@pytest.mark.parametrize(("name", "near"), [("plian", "plain"), ("mask", "masked"), ("Masked", "masked")])
def test_an_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownProtocolError, match=f"{name!r} is unknown: did you mean {near!r}.*available: .*plain"):
        make_protocol(name)


@pytest.mark.parametrize("name", ["", "quantum"])
def test_a_name_that_is_near_none_lists_all(name: str) -> None:
    with pytest.raises(UnknownProtocolError, match="unknown: available: ") as caught:
        make_protocol(name)
    assert all(known in str(caught.value) for known in available_protocols())
    assert "did you mean" not in str(caught.value)
    assert caught.value.__cause__ is None
