"""The audit in plain sentences: what stands out of chance, what does not at this power, and what was never in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attacks.report.comparison import compare, strongest
from attacks.report.findings import Finding, finding
from attacks.report.matrix import Block, Row, Victim, arrange
from attacks.report.numbers import adversary, figure, interval, who
from codream_secure.privacy.statement import PrivacyStatement

CLOSING = (
    "A probe that finds nothing says what this attack, with this power and this n, cannot tell. Another attack, or "
    "more samples, may tell more."
)
_STARTS = {
    Finding.ABOVE: "above chance (at least one interval leaves it out)",
    Finding.BELOW: "below chance (the score points the wrong way, and reversed it would tell)",
    Finding.INDISTINCT: "not distinguishable from chance at this power and n",
    Finding.UNJUDGED: "measured, but without an interval or anything to compare with",
    Finding.UNRESOLVED: "not resolvable, too few samples",
    Finding.UNSEEN: "not in view, so there is nothing to measure",
}
_SELECTED = "chosen in hindsight, so its interval is too narrow"
_PREFERRED = {"AUC": "membership", "PSNR, dB": "reconstruction"}


def verdict(audit: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the figures can be read as results, and a sentence on it. Without a single check they cannot."""
    failed = [check for check in audit["checks"] if not check["passed"]]
    count = len(audit["checks"])
    if failed:
        reasons = "; ".join(
            f"{check['name']} ({check['detail']})" if check["detail"] else check["name"] for check in failed
        )
        return False, f"This audit is not valid, and no figure of it is a result. Failed: {reasons}."
    if not count:
        return False, "This audit is not valid, and no figure of it is a result: no check was made."
    if not audit["valid"]:
        return False, "This audit is not valid, and no figure of it is a result, although no check says why."
    checks = "The one check passed" if count == 1 else f"All {count} checks passed"
    return True, f"{checks}: the figures can be read as measured, which is no statement that nothing leaks."


def summarise(audit: Mapping[str, Any]) -> list[str]:
    """Sentences on the whole audit, the verdict first.

    Args:
        audit: the contents of ``audit.json``, checked.
    """
    blocks = arrange(audit["rows"])
    sentences = [verdict(audit)[1], *_violations(audit["epsilons"])]
    for block in blocks:
        sentences += _of_block(block)
    sentences += _strongest(blocks)
    sentences += compare(blocks, audit["victims"])
    sentences += [epsilon_sentence(part) for part in audit["epsilons"] if not part["violated"]]
    return [*sentences, *_luck(audit["rows"]), CLOSING]


def epsilon_sentence(part: Mapping[str, Any]) -> str:
    """A lower bound with its ceiling, its n and the statement that it tests."""
    bound = (
        f"{who(part)}, {part['adversary']}, {part['probe']}: the attack shows that epsilon is at least "
        f"{part['lower']:.2f} ({100 * part['confidence']:g} % confidence, n = {part['n']}); a perfect attack could "
        f"show {part['ceiling']:.2f} here, so a smaller bound does not mean a smaller epsilon."
    )
    claim = (
        f" The ledger claims: {PrivacyStatement.from_json(part['ledger'])}"
        if part["ledger"] is not None
        else " No ledger claims anything."
    )
    return bound + claim + (f" {part['text']}" if part["text"] else "")


def _luck(rows: Sequence[Row]) -> list[str]:
    tested = sum(finding(row) in (Finding.ABOVE, Finding.BELOW, Finding.INDISTINCT) for row in rows)
    if not tested:
        return []
    return [
        f"Each interval is taken alone, and {tested} were compared with chance. Where nothing leaks, about one in "
        "forty still lies above it."
    ]


def _violations(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"A claim is refuted. {epsilon_sentence(part)}" for part in parts if part["violated"]]


def _of_block(block: Block) -> list[str]:
    """What this adversary tells from chance, what it does not, and what it does not hold."""
    found: dict[Finding, dict[str, list[tuple[Victim, str]]]] = {kind: {} for kind in Finding}
    for probe in dict.fromkeys(line.probe for line in block.lines):
        for victim in block.victims:
            result = _of_probe(block, probe, victim)
            if result:
                found[result[0]].setdefault(probe, []).append((victim, result[1]))
    title = block.title.capitalize()
    return [
        f"{title}, {start}: {'; '.join(f'{probe} on {_joined(results)}' for probe, results in found[kind].items())}."
        for kind, start in _STARTS.items()
        if found[kind]
    ]


def _of_probe(block: Block, probe: str, victim: Victim) -> tuple[Finding, str] | None:
    """One probe against one victim: the first metric above chance, otherwise the first metric that says anything."""
    lines = [line.cells[victim] for line in block.lines if line.probe == probe and victim in line.cells]
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
        return f"{metric} {figure(metric, values[0])} ({f'{between}, ' if between else ''}n = {rows[0]['n']})"
    span = " to ".join(figure(metric, value) for value in (min(values), max(values)))
    count = f", in {kinds.count(wanted)} of {len(rows)}" if kinds.count(wanted) < len(rows) else ""
    return f"{metric} {span} over {len(rows)} seeds{count}"


def _joined(results: Sequence[tuple[Victim, str]]) -> str:
    """Protections under which a method gives the same figures are named together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for (method, protection), words in results:
        alike.setdefault((method, words), []).append(protection)
    return ", ".join(
        f"{method} under {_listed(protections)}{f': {words}' if words else ''}"
        for (method, words), protections in alike.items()
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _strongest(blocks: Sequence[Block]) -> list[str]:
    """For each method its strongest probe of each kind; passive and active adversaries stay apart."""
    sentences = []
    methods = dict.fromkeys(method for block in blocks for method, _ in block.victims)
    for method in methods:
        for active in (False, True):
            for metric, kind in _PREFERRED.items():
                rows = [
                    row
                    for block in blocks
                    if block.active == active
                    for name, protection in block.victims
                    if name == method and (row := strongest(block, name, protection, metric=metric)) is not None
                ]
                if not rows:
                    continue
                best = max(rows, key=lambda row: row["value"])
                between = interval(best)
                sentences.append(
                    f"Strongest {kind} probe of {'an active' if active else 'a passive'} adversary against {method}: "
                    f"{best['probe']} by the {adversary(best)} under {best['protection']}, {metric} "
                    f"{figure(metric, best['value'])}{f' ({between})' if between else ''}, {_SELECTED}."
                )
    return sentences
