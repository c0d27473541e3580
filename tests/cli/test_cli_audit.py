"""``codream-secure audit``: its files, its exit codes, and what it refuses before it trains anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import attacks.auditing.run
from attacks.auditing.epsilons import entry
from attacks.auditing.findings import Findings
from attacks.empirical import EpsilonBound
from attacks.report import check_audit
from attacks.rows import Check, Row
from codream_secure.privacy import Accountant, Adjacency, Adversary, PrivacyStatement, PrivacyUnit

TINY = (
    "data.samples_per_client=20",
    "data.clients=2",
    "local.warmup_epochs=2",
    "local.epochs=1",
    "run.rounds=1",
    "dreaming.steps=2",
    "dreaming.images=16",
    "distillation.epochs=1",
    "distillation.cutmix=0",
)
ROW = {
    *("method", "protection", "adversary", "active", "probe", "metric", "value", "low", "high"),
    *("control", "n", "seed", "assumptions", "note"),
}


Audit = Callable[..., Any]


@pytest.fixture
def audit(command: Callable[..., Any]) -> Audit:
    """Run ``codream-secure audit`` with these arguments, in this process."""
    return partial(command, "audit")


def overrides() -> list[str]:
    return [part for each in TINY for part in ("--set", each)]


def findings(*, passed: bool = True, lower: float = 0.2) -> Findings:
    """What an audit found whose ledger claims an epsilon of 1."""
    claim = PrivacyStatement(
        unit=PrivacyUnit.CLIENT,
        adjacency=Adjacency.ADD_REMOVE,
        epsilon=1.0,
        delta=1e-3,
        adversary=Adversary.SUM_SERVER,
        accountant=Accountant.PLD,
        releases=("dream_updates",),
    )
    line = entry(
        EpsilonBound(lower=lower, ceiling=3.0, confidence=0.95, method="test", n=100),
        claim,
        method="codream",
        protection="client-dp",
        adversary="server",
        probe="presence",
        unit=PrivacyUnit.CLIENT,
    )
    row = Row(
        method="codream",
        protection="plain",
        adversary="server",
        active=False,
        probe="weights sent, LiRA",
        metric="AUC",
        value=0.5,
        low=0.4,
        high=0.6,
        control=0.5,
        n=100,
    )
    return Findings(rows=[row], checks=[Check(name="a check", passed=passed, detail="in figures")], epsilons=[line])


class Stub:
    """Stands in for the audit of one seed, and keeps what it was called with."""

    def __init__(self, found: Findings) -> None:
        self.found = found
        self.calls: list[dict[str, Any]] = []

    def __call__(self, config: object, **arguments: Any) -> Findings:
        self.calls.append({"config": config, **arguments})
        return self.found


def stubbed(monkeypatch: pytest.MonkeyPatch, found: Findings | None = None) -> Stub:
    stub = Stub(found or findings())
    monkeypatch.setattr(attacks.auditing.run, "audit_seed", stub)
    return stub


@pytest.mark.parametrize(
    ("passed", "lower", "code"),
    [(True, 0.2, 0), (True, 1.5, 5), (False, 0.2, 6), (False, 1.5, 5)],
    ids=["valid", "refuted", "invalid", "refuted and invalid"],
)
def test_the_exit_code_tells_a_refuted_claim_from_an_invalid_audit(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passed: bool, lower: float, code: int
) -> None:
    stubbed(monkeypatch, findings(passed=passed, lower=lower))
    done = audit("--json", tmp_path / "audit.json")
    assert done.code == code
    # The results are there all the same.
    audited = json.loads((tmp_path / "audit.json").read_text())
    assert audited["valid"] is passed
    assert audited["epsilons"][0]["violated"] is (lower > 1)


def test_options_reach_the_audit_of_every_seed(audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = stubbed(monkeypatch)
    done = audit(
        *("--adversary", "server, public", "--passive", "--protections", "plain,bfv", "--seeds", 2, "--trials", 8),
        *("--workers", 1, "--set", "run.seed=3", "--json", tmp_path / "a.json", "--quick"),
    )
    assert done.code == 0
    assert [call["seed"] for call in stub.calls] == [3, 4]
    for call in stub.calls:
        assert call["protections"] == ["plain", "bfv"]
        assert call["adversaries"] == ["server", "public"]
        assert call["active"] is False
        assert call["workers"] == 1
        assert (call["size"].trials, call["size"].pictures) == (8, 1)
        assert not any(probe.active or probe.adversary == "client" for probe in call["probes"])
        assert call["cache"] is None
    audited = json.loads((tmp_path / "a.json").read_text())
    assert (audited["seeds"], audited["active"], audited["adversaries"]) == ([3, 4], False, ["server", "public"])
    assert "--adversary 'server, public'" in audited["command"]
    assert [check["name"] for check in audited["checks"]] == ["a check, seed 3", "a check, seed 4"]


def test_out_holds_the_document_and_its_page_and_federations_are_kept_there(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = stubbed(monkeypatch)
    out = tmp_path / "deep" / "audit"
    done = audit("--out", out, "--json", tmp_path / "copy.json")
    assert done.code == 0
    assert stub.calls[0]["cache"] == out / "federations"
    assert (out / "audit.json").read_bytes() == (tmp_path / "copy.json").read_bytes()
    assert "<html" in (out / "audit.html").read_text(encoding="utf-8")
    assert f"report: {out / 'audit.html'}" in done.out


def test_every_probe_check_and_bound_is_printed_when_asked_for_alone(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stubbed(monkeypatch)
    brief, full = audit("--json", tmp_path / "a.json"), audit("--json", tmp_path / "b.json", "--details")
    assert (brief.code, full.code) == (0, 0)
    for out in (brief.out, full.out):
        assert "At a glance" in out
        assert "In plain words" in out
    for words in ("a check", "the attack shows that epsilon is at least 0.20"):
        assert words not in " ".join(brief.out.split())
        assert words in " ".join(full.out.split())
    audited = [json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json")]
    assert audited[0]["rows"] == audited[1]["rows"]


def test_a_failed_check_is_printed_without_being_asked_for(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    stubbed(monkeypatch, findings(passed=False))
    done = audit()
    assert done.code == 6
    assert "a check FAILED in figures" in " ".join(done.out.split())


def test_a_configuration_or_the_directory_of_a_run_is_audited(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = stubbed(monkeypatch)
    (tmp_path / "config.toml").write_text("[data]\nclients = 3\n")
    for path in (tmp_path, tmp_path / "config.toml"):
        assert audit(path).code == 0
    assert [call["config"].data.clients for call in stub.calls] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--adversary", "sever"), "--adversary 'sever' is unknown: choose among server, client, public"),
        (("--adversary", "server,eavesdropper"), "'eavesdropper'"),
        (("--probes", "magic"), "probe 'magic' is unknown: choose among weights sent"),
        (("--probes", "labels of named dreams", "--passive"), "no probe is left"),
        (("--protections", "mask"), "protection 'mask' is unknown: choose among"),
        (("--trials", "7"), "trials is 7: give an even number"),
        (("--trials", "4"), "--trials"),
        (("--seeds", "0"), "--seeds"),
        (("--workers", "0"), "--workers"),
        (("--set", "run.rounds=0"), "run.rounds is 0"),
        (("--set", "method=isolated"), "method is 'isolated'"),
        (("missing.toml",), "missing.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_arguments_that_cannot_work_are_named(
    audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def forbidden(*arguments: object, **named: object) -> None:
        raise AssertionError("federations were trained before arguments were looked at")

    monkeypatch.setattr(attacks.auditing.run, "train_trials", forbidden)
    done = audit(*arguments, "--workers", "1") if "--workers" not in arguments else audit(*arguments)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "adversaries", [("client", "public"), pytest.param(("server",), marks=pytest.mark.slow)], ids=" and ".join
)
def test_a_real_audit_of_victims_that_have_not_learnt_is_written_and_called_invalid(
    audit: Audit, tmp_path: Path, adversaries: tuple[str, ...]
) -> None:
    """The server also tries to reconstruct images, which takes a minute."""
    out = tmp_path / "audit"
    done = audit(
        *overrides(),
        *("--protections", "plain,masked", "--adversary", ",".join(adversaries), "--passive"),
        *("--trials", 6, "--workers", 1, "--out", out, "--json", tmp_path / "copy.json"),
    )
    assert done.code == 6
    audited = json.loads((out / "audit.json").read_text())
    assert audited == json.loads((tmp_path / "copy.json").read_text())
    assert check_audit(audited) == audited
    assert audited["valid"] is False
    assert {row["adversary"] for row in audited["rows"]} == set(adversaries)
    checks = {check["name"]: check["passed"] for check in audited["checks"]}
    assert not checks["victims have learnt (fedavg)"]
    assert not checks["victims have learnt (codream)"]
    assert checks["reference models"]
    assert all(
        checks[f"server's view ({arm}, {name})"] for arm in ("fedavg", "codream") for name in ("plain", "masked")
    )
    assert all(set(check) == {"name", "passed", "detail"} for check in audited["checks"])
    assert all(set(row) == ROW for row in audited["rows"])
    assert {(row["method"], row["protection"]) for row in audited["rows"]} == {
        (method, protection) for method in ("fedavg", "codream") for protection in ("plain", "masked")
    }
    assert not any(row["active"] for row in audited["rows"])
    assert all(row["assumptions"] for row in audited["rows"])
    assert all(row["value"] is not None or row["note"] for row in audited["rows"])
    assert all(row["seed"] == 0 for row in audited["rows"])
    assert bool(audited["pictures"]) == ("server" in adversaries)
    assert "not valid" in done.out
    assert "not valid" in (out / "audit.html").read_text(encoding="utf-8")
    assert list((out / "federations").iterdir())
