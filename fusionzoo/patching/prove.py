"""What a patch promises, tried out on the model with the caller's batch before the patch is handed over.

The host's own behaviour is the yardstick. It runs on the batch and on batches made from it, without the fusion, and with
the fusion awake: its projections random, put back afterwards. What a change of one sample moves then, and did not move before,
is a leak; a host that mixes samples itself is not blamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.patching.arguments import set_argument
from fusionzoo.patching.calls import Call
from fusionzoo.patching.find.real_steps import of_input
from fusionzoo.patching.fuse.contexts import ArgumentContext, Context, read_context
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.modalities import Leaf, ModalitiesLike, find_modalities
from fusionzoo.patching.signatures import bind, forward_of
from fusionzoo.patching.sites import AnySite, InputSite
from fusionzoo.patching.torch_calls import everything_in
from fusionzoo.patching.trace.events import Trace
from fusionzoo.patching.trace.no_trace_left import untouched

APART, PADDING = "samples stay apart", "padding stays unseen"
FELT, COMPLETE = "the first output feels the fusion", "every stream takes part"
PROVED, BROKEN, NOT_TRIED = "proved", "broken", "not tried"


@dataclass(frozen=True)
class Promise:
    """One thing that a patch promises.

    Attributes
    ----------
    words : str
        The promise.
    state : str
        `"proved"`, `"broken"` or `"not tried"`.
    why : str
        What was seen, or why it could not be tried.
    """

    words: str
    state: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state:<9}  {self.words}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True)
class Proof:
    """What was tried of a patch's promises.

    Attributes
    ----------
    promises : tuple of Promise
        Each with how it ended.
    forwards : int
        How often the model was run for it.
    """

    promises: tuple[Promise, ...]
    forwards: int = 0

    @classmethod
    def left_out(cls, why: str) -> Proof:
        """Nothing was tried."""
        return cls(tuple(Promise(words, NOT_TRIED, why) for words in (APART, PADDING, FELT, COMPLETE)))

    @property
    def leaks(self) -> tuple[Promise, ...]:
        """What lets a sample or a padded step reach what it must not."""
        return tuple(p for p in self.promises if p.state == BROKEN and p.words in (APART, PADDING))

    def holds(self, words: str) -> bool:
        """Whether a promise is proved."""
        return any(p.words == words and p.state == PROVED for p in self.promises)

    def __str__(self) -> str:
        reasons = {p.why for p in self.promises}
        if len(reasons) == 1 and all(p.state == NOT_TRIED for p in self.promises):
            return f"nothing tried: {reasons.pop()}"
        return "\n".join([*map(str, self.promises), f"in {self.forwards} forwards of the model"])


Outputs = list[Tensor]
Where = list[Tensor]


class Experiment:
    """A host on a call, and on calls made from it, without the fusion: what the fusion is judged by."""

    def __init__(self, host: nn.Module, call: Call, site: AnySite, modalities: ModalitiesLike, context: Context | None):
        self.host, self.call, self.site = host, call, site
        self.forwards = 0
        self.untried: dict[str, str] = {}
        self.padding_context: ArgumentContext | None = None
        self.calls: dict[str, Call] = {"as given": call}
        self.bare: dict[str, Outputs] = {}
        try:
            self._make_calls(modalities, context)
            for name, changed in self.calls.items():
                if not name.startswith("only "):
                    self.bare[name] = self._run(changed)
            self.why = "" if self.bare["as given"] else "the model returns no floating-point tensor"
        except Exception as error:  # the host's own code, in a mode or on a batch that the caller may never give it
            self.why = f"{type(host).__name__} in eval mode raises {type(error).__name__}: {error}"

    # -- calls made from the caller's -------------------------------------------------------------------------------

    def _make_calls(self, modalities: ModalitiesLike, context: Context | None) -> None:
        arguments = bind(forward_of(self.host), self.call.args, self.call.kwargs)
        leaves = find_modalities(arguments, None if isinstance(self.site, InputSite) else modalities)
        streams = [x for x in leaves if x.modality or x.widths]
        if isinstance(self.site, InputSite):
            streams = [x for x in streams if x.path == self.site.arg] or streams
        if not streams:
            self.untried[APART] = self.untried[PADDING] = "no stream is found among the arguments"
            return
        samples = sample_rows(streams, leaves, arguments, self.site)
        if isinstance(samples, str):
            self.untried[APART] = self.untried[PADDING] = samples
        else:
            one, others = {}, {}
            for x in streams:
                axis, mine, theirs = samples[x.path]
                one[x.path], others[x.path] = _changed(x.tensor, axis, mine), _changed(x.tensor, axis, theirs)
            self.calls["one"], self.calls["the others"] = self._with(one), self._with(others)
            self._poison(streams, leaves, arguments, {path: rows[0] for path, rows in samples.items()}, context)
        for name in dict.fromkeys(x.modality for x in streams if x.modality):
            mine = [x for x in streams if x.modality == name]
            everywhere = {x.path: _changed(x.tensor, 0, torch.arange(len(x.tensor))) for x in mine}
            self.calls[f"only {name}"] = self._with(everywhere)

    def _with(self, tensors: dict[str, Tensor]) -> Call:
        """The caller's call with other tensors at some paths."""
        args, kwargs = self.call.args, self.call.kwargs
        for path, tensor in tensors.items():
            args, kwargs = set_argument(forward_of(self.host), args, kwargs, path, tensor)
        return Call(*args, **kwargs)

    def _poison(
        self,
        streams: Sequence[Leaf],
        leaves: list[Leaf],
        arguments: dict[str, Any],
        axes: dict[str, int],
        context: Context | None,
    ) -> None:
        """A call whose padded steps hold other values."""
        deep = [x for x in streams if x.tensor.dim() == 3 and x.tensor.is_floating_point()]
        if not deep:
            self.untried[PADDING] = "the streams have no axis of time"
            return
        layout = ("(B, T, d)", "(T, B, d)")[axes[deep[0].path]]
        self.padding_context = of_input(Trace([], [], leaves, arguments), layout, deep[0].tensor.shape)
        source = context or self.padding_context
        if source is None:
            self.untried[PADDING] = "nothing in the call tells which steps are padding"
            return
        told = read_context(source, self.host, self.call.args, self.call.kwargs, self.site.where)
        poisoned = {}
        for x in deep:
            real = _real(told, x.tensor, axes[x.path])
            if real is not None and not bool(real.all()):
                noise = 10 * _noise(x.tensor)
                poisoned[x.path] = torch.where(real.unsqueeze(-1).to(x.tensor.device), x.tensor, noise)
        if poisoned:
            self.calls["padding"] = self._with(poisoned)
        else:
            self.untried[PADDING] = "no step of this batch is padding"

    # -- running ----------------------------------------------------------------------------------------------------

    def _run(self, call: Call) -> Outputs:
        """The floating-point outputs in eval mode; every run begins with the same random state, and leaves all as it was."""
        self.forwards += 1
        modes = [(m, m.training) for m in self.host.modules()]
        eager = torch.compiler.set_stance("force_eager")
        try:
            with untouched(self.host), torch.no_grad(), eager:
                self.host.eval()
                out = call.fresh().of(self.host)
                return [x.detach().clone() for x in everything_in(out) if x.is_floating_point()]
        finally:
            for module, training in modes:
                if module.training != training:
                    module.training = training

    def judge(self, layer: FusionLayer) -> Proof:
        """What becomes of the promises with this fusion in the host."""
        if self.why:
            return Proof.left_out(self.why)
        heard: dict[str, list[Tensor]] = {}
        awake: dict[str, Outputs] = {}
        try:
            with _awake(layer):
                for name, call in self.calls.items():
                    if name == "the others":  # which tells what the bare host keeps apart
                        continue
                    with _listening(layer, heard.setdefault(name, [])):
                        awake[name] = self._run(call)
        except Exception as error:
            return Proof.left_out(f"on a batch made from this one, the model raises {type(error).__name__}: {error}")
        tolerance = _rounding(heard)
        leaks = self._apart(awake, tolerance), self._padding(awake, tolerance)
        return Proof((*leaks, self._felt(awake), self._complete(heard)), self.forwards)

    # -- promises ---------------------------------------------------------------------------------------------------

    def _apart(self, awake: dict[str, Outputs], tolerance: float) -> Promise:
        if APART in self.untried:
            return Promise(APART, NOT_TRIED, self.untried[APART])
        own, others = _touched(self.bare, "one"), _touched(self.bare, "the others")
        now = _moved(awake, "one", tolerance)
        if own is None or others is None or now is None:
            return Promise(APART, NOT_TRIED, "the outputs have another size when a sample changes")
        separate = [o & ~x for o, x in zip(others, own, strict=True)]
        if not any(bool(s.any()) for s in separate):
            return Promise(APART, NOT_TRIED, "the model itself mixes the samples of a batch")
        if any(bool((n & s).any()) for n, s in zip(now, separate, strict=True)):
            return Promise(APART, BROKEN, "changing one sample moves outputs of others, which the model keeps apart")
        return Promise(APART, PROVED)

    def _padding(self, awake: dict[str, Outputs], tolerance: float) -> Promise:
        if PADDING in self.untried:
            return Promise(PADDING, NOT_TRIED, self.untried[PADDING])
        own, now = _touched(self.bare, "padding"), _moved(awake, "padding", tolerance)
        if own is None or now is None:
            return Promise(PADDING, NOT_TRIED, "the outputs have another size when padding changes")
        if all(bool(o.all()) for o in own):
            return Promise(PADDING, NOT_TRIED, "in the model itself, padding reaches every output")
        if any(bool((n & ~o).any()) for n, o in zip(now, own, strict=True)):
            return Promise(PADDING, BROKEN, "values at padded steps move outputs that they do not move in the model")
        return Promise(PADDING, PROVED)

    def _felt(self, awake: dict[str, Outputs]) -> Promise:
        before, after = self.bare["as given"], awake["as given"]
        felt = [x.shape != y.shape or bool(_differ(x, y, 1e-4).any()) for x, y in zip(before, after, strict=False)]
        if felt[0]:
            return Promise(FELT, PROVED)
        which = [str(i) for i, f in enumerate(felt) if f]
        return Promise(FELT, BROKEN, f"only output {', '.join(which)} does" if which else "no output does")

    def _complete(self, heard: dict[str, list[Tensor]]) -> Promise:
        names = [name.removeprefix("only ") for name in heard if name.startswith("only ")]
        if len(names) < 2:
            return Promise(COMPLETE, NOT_TRIED, "the modalities come in one argument")
        usual = heard["as given"]
        if not usual:
            return Promise(COMPLETE, NOT_TRIED, "the model does not come by the site in eval mode")
        silent = [n for n in names if _alike(heard[f"only {n}"], usual)]
        if silent:
            return Promise(COMPLETE, BROKEN, f"{', '.join(silent)} reaches none of the streams that the fusion gets")
        return Promise(COMPLETE, PROVED)


