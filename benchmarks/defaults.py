"""Where the defaults of hosts and trainer come from: placements and learning rates on `demo`, then on real data.

    python benchmarks/defaults.py [--folder FOLDER] [--only text-cnn] [--set training.epochs=1] [--out runs/defaults] [--table]

Runs `STUDY`, one comparison after another, and prints a Markdown table of dev and test weighted F1; what is chosen is chosen
on dev. Real data are looked for in `--folder`, and left out without it. Every run is a folder with a `card.json`, which
`fusionzoo reproduce` runs again; finished runs are kept, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fusionzoo
from fusionzoo.runs.config import RunConfig


@dataclass(frozen=True)
class Grid:
    """Fusions in one host at one placement, with one learning rate and further settings."""

    data: str
    host: str
    placement: str
    lr: float
    fusions: Sequence[str] = ("concat",)
    sets: Sequence[str] = ()
    seeds: int = 1

    @property
    def folder(self) -> Path:
        """Its place under `--out`."""
        return Path(self.data, self.host, ",".join([self.placement, f"lr={self.lr:g}", *self.sets]))


IEMOCAP, MELD = "iemocap.npz", "meld_textvisual.npz"
PAIRS = ("concat", "gated")
STUDY = [
    # Where the fusion sits and how large the steps are, in the host that is quickest to train.
    Grid("demo", "bc-lstm", "late", 1e-3, ("concat", "lmam", "gated")),
    Grid("demo", "bc-lstm", "late", 2e-3, ("concat", "lmam", "gated")),
    Grid("demo", "bc-lstm", "late", 4e-3, PAIRS),
    Grid("demo", "bc-lstm", "early", 2e-3, PAIRS),
    Grid("demo", "bc-lstm", "early", 4e-3, PAIRS),
    Grid("demo", "bc-lstm", "late-skip", 1e-3, ("concat", "lmam")),
    Grid("demo", "bc-lstm", "late-skip", 1e-3, ("lmam",), ("fusion.interaction=64",)),
    Grid("demo", "bc-lstm", "late-skip", 2e-3, PAIRS),
    Grid("demo", "dialogue-gcn", "early", 2e-3, PAIRS),
    Grid("demo", "text-cnn", "late", 1e-3),
    Grid("demo", "text-cnn", "late", 2e-3),
    # On real data.
    Grid(IEMOCAP, "bc-lstm", "late", 2e-3, ("concat",), seeds=2),
    Grid(IEMOCAP, "bc-lstm", "late", 2e-3, ("gated",)),
    Grid(IEMOCAP, "bc-lstm", "early", 2e-3, PAIRS),
    Grid(IEMOCAP, "bc-lstm", "early", 2e-3, ("concat",), ("host.fusion_width=100",)),
    Grid(IEMOCAP, "bc-lstm", "early", 2e-3, ("concat",), ("host.input_dropout=0.5",)),
    Grid(IEMOCAP, "bc-lstm", "late-skip", 1e-3),
    Grid(IEMOCAP, "bc-lstm", "late-skip", 2e-3, seeds=2),
    Grid(IEMOCAP, "dialogue-gcn", "early", 2e-3, PAIRS),
    Grid(MELD, "bc-lstm", "late", 2e-3),
    Grid(MELD, "bc-lstm", "late-skip", 2e-3),
]


def run(grid: Grid, out: Path, data: str, sets: Sequence[str]) -> None:
    """Train what is not there yet."""
    config = RunConfig.from_sources(
        {
            "data": {"source": data},
            "host": {"name": grid.host, "placement": grid.placement},
            "training": {"lr": grid.lr, "checkpoint_every": 1000, "keep": 0},
        },
        [*grid.sets, *sets],
        check=False,
    )
    fusionzoo.compare(
        config, out / grid.folder, hosts=[grid.host], fusions=grid.fusions, seeds=grid.seeds, jobs=1, strict=True
    )


def scores(grid: Grid, out: Path) -> dict[str, list[tuple[float, float]]]:
    """Fusion -> (dev, test) weighted F1 of every seed, from the cards of the runs."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for file in sorted((out / grid.folder).rglob("card.json")):
        card: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        name = card["config"]["fusion"]["name"]
        if name in grid.fusions:
            found[name].append(tuple(card["scores"][split]["weighted_f1"] for split in ("dev", "test")))
    return dict(found)


def table(study: Sequence[Grid], out: Path) -> str:
    """Markdown, a row for each grid and fusion that has runs, by dev score; on `demo` with the share of the best reachable."""
    ceiling: Any = fusionzoo.get("demo", kind="dataset")().info["ceiling"]
    best = ceiling["test"]["full"]["weighted_f1"]
    rows: dict[str, list[tuple[float, list[str]]]] = defaultdict(list)
    for grid in study:
        for fusion, values in scores(grid, out).items():
            dev, test = (statistics.mean(v[i] for v in values) for i in (0, 1))
            share = f"{100 * test / best:.0f} %" if grid.data == "demo" else ""
            what = [grid.host, " ".join([fusion, *grid.sets]), grid.placement, f"{grid.lr:g}", str(len(values))]
            rows[Path(grid.data).stem].append((dev, [*what, f"{dev:.4f}", f"{test:.4f}", share]))
    lines = [
        "| data | host | fusion | placement | lr | n | dev W-F1 | test W-F1 | share of the ceiling |",
        "|---" * 9 + "|",
    ]
    for data, found in rows.items():
        lines += [f"| {' | '.join([data, *cells])} |" for _, cells in sorted(found, key=lambda row: -row[0])]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--folder", type=Path, help="where the real data lie")
    parser.add_argument("--only", default="", help="the grids in whose place this word stands")
    parser.add_argument(
        "--set", action="append", default=[], dest="sets", help="section.key=value for all, to try it out"
    )
    parser.add_argument("--table", action="store_true", help="train nothing")
    args = parser.parse_args()
    study = [g for g in STUDY if args.only in str(g.folder) and (g.data == "demo" or args.folder or args.table)]
    for grid in study:
        if not args.table:
            run(grid, args.out, grid.data if grid.data == "demo" else str(args.folder / grid.data), args.sets)
    print(table(study, args.out))


if __name__ == "__main__":
    main()
