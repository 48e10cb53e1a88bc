"""Linear maps by oneDNN against torch's own, and products of few rows with weights laid out once against `bmm`.

    python benchmarks/products.py [--threads 2] [--rounds 20]

Ratios of torch's time to ours, forward, and forward and backward, of the shortest rounds, both in turn in one process. Below
`fusionzoo._product.LEAST` multiplications both are the same. On processors for which ours is not used the ratios are 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from fusionzoo._product import Product, linear

# Rows, inputs and outputs in the published sizes of cogmen, sdt, multiemo, corect and dialogue-rnn, 16 dialogues.
LINEAR = [
    (1056, 1380, 2048),
    (1760, 1024, 1024),
    (1040, 256, 1024),
    (1040, 200, 800),
    (1040, 900, 500),
    (1040, 256, 256),
]
# Cells, rows, inputs and outputs.
FEW = [(2, 16, 500, 1500), (6, 16, 256, 768)]


def ratio(plain: Callable[[], object], ours: Callable[[], object], rounds: int) -> float:
    """Shortest time of `plain` over that of `ours`."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for i, run in enumerate((plain, ours)):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0] / best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {args.threads} threads; torch's time over ours")
    print(f"{'rows x inputs x outputs':26}{'forward':>9}{'step':>9}")
    for rows, inputs, outputs in LINEAR:
        x = torch.randn(rows, inputs, requires_grad=True)
        weight, bias = torch.randn(outputs, inputs, requires_grad=True), torch.randn(outputs, requires_grad=True)
        grad = torch.randn(rows, outputs)

        def forward(f: Callable, *parts: torch.Tensor) -> None:
            with torch.no_grad():
                f(*parts)

        def step(f: Callable, *parts: torch.Tensor, grad: torch.Tensor = grad) -> None:
            torch.autograd.grad(f(*parts), parts, grad)

        parts = (x, weight, bias)
        alone, whole = (
            ratio(lambda r=run, p=parts: r(F.linear, *p), lambda r=run, p=parts: r(linear, *p), args.rounds)
            for run in (forward, step)
        )
        print(f"{f'{rows} x {inputs} x {outputs}':26}{alone:9.2f}{whole:9.2f}")
    for cells, rows, inputs, outputs in FEW:
        x, weight = torch.randn(cells, rows, inputs), torch.randn(cells, inputs, outputs)
        dense, packed = weight.contiguous(), Product(weight, 100)
        alone = ratio(lambda x=x, w=dense: torch.bmm(x, w), lambda x=x, w=packed: w(x), 50 * args.rounds)
        print(f"{f'{cells} of {rows} x {inputs} x {outputs}':26}{alone:9.2f}")


if __name__ == "__main__":
    main()
