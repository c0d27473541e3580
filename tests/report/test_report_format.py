"""How numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codream_secure.report import format as fmt

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.4, "999 B"),
        (999.6, "1.00 kB"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (2_500_000_000, "2.50 GB"),
        (None, "\N{EN DASH}"),
    ],
)
def test_sizes_change_their_unit_where_the_digits_would_run_over(count: float | None, written: str) -> None:
    assert fmt.size(count) == written.replace(" ", "\N{NO-BREAK SPACE}")


@given(st.integers(min_value=1, max_value=10**17))
def test_a_size_reads_back_to_within_half_a_per_cent(count: int) -> None:
    digits, unit = fmt.size(count).split("\N{NO-BREAK SPACE}")
    assert float(digits.replace(",", "")) * UNITS[unit] == pytest.approx(count, rel=0.0051)
    assert unit == "PB" or float(digits) < 1000


def test_a_deviation_has_the_unit_and_decimals_of_its_mean() -> None:
    assert fmt.size_spread({"mean": 1_500_000, "std": 2_000}).replace("\xa0", " ") == "1.50 ± 0.00 MB"
    assert fmt.number_spread({"mean": 42.04, "std": 1.26}).replace("\xa0", " ") == "42.0 ± 1.3"
    assert fmt.percent_spread({"mean": 0.7559, "std": None}) == "75.6"
    assert fmt.percent_spread({"mean": None, "std": None}) == fmt.NOTHING


def test_a_negative_share_has_a_minus_sign_unless_it_rounds_to_zero() -> None:
    assert fmt.percent(-0.6138, decimals=0) == "\N{MINUS SIGN}61"
    assert fmt.percent(-0.0004, decimals=0) == "0"


def test_a_listing_counts_equal_values_and_keeps_the_order() -> None:
    assert fmt.listing(("mlp", "lenet5", "mlp")) == "2 \N{MULTIPLICATION SIGN} mlp, lenet5"
    assert fmt.plural(1, "client") == "1 client"
    assert fmt.plural(0, "client") == "0 clients"
