"""Write the test vectors: ``python tests/vectors/make_vectors.py [FOLDER]``.

Made with the protocol's own code, its randomness replaced by a seeded stream; the same bytes every time. What checks
them, ``independent/``, shares no code with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write all files into the folder of this script, or the one that is named."""
    sys.path.insert(0, str(HERE.parents[1]))  # the package beside these vectors, whichever is installed
    from generator.files import write

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)


if __name__ == "__main__":
    main()
