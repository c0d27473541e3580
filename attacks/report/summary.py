"""The audit in plain sentences: what stands out of chance, what does not at this power, and what was never in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.report.comparison import BASELINE, compare, strongest
from attacks.report.findings import Finding, finding
from attacks.report.matrix import Block, Row, Victim, arrange, means_of_seeds
from attacks.report.numbers import adversary, figure, interval, measured, who
from codream_secure.privacy.statement import PrivacyStatement

_STARTS = {
    Finding.ABOVE: "Above chance (at least one interval leaves it out)",
    Finding.BELOW: "Below chance (the score points the wrong way, and reversed it would tell)",
    Finding.INDISTINCT: "Not distinguishable from chance at this power and n",
    Finding.UNJUDGED: "Measured, but without an interval or anything to compare with",
    Finding.UNRESOLVED: "Not resolvable, too few samples",
    Finding.UNSEEN: "Not in view, so there is nothing to measure",
}
_KINDS = {"AUC": "membership", "PSNR, dB": "reconstruction"}
_CLOSING = (
    "A probe that finds nothing says what this attack, with this power and this n, cannot tell. Another attack, or "
    "more samples, may tell more."
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """Sentences under a title."""

    title: str
    sentences: Sequence[str]


def verdict(audit: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the figures can be read as results, and a sentence on it. Without a single check they cannot."""
    failed = [check for check in audit["checks"] if not check["passed"]]
    count = len(audit["checks"])
    refusal = "This audit is not valid, and no figure of it is a result"
    if failed:
        reasons = [f"{check['name']} ({check['detail']})" if check["detail"] else check["name"] for check in failed]
        return False, f"{refusal}. Failed: {'; '.join(reasons)}."
    if not count:
        return False, f"{refusal}: no check was made."
    if not audit["valid"]:
        return False, f"{refusal}, although no check says why."
    checks = "The one check passed" if count == 1 else f"All {count} checks passed"
    return True, f"{checks}: the figures can be read as measured, which is no statement that nothing leaks."


def summarise(audit: Mapping[str, Any]) -> list[str]:
    """Sentences on the whole audit: the verdict, refuted claims, then the rest, each with the title of its section.

    Args:
        audit: the contents of ``audit.json``, checked.
    """
    refuted = [f"Refuted claim: {epsilon_sentence(part)}" for part in audit["epsilons"] if part["violated"]]
    others = [f"Epsilon: {epsilon_sentence(part)}" for part in audit["epsilons"] if not part["violated"]]
    rest = [f"{section.title}: {sentence}" for section in sections(audit) for sentence in section.sentences]
    return [verdict(audit)[1], *refuted, *others, *rest]


def sections(audit: Mapping[str, Any]) -> list[Section]:
    """What each adversary tells, the strongest probes, methods beside FedAvg, and how to read it; epsilon apart."""
    rows = means_of_seeds(audit["rows"])
    blocks = arrange(rows)
    found = [
        *(Section(title=_capital(block.title), sentences=_of_block(block)) for block in blocks),
        Section(title="Strongest probes", sentences=_strongest(blocks)),
        Section(title=f"Beside {BASELINE}", sentences=compare(blocks, audit["victims"])),
        Section(title="How to read this", sentences=[*_luck(rows), _CLOSING]),
    ]
    return [section for section in found if section.sentences]


def epsilon_sentence(part: Mapping[str, Any]) -> str:
    """A lower bound with its ceiling, its n and the statement that it tests."""
    bound = (
        f"{who(part)}, {part['adversary']}, {part['probe']}: the attack shows that epsilon is at least "
        f"{part['lower']:.2f} ({100 * part['confidence']:g} % confidence, n = {part['n']}); a perfect attack could "
        f"show {part['ceiling']:.2f} here, so a small bound does not mean a small epsilon."
    )
    claim = "No ledger claims anything."
    if part["ledger"] is not None:
        claim = f"The ledger claims: {PrivacyStatement.from_json(part['ledger'])}"
    return " ".join(filter(None, (bound, claim, part["text"])))


