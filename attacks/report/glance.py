"""One figure for each probe and victim, and a sign wherever another figure of that probe shows more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from attacks.report.findings import Finding, Row, chance, finding, metric_order
from attacks.report.matrix import Block, Victim, arrange, means_of_seeds, victims_of

CANARIES = "mislabelled canaries"
# How members are scored, the stronger one first; the names that an audit gives its rows.
_SCORES = ("LiRA", "threshold")
_TAILS = ("TPR@", "TNR@", "advantage")


class Kind(Enum):
    """What a probe is after."""

    MEMBERS = "which images were trained on"
    IMAGES = "what private images look like"
    LABELS = "which labels a client holds"
    OTHER = "what else its probes look for"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One probe against one victim.

    Attributes:
        headline: what is shown; several rows where several seeds have no mean.
        main: the headline, and other metrics that speak of all candidates, such as a rank beside a PSNR.
        rest: every other row of the probe, whatever its score, metric, candidates or seed.
    """

    headline: tuple[Row, ...]
    main: tuple[Row, ...]
    rest: tuple[Row, ...]

    @property
    def leaks(self) -> bool:
        """Whether the headline itself is above chance."""
        return _count(self.headline, Finding.ABOVE) > 0

    @property
    def above(self) -> int:
        """How many of the other figures are above chance."""
        return _count(self.rest, Finding.ABOVE)

    @property
    def below(self) -> int:
        """How many of the other figures are below chance, so that their reverse would tell."""
        return _count(self.rest, Finding.BELOW)

    @property
    def judged(self) -> int:
        """How many of the other figures were compared with chance or a control."""
        return _count(self.rest, Finding.ABOVE, Finding.BELOW, Finding.INDISTINCT)

    @property
    def understated(self) -> bool:
        """Whether who reads the headline alone takes the probe for weaker than its other figures show it to be."""
        return not self.leaks and self.above + self.below > 0


@dataclass(frozen=True, kw_only=True)
class ProbeLine:
    """One probe: its name without score and candidates, what the headline is, and a cell for each victim tried."""

    probe: str
    score: str
    metric: str
    cells: Mapping[Victim, Cell]

    @property
    def guess(self) -> float | None:
        """What chance or the control reaches, where that is the same in every cell."""
        found = {chance(row) for cell in self.cells.values() for row in cell.headline if row["value"] is not None}
        return next(iter(found)) if len(found) == 1 else None

    def own(self, row: Row) -> str:
        """What a headline is, where this victim has none of the line's own kind."""
        score = _split(row["probe"])[1]
        only = f", {CANARIES}" if is_canary(row) else ""
        name = named(score, row["metric"]) + only
        return "" if name == named(self.score, self.metric) else name

    @property
    def kind(self) -> Kind:
        """What the probe is after, by its headline's metric."""
        if self.metric == "AUC" or self.metric.startswith(_TAILS):
            return Kind.MEMBERS
        if self.metric.startswith(("PSNR", "SSIM", "rank 1 of ")):
            return Kind.IMAGES
        return Kind.LABELS if self.metric == "total variation" else Kind.OTHER


@dataclass(frozen=True, kw_only=True)
class Part:
    """All probes of one adversary."""

    title: str
    lines: tuple[ProbeLine, ...]


@dataclass(frozen=True, kw_only=True)
class Glance:
    """Probes by adversary, and the victims that stand beside each other."""

    victims: tuple[Victim, ...]
    parts: tuple[Part, ...]

    def of(self, victims: Sequence[Victim]) -> Glance:
        """Only these victims, and the probes that were tried on any of them."""
        kept = (
            (part.title, tuple(line for line in part.lines if not line.cells.keys().isdisjoint(victims)))
            for part in self.parts
        )
        return Glance(
            victims=tuple(victims), parts=tuple(Part(title=title, lines=lines) for title, lines in kept if lines)
        )


def at_a_glance(rows: Sequence[Row]) -> Glance:
    """One line for each adversary and probe; what a probe is scored by, and on which candidates, is one line."""
    parts = (
        Part(title=block.title, lines=_lines([row for row in rows if _is_of(row, block)])) for block in arrange(rows)
    )
    return Glance(victims=victims_of(rows), parts=tuple(parts))


def base(probe: str) -> str:
    """The name of a probe without how it is scored and on which candidates.

    >>> base("weights sent, LiRA"), base("weights sent, threshold, mislabelled canaries"), base("imprint, 8 bins")
    ('weights sent', 'weights sent', 'imprint, 8 bins')
    """
    return _split(probe)[0]


def named(score: str, metric: str) -> str:
    """A metric by how members are scored.

    >>> named("LiRA", "AUC"), named("", "PSNR, dB")
    ('AUC by LiRA', 'PSNR, dB')
    """
    return f"{metric} by {score}" if score else metric


def is_canary(row: Row) -> bool:
    """Whether a row is about images with wrong labels alone."""
    return _split(row["probe"])[2]


def _split(probe: str) -> tuple[str, str, bool]:
    """Name, score and whether only canaries were looked at."""
    whole = probe.removesuffix(f", {CANARIES}")
    score = next((score for score in _SCORES if whole.endswith(f", {score}")), "")
    return whole.removesuffix(f", {score}") if score else whole, score, whole != probe


def _is_of(row: Row, block: Block) -> bool:
    return (row["adversary"], row["active"]) == (block.adversary, block.active)


def _lines(rows: Sequence[Row]) -> tuple[ProbeLine, ...]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(base(row["probe"]), []).append(row)
    return tuple(_line(probe, group) for probe, group in groups.items())


def _line(probe: str, rows: Sequence[Row]) -> ProbeLine:
    first = min(rows, key=_rank)
    cells: dict[Victim, list[Row]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["protection"]), []).append(row)
    return ProbeLine(
        probe=probe,
        score=_split(first["probe"])[1],
        metric=first["metric"],
        cells={victim: _cell(found) for victim, found in cells.items()},
    )


def _cell(rows: Sequence[Row]) -> Cell:
    pooled = means_of_seeds(rows)
    first = min(pooled, key=_rank)
    main = [row for row in pooled if row["probe"] == first["probe"] and not row["metric"].startswith(_TAILS)]
    headline = [row for row in pooled if (row["probe"], row["metric"]) == (first["probe"], first["metric"])]
    shown = {id(row) for row in headline}
    return Cell(
        headline=tuple(headline),
        main=tuple(main or headline),
        rest=tuple(row for row in rows if id(row) not in shown),
    )


def _rank(row: Row) -> tuple[object, ...]:
    """Sorts rows of a probe: all candidates before a few, the strongest score first, then by metric."""
    _, score, canary = _split(row["probe"])
    return canary, _SCORES.index(score) if score else -1, metric_order(row["metric"])


def _count(rows: Iterable[Row], *wanted: Finding) -> int:
    return sum(finding(row) in wanted for row in rows)
