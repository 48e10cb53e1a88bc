"""Run the builders, each in a process of its own, and print one table.

    python benchmarks/repositories --clones FOLDER [--only mmgcn,misa] [--fusions lmam,gated] [--alone] [--json FILE]

FOLDER holds a clone of each repository, named OWNER+NAME, at the commit that the builder names.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder: its modules' names must not hide those of a repository.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":
    from repositories import table

    sys.exit(table.main())