def sample_rows(
    streams: Sequence[Leaf], leaves: Sequence[Leaf], arguments: dict[str, Any], site: AnySite
) -> dict[str, tuple[int, Tensor, Tensor]] | str:
    """For each stream, the axis of samples, the places of one sample and those of the others; or why that is not known."""
    flat = all(x.tensor.dim() == 2 and x.tensor.is_floating_point() for x in streams)
    counts = _counts(leaves, arguments)
    if flat and site.layout in ("(N, d)", "(T, d)"):
        rows = len(streams[0].tensor)
        lengths = next((c for c in counts if len(c) > 1 and sum(c) == rows), None)
        if lengths is None or any(len(x.tensor) != rows for x in streams):
            return "nothing in the call tells which rows are one dialogue"
        return {x.path: (0, torch.arange(lengths[0]), torch.arange(lengths[0], rows)) for x in streams}
    size = _sample_count(streams, leaves, [len(c) for c in counts], site)
    if isinstance(size, str):
        return size
    if size < 2:
        return "the batch holds one sample"
    out = {}
    for x in streams:
        axes = [d for d in range(_outer_axes(x)) if x.tensor.shape[d] == size]
        axis = axes[-1] if site.layout == "(T, B, d)" and x.tensor.dim() > 2 else axes[0]
        out[x.path] = axis, torch.arange(1), torch.arange(1, size)
    return out


