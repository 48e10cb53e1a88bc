"""What is checked: a class, the spec it is registered with, and how to build and call it on small inputs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo._registry import registry
from fusionzoo._types import OptionSets
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Fusion, read_dims
from fusionzoo.host import Host, HostOutput
from fusionzoo.objective import IGNORE, Objective
from fusionzoo.specs import Spec
from fusionzoo.testing.batches import CLASSES, DIMS, SPEAKERS, as_clips, dialogues
from fusionzoo.testing.comparisons import ragged

OUT = 10


class Subject:
    """A class under test with one set of constructor options.

    Shared checks need `make`, `inputs`, `run` and `loss`; those of one kind use the rest of its subject.
    """

    kind = ""
    base: type = object
    #: In what gradients are judged; see `fusionzoo.testing.comparisons.counts`.
    precision: torch.dtype = torch.float64

    def __init__(self, subject: Any, *, options: OptionSets = None, spec: Spec | None = None, dims: Any = None):
        self.provider = None
        if isinstance(subject, str):
            self.cls: Any = registry.get(subject, self.kind)
            found, self.provider = registry.spec(subject, self.kind)
            self.spec: Spec | None = spec or found
            self.name = found.name
        elif isinstance(subject, type):
            self.cls, self.spec = subject, spec or spec_of(subject, self.kind)
            self.name = self.spec.name if self.spec else subject.__name__
        else:
            raise OptionError(
                f"give the {self.kind}'s name or class, not an instance of {type(subject).__name__}; the checks build it "
                "themselves, with options={...} where it needs any"
            )
        self._sets = option_sets(self.cls, options)
        self.options: dict[str, Any] = dict(self._sets[0])
        self.dims = self.default_dims() if dims is None else read_dims(dims, self.name)

    @property
    def label(self) -> str:
        """For the table's title: `fusion lmam`."""
        return f"{self.kind} {self.name}"

    def default_dims(self) -> dict[str, int]:
        """As many modalities as the class takes, three if it can."""
        low, high = self.modality_range()
        count = max(low, 3 if high is None else min(3, high))
        return dict([*DIMS.items(), *((f"m{i}", 5 + i) for i in range(3, count))][:count])

    def modality_range(self) -> tuple[int, int | None]:
        """Smallest and largest number of modalities."""
        return self.spec.modalities if self.spec else (2, None)

    def variants(self) -> list[Any]:
        """The subject under each set of options."""
        out = []
        for options in self._sets:
            variant = copy(self)
            variant.options = dict(options)
            out.append(variant)
        return out

    def describe(self) -> str:
        """The options in force, empty for none."""
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items())

    def handles(self, capability: str) -> bool:
        """Whether the card claims a capability."""
        return self.spec is not None and capability in self.spec.handles

    # -- for shared checks ----------------------------------------------------------------------------------------

    def build(self, **options: Any) -> nn.Module:
        """A new instance in training mode, from the random state as it is."""
        raise NotImplementedError

    def make(self, seed: int = 0, **options: Any) -> Any:
        """A new instance in eval mode, seeded."""
        torch.manual_seed(seed)
        return self.build(**options).eval()

    def inputs(self, seed: int = 0, steps: int = 5) -> Any:
        """Something to call it with; another length gives other shapes."""
        raise NotImplementedError

    def other_lengths(self, seed: int = 0) -> Any:
        """Something of the same shape as `inputs()`, in which other steps are padding."""
        raise NotImplementedError

    def run(self, module: Any, inputs: Any) -> Tensor:
        """Its main output."""
        raise NotImplementedError

    def loss(self, module: Any, inputs: Any) -> Tensor:
        """A scalar that depends on all that it returns, auxiliary losses included."""
        raise NotImplementedError


