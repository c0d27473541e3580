"""Who may import whom: protocols <- codream_secure <- attacks <- experiments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("protocols", "codream_secure", "attacks", "experiments")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in (ROOT / layer).rglob("*.py"):
        assert not imports(path) & above, f"{path.relative_to(ROOT)} imports a layer above it"


@pytest.mark.parametrize("layer", LAYERS)
def test_every_package_is_typed(layer: str) -> None:
    assert (ROOT / layer / "py.typed").exists()


def test_modules_stay_small() -> None:
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            length = len(path.read_text(encoding="utf-8").splitlines())
            assert length <= 400, f"{path.relative_to(ROOT)} has {length} lines: split it by concept"