def _outer_axes(x: Leaf) -> int:
    return 1 if x.tensor.dim() == 2 and x.tensor.is_floating_point() else 2


def _sample_count(streams: Sequence[Leaf], leaves: Sequence[Leaf], lists: list[int], site: AnySite) -> int | str:
    sizes = set.intersection(*({*x.tensor.shape[: _outer_axes(x)]} for x in streams))
    if not sizes:
        return "the streams have no axis of one size that could count samples"
    if len(sizes) > 1 and len(told := sizes & set(lists)) == 1:
        sizes = told
    first = next((x.tensor for x in streams if x.tensor.dim() > 2), None)
    if len(sizes) > 1 and first is not None:
        pair = tuple(first.shape[:2])
        masks = [tuple(x.tensor.shape) for x in leaves if "mask" in x.hint.lower() and x.modality is None]
        if pair in masks or pair[::-1] in masks:
            sizes = {pair[0] if pair in masks else pair[1]}
        elif site.sure and site.layout in ("(B, T, d)", "(T, B, d)"):
            sizes = {pair[site.layout == "(T, B, d)"]}
    return sizes.pop() if len(sizes) == 1 else "nothing tells which axis of the streams counts samples; give layout="


def _counts(leaves: Sequence[Leaf], arguments: dict[str, Any]) -> list[list[int]]:
    """Lists of whole numbers in the call, which may be lengths."""
    out = [list(v) for v in arguments.values() if isinstance(v, (list, tuple)) and v and all(type(i) is int for i in v)]
    for x in leaves:
        if x.modality is None and x.tensor.dim() == 1 and x.tensor.dtype in (torch.int32, torch.int64):
            out.append(x.tensor.tolist())
    return out