class FusionSubject(Subject):
    """A fusion, on streams of a few steps."""

    kind = "fusion"
    base = Fusion

    def modality_range(self) -> tuple[int, int | None]:
        return getattr(self.cls, "modalities", None) or super().modality_range()

    @property
    def pools(self) -> bool:
        """Whether the card says that the method returns one vector for a sequence."""
        return self.handles("pools")

    def build(self, *, dims: Any = None, out_dim: int | None = OUT, **options: Any) -> Any:
        options = {"out_dim": out_dim, **self.options, **options}
        return self.cls(self.dims if dims is None else dims, options.pop("out_dim"), **options)

    def streams(
        self, batch: int = 3, steps: int = 5, seed: int = 0, dims: Mapping[str, int] | None = None
    ) -> dict[str, Tensor]:
        """Random streams `(batch, steps, d_m)`."""
        generator = torch.Generator().manual_seed(seed)
        dims = self.dims if dims is None else dims
        return {m: torch.randn(batch, steps, d, generator=generator) for m, d in dims.items()}

    def inputs(self, seed: int = 0, steps: int = 5) -> Any:
        return self.streams(steps=steps, seed=seed), ragged(3, steps)

    def other_lengths(self, seed: int = 0) -> Any:
        return self.streams(seed=seed), ragged(3, 5).flip(0)

    def run(self, module: Any, inputs: Any) -> Tensor:
        return module(*inputs)

    def loss(self, module: Any, inputs: Any) -> Tensor:
        fused = module.fuse(*inputs)
        return weighted(fused.fused) + sum(fused.losses.values(), torch.zeros(()))


class HostSubject(Subject):
    """A host, on small dialogues."""

    kind = "host"
    base = Host

    def build(self, *, dims: Any = None, **options: Any) -> Any:
        return self.cls(self.dims if dims is None else dims, CLASSES, SPEAKERS, **{**self.options, **options})

    def batch(
        self, lengths: Iterable[int] = (5, 3, 1), *, dims: Mapping[str, int] | None = None, **options: Any
    ) -> Batch:
        """Dialogues of this host's widths, or of others; options as for `fusionzoo.testing.batches.dialogues`."""
        return dialogues(lengths, self.dims if dims is None else dims, **options)

    def inputs(self, seed: int = 0, steps: int = 5) -> Any:
        batch = self.batch((steps, max(1, steps - 2), 1), seed=seed)
        return as_clips(batch, seed) if self.handles("clips") else batch

    def other_lengths(self, seed: int = 0) -> Any:
        batch = self.batch((1, 3, 5), seed=seed)
        return as_clips(batch, seed) if self.handles("clips") else batch

    def run(self, module: Any, inputs: Any) -> Tensor:
        return module(inputs).logits

    def loss(self, module: Any, inputs: Any) -> Tensor:
        out = module(inputs)
        return weighted(out.logits) + sum(out.losses.values(), torch.zeros(()))


#: Width of the streams that objectives are given, and what their names end in.
STREAM, SUFFIXES = 6, ("", ".input", ".private", ".shared", ".reconstruction", ".logits")


def _stream_widths(classes: int) -> dict[str, int]:
    """Streams of every kind that hosts and fusions report."""
    widths = {f"{m}{s}": classes if s == ".logits" else STREAM for m in DIMS for s in SUFFIXES}
    return {"fused": STREAM, **widths}


class StandInHost(Host):
    """What an objective is bound to: reports all of those streams, all zero. Source: fusionzoo's own tests."""

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.fusion = self.make_fusion(dict.fromkeys(self.dims, STREAM))

    def encode(self, features, mask, batch):
        streams = {n: torch.zeros(*batch.size, d) for n, d in _stream_widths(self.num_classes).items()}
        return HostOutput(torch.zeros(*batch.size, self.num_classes), streams)


