"""What 200 installed plugins cost: a fresh process each, less a bare interpreter; and that one broken and one colliding
plugin among them are reported while the rest works.

    python benchmarks/plugins.py [--count 200] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODULE = """
import fusionzoo
from fusionzoo.fusion import Fused, Fusion


class Sum(Fusion):
    def __init__(self, dims, out_dim=None, *, missing="zero"):
        super().__init__(dims, out_dim, missing=missing)
        import torch

        self.project = torch.nn.ModuleList(torch.nn.Linear(d, self.out_dim) for d in self.dims.values())

    def combine(self, streams):
        return Fused(sum(p(x) for p, x in zip(self.project, streams.x)))


fusionzoo_register = fusionzoo.plugin(Sum, summary="a sum")
"""

CASES = {
    "import fusionzoo": "import fusionzoo",
    "fusionzoo.names()": "import fusionzoo; fusionzoo.names()",
    "fusionzoo plugins": "from fusionzoo.cli import main; main(['plugins'])",
    "fusionzoo plugins --json": "from fusionzoo.cli import main; main(['plugins', '--json'])",
}


def make_distributions(folder: Path, count: int = 200) -> list[str]:
    """Metadata and modules of `count` distributions with one fusion each, as an installer leaves them; their fusions' names.

    The last one is broken at import, and the last but one offers the first one's name. All modules import torch.
    """
    names = [f"fake-{i:03}" for i in range(count)]
    names[-2] = names[0]
    for i, name in enumerate(names):
        module = f"fusionzoo_fake_{i:03}"
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fusionzoo-fake-{i:03}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fusionzoo.fusions]\n{name} = {module}\n")
        broken = "raise ImportError('the wrong CUDA')" if i == count - 1 else ""
        (folder / f"{module}.py").write_text(broken + MODULE.format(name=name))
    return names


def environment(folder: Path | None) -> dict[str, str]:
    """The environment of a process that sees the distributions in `folder`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FUSIONZOO_")}
    paths = [str(folder)] if folder else []
    return env | {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [env.get("PYTHONPATH")])])}


def median(code: str, repeats: int, env: dict[str, str]) -> float:
    """Seconds of a process that runs `code`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def statuses(env: dict[str, str]) -> dict[str, str]:
    """distribution -> status of every fake plugin, each of them imported."""
    command = [sys.executable, "-W", "ignore", "-m", "fusionzoo", "plugins", "--kind", "fusion", "--long", "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True, text=True, env=env).stdout)
    return {r["distribution"]: r["status"] for r in rows if r["distribution"].startswith("fusionzoo-fake-")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_distributions(folder, options.count)
        many, none = environment(folder), environment(None)
        bare = median("pass", options.repeats, none)
        print(f"bare interpreter {bare * 1e3:.0f} ms; more than that, without and with {options.count} plugins:")
        for name, code in CASES.items():
            without, with_ = (median(code, options.repeats, env) - bare for env in (none, many))
            print(f"  {name:<26}{without * 1e3:6.0f} ms {with_ * 1e3:6.0f} ms")
        found = list(statuses(many).values())
        print("loading them all: " + ", ".join(f"{found.count(s)} {s}" for s in sorted(set(found))))


if __name__ == "__main__":
    main()
