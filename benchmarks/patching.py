"""What a patch costs apart from the fusion's own arithmetic: a host's forward with and without a patch whose fusion is free.

    python benchmarks/patching.py [--rounds 400]

The fusion returns its first stream and its projection is a view. What a patch adds is compared with the same free fusion written
into the host's code by hand: that difference is the patcher, its rewritten call, its layer, its layout and its mask. Calls
alternate and the thread's own time is taken (run it with OMP_NUM_THREADS=1); medians of the paired differences are shown, over the
median plain call. The last column is what the proof costs once, when `patch` is given the batch: forwards of the model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._machine import conditions

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


class RecurrentByHand(Recurrent):
    """The same with the free fusion in its code."""

    fusion: nn.Module
    out: nn.Module

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor, umask: Tensor) -> Tensor:
        parts = [e(x) for e, x in zip(self.encoders, (text, audio, visual), strict=True)]
        streams = {m: x.transpose(0, 1) for m, x in zip(WIDTHS, parts, strict=True)}
        joined = torch.cat(parts, -1) - self.out(self.fusion(streams, umask.bool())).transpose(0, 1)
        return self.head(self.rnn(joined)[0])


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


class LoopByHand(Loop):
    """The same with the free fusion in its code."""

    fusion: nn.Module
    out: nn.Module

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor, umask: Tensor) -> Tensor:
        t, a, v = (e(x) for e, x in zip(self.encoders, (text, audio, visual), strict=True))
        h, out = t.new_zeros(t.shape[1], 300), []
        for i in range(len(t)):
            streams = {"text": t[i], "audio": a[i], "visual": v[i]}
            joined = torch.cat(list(streams.values()), -1) - self.out(self.fusion(streams))
            h = self.cell(joined, h)
            out.append(h)
        return self.head(torch.stack(out))


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[float, dict[str, float]]:
    """Median seconds of the plain call, and of what the others add to the plain call next to them."""
    costs: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls) if i % 2 else reversed(calls):
            start = time.thread_time()
            calls[name]()
            costs[name].append(time.thread_time() - start)
    plain = costs.pop("plain")
    added = {n: statistics.median(b - a for a, b in zip(plain, c, strict=True)) for n, c in costs.items()}
    return statistics.median(plain), added


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.manual_seed(0)
    streams = [torch.randn(args.steps, args.batch, w) for w in WIDTHS.values()]
    mask = torch.arange(args.steps) < torch.linspace(20, args.steps, args.batch).long()[:, None]
    print(f"B={args.batch}, T={args.steps}, {conditions()}")
    print(f"{'host':<12}{'calls':>6}{'ms':>9}{'by hand us':>12}{'patch us':>10}{'overhead':>10}{'proof':>14}")
    for cls, by_hand in ((Recurrent, RecurrentByHand), (Loop, LoopByHand)):
        plain, patched, hand = cls().eval(), cls().eval(), by_hand().eval()
        for twin in (patched, hand):  # the same weights in the same memory
            for name, part in plain.named_children():
                setattr(twin, name, part)
        call = (*streams, mask.float())
        site = fusionzoo.find_sites(patched, *call)[0]
        assert isinstance(site, fusionzoo.Site)
        patch = fusionzoo.patch(patched, Free(site.widths), site)
        patch.layer.out["joined"] = Widen(site.result[-1])
        hand.fusion, hand.out = Free(site.widths), Widen(site.result[-1])
        with torch.no_grad():
            models = {"plain": plain, "hand": hand, "patch": patched}
            cost, added = measure({n: partial(m, *call) for n, m in models.items()}, args.rounds)
        overhead = (added["patch"] - added["hand"]) / cost
        proof = fusionzoo.patch(cls().eval(), "lmam", inputs=call).proof
        print(
            f"{cls.__name__:<12}{site.calls:>6}{cost * 1e3:>9.2f}{added['hand'] * 1e6:>12.1f}{added['patch'] * 1e6:>10.1f}"
            f"{overhead:>10.2%}{proof.forwards:>5} forwards"
        )


class Widen(nn.Module):
    """A view of the host's width, without arithmetic."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(1))  # as a projection has, which tells the dtype

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :1].expand(*x.shape[:-1], self.width)


if __name__ == "__main__":
    main()
