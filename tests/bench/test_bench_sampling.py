"""The benchmark of exact noise: what it reports, and that its yardstick is a sampler of the same law."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from codream_secure.bench.sampling import PublishedSampler, bench_sampling, sampling_table


def test_every_sigma_has_a_row() -> None:
    rows = bench_sampling(["0.3", "100", "1e6"], samples=500)
    assert [row.sigma for row in rows] == ["0.3", "100", "1e6"]
    assert [row.yardstick_exact for row in rows] == [True, True, False]
    assert [row.skellam_us is None for row in rows] == [False, False, True]
    for row in rows:
        assert row.ratio == row.yardstick_us / row.discrete_gaussian_us > 0
    console = Console(width=100, record=True)
    console.print(sampling_table(rows))
    assert "1e6" in console.export_text()


@pytest.mark.parametrize(
    ("sigma", "exact"), [("0.3", True), ("1", True), ("3.7", True), ("20", True), ("20000", False)]
)
def test_the_yardstick_follows_the_law(sigma: str, exact: bool) -> None:
    """Fixed seed: chi-square over integers, or over intervals where there are too many."""
    sampler = PublishedSampler(Fraction(sigma) ** 2, np.random.default_rng(1))
    assert sampler.exact == exact
    samples, width = sampler.draw(50_000), float(sigma)
    step = max(1, round(width / 4))
    edges = np.arange(-3 * max(1, round(width / step)), 3 * max(1, round(width / step)) + 1) * step
    places = np.arange(-round(12 * width) - 2, round(12 * width) + 3)
    weights = np.exp(-0.5 * (places / width) ** 2)
    chances = np.bincount(np.searchsorted(edges, places, side="right"), weights / weights.sum(), len(edges) + 1)
    observed = np.bincount(np.searchsorted(edges, samples, side="right"), minlength=len(edges) + 1)
    kept = chances * len(samples) > 5
    expected = chances[kept] / chances[kept].sum() * observed[kept].sum()
    assert stats.chisquare(observed[kept], expected).pvalue > 1e-4
