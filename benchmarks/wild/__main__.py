"""Run official training scripts as they are, with each fusion and seed, each in a process of its own.

    python benchmarks/wild --clones FOLDER --data iemocap.npz --json R.json [--only mmgcn,sdt] [--fusions none,lmam]
        [--seeds 1] [--epochs 1] [--jobs 2] [--limit 600]
    python benchmarks/wild --page R.json [--into docs/wild.md]

FOLDER holds a clone of each repository, named OWNER+NAME, at the commit that `scripts.toml` names; every run works in a copy.
Runs that R.json holds already are not repeated.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder: its modules' names must not hide those of a script.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":
    from wild import study

    sys.exit(study.main(__doc__))
