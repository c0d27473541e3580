"""What ``audit.json`` holds, refused where it is not exactly that: a report must not guess what a figure means."""

from __future__ import annotations

import base64
import binascii
import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from codream_secure.errors import ConfigError, PrivacyError
from codream_secure.privacy.statement import PrivacyStatement

VERSION = 1
_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN_FAULTS = 5


def _plain(text: str) -> str:
    """Control characters would reach a terminal as commands."""
    if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in text):
        raise ValueError("holds control characters: write it without them")
    return text


def _png(text: str) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is no base64 ({error})") from None
    if not content.startswith(_PNG):
        raise ValueError("is no PNG: encode the picture as one")
    return text


Words = Annotated[str, AfterValidator(_plain)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
Png = Annotated[str, AfterValidator(_png)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Key(_Part):
    """Of which victim and adversary something was measured."""

    method: Name
    protection: Name
    adversary: Name
    active: bool
    probe: Name


class RowPart(_Key):
    metric: Name
    value: float | None
    low: float | None
    high: float | None
    control: float | None
    n: Annotated[int, Field(ge=0)]
    seed: int | None
    assumptions: Words
    note: Words

    @model_validator(mode="after")
    def _says_why(self) -> RowPart:
        if self.value is None and not self.note.strip():
            raise ValueError("value is null and note is empty: the note has to say why nothing was measured")
        if self.value is None and (self.low is not None or self.high is not None):
            raise ValueError("value is null beside an interval: leave low and high out too")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low}, above high, {self.high}: exchange them")
        return self


class CheckPart(_Part):
    name: Name
    passed: bool
    detail: Words


class VictimPart(_Part):
    method: Name
    protection: Name
    clients: int
    rounds: int
    images: int
    train_accuracy: Spread
    test_accuracy: Spread
    trials: int


class RocPart(_Key):
    fpr: list[Share]
    tpr: list[Share]
    members: Annotated[int, Field(ge=1)]
    nonmembers: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _is_a_curve(self) -> RocPart:
        if len(self.fpr) != len(self.tpr) or len(self.fpr) < 2:
            raise ValueError(
                f"fpr has {len(self.fpr)} points and tpr {len(self.tpr)}: give as many of both, two or more"
            )
        if sorted(self.fpr) != self.fpr or sorted(self.tpr) != self.tpr:
            raise ValueError("fpr or tpr falls along the curve: sort the points")
        return self


class PicturePart(_Key):
    caption: Words
    metric: Name
    value: float
    target: Png
    reconstruction: Png
    control: Png


class DreamPart(_Part):
    method: Name
    protection: Name
    image: Png


class EpsilonPart(_Part):
    method: Name
    protection: Name
    adversary: Name
    probe: Name
    lower: Annotated[float, Field(ge=0)]
    ceiling: Annotated[float, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    n: Annotated[int, Field(ge=1)]
    ledger: dict[str, Any] | None
    violated: bool
    text: Words

    @model_validator(mode="after")
    def _agrees_with_its_ledger(self) -> EpsilonPart:
        try:
            claimed = math.inf if self.ledger is None else PrivacyStatement.from_json(self.ledger).epsilon
        except PrivacyError as error:
            raise ValueError(f"ledger is no privacy statement: {error}") from None
        if self.violated != (self.lower > claimed):
            against = "no ledger" if self.ledger is None else f"the ledger's {claimed:g}"
            raise ValueError(f"violated is {self.violated} for a lower bound of {self.lower:g} against {against}")
        return self


class ThreatPart(_Part):
    passive_server: Words
    active_server: Words
    clients: Words
    collusion: Words
    dropouts: Words
    outsider: Words = ""
    assumes: Words = ""


class AuditPart(_Part):
    """The whole of ``audit.json``."""

    version: int
    title: Name
    command: Words
    config: Words
    environment: dict[str, Any]
    commit: Words | None
    seeds: list[int]
    adversaries: list[Name]
    active: bool
    valid: bool
    seconds: Annotated[float, Field(ge=0)]
    rows: list[RowPart]
    checks: list[CheckPart]
    victims: list[VictimPart]
    rocs: list[RocPart]
    pictures: list[PicturePart]
    dreams: list[DreamPart]
    epsilons: list[EpsilonPart]
    threats: dict[Name, ThreatPart]

    @model_validator(mode="after")
    def _is_as_valid_as_its_checks(self) -> AuditPart:
        failed = [check.name for check in self.checks if not check.passed]
        if self.valid and failed:
            raise ValueError(
                f"valid is true although {', '.join(map(repr, failed))} failed: one failure makes it invalid"
            )
        return self


def check_audit(audit: Mapping[str, Any], *, source: str = "audit") -> dict[str, Any]:
    """A checked copy of the contents of ``audit.json``, as plain values.

    Args:
        audit: the contents.
        source: how messages name them.

    Raises:
        ConfigError: another version, an unknown or missing key, a value of the wrong kind or out of range, a null
            without a reason, or a verdict that contradicts its checks.
    """
    version = audit.get("version") if isinstance(audit, Mapping) else None
    if version != VERSION or isinstance(version, bool):
        found = "is no audit" if version is None else f"is of version {version!r}"
        raise ConfigError(f"{source} {found}: version {VERSION} is needed, run the audit again with this release")
    try:
        return AuditPart.model_validate(dict(audit)).model_dump(exclude_unset=True)
    except ValidationError as error:
        faults = [_fault(part) for part in error.errors(include_url=False, include_input=False)]
        more = len(faults) - _SHOWN_FAULTS
        shown = "; ".join(faults[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        raise ConfigError(f"{source} is damaged: {shown}. Run the audit again") from None


def load_audit(path: Path) -> dict[str, Any]:
    """Read and check ``audit.json``.

    Args:
        path: the file, or the directory that holds it.

    Raises:
        ConfigError: it cannot be read, is no JSON, or :func:`check_audit` refuses it.
    """
    path = Path(path)
    path = path / "audit.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"audit {str(path)!r} cannot be read: {error}") from None
    except ValueError as error:  # of the text encoding or of JSON
        raise ConfigError(f"{str(path)!r} is no JSON ({error}): run the audit again") from None
    return check_audit(found, source=repr(str(path)))


def _fault(part: Mapping[str, Any]) -> str:
    place = ".".join(map(str, part["loc"]))
    message = part["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
