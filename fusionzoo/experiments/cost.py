"""What fusions and hosts cost: training steps measured in turn, each beside one of a baseline in the same process.

A busy machine hits a step and its baseline alike, so that the ratio holds where milliseconds do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo._registry import registry
from fusionzoo.data.loading import split_of
from fusionzoo.errors import OptionError
from fusionzoo.experiments.axes import Axes, Entry, entrants
from fusionzoo.fusion import Dims, Fusion, read_dims
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.data_section import load_corpus
from fusionzoo.runs.flops import flops_of
from fusionzoo.runs.models import (
    WeightedObjective,
    build_host,
    check_fusion_built,
    class_counts,
    describe_model,
    settle_fusion,
)
from fusionzoo.runs.options import NO_FUSION

if TYPE_CHECKING:
    from fusionzoo.batch import Batch
    from fusionzoo.data.corpus import Corpus

#: Widths of the field: RoBERTa-large, openSMILE IS10, DenseNet.
FIELD = {"text": 1024, "audio": 1582, "visual": 342}


@dataclass(frozen=True)
class Cost:
    """One row of `fusionzoo bench`.

    Parameters
    ----------
    name : of the fusion, or `host + fusion`.
    milliseconds : median of a training step: forward, loss, backward.
    ratio : median of a step's time over that of the baseline's next to it.
    mflops : millions of floating-point operations in the matrix products of one forward pass, per utterance; None where
        torch cannot count them.
    parameters : that are trained.
    peak_mib : of GPU memory a step adds to model and batch; None on a CPU, where torch does not know.
    """

    name: str
    milliseconds: float
    ratio: float
    mflops: float | None
    parameters: int
    peak_mib: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded for reading."""
        return {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}


class _Contender:
    """A model and the forward pass and loss that are measured."""

    def __init__(self, name: str, model: nn.Module, loss: Callable[[], Tensor], utterances: int, device: torch.device):
        self.name, self.model, self.loss, self.utterances, self.device = name, model, loss, utterances, device
        self.cuda = device.type == "cuda"

    def seconds(self) -> float:
        """Of one training step: of the processor on a CPU, which other programs do not change; of the clock on a GPU."""
        clock = time.perf_counter if self.cuda else time.process_time
        self.model.zero_grad()
        self._wait()
        start = clock()
        self.loss().backward()
        self._wait()
        return clock() - start

    def mflops(self) -> float | None:
        """Millions of operations of one forward pass, per utterance."""
        total = flops_of(self.loss)
        return None if total is None else total / max(self.utterances, 1) / 1e6

    def peak_mib(self) -> float | None:
        """GPU memory that a step adds to model and batch."""
        if not self.cuda:
            return None
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.seconds()
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)


def _measure(
    contenders: Sequence[Callable[[], _Contender]], repeats: int, report: Callable[[Cost], None] | None
) -> list[Cost]:
    """Each contender in turn with the first, built when it comes and dropped afterwards."""
    repeats = check_positive(repeats, "repeats", "bench")
    baseline = contenders[0]()
    costs = []
    for index, build in enumerate(contenders):
        one = baseline if index == 0 else build()
        for warming in (one, baseline):
            warming.seconds()
        # The baseline beside itself would be a ratio of one and some noise.
        pairs = [(one.seconds(), baseline.seconds() if index else 0.0) for _ in range(repeats)]
        cost = Cost(
            name=one.name,
            milliseconds=statistics.median(a for a, _ in pairs) * 1e3,
            ratio=statistics.median(a / b for a, b in pairs) if index else 1.0,
            mflops=one.mflops(),
            parameters=sum(p.numel() for p in one.model.parameters() if p.requires_grad),
            peak_mib=one.peak_mib(),
        )
        costs.append(cost)
        if report is not None:
            report(cost)
    return costs


