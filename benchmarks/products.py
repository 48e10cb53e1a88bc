"""Products by oneDNN against torch's own: linear maps, few rows with weights laid out once, and whole steps of hosts.

    python benchmarks/products.py [--threads 2] [--rounds 20] [--hosts "dialogue-rnn,sdt"]

Ratios of torch's time to ours of the shortest rounds, both in turn in one process, and what ours reaches forward in GFLOP/s.
Below `fusionzoo._product.LEAST` multiplications both are the same. On processors for which ours is not used the ratios are 1.
With `--hosts` training steps as in `hosts.py`, 16 dialogues, ten rounds; recurrences with packed weights are in both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from hosts import PUBLISHED, Machine, make_batch, ours, spread
from torch import Tensor
from torch.nn import functional as F

from fusionzoo import _product

# Rows, inputs and outputs in the published sizes of cogmen, sdt, dialogue-rnn, multiemo and corect, 16 dialogues.
LINEAR = [
    (1056, 1380, 2048),
    (1760, 1024, 1024),
    (1040, 900, 500),
    (1040, 256, 1024),
    (1040, 200, 800),
    (1040, 256, 256),
]
# Cells, rows, inputs and outputs.
FEW = [(2, 16, 500, 1500), (6, 16, 256, 768)]


def in_turn(plain: Callable[[], object], faster: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Shortest seconds of both."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for i, run in enumerate((plain, faster)):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1]


def layers(rounds: int) -> None:
    """Linear maps, forward, and forward and backward."""
    print(f"{'rows x inputs x outputs':26}{'forward':>9}{'GFLOP/s':>9}{'both':>9}")
    for rows, inputs, outputs in LINEAR:
        parts = [torch.randn(s, requires_grad=True) for s in ((rows, inputs), (outputs, inputs), (outputs,))]
        grad = torch.randn(rows, outputs)

        def forward(f: Callable, parts: list[Tensor] = parts) -> None:
            with torch.no_grad():
                f(*parts)

        def both(f: Callable, parts: list[Tensor] = parts, grad: Tensor = grad) -> None:
            torch.autograd.grad(f(*parts), parts, grad)

        (plain, fast), (plain2, fast2) = (
            in_turn(lambda r=run: r(F.linear), lambda r=run: r(_product.linear), rounds) for run in (forward, both)
        )
        speed = 2e-9 * rows * inputs * outputs / fast
        print(f"{f'{rows} x {inputs} x {outputs}':26}{plain / fast:9.2f}{speed:9.0f}{plain2 / fast2:9.2f}")


def recurrences(rounds: int) -> None:
    """A product of few rows."""
    for cells, rows, inputs, outputs in FEW:
        x, weight = torch.randn(cells, rows, inputs), torch.randn(cells, inputs, outputs)
        packed = _product.Product(weight, 100)
        plain, fast = in_turn(lambda x=x, w=weight: torch.bmm(x, w), lambda x=x, w=packed: w(x), 50 * rounds)
        print(f"{f'{cells} of {rows} x {inputs} x {outputs}':26}{plain / fast:9.2f}")


def steps(names: list[str]) -> None:
    """Training steps of hosts."""
    least, machine = _product.LEAST, Machine(torch.device("cpu"), time.perf_counter)
    print(f"{'host':18}{'default':>9}{'official':>9}")
    for row in (r for r in PUBLISHED.values() if r.host in names and not r.objectives):
        ratios = []
        for variant in ("default", "official"):
            contender = ours(row, variant, make_batch(row.dims, spread(16), torch.device("cpu")), machine)

            def step(limit: int, contender=contender) -> None:
                _product.LEAST = limit
                contender.step()

            plain, fast = in_turn(lambda run=step: run(sys.maxsize), lambda run=step: run(least), 10)
            ratios.append(plain / fast)
        depth = row.options.get("depth", "")
        print(f"{f'{row.host} {depth}':18}{ratios[0]:9.2f}{ratios[1]:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hosts", help="names of hosts of conversations, with commas")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {args.threads} threads; torch's time over ours")
    if args.hosts:
        steps(args.hosts.split(","))
    else:
        layers(args.rounds)
        recurrences(args.rounds)


if __name__ == "__main__":
    main()
