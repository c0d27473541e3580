"""Settings under which no claim of privacy could hold are refused, each with its reason."""

from __future__ import annotations

import pytest

from codream_secure.accounting import make_releases
from codream_secure.config import make_config
from codream_secure.errors import ConfigError, PrivacyError
from codream_secure.methods import find_method
from protocols import TermsError

CLIENT = ("dp.unit=client", "dp.epsilon=3", "dreaming.labels=probabilities")
EXAMPLE = ("dp.unit=example", "dp.epsilon=3", "dreaming.moments=channel")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("dp.epsilon=3",), "whose presence is hidden"),
        (("dp.unit=client",), "dp.epsilon is missing"),
        ((*CLIENT, "dp.noise_multiplier=0"), "without noise no epsilon can be claimed"),
        ((*CLIENT, "dp.noise_multiplier=-1"), "without noise no epsilon can be claimed"),
        ((*CLIENT, "dp.bounding=adaptive"), "one more release a step"),
        ((*CLIENT, "dp.bounding=quantile"), "one more release a step"),
        ((*CLIENT, "dp.label_share=0.6", "dp.evaluation_share=0.4"), "nothing for the dreams"),
        ((*CLIENT, "run.select=validation"), "choose by private data"),
        ((*CLIENT, "run.target_accuracy=0.9"), "choose by private data"),
        ((*CLIENT, "dp.evaluation_share=0.1", "data.validation_samples=0"), "nothing to release"),
        ((*CLIENT, "dreaming.collaborative=false"), "no others to hide among"),
        ((*CLIENT, "fedavg.weighted=true"), "tells that number"),
        ((*CLIENT, "dreaming.labels=logits"), "norm is bounded whatever the model"),
        ((*CLIENT, "protocol.bits.dream_updates=8"), "the noise decides how fine values are"),
        ((*CLIENT, "protocol.protection=ckks"), "rests on exact ones"),
        ((*CLIENT, "protocol.protection=ckks-authority"), "rests on exact ones"),
        ((*CLIENT, "protocol.protection=bfv", "dp.noise=server"), "clients open the sums"),
        ((*CLIENT, "protocol.protection=bfv", "dp.colluders=0"), "each knows its own share"),
        ((*CLIENT, "protocol.protection=masked", "dp.colluders=0"), "each knows its own share"),
        ((*CLIENT, "protocol.protection=masked", "dp.colluders=2"), "made to withstand 1 of 4"),
        ((*CLIENT, "protocol.protection=bfv-authority", "dp.noise=server"), "authority opens sums before"),
        ((*CLIENT, "protocol.protection=ckks-authority", "dp.noise=server"), "rests on exact ones"),
        (("dp.unit=local", *CLIENT[1:], "dp.adjacency=add_remove"), "sees that a client sends"),
        ((*CLIENT, "dp.noise=distributed"), "shows each message with its own small share"),
        (("dp.unit=local", *CLIENT[1:], "dp.noise=server"), "every client adds by itself"),
        ((*EXAMPLE, "dp.evaluation_share=0.1"), "no accountant composes"),
        ((*EXAMPLE, "dp.training.moment_share=0"), "matches dreams to moments of private images"),
        ((*EXAMPLE, "dreaming.moments=position"), "per channel only"),
    ],
)
def test_refused_with_the_reason(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_config({}, overrides)


@pytest.mark.parametrize("unit", ["client", "local", "example"])
def test_a_delta_that_would_let_one_unit_be_published_is_refused(unit: str) -> None:
    common = ("dp.epsilon=3", "dp.delta=0.3", "dreaming.labels=probabilities", "dreaming.moments=channel")
    config = make_config({}, [f"dp.unit={unit}", *common])
    with pytest.raises(PrivacyError, match=r"delta is 0\.3"):
        make_releases(config, coordinates=64, classes=10, examples=200)


def test_dropouts_and_colluders_that_leave_nobody_honest_are_refused() -> None:
    config = make_config({}, [*CLIENT, "protocol.protection=bfv", "protocol.dropout=0.5", "dp.colluders=2"])
    with pytest.raises(TermsError, match="nobody's noise is sure to be there"):
        make_releases(config, coordinates=64, classes=10, examples=200)


@pytest.mark.parametrize("method", ["fedavg", "centralised"])
def test_methods_without_a_private_form_say_so(method: str) -> None:
    assert "dp.unit" in (find_method(method).obstacle(make_config({}, CLIENT)) or "")
    assert find_method(method).obstacle(make_config()) is None


@pytest.mark.parametrize(
    ("overrides", "by_server"),
    [
        (("protocol.protection=plain",), True),
        (("protocol.protection=masked",), False),
        (("protocol.protection=masked", "dp.noise=server"), True),
        (("protocol.protection=bfv",), False),
    ],
)
def test_who_adds_the_noise(overrides: tuple[str, ...], by_server: bool) -> None:
    config = make_config({}, [*CLIENT, *overrides])
    assert config.dp.by_server(config.protocol.protection) is by_server