def bench(
    fusions: Sequence[Entry] | None = None,
    hosts: Sequence[Entry] | None = None,
    config: RunConfig | None = None,
    *,
    dims: Dims = FIELD,
    out_dim: int | None = 512,
    batch_size: int = 16,
    steps: int = 110,
    repeats: int = 3,
    device: torch.device | str | None = None,
    report: Callable[[Cost], None] | None = None,
) -> list[Cost]:
    """What fusions cost, alone or in hosts: a training step of each beside one of the first.

    Parameters
    ----------
    fusions : names, or mappings with `name` and options; the first one is the baseline. None for all, after concat.
    hosts : likewise; None for the fusions alone.
    config : what the models of hosts share, their data included.
    dims, out_dim, steps : of fusions alone: widths in and out, and utterances of the longest dialogue.
    batch_size : dialogues per step.
    repeats : measured steps of each.
    device : where they are measured; None for what is there.
    report : called with each row as it comes.

    Raises
    ------
    OptionError : there is no such device, or a size is below one.
    ConfigError : an option that nothing takes.
    """
    base = RunConfig() if config is None else config
    base.training.batch_size = check_positive(batch_size, "batch_size", "bench")
    on = pick_device(device)
    corpus = None if hosts is None else load_corpus(base.data)
    alone = corpus is not None and len(corpus.modalities) == 1
    chosen = fusions or ([NO_FUSION] if alone else ["concat", *(n for n in registry.usable() if n != "concat")])
    found = entrants(base, Axes(hosts=hosts, fusions=chosen))
    if corpus is not None:
        return bench_hosts([e.config for e in found], corpus, repeats=repeats, device=on, report=report)
    entries = [{**e.config.fusion.options, "name": e.config.fusion.name, "label": e.who.fusion} for e in found]
    sizes: Any = {"batch_size": batch_size, "steps": steps, "repeats": repeats}
    return bench_fusions(entries, dims, out_dim, device=on, report=report, **sizes)


def bench_fusions(
    fusions: Sequence[Entry],
    dims: Dims = FIELD,
    out_dim: int | None = 512,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    steps: int = 110,
    repeats: int = 3,
    device: torch.device | str = "cpu",
    report: Callable[[Cost], None] | None = None,
) -> list[Cost]:
    """A training step of each fusion on dialogues of 2/11 of `steps` (20 of 110) to `steps` utterances.

    Gradients to the inputs are included. The first fusion is the baseline of the ratios.

    Parameters
    ----------
    fusions : names, or mappings with `name`, options, and an optional `label`.
    dims : widths of the modalities.
    out_dim : width of what comes out.
    options : of a fusion, by its name.
    batch_size : dialogues.
    steps : utterances of the longest one.
    repeats : measured steps of each.
    device : where they are measured.
    report : called with each row as it comes.

    Raises
    ------
    OptionError : a size is below one; and what the fusions themselves raise for `dims`.
    """
    dims, device = read_dims(dims), torch.device(device)
    for name, value in {"batch_size": batch_size, "steps": steps}.items():
        check_positive(value, name, "bench")
    lengths = torch.linspace(max(2 * steps // 11, 1), steps, batch_size, device=device).long()
    mask = torch.arange(steps, device=device) < lengths[:, None]
    streams = {m: torch.randn(batch_size, steps, d, device=device, requires_grad=True) for m, d in dims.items()}
    utterances = int(mask.sum())

    def contender(entry: Entry) -> _Contender:
        own: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = own.pop("name")
        label = own.pop("label", name)
        fusion: Fusion = fusionzoo.get(name)(dims, out_dim, **{**(options or {}).get(name, {}), **own}).to(device)
        return _Contender(label, fusion, lambda: fusion(streams, mask).sum(), utterances, device)

    return _measure([lambda one=one: contender(one) for one in _some(fusions, "fusion")], repeats, report)


def bench_hosts(
    configs: Sequence[RunConfig],
    corpus: Corpus,
    *,
    repeats: int = 3,
    device: torch.device | str = "cpu",
    report: Callable[[Cost], None] | None = None,
) -> list[Cost]:
    """A training step (forward, the configuration's objectives, backward) of each model on a batch of the train split.

    Parameters
    ----------
    configs : one per model. The first one is the baseline of the ratios; its `training.batch_size` is that of all, so that
        all see the same dialogues.
    corpus : where the batch is taken from.
    repeats, device, report : as for `bench_fusions`.
    """
    device = torch.device(device)
    for config in configs:
        settle_fusion(config, corpus)
    size = _some(configs, "host")[0].training.batch_size
    batch: Batch = next(iter(split_of(corpus, "train", device).batches(size, shuffle=True, seed=0, epoch=0)))

    def contender(config: RunConfig) -> _Contender:
        torch.manual_seed(config.training.seed)
        host = build_host(describe_model(config, corpus, "")).to(device)
        check_fusion_built(host, config)
        objective = WeightedObjective(config, corpus.num_classes, class_counts(corpus), host).to(device)
        return _Contender(config.title, host, lambda: objective(host(batch), batch), batch.num_utterances, device)

    return _measure([lambda config=config: contender(config) for config in configs], repeats, report)


def pick_device(name: torch.device | str | None) -> torch.device:
    """`cpu`, `cuda`, `cuda:1`, ...; None or `auto` for what is there.

    Raises
    ------
    OptionError : there is no such device.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"there is no device {name!r} here; use cpu, or leave it out for what is there") from error
    return device


def _some(given: Sequence[Any], kind: str) -> Sequence[Any]:
    if not given:
        raise OptionError(f"bench got no {kind}; name one or more, see: fusionzoo plugins --kind {kind}")
    return given
