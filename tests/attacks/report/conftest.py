"""A made-up audit of the size of a real one: many protections, nulls of both kinds, a refuted claim, a failed check."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm
from sklearn.datasets import load_digits

from codream_secure.privacy.statement import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit
from protocols.registry import make_protocol

Audit = dict[str, Any]

_LOGITS = "logits on candidates as dreams, LiRA"
_NEAREST = "distance from the nearest dream"
_STUDENT = "released student, RMIA"
_UPDATE = "loss under the update, threshold"
_INVERSION = "gradient matching"
_LABELS = "label distribution from logits"
_KNOWS = "knows architectures, owners of candidates and 15 reference federations on the same pool"


def _row(victim: tuple[str, str], adversary: tuple[str, bool], probe: str, **figures: Any) -> dict[str, Any]:
    keys = dict(
        zip(("method", "protection", "adversary", "active", "probe"), (*victim, *adversary, probe), strict=True)
    )
    empty = {"value": None, "low": None, "high": None, "control": None, "n": 800, "seed": 0, "note": ""}
    return keys | empty | {"assumptions": f"The {adversary[0]} {_KNOWS}."} | figures


def _membership(
    victim: tuple[str, str], adversary: tuple[str, bool], probe: str, shift: float, *, n: int = 800
) -> list[dict[str, Any]]:
    """What scores of two unit Gaussians, ``shift`` apart, give."""
    area = float(norm.cdf(shift / np.sqrt(2)))
    wide = 1.1 / np.sqrt(n)
    found = [
        _row(victim, adversary, probe, metric="AUC", value=area, low=area - wide, high=area + wide, control=0.5, n=n)
    ]
    for metric, rate in (("TPR@1%FPR", 0.01), ("TPR@0.1%FPR", 0.001), ("TNR@1%FNR", 0.01)):
        if n * rate < 2:
            note = f"not resolvable: {n // 2} negatives are fewer than {1 / rate:g}"
            found.append(_row(victim, adversary, probe, metric=metric, n=n, note=note))
            continue
        value = float(norm.cdf(norm.ppf(rate) + shift))
        low, high = max(0.0, value - 0.4 * wide), value + 0.5 * wide
        found.append(_row(victim, adversary, probe, metric=metric, value=value, low=low, high=high, n=n))
    value = 2 * area - 1 + 0.02
    found.append(_row(victim, adversary, probe, metric="advantage", value=value, low=value - wide, high=value + wide))
    return found


def _rows() -> list[dict[str, Any]]:
    passive, active, client, public = ("server", False), ("server", True), ("client", False), ("public", False)
    shifts = {"plain": 0.84, "masked": 0.48, "ckks": 0.0, "client-dp": 0.03, "example-dp": 0.1}
    rows: list[dict[str, Any]] = []
    for protection, shift in shifts.items():
        dreaming, averaging = ("codream", protection), ("fedavg", protection)
        if protection == "ckks":
            unseen = {"metric": "AUC", "note": "not in the view: the server holds ciphertexts and no key"}
            rows += [_row(victim, active, _LOGITS, **unseen) for victim in (dreaming, averaging)]
            rows.append(_row(dreaming, passive, _NEAREST, **unseen))
        else:
            rows += _membership(dreaming, active, _LOGITS, shift)
            rows += _membership(averaging, active, _LOGITS, shift + 0.2)
            rows += _membership(dreaming, passive, _NEAREST, 0.01)
            rows += _membership(averaging, passive, _UPDATE, shift + 0.3)
        rows += _membership(dreaming, client, _NEAREST, 0.01, n=160)
        rows += _membership(dreaming, public, _STUDENT, 0.24 if shift > 0.2 or protection == "ckks" else 0.04)
    for seed, value in enumerate((0.2350, 0.2410, 0.2290)):
        error = {"value": value, "low": value - 0.02, "high": value + 0.02, "control": 0.442, "n": 24, "seed": seed}
        rows.append(_row(("codream", "plain"), passive, _LABELS, metric="total variation", **error))
    psnr = {"metric": "PSNR, dB", "value": 24.61, "low": 23.0, "high": 26.2, "control": 13.2, "n": 16}
    rows.append(_row(("fedavg", "plain"), passive, _INVERSION, **psnr))
    rank = {"metric": "rank 1 of 100", "value": 0.94, "low": 0.70, "high": 1.0, "control": 0.01, "n": 16}
    rows.append(_row(("fedavg", "plain"), passive, _INVERSION, **rank))
    weak = {"value": 9.8, "low": 9.1, "high": 10.6, "control": 13.2}
    rows.append(_row(("fedavg", "masked"), passive, _INVERSION, **psnr | weak))
    return rows


def _rocs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("method", "protection", "adversary", "active", "probe")
    rates = np.concatenate([[0.0], np.geomspace(1 / 400, 1, 120)])
    found = []
    for row in rows:
        if row["metric"] != "AUC" or row["value"] is None:
            continue
        curve = norm.cdf(norm.ppf(rates) + np.sqrt(2) * norm.ppf(row["value"]))
        half = row["n"] // 2
        sides = {"members": half, "nonmembers": half}
        found.append(
            {key: row[key] for key in keys}
            | {"fpr": rates.tolist(), "tpr": (np.round(curve * half) / half).tolist()}
            | sides
        )
    return found


def png(pixels: np.ndarray) -> str:
    """Grey levels in [0, 1], height by width."""
    stream = io.BytesIO()
    Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _pictures() -> list[dict[str, Any]]:
    digits, draw = load_digits().images / 16, np.random.default_rng(0)
    key = {"adversary": "server", "active": False, "probe": _INVERSION, "metric": "PSNR, dB"}
    found = []
    for index, (protection, value, noise) in enumerate(
        (("plain", 24.61, 0.06), ("masked", 9.8, 0.9), ("plain", 21.0, 0.1))
    ):
        images = {
            "target": png(digits[index]),
            "reconstruction": png(digits[index] + noise * draw.standard_normal((8, 8))),
            "control": png(digits[index + 10]),
        }
        caption = "Control: the nearest of 100 held-out images, 13.2 dB. Rank 1 of 100."
        found.append(
            {"method": "fedavg", "protection": protection, **key, "value": value, "caption": caption, **images}
        )
    return found


def _epsilons() -> list[dict[str, Any]]:
    def statement(unit: PrivacyUnit, epsilon: float) -> dict[str, Any]:
        return PrivacyStatement(
            unit=unit,
            adjacency=Adjacency.ADD_REMOVE,
            epsilon=epsilon,
            delta=1e-5,
            adversary=Adversary.SUM_SERVER,
            accountant=Accountant.PLD,
            releases=("dream gradients", "soft labels"),
        ).to_json()

    common = {"method": "codream", "adversary": "server", "probe": "one-run audit", "confidence": 0.95, "n": 1000}
    return [
        common
        | {"protection": "client-dp", "lower": 0.31, "ceiling": 6.45, "ledger": statement(PrivacyUnit.CLIENT, 4.0)}
        | {"violated": False, "text": "Canaries were drawn at random."},
        common
        | {"protection": "example-dp", "lower": 2.17, "ceiling": 6.45, "ledger": statement(PrivacyUnit.EXAMPLE, 1.5)}
        | {"violated": True, "text": "The noise of one layer was left out."},
        common
        | {"protection": "plain", "lower": 3.9, "ceiling": 6.45, "ledger": statement(PrivacyUnit.CLIENT, float("inf"))}
        | {"violated": False, "text": ""},
        common | {"protection": "masked", "lower": 1.8, "ceiling": 6.45, "ledger": None, "violated": False, "text": ""},
    ]


def _threats() -> dict[str, dict[str, str]]:
    parties = ("passive_server", "active_server", "clients", "collusion", "dropouts")
    models = {name: make_protocol(name).threat_model for name in ("plain", "masked", "ckks")}
    found = {name: {party: getattr(model, party) for party in parties} for name, model in models.items()}
    return found | {"client-dp": found["plain"], "example-dp": found["plain"]}


def _victims() -> list[dict[str, Any]]:
    return [
        {"method": method, "protection": protection, "clients": 4, "rounds": rounds, "images": 400}
        | {"train_accuracy": [train, 0.001], "test_accuracy": [test, 0.006], "trials": 16}
        for method, rounds, train, test in (("codream", 5, 0.999, 0.958), ("fedavg", 5, 1.0, 0.971))
        for protection in ("plain", "masked", "ckks", "client-dp")
    ] + [
        {"method": method, "protection": "example-dp", "clients": 4, "rounds": rounds, "images": 400}
        | {"train_accuracy": [0.81, 0.02], "test_accuracy": [0.80, 0.02], "trials": 16}
        for method, rounds in (("codream", 5), ("fedavg", 3))
    ]


def _build() -> Audit:
    rows, draw = _rows(), np.random.default_rng(1)
    dreams = [
        {"method": "codream", "protection": protection, "image": png(draw.random((16, 64)))}
        for protection in ("plain", "client-dp")
    ]
    checks = [
        ("blind classifier", True, "AUC 0.503 (0.468 to 0.537) without any model"),
        ("reference counts", True, "7 inside and 7 outside for each candidate"),
        ("victims overfit", False, "example-dp: training 0.81, test 0.80: membership cannot show"),
        ("duplicates across the split", True, "none"),
    ]
    return {
        "version": 1,
        "title": "Privacy audit of codream and fedavg on digits",
        "command": "codream-secure audit --config audit.toml --trials 16 --out runs/audit",
        "config": '[data]\nsource = "digits"\nclients = 4\n\n[dreaming]\nsteps = 20\n',
        "environment": {
            "python": "3.11.2",
            "platform": "Linux-6.1-x86_64",
            "processor": "Example CPU @ 2.40GHz",
            "cores": 2,
            "torch_threads": 1,
            "device": "cpu",
            "commit": "18d21d86c1fa",
            "packages": {"torch": "2.13.0", "numpy": "2.3.1", "tenseal": None},
        },
        "commit": "18d21d86c1fa",
        "seeds": [0, 1, 2],
        "adversaries": ["server", "client", "public"],
        "active": True,
        "valid": False,
        "seconds": 1534.2,
        "rows": rows,
        "checks": [{"name": name, "passed": passed, "detail": detail} for name, passed, detail in checks],
        "victims": _victims(),
        "rocs": _rocs(rows),
        "pictures": _pictures(),
        "dreams": dreams,
        "epsilons": _epsilons(),
        "threats": _threats(),
    }


@pytest.fixture(scope="session")
def built_audit() -> Audit:
    """The whole audit, to be left as it is."""
    return _build()


@pytest.fixture
def audit(built_audit: Audit) -> Audit:
    """The whole audit, to be changed at will."""
    return copy.deepcopy(built_audit)


@pytest.fixture
def valid_audit(audit: Audit) -> Audit:
    """The same with every check passed and no claim refuted."""
    for check in audit["checks"]:
        check["passed"] = True
    audit["epsilons"] = [part for part in audit["epsilons"] if not part["violated"]]
    return audit | {"valid": True}


@pytest.fixture
def empty_audit(audit: Audit) -> Audit:
    """Nothing but what has to be there."""
    lists = ("rows", "checks", "victims", "rocs", "pictures", "dreams", "epsilons", "seeds", "adversaries")
    return audit | {name: [] for name in lists} | {"threats": {}, "environment": {}, "command": "", "commit": None}


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """A row of the plain method against a passive server, changed by keywords."""

    def make(**changes: Any) -> dict[str, Any]:
        figures = {"metric": "AUC", "value": 0.6, "low": 0.55, "high": 0.65}
        return _row(("codream", "plain"), ("server", False), "a probe", **figures) | changes

    return make
