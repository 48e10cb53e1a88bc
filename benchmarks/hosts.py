"""A training step of every installed host at its published widths, beside the authors' own code where that is at hand.

    python benchmarks/hosts.py [--hosts mmgcn,sdt] [--batch 16] [--reference DIR] [--json FILE]

A step is forward, loss and backward over dialogues of 20 to 110 utterances, as in IEMOCAP. Printed are the shortest of
the repeats in milliseconds, the peak of the memory that a step adds, and the floor: the time that the step spends
inside its own matrix products (convolutions, attention kernels and fused recurrences included), measured in a step of
its own. Whatever is above the floor is what this host could at best still save.

With `--reference DIR` the official models are built from the repositories in that folder (`DIR/conv-emotion`,
`DIR/MMGCN`, ...; see `_reference_hosts.py`) and run in the same process on the same batch, step by step in turn with
ours, so that a busy machine hits both alike. The ratio is theirs to ours, of the shortest steps. On a machine that
others use as well, `--threads 1 --clock cpu` counts the seconds that this process computed.

`--scaling` prints how time and memory of our own grow with the number of utterances.
"""

from __future__ import annotations

import argparse
import json
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _reference_hosts import CLASS_COUNTS, CLASSES, REFERENCES, SPEAKERS, Inputs
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import fusionzoo
from fusionzoo._machine import conditions
from fusionzoo.batch import Batch

_TEXT = {"text": 100}
_CLASSIC = {"text": 100, "audio": 1582, "visual": 342}
_SENTENCE = {"audio": 100, "text": 768, "visual": 512}
_FUSED = {"text": 768, "audio": 512, "visual": 1000}
_ROBERTA = {"text": 1024, "audio": 1582, "visual": 342}


@dataclass
class Row:
    """A host of the table: its name, the widths it reads and its published options."""

    host: str
    dims: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    # Options of `variant="official"` beyond those.
    official: dict[str, Any] = field(default_factory=dict)
    # What is trained beside the cross-entropy.
    objectives: dict[str, dict[str, Any]] = field(default_factory=dict)


# The widths and depths of the published runs, for the default variant too, so that both compute as much as the official
# code. Not so in cogmen and corect, where the feed-forward blocks of the default follow the width of their transformers:
# these are as installed, and smaller.
PUBLISHED: dict[str, Row] = {
    "bc-lstm": Row("bc-lstm", _TEXT, {"hidden": 100, "layers": 2, "attention": True}),
    "cogmen": Row("cogmen", _SENTENCE, {"dropout": 0.1, "placement": "early"}),
    "corect": Row("corect", {"text": 768, "audio": 100, "visual": 512}, {"dropout": 0.5, "heads": 7}),
    "dialogue-gcn": Row("dialogue-gcn", _TEXT, {"hidden": 100, "layers": 2, "graph_width": 100, "dropout": 0.5}),
    "dialogue-rnn": Row(
        "dialogue-rnn",
        _TEXT,
        {
            "hidden": 300,
            "global_width": 500,
            "party_width": 500,
            "head_width": 600,
            "context_attention": "general",
            "dropout": 0.1,
            "state_dropout": 0.1,
        },
    ),
    "m3net": Row(
        "m3net",
        {"text": 4096, "audio": 1582, "visual": 342},
        {"text_views": 4, "hidden": 512},
        # The tables of the official form are too short for 16 long dialogues.
        {"views_norm": "batch", "max_edges": 30000, "max_nodes": 30000},
    ),
    "mm-dfn": Row("mm-dfn", _CLASSIC, {"depth": 16, "layers": 2, "speaker_weights": (1.0, 3.0, 0.0)}),
    "mmgcn, 4 layers": Row("mmgcn", _CLASSIC, {"depth": 4, "layers": 2}),
    "mmgcn, 64 layers": Row("mmgcn", _CLASSIC, {"depth": 64, "layers": 2}),
    "multiemo": Row("multiemo", _FUSED, {"width": 256}),
    "multiemo, loss": Row(
        "multiemo",
        _FUSED,
        {"width": 256},
        objectives={"swfc": {"weighting": 0.8}, "soft-hgr": {"mode": "official"}},
    ),
    "sdt": Row("sdt", _ROBERTA, {"width": 1024, "heads": 8, "dropout": 0.5}),
    "text-cnn": Row("text-cnn", _ROBERTA),
}


