"""A host on a call, and on calls made from it, without the fusion: the yardstick by which one is judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionzoo.patching.altered import AMBIGUOUS, Altered
from fusionzoo.patching.calls import Call
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.layouts import TIMED
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.padding import MORE, UNTOLD, WET, Padding
from fusionzoo.patching.promises import ONE_SAMPLE
from fusionzoo.patching.sites import AnySite
from fusionzoo.patching.torch_calls import everything_in
from fusionzoo.patching.trace.no_trace_left import untouched

Outputs = list[Tensor]
Where = list[Tensor]
#: What rounding may move in the bare host where more steps are computed.
SPARE = 1e-5


class Experiment:
    """A host on a call, and on calls made from it, without the fusion: what the fusion is judged by.

    Parameters
    ----------
    host : nn.Module
        The model, without the fusion.
    call : Call
        What it is called with.
    site : Site or InputSite
        Where the fusion will be.
    modalities : mapping or sequence, optional
        Names of the arguments.
    context : callable, optional
        What tells which steps are real.
    forwards : int
        How often the model was run before.
    """

    def __init__(
        self,
        host: nn.Module,
        call: Call,
        site: AnySite,
        modalities: ModalitiesLike,
        context: Context | None,
        forwards: int = 0,
    ):
        self.host, self.site, self.forwards = host, site, forwards
        self.shuffles = self.silent = False
        self.calls: dict[str, Call | str] = {}
        self.bare: dict[str, Outputs] = {}
        try:
            self.altered = Altered(host, call, site, modalities)
            if self.altered.tokens:
                changed = self.altered.changed()
                self.shuffles = isinstance(changed, Call) and self._attempted(changed) is None
                if self.shuffles:
                    self.altered = self._alter(call, modalities)
            self._settle_samples(modalities)
            self._make_calls(context)
            self.why = "" if self.bare["as given"] else "in eval mode, the model returns no floating-point tensor"
            self.silent = self.silent and not self._run(call, training=True)  # a loss, perhaps
        except Exception as error:  # the host's own code, in a mode or on a batch that the caller may never give it
            self.why = f"{type(host).__name__} in eval mode raises {type(error).__name__}: {error}"

    def _alter(self, call: Call, modalities: ModalitiesLike, axis: int | None = None) -> Altered:
        return Altered(self.host, call, self.site, modalities, axis, self.shuffles)

    def _settle_samples(self, modalities: ModalitiesLike) -> None:
        """A batch of one as two of it, where the host takes that; the axis of samples from what the host keeps apart."""
        given = self.altered
        if given.samples == AMBIGUOUS and self.site.sure and self.site.layout in TIMED:
            told = self._alter(given.call, modalities, TIMED.index(self.site.layout))
            self.altered = given = told if told.samples == ONE_SAMPLE else given
        if given.samples == ONE_SAMPLE and (twice := given.doubled()) is not None:
            two = self._alter(twice, modalities)
            outputs = None if isinstance(two.samples, str) else self._attempted(twice)
            if outputs is not None:
                self.altered, self.bare["as given"] = two, outputs
        if "as given" not in self.bare:
            self.bare["as given"] = self._run(given.call)
        if self.altered is given and given.samples != ONE_SAMPLE:
            self._settle_axis(modalities)

    def _settle_axis(self, modalities: ModalitiesLike) -> None:
        """The axis of samples is the one along which the bare host keeps places apart."""
        given = self.altered
        if not isinstance(given.samples, str) and self._keeps_apart(given):
            return
        first, second = (self._alter(given.call, modalities, axis) for axis in (0, 1))
        tried = [x for x in (first, second) if not isinstance(x.samples, str)]
        apart = {x: self._moves_one_row(x) for x in tried if self._keeps_apart(x)}
        alone = [x for x, one_row in apart.items() if one_row]
        apart = alone if len(alone) == 1 else list(apart)  # along time, an early step may fade out in some numbers
        if len(apart) == 2 and self.site.sure and self.site.layout in TIMED:  # a host without a step that sees another
            apart = [apart[self.site.layout == "(T, B, d)"]]
        single = ONE_SAMPLE in (first.samples, second.samples) and self._may_be_one_sample(given)
        if len(apart) == 1 and not single:
            (self.altered,) = apart
            self._keeps_apart(self.altered)
        else:
            for name in ("one", "the others"):
                self.bare.pop(name, None)

    def _moves_one_row(self, altered: Altered) -> bool:
        """Whether another value of one sample moves its own row alone of an output that has a row for every sample."""
        for before, after in zip(self.bare["as given"], self.bare["one"], strict=True):
            axes = [d for d, size in enumerate(before.shape) if size == altered.count]
            if axes and before.shape == after.shape:
                moved = differ(before, after, 0.0)
                if any(not bool(moved.movedim(d, 0)[1:].any()) for d in axes) and bool(moved.any()):
                    return True
        return False

    def _may_be_one_sample(self, given: Altered) -> bool:
        """Whether an axis of one place may count samples: the model takes two along it, where that can be tried."""
        twice = given.doubled()
        return twice is None or self._attempted(twice) is not None

    def _keeps_apart(self, altered: Altered) -> bool:
        for name, others in (("one", False), ("the others", True)):
            changed = altered.changed(others)
            outputs = None if isinstance(changed, str) else self._attempted(changed)
            if outputs is None:
                return False
            self.bare[name] = outputs
        return any(bool(s.any()) for s in self._separate() or ())

    def _make_calls(self, context: Context | None) -> None:
        altered, self.padding = self.altered, Padding(self.altered, context)
        self._leave_out_seen([path for path in self.padding.untold if path not in self.padding.zeros])
        self.calls = {
            "as given": altered.call,
            "one": altered.changed(),
            "the others": altered.changed(others=True),
            "padding": self.padding.poisoned(),
            "longer": self.padding.longer(),
            "sooner": altered.half_of_tokens(second=False),
            "later": altered.half_of_tokens(second=True),
            **{f"only {name}": altered.only(name) for name in altered.modalities},
        }
        for name in ("one", "the others", "padding", "longer", "sooner", "later"):
            call = self.calls[name]
            if isinstance(call, str) or name in self.bare:
                continue
            outputs = self._attempted(call)
            if outputs is None:
                self.calls[name] = "the model does not take the values that were tried"
            else:
                self.bare[name] = outputs
        self._leave_out_guesses()
        if isinstance(self.calls["longer"], str):  # zeros tell nothing then
            self._leave_out_seen(list(self.padding.zeros))
            self.calls["padding"] = self.padding.why or self.calls["padding"]
        if isinstance(self.calls["the others"], str):
            self.calls["one"] = self.calls["the others"]
        self.calls["smaller"] = "the model takes no batch of another size that could be made from this one"
        for call in altered.smaller():
            if self._attempted(call) is not None:
                self.calls["smaller"] = call
                return

    def _leave_out_seen(self, paths: Sequence[str]) -> None:
        """Streams whose last step the bare host sees in every sample: it takes all their steps for real."""
        samples = self.altered.count
        for path in paths:
            outputs = self._attempted(self.padding.last_step(path)) or []
            pairs = [(x, y) for x, y in zip(self.bare["as given"], outputs, strict=False) if x.shape == y.shape]
            rows = [
                (x != y).movedim(d, 0).contiguous() for x, y in pairs for d, n in enumerate(x.shape[:2]) if n == samples
            ]
            if any(bool(moved.view(samples, -1).any(1).all()) for moved in rows):
                self.padding.seen(path)

    def _leave_out_guesses(self) -> None:
        """Where other values in what is guessed to be padding move everything, it is none: the rest is tried without it."""
        guesses = self.padding.guesses
        if "padding" not in self.bare or not guesses or not isinstance(self.dry(), str):
            return
        self.padding.untold += sorted(guesses)
        sure = self.padding.poisoned(guesses)
        outputs = None if isinstance(sure, str) else self._attempted(sure)
        self.calls["padding"] = sure if outputs is not None else UNTOLD
        self.calls["longer"] = UNTOLD
        if outputs is not None:
            self.bare["padding"] = outputs

    # -- running ----------------------------------------------------------------------------------------------------

    def _attempted(self, call: Call) -> Outputs | None:
        """What the host returns; None where it does not take the call."""
        try:
            return self._run(call)
        except Exception:  # of the host's own code
            return None

    def _run(self, call: Call, training: bool = False, grad: bool = False) -> Outputs:
        """The floating-point outputs; every run begins with the same random state, and leaves all as it was."""
        self.forwards += 1
        modes = [(m, m.training) for m in self.host.modules()]
        eager = torch.compiler.set_stance("force_eager")
        try:
            with untouched(self.host), torch.set_grad_enabled(grad), eager:
                self.host.train(training)
                call = call.fresh()
                for x in everything_in([call.args, call.kwargs]):
                    x.requires_grad_(False)
                out = call.of(self.host)
                self.silent = not everything_in(out)
                return [x if grad else x.detach().clone() for x in everything_in(out) if x.is_floating_point()]
        finally:
            torch.clear_autocast_cache()  # casts made here know no gradient
            for module, training in modes:
                if module.training != training:
                    module.training = training

    def run(self, name: str) -> Outputs:
        """The host, as it is now, on one of the calls."""
        call = self.calls[name]
        assert isinstance(call, Call)
        return self._run(call)

    def reaches(self, layer: FusionLayer) -> list[bool]:
        """For each output, whether a gradient comes from it to the fusion: with all else frozen, whether it requires one."""
        own = {id(p) for p in layer.parameters()}
        flags = [(p, p.requires_grad) for p in self.host.parameters()]
        call = self.calls["as given"]
        assert isinstance(call, Call)
        try:
            for p, _ in flags:
                p.requires_grad_(id(p) in own and p.is_floating_point())
            with torch.inference_mode(False):
                outputs = self._run(call, grad=True)
            if not any(x.requires_grad for x in outputs):  # in eval mode, a host may switch gradients off itself
                outputs = self._run(call, training=True, grad=True)
            return [x.requires_grad for x in outputs]
        finally:
            for p, flag in flags:
                p.requires_grad_(flag)

    # -- what the bare host does --------------------------------------------------------------------------------------

    def _touched(self, name: str, tolerance: float = 0.0) -> Where | None:
        """Where a change may show in the bare host: any difference counts, and for all features of a row together.

        One feature that a rectifier keeps at zero is not kept from anything. The last axis of two may count samples or steps.
        """
        moved = moved_in(self.bare, name, tolerance)
        steps = {n for x in self.altered.streams for n in x.tensor.shape[:2]}
        return moved and [
            m.any(-1, keepdim=True).expand_as(m) if m.dim() > 2 or (m.dim() == 2 and m.shape[1] not in steps) else m
            for m in moved
        ]

    def _separate(self) -> Where | None:
        """Outputs that the others reach and the one sample does not; None where outputs change their size."""
        own, others = self._touched("one"), self._touched("the others")
        return None if own is None or others is None else [o & ~x for o, x in zip(others, own, strict=True)]

    def separate(self) -> Where | str:
        """Outputs that the host keeps from one sample; why not, where it keeps none."""
        found = self._separate()
        if found is None:
            return "the outputs have another size when a sample changes"
        return found if any(bool(s.any()) for s in found) else "the model itself mixes the samples of a batch"

    def spare(self) -> Where | str:
        """Outputs that are the same in the host with more steps of padding; why not, where none are."""
        own = self._touched("longer", SPARE)
        if own is None:
            return "the outputs have another size with more padding"
        return [~o for o in own] if not all(bool(o.all()) for o in own) else WET

    def dry(self) -> Where | str:
        """Outputs that the host keeps from padding; why not, where it keeps none."""
        own = self._touched("padding")
        if own is None:
            return "the outputs have another size when padding changes"
        kept = [self._of_padded(~o) for o in own]
        return kept if any(bool(k.any()) for k in kept) else WET

    def _of_padded(self, kept: Tensor) -> Tensor:
        """Of samples with padding alone, where an axis of an output counts them."""
        axis = next((d for d, n in enumerate(kept.shape[:2]) if n == self.altered.count), None)
        if axis is None:
            return kept
        padded = torch.zeros(kept.shape[axis], dtype=torch.bool, device=kept.device)
        padded[self.padding.samples] = True
        return kept & padded.view([-1 if d == axis else 1 for d in range(kept.dim())])

    def earlier(self) -> Where | str:
        """Outputs of one sample that the host keeps from its later tokens; why not, where it keeps none."""
        runs = [self._touched(name) if name in self.bare else None for name in ("one", "sooner", "later")]
        own, sooner, later = runs
        if own is None or sooner is None or later is None:
            return "the outputs have another size when tokens change"
        if not any(bool(x.any()) for x in later) or any(
            bool((x & ~y).any()) for x, y in zip(later, sooner, strict=True)
        ):
            return "the model does not go from token to token"
        kept = [o & ~x for o, x in zip(own, later, strict=True)]
        return kept if any(bool(k.any()) for k in kept) else "in the model itself, later tokens reach every output"


def moved_in(runs: dict[str, Outputs], name: str, tolerance: float) -> Where | None:
    """Where outputs moved by more than a share of the largest one; None where they have another size.

    Of a call with more steps, the steps that were there before count.
    """
    before, after = runs["as given"], runs[name]
    if name == "longer" and len(before) == len(after):
        after = [_as_long(x, y) for x, y in zip(before, after, strict=True)]
    if [x.shape for x in before] != [x.shape for x in after]:
        return None
    return [differ(x, y, tolerance) for x, y in zip(before, after, strict=True)]


def _as_long(x: Tensor, y: Tensor) -> Tensor:
    """The second output without the steps that it has more along one axis."""
    grown = [d for d, (n, m) in enumerate(zip(x.shape, y.shape, strict=False)) if m == n + MORE]
    return y.narrow(grown[0], 0, x.shape[grown[0]]) if len(grown) == 1 else y


def differ(x: Tensor, y: Tensor, tolerance: float) -> Tensor:
    """Where two tensors differ by more than a share of the largest value."""
    x, y = x.double().nan_to_num(), y.double().nan_to_num()
    scale = max(float(x.abs().max()), float(y.abs().max())) if x.numel() else 1.0
    return (x - y).abs() > tolerance * scale
