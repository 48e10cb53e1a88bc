"""Which defaults of hosts and trainer: placement and learning rate on `demo`, then on real data, chosen on dev.

    python benchmarks/defaults.py screen                          # demo: hosts x fusions x placements x learning rates
    python benchmarks/defaults.py confirm --data iemocap.npz      # the old and the new defaults, several seeds
    python benchmarks/defaults.py leaderboard                     # demo: hosts x fusions x placements, share of the ceiling
    python benchmarks/defaults.py table                           # the tables again, from the runs that there are

Every run is a folder under `--out` with a `card.json`, which `fusionzoo reproduce` runs again; finished runs are kept, so
that the same command goes on where it stopped. Tables are Markdown, of dev and test weighted F1; what is chosen is chosen on
dev.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fusionzoo
from fusionzoo.runs.config import RunConfig

HOSTS = "bc-lstm,text-cnn,dialogue-gcn"
FUSIONS = "concat,lmam,gated"
RATES = "1e-3,2e-3,4e-3"
#: What the study is told apart by, in the order of the tables.
AXES = ("data", "host", "fusion", "placement", "lr", "set")


def run_grid(
    out: Path,
    data: str,
    hosts: Iterable[str],
    fusions: Sequence[str],
    placements: Iterable[str],
    rates: Iterable[float],
    seeds: int,
    sets: Sequence[str] = (),
) -> None:
    """Train what is not there yet, one comparison for each host, placement and learning rate."""
    for host, placement, lr in itertools.product(hosts, placements, rates):
        if placement not in fusionzoo.card(host, "host").placements:
            continue
        config = RunConfig.from_sources(
            {
                "data": {"source": data},
                "host": {"name": host, "placement": placement},
                "training": {"lr": lr, "checkpoint_every": 1000, "keep": 0},
            },
            sets,
            check=False,
        )
        folder = out / Path(data).stem / ",".join([placement, f"lr={lr:g}", *sets]) / host
        fusionzoo.compare(config, folder, hosts=[host], fusions=fusions, seeds=seeds, jobs=1)


def scores(out: Path) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """(dev, test) weighted F1 of every seed, by `AXES`, from the cards of the runs."""
    found: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for file in sorted(out.rglob("card.json")):
        card: Mapping[str, Any] = json.loads(file.read_text())
        config, said = card["config"], card["scores"]
        key = (
            Path(config["data"]["source"]).stem,
            config["host"]["name"],
            config["fusion"]["name"],
            config["host"]["placement"],
            f"{config['training']['lr']:g}",
            ", ".join(file.parts[-5].split(",")[2:]),
        )
        found[key].append((said["dev"]["weighted_f1"], said["test"]["weighted_f1"]))
    return dict(found)


def table(found: Mapping[tuple[str, ...], Sequence[tuple[float, float]]]) -> str:
    """A Markdown table, a row for each cell."""
    lines = [f"| {' | '.join(AXES)} | n | dev W-F1 | test W-F1 |", "|---" * (len(AXES) + 3) + "|"]
    for key, values in found.items():
        dev, test = (statistics.mean(v[i] for v in values) for i in (0, 1))
        lines.append(f"| {' | '.join(key)} | {len(values)} | {dev:.4f} | {test:.4f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("screen", "confirm", "leaderboard", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--data", default="demo")
    parser.add_argument("--hosts", default=HOSTS)
    parser.add_argument("--fusions", default=FUSIONS)
    parser.add_argument("--placements", default="late,early")
    parser.add_argument("--rates", default=RATES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="sets", help="section.key=value, as of fusionzoo")
    args = parser.parse_args()
    out = args.out / args.what
    if args.what != "table":
        run_grid(
            out,
            args.data,
            args.hosts.split(","),
            args.fusions.split(","),
            args.placements.split(","),
            [float(r) for r in args.rates.split(",")],
            args.seeds,
            args.sets,
        )
    print(table(scores(args.out if args.what == "table" else out)))


if __name__ == "__main__":
    main()