class Meter(TorchDispatchMode):
    """Time inside matrix products, and the peak of the memory that was allocated since it was entered."""

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "linear", "rnn", "scaled_dot_product")

    def __init__(self, sync: Callable[[], None], clock: Callable[[], float]):
        super().__init__()
        self.clock = clock
        self.sync, self.seconds, self.live, self.peak = sync, 0.0, 0, 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1].strip("_")
        product = any(name == p or (len(p) > 5 and p in name) or (p == "rnn" and "rnn" in name) for p in self.PRODUCTS)
        if product:
            self.sync()
        start = self.clock()
        out = func(*args, **(kwargs or {}))
        if product:
            self.sync()
            self.seconds += self.clock() - start
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor) and x.layout == torch.strided:  # oneDNN's own layout tells of no storage
                self._watch(x.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def gone(_: weakref.ref) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def spread(size: int, least: int = 20, most: int = 110) -> Tensor:
    """Lengths of so many dialogues, those of IEMOCAP unless told otherwise."""
    return torch.linspace(least, most, size).long()


def make_batch(dims: dict[str, int], lengths: Tensor, device: torch.device) -> Batch:
    """Dialogues of these lengths with random features."""
    generator = torch.Generator().manual_seed(0)
    size, steps = len(lengths), int(lengths.max())
    mask = torch.arange(steps) < lengths[:, None]
    features = {m: torch.randn(size, steps, d, generator=generator) * mask.unsqueeze(-1) for m, d in dims.items()}
    speakers = torch.randint(SPEAKERS, mask.shape, generator=generator) * mask
    labels = torch.where(mask, torch.randint(CLASSES, mask.shape, generator=generator), -100)
    batch = Batch(features, mask, speakers, labels, [str(i) for i in range(size)], None, lengths.tolist())
    return batch.to(device)


@dataclass
class Machine:
    """Where the steps run and how they are timed."""

    device: torch.device
    clock: Callable[[], float]

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Contender:
    """A model and its training step."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor], machine: Machine):
        self.model, self.loss, self.machine = model, loss, machine
        self.times: list[float] = []

    def step(self) -> float:
        """Seconds of one step."""
        self.model.zero_grad()
        self.machine.sync()
        start = self.machine.clock()
        self.loss().backward()
        self.machine.sync()
        return self.machine.clock() - start

    def metered(self) -> tuple[float, int]:
        """Seconds inside matrix products and bytes of memory, in a step of its own; gradients are there before it."""
        with Meter(self.machine.sync, self.machine.clock) as meter:
            self.step()
        return meter.seconds, meter.peak


def ours(row: Row, variant: str, batch: Batch, machine: Machine) -> Contender:
    """A host of ours, in training mode, with cross-entropy over the real utterances and the row's objectives."""
    options = {**row.options, **(row.official if variant == "official" else {}), "variant": variant}
    host = fusionzoo.get(row.host, kind="host")(row.dims, CLASSES, SPEAKERS, **options).to(machine.device)
    counts = torch.tensor(CLASS_COUNTS, device=machine.device)
    objectives = []
    for objective, extra in row.objectives.items():
        objectives.append(fusionzoo.get(objective, kind="objective")(CLASSES, counts, **extra).to(machine.device))
        objectives[-1].bind(host)

    def loss() -> Tensor:
        out = host(batch)
        total = F.cross_entropy(out.logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
        for objective in objectives:
            total = total + objective(out, batch)
        return total

    return Contender(host, loss, machine)


def theirs(name: str, root: Path | None, batch: Batch, machine: Machine) -> Contender | None:
    """The official model of a row, None where its repository is not there."""
    reference = REFERENCES.get(name)
    if root is None or reference is None or not reference.folder(root).is_dir():
        return None
    model = reference.build(reference.folder(root), machine.device).to(machine.device)
    inputs = Inputs.of(batch)
    return Contender(model, lambda: reference.loss(model, inputs), machine)


def scaling(rows: dict[str, Row], repeats: int, machine: Machine) -> list[dict[str, Any]]:
    """How a step grows with the utterances: with more dialogues of the same lengths, and with longer dialogues.

    Printed are time and memory as multiples of those of the smallest batch. Linear growth is 2 and 4; a cost that is the
    sum over dialogues of squared lengths is 2 and 4 with more dialogues, 4 and 16 with longer ones; one that is the
    square of the sum is 4 and 16 in both.
    """
    print(
        f"times of the smallest batch; {conditions(machine.device)}; a step: forward, loss, backward; default variant"
    )
    print(f"{'host':<18}{'more':<12}{'time 2x':>9}{'4x':>7}{'memory 2x':>11}{'4x':>7}")
    table = []
    for name, row in rows.items():
        for more, grow in (("dialogues", _more), ("utterances", _longer)):
            batches = [make_batch(row.dims, grow(factor), machine.device) for factor in (1, 2, 4)]
            # One model a batch, for a step of each in turn.
            contenders = [ours(row, "default", batch, machine) for batch in batches]
            for _ in range(repeats + 1):
                for contender in contenders:
                    contender.times.append(contender.step())
            seconds = [min(c.times) for c in contenders]
            memory = [c.metered()[1] for c in contenders]
            times, sizes = [s / seconds[0] for s in seconds[1:]], [m / memory[0] for m in memory[1:]]
            table.append({"host": name, "more": more, "time": times, "memory": sizes})
            print(f"{name:<18}{more:<12}{times[0]:>9.1f}{times[1]:>7.1f}{sizes[0]:>11.1f}{sizes[1]:>7.1f}", flush=True)
    return table


def _more(factor: int) -> Tensor:
    return spread(4, 50, 100).repeat(factor)


def _longer(factor: int) -> Tensor:
    return spread(4, 50, 100) * factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", help="names with commas between them; all that are installed by default")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--variants", default="default,official")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the seconds that this process computed, for a machine that others use too; best with --threads 1",
    )
    parser.add_argument("--reference", type=Path, help="a folder with the official repositories")
    parser.add_argument("--scaling", action="store_true", help="growth with the number of utterances instead")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)

    machine = Machine(device, time.process_time if args.clock == "cpu" else time.perf_counter)
    hosts = args.hosts.split(",") if args.hosts else fusionzoo.names("host")
    rows = {n: r for n, r in PUBLISHED.items() if r.host in hosts}
    # A host that this table does not know runs with its own defaults.
    rows |= {n: Row(n, _ROBERTA) for n in hosts if n not in {r.host for r in rows.values()}}
    table: list[dict[str, Any]] = scaling(rows, args.repeats, machine) if args.scaling else []
    for size in [] if args.scaling else args.batch:
        print(f"B={size}; {conditions(device)}; a step: forward, loss, backward")
        print(f"{'host':<18}{'variant':<10}{'ms':>9}{'floor':>9}{'MB':>8}{'official':>11}{'MB':>8}{'ratio':>8}")
        for name, row in rows.items():
            batch = make_batch(row.dims, spread(size), device)
            known = fusionzoo.card(row.host, kind="host").spec.variants
            variants = [v for v in args.variants.split(",") if v in known or v == "default"]
            contenders = {v: ours(row, v, batch, machine) for v in variants}
            official = theirs(name, args.reference, batch, machine)
            everyone = [*contenders.values(), *([official] if official else [])]
            # The first step, which warms up, is one more than asked for: the shortest counts.
            for _ in range(args.repeats + 1):
                for contender in everyone:
                    contender.times.append(contender.step())
            meters = [c.metered() for c in everyone]
            for (variant, contender), (floor, memory) in zip(contenders.items(), meters, strict=False):
                best = min(contender.times)
                entry = {"host": name, "variant": variant, "batch": size, "ms": best * 1e3, "floor_ms": floor * 1e3}
                entry["mb"] = memory / 2**20
                line = f"{name:<18}{variant:<10}{best * 1e3:>9.1f}{floor * 1e3:>9.1f}{memory / 2**20:>8.0f}"
                if official:
                    slow = min(official.times)
                    entry |= {"official_ms": slow * 1e3, "official_mb": meters[-1][1] / 2**20, "ratio": slow / best}
                    line += f"{slow * 1e3:>11.1f}{entry['official_mb']:>8.0f}{slow / best:>7.1f}x"
                table.append({k: round(v, 2) if isinstance(v, float) else v for k, v in entry.items()})
                print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