class ObjectiveSubject(Subject):
    """An objective, on the output of a host that never was."""

    kind = "objective"
    base = Objective
    precision = torch.float32  # losses compute in it on purpose, for mixed precision

    def build(self, classes: int = CLASSES, **options: Any) -> Any:
        counts = torch.tensor([5.0, 3.0, 1.0])[:classes]
        objective = self.cls(classes, **{"class_counts": counts, **self.options, **options})
        if isinstance(objective, Objective):
            # The same host whatever the seed: its weights are no part of the objective.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                host = StandInHost(DIMS, classes, SPEAKERS, fusion=objective.needs_fusion or "concat")
            objective.bind(host.eval())
        return objective

    def case(self, seed: int = 0, batch: int = 3, steps: int = 5, scale: float = 1.0) -> tuple[HostOutput, Batch]:
        """Random logits and streams, and a ragged batch with every class among its labels."""
        generator = torch.Generator().manual_seed(seed)
        mask = ragged(batch, steps)
        labels = torch.where(mask, (torch.arange(batch * steps) % CLASSES).view(batch, steps), IGNORE)
        logits = torch.randn(batch, steps, CLASSES, generator=generator) * scale * mask.unsqueeze(-1)
        streams = {}
        for name, width in _stream_widths(CLASSES).items():
            x = torch.randn(batch, steps, width, generator=generator)
            # Logits are as large as the joint ones, shared streams in (0, 1) as their sigmoid makes them.
            x = x * scale if name.endswith(".logits") else x.sigmoid() if name.endswith(".shared") else x
            streams[name] = x * mask.unsqueeze(-1)
        features = {m: torch.randn(batch, steps, d, generator=generator) for m, d in DIMS.items()}
        speakers = torch.where(mask, torch.arange(steps) % SPEAKERS, 0)
        ids = [f"d{b}" for b in range(batch)]
        return HostOutput(logits, streams), Batch(features, mask, speakers, labels, ids)

    def inputs(self, seed: int = 0, steps: int = 5) -> Any:
        return self.case(seed, steps=steps)

    def other_lengths(self, seed: int = 0) -> Any:
        out, batch = self.case(seed)
        turned = replace(
            batch,
            features={m: x.flip(0) for m, x in batch.features.items()},
            mask=batch.mask.flip(0),
            speakers=batch.speakers.flip(0),
            labels=batch.labels.flip(0),
        )
        return HostOutput(out.logits.flip(0), {k: v.flip(0) for k, v in out.streams.items()}), turned

    def run(self, module: Any, inputs: Any) -> Tensor:
        return module(*inputs)

    loss = run


def weighted(x: Tensor) -> Tensor:
    """A scalar in which every element of `x` counts differently, so that no symmetry cancels a gradient."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(x.shape, generator=generator).to(x)
    return (x * weights).sum() + x.square().sum()


def option_sets(cls: Any, options: OptionSets) -> list[dict[str, Any]]:
    """The options to check under: those given, else the class's `test_params()`, else none."""
    given: Any = options
    if given is None:
        own = getattr(cls, "test_params", None)
        given = own() if callable(own) else None
    if isinstance(given, Mapping):
        given = [given]
    return [dict(o) for o in given or ()] or [{}]


def spec_of(cls: type, kind: str) -> Spec | None:
    """The spec that the module of a class registers for it, for a class that is not installed yet."""
    hook = getattr(sys.modules.get(cls.__module__), "fusionzoo_register", None)
    found: list[Spec] = []
    if callable(hook):
        hook(register=found.append)
    mine = [s for s in found if s.kind == kind and s.target.rpartition(":")[2] == cls.__qualname__]
    return mine[0] if mine else None


def small_options(cls: Any) -> dict[str, Any]:
    """Options with which a step of a host takes milliseconds, by the names that hosts' options have.

    What the class's `test_params()` says first, if it says anything; else widths of 8, two layers of depth, windows of two
    utterances and no dropout. So a host is tried with every fusion by being there.
    """
    if callable(getattr(cls, "test_params", None)):
        return option_sets(cls, None)[0]
    taken = inspect.signature(cls).parameters
    small = {name: _small(name) for name in taken}
    return {name: value for name, value in small.items() if value is not None}


def _small(option: str) -> float | None:
    if option in ("fusion_width", "input_width"):  # None is not a size there: what is not asked for
        return None
    if option in ("hidden", "width", "channels") or option.endswith("_width"):
        return 8
    if option in ("depth", "window_past", "window_future"):
        return 2
    return 0.0 if option == "dropout" or option.endswith("_dropout") else None


SUBJECTS: dict[str, type[Subject]] = {s.kind: s for s in (FusionSubject, HostSubject, ObjectiveSubject)}
