"""The package stands alone: anybody's federated system can use it without this one's models."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import protocols

FOLDER = Path(protocols.__file__).parent
ALLOWED = {*sys.stdlib_module_names, "numpy", "cryptography", "msgspec", "protocols"}
SEAL = {"tenseal", "_sealapi_cpp", "zstandard"}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_what_the_package_may_know(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add((node.module or "").split(".")[0])
    assert found <= (ALLOWED | SEAL if path.stem == "seal" else ALLOWED)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_a_machine_touches_no_socket_thread_or_random_module(path: Path) -> None:
    """Secrets come from the operating system: ``random`` is nowhere, and NumPy's generators only round values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not names & {"socket", "ssl", "asyncio", "threading", "multiprocessing", "random", "secrets", "subprocess"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert path.stem == "encoding" or not used & {"default_rng", "Generator", "RandomState"}
    # Costs are measured, and so is which implementation of a keystream is the faster; nothing waits or expires.
    assert path.stem in ("costs", "masks") or "time" not in names


@pytest.mark.parametrize("kind", ["homomorphic", "other"])
def test_a_whole_round_runs_without_models_or_torch(kind: str) -> None:
    """In a process of its own, since this one has torch loaded. TenSEAL is there for homomorphic sums alone."""
    program = f"""
import sys
import numpy
import protocols
terms = protocols.Terms(streams={{"gradients": protocols.FixedPoint(clip=1.0, clients=3)}}, steps=1)
rounds = 0
for name in protocols.available_protocols():
    protocol = protocols.make_protocol(name)
    if ("homomorphic" in type(protocol).__module__) == ({kind!r} == "homomorphic"):
        cohort = protocols.Simulation(protocol, range(3), terms=terms)
        cohort.open()
        cohort.sum({{member: numpy.ones(2) for member in range(3)}}, stream="gradients")
        rounds += 1
assert rounds > 1
print(*sorted({{module.split(".")[0] for module in sys.modules}}))
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "protocols" in loaded
    assert not {"torch", "torchvision", "codream_secure", "attacks", "experiments", "opacus"} & set(loaded)
    assert ("tenseal" in loaded) == (kind == "homomorphic")


def test_everything_that_is_public_is_there() -> None:
    assert sorted(protocols.__all__, key=lambda name: (not name.isupper(), name)) == protocols.__all__
    for name in protocols.__all__:
        assert getattr(protocols, name) is not None
