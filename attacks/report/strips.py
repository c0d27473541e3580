"""Pictures of an audit: what was reconstructed beside its target and its control, and the dreams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.report.numbers import adversary, figure, measured, who
from codream_secure.report.figures import Picture


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Target, reconstruction and control, in that order, and what they show."""

    title: str
    pictures: tuple[Picture, Picture, Picture]
    measured: str
    caption: str


def strips(parts: Sequence[Mapping[str, Any]]) -> list[Strip]:
    """One strip a reconstruction; a control is an image that the victim never held, as a rule the nearest."""
    return [
        Strip(
            title=f"{who(part)}, {adversary(part)}",
            pictures=(_picture(part, "target"), _picture(part, "reconstruction"), _picture(part, "control")),
            measured=f"{part['probe']}: {measured(part['metric'], figure(part['metric'], part['value']))}",
            caption=part["caption"],
        )
        for part in parts
    ]


def dream_pictures(parts: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """The dreams of each victim."""
    return [Picture(source=_uri(part["image"]), alt=f"Dreams of {who(part)}", caption=who(part)) for part in parts]


def _picture(part: Mapping[str, Any], name: str) -> Picture:
    return Picture(source=_uri(part[name]), alt=f"{name.capitalize()}: {part['probe']}, {who(part)}", caption=name)


def _uri(png: str) -> str:
    return f"data:image/png;base64,{png}"