def _noise(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype) + 1


def _changed(x: Tensor, axis: int, where: Tensor) -> Tensor:
    """A stream with other values at some places of an axis; token ids come in another order, or as others that are there."""
    where = where.to(x.device)
    part = x.detach().index_select(axis, where)
    if x.is_floating_point():
        new = part + _noise(part)
    else:  # a sample keeps as many of each token as it has: some of them stand for pictures' vectors
        new = part.roll(1, 1 - axis) if x.dim() == 2 else part
        new = x.max() - part + x.min() if torch.equal(new, part) else new
    return x.detach().index_copy(axis, where, new)


def _real(told: dict[str, Any], x: Tensor, axis: int) -> Tensor | None:
    """Which steps are real, in the order of a stream's own axes; None where what was told is of another size."""
    batch, steps = x.shape[axis], x.shape[1 - axis]
    mask, lengths = told.get("mask"), told.get("lengths")
    if mask is None and lengths is not None and lengths.numel() == batch:
        mask = torch.arange(steps) < lengths.flatten().cpu().view(-1, 1)
    if mask is None or tuple(mask.shape) != (batch, steps):
        return None
    mask = mask.bool()
    return mask if axis == 0 else mask.T


def _moved(runs: dict[str, Outputs], name: str, tolerance: float) -> Where | None:
    """Where outputs moved by more than a share of the largest one; None where they have another size."""
    before, after = runs["as given"], runs[name]
    if [x.shape for x in before] != [x.shape for x in after]:
        return None
    return [_differ(x, y, tolerance) for x, y in zip(before, after, strict=True)]


def _differ(x: Tensor, y: Tensor, tolerance: float) -> Tensor:
    x, y = x.double().nan_to_num(), y.double().nan_to_num()
    scale = max(float(x.abs().max()), float(y.abs().max())) if x.numel() else 1.0
    return (x - y).abs() > tolerance * scale


def _touched(runs: dict[str, Outputs], name: str) -> Where | None:
    """Where a change may show in the bare host: any difference counts, and for all features of a step together."""
    moved = _moved(runs, name, 0.0)
    return None if moved is None else [m.any(-1, keepdim=True).expand_as(m) if m.dim() > 2 else m for m in moved]


def _rounding(heard: dict[str, list[Tensor]]) -> float:
    """What the precision in which streams are joined may explain, as a share of the largest output."""
    kinds = {x.dtype for xs in heard.values() for x in xs if x.is_floating_point()}
    return max([1e-4, *(4 * torch.finfo(kind).eps for kind in kinds)])


def _alike(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> bool:
    return len(xs) == len(ys) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(xs, ys, strict=True))


@contextmanager
def _awake(layer: FusionLayer) -> Iterator[None]:
    """Random projections, so that the host feels the fusion; what was there is put back."""
    parameters = list(layer.out.parameters())
    before, calls = [p.detach().clone() for p in parameters], layer.calls
    generator = torch.Generator().manual_seed(7)
    try:
        with torch.no_grad():
            for p in parameters:
                p.copy_(torch.randn(p.shape, generator=generator) / max(p.shape[-1], 1) ** 0.5)
        yield
    finally:
        with torch.no_grad():
            for p, saved in zip(parameters, before, strict=True):
                p.copy_(saved)
        layer.calls = calls


@contextmanager
def _listening(layer: FusionLayer, heard: list[Tensor]) -> Iterator[None]:
    """Notes the streams that the fusion is given."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        heard.extend(x.detach().clone() for x in everything_in(args[0]))

    handle = layer.fusion.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
