"""What every fast form saves: a training step of the hosts that use it, with the kernel plain and fast in turn.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py [--kernels dropout,propagate] [--hosts mmgcn] [--json FILE]

Hosts have their published widths and depths (`benchmarks/hosts.py`), a batch is 16 dialogues of 20 to 110 utterances, and
a step is forward, loss and backward. All other kernels are fast meanwhile. Plain and fast steps take turns in one
process, and the ratio is that of the medians: of the seconds that this process computed (`--clock wall` for those that
passed). The table ends with every kernel plain against every one fast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from hosts import PUBLISHED, Contender, Machine, make_batch, ours, spread

from fusionzoo import kernels
from fusionzoo._machine import conditions

#: Kernel -> the hosts of `benchmarks/hosts.py` whose step it is measured in.
USES: dict[str, tuple[str, ...]] = {
    "dropout": ("corect", "mmgcn, 64 layers", "multiemo"),
    "attend": ("multiemo",),
    "band_attention": ("cogmen", "corect"),
    "propagate": ("mmgcn, 4 layers", "mmgcn, 64 layers", "mm-dfn"),
    "steps": ("dialogue-rnn", "multiemo"),
    "both_ways": ("bc-lstm", "mmgcn, 4 layers", "mm-dfn"),
    "attend_tokens": ("sdt", "cogmen", "corect"),
    "fuse_in_groups": ("multiemo",),
    "contrast": ("multiemo, loss",),
}
ALL = "all of them"


def compare(kernel: str, contender: Contender, repeats: int) -> dict[str, float]:
    """Milliseconds of a step, plain and fast, and their ratio."""
    names = () if kernel == ALL else (kernel,)  # known, since the host that uses it was built
    times: dict[str, list[float]] = {form: [] for form in kernels.FORMS}
    for turn in range(repeats + 1):
        for form in kernels.FORMS:
            with kernels.use(form, *names):
                seconds = contender.step()
            if turn:  # the first one warms up
                times[form].append(seconds * 1e3)
    plain, fast = statistics.median(times["plain"]), statistics.median(times["fast"])
    return {"plain_ms": plain, "fast_ms": fast, "ratio": plain / fast}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", help="names with commas between them; all by default")
    parser.add_argument("--hosts", help="the beginnings of rows of benchmarks/hosts.py, with commas; all by default")
    parser.add_argument("--batch", type=int, default=16, help="dialogues in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=("cpu", "wall"), help="cpu unless the device is another")
    parser.add_argument("--variant", default="default")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    device = torch.device(args.device)
    clock = args.clock or ("cpu" if device.type == "cpu" else "wall")
    machine = Machine(device, time.process_time if clock == "cpu" else time.perf_counter)
    wanted = args.kernels.split(",") if args.kernels else [*USES, ALL]
    every_host = sorted({host for hosts in USES.values() for host in hosts})
    print(
        f"B={args.batch}; {conditions(device)}; {clock} clock; a step: forward, loss, backward; {args.variant} variant"
    )
    print(f"{'kernel':<24}{'host':<20}{'plain ms':>10}{'fast ms':>10}{'ratio':>8}")
    table: list[dict[str, Any]] = []
    for kernel in wanted:
        for host in every_host if kernel == ALL else USES[kernel]:
            if args.hosts and not host.startswith(tuple(args.hosts.split(","))):
                continue
            torch.manual_seed(0)
            row = PUBLISHED[host]
            contender = ours(row, args.variant, make_batch(row.dims, spread(args.batch), device), machine)
            found = compare(kernel, contender, args.repeats)
            table.append({"kernel": kernel, "host": host} | {k: round(v, 2) for k, v in found.items()})
            line = f"{kernel:<24}{host:<20}{found['plain_ms']:>10.1f}{found['fast_ms']:>10.1f}{found['ratio']:>7.2f}x"
            print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
