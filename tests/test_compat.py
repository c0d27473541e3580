"""Torchvision imports whether or not its extension loads, and a healthy install is left alone.

What an interpreter has imported cannot be undone, so each case runs in a fresh one: a fork of one that has
imported torch alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

RunFresh = Callable[..., str]
ROOT = Path(__file__).resolve().parents[1]
DECLARE_AND_SHOW = """
    from codream_secure import compat
    print(compat.ensure_torchvision_operators(), hasattr(torch.ops.torchvision, "nms"))
"""


FORKING = """
import json, os, sys, tempfile, traceback
import torch

def run(script, folders):
    sys.path[:0] = folders
    try:
        exec(script, {"__name__": "__main__", "torch": torch})
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)

for line in sys.stdin:
    asked = json.loads(line)
    files = [tempfile.TemporaryFile() for _ in ("out", "err")]
    if (child := os.fork()) == 0:
        for number, file in enumerate(files, start=1):
            os.dup2(file.fileno(), number)
        run(**asked)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for file in files:
        file.seek(0)
        with file:
            said.append(file.read().decode())
    print(json.dumps([code, *said]), flush=True)
"""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[subprocess.Popen[str]]:
    """One that has imported torch and nothing else, and forks for each script it is sent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture
def run_fresh(interpreter: subprocess.Popen[str]) -> RunFresh:
    """What a script prints that runs where only torch has been imported."""

    def run(script: str, *, first_on_path: Path | None = None) -> str:
        assert interpreter.stdin is not None
        assert interpreter.stdout is not None
        asked = {"script": textwrap.dedent(script), "folders": [str(first_on_path)] if first_on_path else []}
        interpreter.stdin.write(json.dumps(asked) + "\n")
        interpreter.stdin.flush()
        code, out, err = json.loads(interpreter.stdout.readline())
        assert code == 0, err
        assert isinstance(out, str)
        return out.strip()

    return run


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """An empty package named torchvision, in which a test places the extension it wants found."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("")
    return package


def test_import_is_usable_lasting_and_done_once(run_fresh: RunFresh) -> None:
    output = run_fresh(
        """
        import gc
        from codream_secure import compat
        torchvision = compat.import_torchvision()
        declared = len(compat._libraries)
        gc.collect()
        import torchvision.datasets, torchvision.transforms
        from torchvision.models import resnet18
        assert torchvision.datasets.MNIST and torchvision.transforms.RandomCrop(4)
        assert hasattr(torch.ops.torchvision, "nms")
        assert compat.ensure_torchvision_operators() == () and compat.import_torchvision() is torchvision
        assert len(compat._libraries) == declared
        print(tuple(resnet18(weights=None).eval()(torch.zeros(1, 3, 32, 32)).shape))
        """
    )
    assert output == "(1, 1000)"


def test_recovers_after_a_failed_import_and_serves_torchmetrics(run_fresh: RunFresh) -> None:
    run_fresh(
        """
        try:
            import torchvision
        except RuntimeError as error:
            assert "torchvision::" in str(error)
        from codream_secure.compat import ensure_torchvision_operators
        ensure_torchvision_operators()
        from torchmetrics.image import StructuralSimilarityIndexMeasure
        import torchvision
        assert StructuralSimilarityIndexMeasure and torchvision.models.resnet18
        """
    )


@pytest.mark.parametrize("present", [("nms",), ("nms", "qnms")])
def test_operators_that_exist_are_not_declared_again(
    present: tuple[str, ...], stand_in: Path, run_fresh: RunFresh
) -> None:
    (stand_in / "_C.so").write_bytes(b"not a library")
    output = run_fresh(
        f"""
        theirs = torch.library.Library("torchvision", "DEF")
        for name in {present!r}:
            theirs.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from codream_secure import compat
        print(*compat.ensure_torchvision_operators())
        """,
        first_on_path=stand_in.parent,
    )
    assert output.split() == [name for name in ("nms", "qnms") if name not in present]


def test_extension_that_loads_is_trusted_to_declare_its_own(stand_in: Path, run_fresh: RunFresh) -> None:
    # Torch's own extension is a library that certainly loads here; it declares no operator of torchvision's.
    (stand_in / "_C.so").symlink_to(Path(torch._C.__file__).resolve())
    assert run_fresh(DECLARE_AND_SHOW, first_on_path=stand_in.parent) == "() False"


def test_extension_that_does_not_load_is_made_up_for(stand_in: Path, run_fresh: RunFresh) -> None:
    (stand_in / "_C.so").write_bytes(b"not a library")
    assert run_fresh(DECLARE_AND_SHOW, first_on_path=stand_in.parent) == "('nms', 'qnms') True"


def test_without_torchvision_nothing_is_declared_and_the_import_error_is_python_s_own(run_fresh: RunFresh) -> None:
    run_fresh(
        """
        import sys
        sys.modules["torchvision"] = None  # Python's own way to mark a module as not importable.
        from codream_secure.compat import ensure_torchvision_operators, import_torchvision
        assert ensure_torchvision_operators() == ()
        try:
            import_torchvision()
        except ImportError:
            pass
        else:
            raise SystemExit("imported a package that is not there")
        """
    )
