"""Plain words: exactly what rows show, under which protections, and nothing that they do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attacks.report.findings import Finding, finding
from attacks.report.glance import at_a_glance
from attacks.report.words import in_hundred, in_pairs, plain_words, protections_in_words

Audit = dict[str, Any]
MakeRow = Callable[..., Audit]

NOTHING = {"value": 0.51, "low": 0.47, "high": 0.55}
UNSEEN = {"value": None, "low": None, "high": None, "note": "not in view: the server holds ciphertexts"}
FORBIDDEN = re.compile(r"\b(un)?safe|\b(in)?secure|\bharmless|\bproven private|no leak\b|\bprotects?\b", re.IGNORECASE)


def said(rows: list[Audit]) -> list[str]:
    """The sentences on the one adversary and method of rows."""
    (told,) = plain_words(rows)
    return list(told.sentences)


def test_a_made_up_audit_is_told_word_for_word(row: MakeRow) -> None:
    members, images = "weights, LiRA", {"metric": "PSNR, dB", "control": 14.0}
    fedavg: list[Audit] = [
        row(method="fedavg", probe=members, value=0.753, low=0.73, high=0.78),
        row(method="fedavg", probe=members, protection="masked", value=0.652, low=0.63, high=0.67),
        row(method="fedavg", probe=members, protection="ckks", **UNSEEN),
        row(method="fedavg", probe=members, protection="client-dp 1", **NOTHING),
        row(method="fedavg", probe=f"{members}, mislabelled canaries", value=0.9987, low=0.99, high=1.0),
        row(method="fedavg", probe=f"{members}, mislabelled canaries", protection="client-dp 1", **NOTHING),
        row(method="fedavg", probe="inversion", **images, value=24.0, low=22.0, high=26.0),
        row(method="fedavg", probe="inversion", **images, protection="masked", value=13.0, low=12.0, high=14.5),
        row(method="fedavg", probe="inversion", **images, protection="ckks", **UNSEEN),
    ]
    codream = [
        row(probe="student, LiRA", **NOTHING),
        row(probe="student, LiRA", metric="TPR@1%FPR", value=0.03, low=0.02, high=0.05),
        row(probe="student, threshold", value=0.4, low=0.35, high=0.45),
        row(probe="labels", metric="total variation", value=0.1, low=0.05, high=0.12, control=0.4),
        row(probe="labels", metric="total variation", protection="masked", **UNSEEN),
        row(probe="student, LiRA", protection="masked", **NOTHING),
        row(active=True, probe="own", metric="something new", value=1.0, low=None, high=None),
        row(active=True, probe="named, LiRA", value=None, low=None, high=None, note="too few samples"),
    ]
    told = plain_words([*fedavg, *codream])
    assert [(each.adversary, each.method, list(each.sentences)) for each in told] == [
        (
            "passive server",
            "fedavg",
            [
                "Tells which images were trained on: 75 in 100 under plain, 65 in 100 under masked (weights).",
                "Images with wrong labels, the worst case: over 99 in 100 under plain; not told from chance at this "
                "power and n under client-dp 1.",
                "Brings private images back, at least in part, under plain (inversion).",
                "Not told from chance at this power and n: which images were trained on, under client-dp 1; what "
                "private images look like, under masked.",
                "Not in its view, so not measured: what its probes need, under ckks.",
            ],
        ),
        (
            "passive server",
            "codream",
            [
                "Under plain no main figure tells which images were trained on, but 2 of 3 figures lie off chance: a "
                "trace, or luck.",
                "Learns which labels a client holds, better than by a guess, under plain (labels).",
                "Not told from chance at this power and n: which images were trained on, under masked.",
                "Not in its view, so not measured: which labels a client holds, under masked.",
            ],
        ),
        (
            "active server",
            "codream",
            [
                "Measured, but with nothing to compare with, or no interval: what else its probes look for, under "
                "plain.",
                "Could not be measured: which images were trained on, under plain.",
            ],
        ),
    ]


def test_equal_figures_stand_together_and_the_strongest_probe_is_named(row: MakeRow) -> None:
    names = ("plain", "masked", "bfv")
    strong = [row(probe="strong, LiRA", protection=name, value=0.784, low=0.75, high=0.8) for name in names]
    weak = [row(probe="weak, LiRA", protection=name) for name in names]
    assert said(weak + strong) == [
        "Tells which images were trained on: 78 in 100 under plain, masked and bfv (strong)."
    ]


def test_a_stronger_threshold_or_canary_does_not_stand_for_all_images(row: MakeRow) -> None:
    rows = [row(probe="p, LiRA"), row(probe="p, threshold", value=0.9, low=0.8, high=0.95)]
    assert said(rows) == ["Tells which images were trained on: 60 in 100 under plain (p)."]


def test_a_rank_tells_where_a_psnr_has_no_interval(row: MakeRow) -> None:
    rows = [
        row(metric="PSNR, dB", value=27.0, low=None, high=None, control=14.3),
        row(metric="rank 1 of 100", value=1.0, low=0.4, high=1.0),
    ]
    assert said(rows) == ["Brings private images back, at least in part, under plain (a probe)."]


def test_a_mean_speaks_for_its_seeds_and_a_single_seed_is_a_trace(row: MakeRow) -> None:
    seeds = [row(seed=seed, value=value, low=value - 0.05) for seed, value in enumerate((0.6, 0.52))]
    mean = row(seed=None, value=0.56, low=0.51, high=0.61)
    assert said([mean, *seeds]) == ["Tells which images were trained on: 56 in 100 under plain (a probe)."]
    weak = row(seed=None, value=0.56, low=0.49, high=0.63)
    assert said([weak, *seeds]) == [
        "Under plain no main figure tells which images were trained on, but 1 of 3 figures lie off chance: a trace, or "
        "luck."
    ]


def test_canaries_that_one_seed_tells_are_not_called_untold(row: MakeRow) -> None:
    probe = "p, LiRA, mislabelled canaries"
    seeds = [row(probe=probe, seed=0, value=0.9, low=0.8, high=0.95), row(probe=probe, seed=1, **NOTHING)]
    rows = [row(probe="p, LiRA", **NOTHING), row(probe=probe, seed=None, value=0.7, low=0.4, high=1.0), *seeds]
    text = " ".join(said(rows))
    assert "wrong labels" not in text
    assert "1 of 4 figures lie off chance" in text


def test_pairs_are_never_rounded_to_a_coin_or_to_certainty() -> None:
    assert [in_hundred(area) for area in (0.5, 0.5049, 0.506, 0.994, 0.9951, 1.0)] == [
        "50 in 100",
        "just over 50 in 100",
        "51 in 100",
        "99 in 100",
        "over 99 in 100",
        "100 in 100",
    ]


def test_pairs_are_explained_only_where_they_are_counted(row: MakeRow) -> None:
    assert in_pairs([row()])
    assert not in_pairs([row(**NOTHING), row(metric="TPR@1%FPR", value=0.5, low=0.4, high=0.6)])


def test_protections_are_explained_where_they_are_known(row: MakeRow) -> None:
    names = ("plain", "bfv", "ckks", "client-dp 1", "of my own")
    found = protections_in_words(at_a_glance([row(protection=name) for name in names]))
    assert [each for each, _ in found] == ["plain", "bfv and ckks", "client-dp 1"]


@pytest.mark.parametrize("seed", range(40))
def test_every_protection_that_leaks_is_named_as_such_and_nothing_is_praised(seed: int, row: MakeRow) -> None:
    draw = np.random.default_rng(seed)
    rows = []
    for protection in ("plain", "masked", "bfv"):
        for probe in ("p, LiRA", "p, threshold", "p, LiRA, mislabelled canaries", "q, LiRA"):
            value = float(draw.uniform(0.4, 0.7))
            wide = float(draw.uniform(0.02, 0.3))
            rows.append(row(probe=probe, protection=protection, value=value, low=value - wide, high=value + wide))
    sentences = said(rows)
    assert not [line for line in sentences if FORBIDDEN.search(line)]
    leaking = {each["protection"] for each in rows if finding(each) in (Finding.ABOVE, Finding.BELOW)}
    telling = " ".join(line for line in sentences if line.startswith(("Tells", "Under")))
    silent = " ".join(line for line in sentences if line.startswith("Not told"))
    assert {name for name in ("plain", "masked", "bfv") if name in telling} == leaking
    assert {name for name in ("plain", "masked", "bfv") if name in silent} == {"plain", "masked", "bfv"} - leaking
