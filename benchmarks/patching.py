"""What a patch costs apart from the fusion's own arithmetic: a host's forward with and without a patch whose fusion is free.

    python benchmarks/patching.py [--rounds 400]

The fusion returns its first stream and its projection is the identity, so that what is left is the patcher: the rewritten
call, the layer, the layout, the mask and the subtraction. Calls with and without alternate, and the thread's own time is
taken (run it with OMP_NUM_THREADS=1), so that a busy machine hits both alike; the median of the paired differences is shown, over the median of the plain calls.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fusionzoo

WIDTHS = {"text": 1024, "audio": 1582, "visual": 342}


class Free(fusionzoo.Fusion):
    """Returns the first stream as it is: no arithmetic, no projection."""

    def __init__(self, dims: Any, out_dim: int | None = None):
        super().__init__(dims, out_dim)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, streams: Any, mask: Any = None) -> Tensor:
        return next(iter(streams.values()))


class Recurrent(nn.Module):
    """Three encoders, one join, a recurrence: the usual host, `(T, B, d)`."""

    def __init__(self, width: int = 200):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(w, width) for w in WIDTHS.values())
        self.rnn = nn.LSTM(3 * width, 150, bidirectional=True)
        self.head = nn.Linear(300, 6)

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor, umask: Tensor) -> Tensor:
        parts = [e(x) for e, x in zip(self.encoders, (text, audio, visual), strict=True)]
        return self.head(self.rnn(torch.cat(parts, -1))[0])


class Loop(nn.Module):
    """A join at every step of a loop over time."""

    def __init__(self, width: int = 200):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(w, width) for w in WIDTHS.values())
        self.cell = nn.GRUCell(3 * width, 300)
        self.head = nn.Linear(300, 6)

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor, umask: Tensor) -> Tensor:
        t, a, v = (e(x) for e, x in zip(self.encoders, (text, audio, visual), strict=True))
        h, out = t.new_zeros(t.shape[1], 300), []
        for i in range(len(t)):
            h = self.cell(torch.cat([t[i], a[i], v[i]], -1), h)
            out.append(h)
        return self.head(torch.stack(out))


def measure(plain: Callable[[], Any], patched: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of a plain call, and of the difference to a patched one next to it."""
    costs, differences = [], []
    for i in range(rounds):
        pair = {}
        for name in ("plain", "patched") if i % 2 else ("patched", "plain"):
            start = time.thread_time()
            (plain if name == "plain" else patched)()
            pair[name] = time.thread_time() - start
        costs.append(pair["plain"])
        differences.append(pair["patched"] - pair["plain"])
    return statistics.median(costs), statistics.median(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.manual_seed(0)
    streams = [torch.randn(args.steps, args.batch, w) for w in WIDTHS.values()]
    mask = torch.arange(args.steps) < torch.linspace(20, args.steps, args.batch).long()[:, None]
    print(f"B={args.batch}, T={args.steps}, {torch.get_num_threads()} threads")
    print(f"{'host':<12}{'ms':>9}{'calls':>7}{'added us':>10}{'overhead':>10}")
    for cls in (Recurrent, Loop):
        plain, patched = cls().eval(), cls().eval()
        call = (*streams, mask.float())
        sites = fusionzoo.find_sites(patched, *call)
        site = sites[0]
        fusion = Free(site.widths)
        patch = fusionzoo.patch(patched, fusion, site)
        patch.layer.out["joined"] = Widen(site.result[-1])
        with torch.no_grad():
            cost, added = measure(lambda: plain(*call), lambda: patched(*call), args.rounds)  # noqa: B023
        print(f"{cls.__name__:<12}{cost * 1e3:>9.2f}{site.calls:>7}{added * 1e6:>10.1f}{added / cost:>10.2%}")


class Widen(nn.Module):
    """A view of the host's width, without arithmetic."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :1].expand(*x.shape[:-1], self.width)


if __name__ == "__main__":
    main()
