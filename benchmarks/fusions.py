"""What every installed fusion costs: one training step at the widths of the field, beside `concat`'s.

    python benchmarks/fusions.py [--fusions concat,lmf] [--batch 16] [--repeats 3] [--json docs/fusions/cost.json]

Text 1024, audio 1582, visual 342 to 512; dialogues of 20 to 110 utterances. A step is forward and backward, gradients
to the inputs included. Prints milliseconds, the ratio to `concat`, parameters and the FLOPs an utterance of a forward
pass (matrix products, as torch counts them). Each step of a fusion is followed by one of
`concat`, so that a busy machine hits both alike. `--ratios` then runs the two comparisons with the loops that published
code writes: lmam.py at width 512 and objectives.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import fusionzoo

DIMS = {"text": 1024, "audio": 1582, "visual": 342}
WIDTH = 512


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
    device = torch.device(args.device)
    lengths = torch.linspace(20, 110, args.batch, device=device).long()
    mask = torch.arange(110, device=device) < lengths[:, None]
    streams = {m: torch.randn(args.batch, 110, d, device=device, requires_grad=True) for m, d in DIMS.items()}
    utterances = int(mask.sum())

    # Time of the processor, which other programs of the machine do not change; on a GPU that of the clock.
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def step(fusion: torch.nn.Module) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        fusion(streams, mask).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    print(f"B={args.batch} on {device}, {torch.get_num_threads()} threads; ratio to concat")
    print(f"{'fusion':<28}{'ms':>10}{'ratio':>9}{'MFLOPs':>9}{'parameters':>14}")
    table: dict[str, dict[str, float]] = {}
    baseline = fusionzoo.get("concat")(DIMS, WIDTH).to(device)
    for name in args.fusions.split(","):
        fusion = fusionzoo.get(name)(DIMS, WIDTH).to(device)
        with FlopCounterMode(display=False) as counter:
            fusion(streams, mask)
        step(fusion), step(baseline)
        pairs = [(step(fusion), step(baseline)) for _ in range(args.repeats)]
        table[name] = row = {
            "ratio": round(statistics.median(a / b for a, b in pairs), 2),
            "mflops": round(counter.get_total_flops() / utterances / 1e6, 2),
            "parameters": sum(p.numel() for p in fusion.parameters()),
        }
        ms = statistics.median(a for a, _ in pairs) * 1e3
        print(f"{name:<28}{ms:>10.1f}{row['ratio']:>9.2f}{row['mflops']:>9.2f}{row['parameters']:>14,}", flush=True)
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
