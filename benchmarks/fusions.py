"""What every installed fusion costs: one training step at the widths of the field, beside `concat`'s.

    python benchmarks/fusions.py [--fusions concat,lmf] [--batch 16] [--repeats 3] [--json docs/fusions/cost.json]

The same as `fusionzoo bench`: text 1024, audio 1582, visual 342 to 512; dialogues of 20 to 110 utterances; forward and
backward, gradients to the inputs included. `--json` updates the ratios that the gallery shows. `--ratios` then runs the
two comparisons with the loops that published code writes: lmam.py at width 512 and objectives.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import fusionzoo
from fusionzoo._machine import conditions
from fusionzoo.experiments.cost import FIELD, Cost, bench_fusions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fusions", default=",".join(fusionzoo.names()))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also update the ratios in this file; the gallery shows them")
    parser.add_argument("--ratios", action="store_true", help="also compare lmam and swfc with loops")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"B={args.batch} on {conditions(args.device)}; ratio to concat")
    print(f"{'fusion':<28}{'ms':>10}{'ratio':>9}{'MFLOPs':>9}{'parameters':>14}")

    def show(cost: Cost) -> None:
        print(
            f"{cost.name:<28}{cost.milliseconds:>10.1f}{cost.ratio:>9.2f}{cost.mflops or 0:>9.2f}{cost.parameters:>14,}",
            flush=True,
        )

    others = [n for n in args.fusions.split(",") if n != "concat"]
    table = {
        c.name: {k: v for k, v in c.to_dict().items() if k in ("ratio", "mflops", "parameters")}
        for c in bench_fusions(
            ["concat", *others],
            FIELD,
            512,
            batch_size=args.batch,
            repeats=args.repeats,
            device=args.device,
            report=show,
        )
    }
    if args.ratios:
        import lmam
        import objectives

        print("\nlmam against matching row by row")
        lmam.main(["--width", "512", "--device", args.device])
        print("\nswfc against a loop over the samples")
        objectives.main(["--device", args.device])
    if args.json:
        table = {**(json.loads(args.json.read_text("utf-8")) if args.json.exists() else {}), **table}
        args.json.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