def _of_block(block: Block) -> list[str]:
    """What this adversary tells from chance, what it does not, and what it does not hold."""
    found: dict[Finding, dict[str, list[tuple[Victim, str]]]] = {kind: {} for kind in Finding}
    for probe in block.whole.probes:
        for victim in block.whole.victims:
            result = _of_probe(block, probe, victim)
            if result:
                found[result[0]].setdefault(probe, []).append((victim, result[1]))
    return [
        f"{start}: {'; '.join(f'{probe} on {_joined(results)}' for probe, results in found[kind].items())}."
        for kind, start in _STARTS.items()
        if found[kind]
    ]


def _of_probe(block: Block, probe: str, victim: Victim) -> tuple[Finding, str] | None:
    """One probe against one victim: the first metric above chance, otherwise the first metric that says anything."""
    lines = [line.cells[victim] for line in block.whole.probes[probe] if victim in line.cells]
    kinds = [[finding(row) for row in rows] for rows in lines]
    # A weak average may hide a few exposed points, so any metric above chance counts.
    found = ((kind, rows, of_rows) for kind in Finding for rows, of_rows in zip(lines, kinds, strict=True))
    return next(((kind, _words(rows, of_rows, kind)) for kind, rows, of_rows in found if kind in of_rows), None)


def _words(rows: Sequence[Row], kinds: Sequence[Finding], wanted: Finding) -> str:
    metric = rows[0]["metric"]
    values = [row["value"] for row in rows if row["value"] is not None]
    if not values:
        return ""
    if len(rows) == 1:
        between = interval(rows[0])
        within = f"{between}, n = {rows[0]['n']}" if between else f"n = {rows[0]['n']}"
        return f"{measured(metric, figure(metric, values[0]))} ({within})"
    span = " to ".join(figure(metric, value) for value in (min(values), max(values)))
    count = f", so in {kinds.count(wanted)} of them" if kinds.count(wanted) < len(rows) else ""
    return f"{measured(metric, span)} over {len(rows)} seeds{count}"


def _joined(results: Sequence[tuple[Victim, str]]) -> str:
    """Protections under which a method gives the same figures are named together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for (method, protection), words in results:
        alike.setdefault((method, words), []).append(protection)
    return ", ".join(
        f"{method} under {_listed(protections)}{f': {words}' if words else ''}"
        for (method, words), protections in alike.items()
    )


def _strongest(blocks: Sequence[Block]) -> list[str]:
    """A sentence for each method and kind of probe; passive and active adversaries stay apart."""
    methods = dict.fromkeys(method for block in blocks for method, _ in block.whole.victims)
    found = []
    for method in methods:
        for metric, kind in _KINDS.items():
            best = [row for active in (False, True) if (row := _best_of(blocks, method, metric, active=active))]
            if best:
                found.append(f"{kind.capitalize()} against {method}: {'; '.join(map(_said, best))}.")
    if found:
        found.append("These were chosen in hindsight, so their intervals are too narrow.")
    return found


def _best_of(blocks: Sequence[Block], method: str, metric: str, *, active: bool) -> Row | None:
    rows = (
        strongest(block, name, protection, metric=metric)
        for block in blocks
        if block.active == active
        for name, protection in block.whole.victims
        if name == method
    )
    return max((row for row in rows if row), key=lambda row: row["value"], default=None)


def _said(row: Row) -> str:
    between = interval(row)
    shown = measured(row["metric"], figure(row["metric"], row["value"])) + (f" ({between})" if between else "")
    return f"{adversary(row)}, {row['probe']}, under {row['protection']}: {shown}"


def _luck(rows: Sequence[Row]) -> list[str]:
    tested = sum(finding(row) in (Finding.ABOVE, Finding.BELOW, Finding.INDISTINCT) for row in rows)
    if not tested:
        return []
    return [
        f"Each interval is taken alone, and {tested} were compared with chance or a control. Where nothing leaks, "
        "about one in forty still lies above it."
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
