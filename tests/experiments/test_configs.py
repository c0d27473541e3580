"""Every configuration that the project ships can be read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from codream_secure.config import load_config
from codream_secure.methods import METHODS, find_method
from experiments.variants import load_variants

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    [*(ROOT / "experiments" / "configs").glob("*.toml"), *(ROOT / "codream_secure" / "presets").glob("*.toml")]
)
VARIANTS = [path for path in FILES if "variants" in tomllib.loads(path.read_text(encoding="utf-8"))]


def test_both_kinds_are_found() -> None:
    assert {path.parent.name for path in FILES} == {"configs", "presets"}
    assert 0 < len(VARIANTS) < len(FILES)


@pytest.mark.parametrize("path", [path for path in FILES if path not in VARIANTS], ids=lambda path: path.stem)
def test_configurations_are_valid(path: Path) -> None:
    config = load_config(path)
    assert any(find_method(name).obstacle(config) is None for name in METHODS)


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_variants_are_valid_and_differ(path: Path) -> None:
    variants, reference = load_variants(path)
    assert reference is None or reference in variants
    texts = {name: config.to_toml() for name, config in variants.items()}
    assert len(set(texts.values())) == len(texts), "two variants are the same configuration"
    for config in variants.values():
        assert find_method(config.method).obstacle(config) is None
