"""What looking costs: a fresh process each, less a bare interpreter.

python benchmarks/import_time.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "import fusionzoo": "import fusionzoo",
    "fusionzoo.names()": "import fusionzoo; fusionzoo.names()",
    "fusionzoo --help": "from fusionzoo.cli import main; main(['--help'])",
    "fusionzoo plugins": "from fusionzoo.cli import main; main(['plugins'])",
    "import torch": "import torch",
}


def median(code: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    bare = median("pass", repeats)
    print(f"bare interpreter     {bare * 1e3:7.0f} ms")
    for name, code in CASES.items():
        print(f"{name:<20} {(median(code, repeats) - bare) * 1e3:7.0f} ms more")


if __name__ == "__main__":
    main()
