"""The files: which vectors each holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import encrypted, plans, primitives, wire
from .encrypted import EncryptedRecording
from .rounds import Plan, Recording

Case = dict[str, Any]

_FILES: dict[str, tuple[str, Callable[[], list[Case]]]] = {
    "encoding.json": ("Fixed-point encoding into the ring, and back.", primitives.encodings),
    "frames.json": ("Frames of every message; other spellings that are read; frames that are refused.", wire.frames),
    "bindings.json": (
        "Digests of terms, rosters and sessions, what is signed, and pairs of keys.",
        primitives.bindings,
    ),
    "masks.json": ("Keys of masks, keystreams, and masks added to vectors.", primitives.masks),
    "graphs.json": ("Thresholds, and neighbours where not everybody is everybody's.", primitives.graphs),
    "sharing.json": ("Shares of secrets, commitments, backups and parcels.", primitives.sharing),
    "ciphertexts.json": (
        "Parameters of ciphertexts, packing, what SEAL makes of seeds, and linear tags.",
        encrypted.ciphertexts,
    ),
} | {
    f"round_{plan.name}.json": (f"{about} All messages and private inputs.", lambda plan=plan: [_recorded(plan)])
    for plan, about in plans.PLANS
}


def _recorded(plan: Plan) -> Case:
    return (Recording if plan.protocol in ("plain", "masked") else EncryptedRecording)(plan).run()


def write(folder: Path) -> None:
    """Write all files."""
    for name, (about, make) in _FILES.items():
        content = {"about": about, "made_by": "tests/vectors/make_vectors.py", "cases": make()}
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
