"""Check every vector: ``python -m independent``, from the folder of the vectors, or with other folders named."""

from __future__ import annotations

import sys
from pathlib import Path

from .checks import load, recompute


def main() -> int:
    folders = [Path(name) for name in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    wrong = count = 0
    for path in sorted(file for folder in folders for file in folder.glob("*.json")):
        for case in load(path):
            count += 1
            if recompute(case["kind"], case["given"]) != case["expected"]:
                wrong += 1
                print(f"{path.name}: {case['name']} differs")
    print(f"{count} vectors, {wrong} differ")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
