"""LMAM against matching row by row, forward and backward, in one process.

    python benchmarks/lmam.py [--steps 110] [--batch 16] [--width 256] [--repeats 5]

The loop calls the matching once a query, as the published code does; the other two rows are one call of the layer.
Prints the median of the repeats and the ratio to the loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._machine import conditions


def row_by_row(matching: nn.Module, streams: list[Tensor], mask: Tensor) -> Tensor:
    text = streams[0]
    rows = []
    for stream in streams:
        rows += [matching(text, stream[:, i : i + 1], mask)[0] for i in range(stream.shape[1])]
    steps = text.shape[1]
    parts = torch.cat(rows, 1).split(steps, 1)
    return F.gelu(parts[0] + parts[1] + parts[2]) + text


def seconds(step: Callable[[], Tensor], repeats: int, sync: Callable[[], None]) -> float:
    times = []
    for i in range(repeats + 1):
        sync()
        start = time.perf_counter()
        step().sum().backward()
        sync()
        if i:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"steps": 110, "batch": 16, "width": 256, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    device = torch.device(args.device)

    def sync() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    streams = [torch.randn(args.batch, args.steps, args.width, device=device, requires_grad=True) for _ in range(3)]
    lengths = torch.randint(args.steps // 5, args.steps + 1, (args.batch,), device=device)
    mask = torch.arange(args.steps, device=device) < lengths[:, None]
    lmam = fusionzoo.get("lmam")
    official = lmam([args.width] * 3, variant="official").to(device)
    matching = cast(nn.Module, official.matchatt)
    default = lmam([args.width] * 3).to(device)
    steps = {
        "row by row": lambda: row_by_row(matching, streams, mask),
        "variant='official'": lambda: official(streams, mask),
        "default": lambda: default(streams, mask),
    }
    times = {name: seconds(step, args.repeats, sync) for name, step in steps.items()}
    print(f"B={args.batch} L={args.steps} d={args.width} on {conditions(device)}")
    for name, value in times.items():
        print(f"{name:<20} {value * 1e3:9.1f} ms   {times['row by row'] / value:6.1f} x")


if __name__ == "__main__":
    main()
