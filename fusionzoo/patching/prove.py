"""What a patch promises, tried out on the model with the caller's batch before the patch is handed over.

The host's own behaviour is the yardstick. It runs on the batch and on batches made from it, without the fusion, and with
the fusion awake: its projections random, put back afterwards. What a change of one sample moves then, and did not move before,
is a leak; a host that mixes samples itself is not blamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import ShapeError
from fusionzoo.patching.experiment import Experiment, Outputs, Where, differ, moved_in
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.promises import (
    ALWAYS,
    APART,
    BROKEN,
    COMPLETE,
    FELT,
    FITS,
    LATER,
    LEARNS,
    NOT_TRIED,
    PADDING,
    PROVED,
    Promise,
    Proof,
)
from fusionzoo.patching.torch_calls import everything_in

#: How much an output has to move, as a share of the largest, before the fusion is said to be felt; below `_UNFELT` it is not.
_FELT, _UNFELT = 1e-4, 1e-6


def judge(experiment: Experiment, layer: FusionLayer, among: Sequence[str] = ()) -> Proof:
    """What becomes of the promises with this fusion in the host; of those named only, where some are."""
    if experiment.why:
        return Proof.left_out(experiment.why)
    awake = _Awake(experiment, layer)
    tests = {APART: awake.apart, PADDING: awake.padding, FITS: awake.fits}
    more = {FELT: awake.felt, COMPLETE: awake.complete, LEARNS: awake.learns}
    if not isinstance(experiment.earlier(), str):
        more[LATER] = awake.later
    promises: list[Promise] = []
    try:
        with _random_projections(layer):
            promises += [test() for words, test in tests.items() if not among or words in among]
            if any(p.state == BROKEN for p in promises):
                more = {}
            promises += [test() for words, test in more.items() if not among or words in among]
    except Exception as error:
        return replace(
            Proof.left_out(f"on a batch made from this one, the model raises {type(error).__name__}: {error}"),
            forwards=experiment.forwards,
        )
    if not more and not among:
        tried = {p.words for p in promises}
        promises += [
            Promise(words, NOT_TRIED, "the streams are read wrongly") for words in ALWAYS if words not in tried
        ]
    return Proof(tuple(promises), experiment.forwards, str(experiment.altered))


class _Awake:
    """The host with a fusion that is felt, judged by the bare one. Each test is one promise."""

    def __init__(self, experiment: Experiment, layer: FusionLayer):
        self.experiment, self.layer = experiment, layer
        self.heard: dict[str, list[Tensor]] = {}
        self.runs: dict[str, Outputs] = {}

    def run(self, name: str) -> Outputs:
        """The outputs for one of the calls; notes the streams that the fusion is given."""
        if name not in self.runs:
            with _listening(self.layer, self.heard.setdefault(name, [])):
                self.runs[name] = self.experiment.run(name)
        return self.runs[name]

    def _kept(self, words: str, name: str, kept: Where | str, leak: str) -> Promise:
        if isinstance(kept, str):
            return Promise(words, NOT_TRIED, kept)
        for call in ("as given", name):
            self.run(call)
        now = moved_in(self.runs, name, _rounding(self.heard))
        if now is None:
            return Promise(words, NOT_TRIED, "the outputs have another size in the changed batch")
        broken = any(bool((n & k).any()) for n, k in zip(now, kept, strict=True))
        return Promise(words, BROKEN, leak) if broken else Promise(words, PROVED)

    def apart(self) -> Promise:
        """Samples stay apart."""
        call = self.experiment.calls["one"]
        kept = call if isinstance(call, str) else self.experiment.separate()
        return self._kept(
            APART, "one", kept, "changing one sample moves outputs of others, which the model keeps apart"
        )

    def padding(self) -> Promise:
        """Padding stays unseen: neither other values in it nor more of it moves what it does not move in the model."""
        experiment, told = self.experiment, self.experiment.padding
        found = []
        for name, kept, leak in (
            ("padding", experiment.dry, "values at padded steps move outputs that they do not move in the model"),
            ("longer", experiment.spare, "more steps of padding move outputs that they do not move in the model"),
        ):
            call = experiment.calls[name]
            try:
                found.append(self._kept(PADDING, name, call if isinstance(call, str) else kept(), leak))
            except ShapeError as error:  # which other sizes have to show
                found.append(Promise(PADDING, NOT_TRIED, f"with more steps, the fusion does not fit: {error}"))
            if found[-1].state == BROKEN:
                return found[-1]
        values, more = found
        if not told.real and told.zeros:  # values of their own would be no padding
            zeros = "tried with more zeros after the streams, by which alone this call tells padding"
            return replace(more, why=zeros) if more.state == PROVED else more
        untold = [path for path in told.untold if path not in told.zeros or more.state != PROVED]
        if values.state == PROVED and untold:
            but = f"nothing in the call tells which steps of {', '.join(untold)} are padding"
            return Promise(PADDING, NOT_TRIED, f"{', '.join(told.real)} is proved; {but}")
        return values

    def fits(self) -> Promise:
        """Other sizes fit."""
        call = self.experiment.calls["smaller"]
        if isinstance(call, str):
            return Promise(FITS, NOT_TRIED, call)
        try:
            self.run("smaller")
        except ShapeError as error:
            return Promise(FITS, BROKEN, f"the model takes a batch of another size, and the fusion does not: {error}")
        except Exception as error:
            return Promise(FITS, NOT_TRIED, f"with a batch of another size, {type(error).__name__}: {error}")
        return Promise(FITS, PROVED)

    def felt(self) -> Promise:
        """The first output feels the fusion."""
        before, after = self.experiment.bare["as given"], self.run("as given")
        moved = [x.shape != y.shape or bool(differ(x, y, _FELT).any()) for x, y in zip(before, after, strict=False)]
        if moved[0]:
            return Promise(FELT, PROVED)
        reached = self._reached()
        mains = [i for i, n in enumerate(reached) if n == max(reached)]
        found = next((i for i in mains if moved[i]), None)
        if found == mains[0]:
            return Promise(FELT, PROVED, f"output {found} does, the first one that most modalities reach")
        if found is not None:
            return Promise(FELT, PROVED, f"output {found} does, which as many modalities reach as output {mains[0]}")
        if bool(differ(before[0], after[0], _UNFELT).any()):
            return Promise(FELT, NOT_TRIED, "it moves so little that this may be rounding")
        which = [str(i) for i, f in enumerate(moved) if f]
        return Promise(FELT, BROKEN, f"only output {', '.join(which)} does" if which else "no output does")

    def _reached(self) -> list[int]:
        """For each output, how many modalities reach it; none for one number, such as a loss."""
        usual = self.run("as given")
        reached = [0] * len(usual)
        for name in self.experiment.altered.modalities:
            now = self.run(f"only {name}")
            for i, (x, y) in enumerate(zip(usual, now, strict=False)):
                reached[i] += x.numel() > 1 and (x.shape != y.shape or not torch.equal(x, y))
        return reached

    def complete(self) -> Promise:
        """Every stream takes part that takes part in the model."""
        names = self.experiment.altered.modalities
        if len(names) < 2:
            return Promise(COMPLETE, NOT_TRIED, "the modalities come in one argument")
        self.run("as given")
        usual = self.heard["as given"]
        if not usual:
            return Promise(COMPLETE, NOT_TRIED, "the model does not come by the site in eval mode")
        silent = []
        for name in names:
            changed = self.run(f"only {name}")
            if _alike(self.heard[f"only {name}"], usual) and not _alike(changed, self.runs["as given"]):
                silent.append(name)
        if silent:
            return Promise(COMPLETE, BROKEN, f"{', '.join(silent)} reaches none of the streams that the fusion gets")
        return Promise(COMPLETE, PROVED)

    def later(self) -> Promise:
        """Later tokens stay unseen."""
        cure = "take a fusion of level 'utterance', such as gated" if self.layer.plan.across else "take another site"
        leak = (
            "later tokens move outputs that the model keeps from them, so that it would be trained with the answer in sight; "
            + cure
        )
        return self._kept(LATER, "later", self.experiment.earlier(), leak)

    def learns(self) -> Promise:
        """A gradient comes from the outputs to the fusion."""
        if not any(p.is_floating_point() for p in self.layer.parameters()):
            return Promise(LEARNS, NOT_TRIED, "it has no parameters")
        try:
            reached = self.experiment.reaches(self.layer)
        except Exception as error:
            return Promise(LEARNS, NOT_TRIED, f"with gradients, the model raises {type(error).__name__}: {error}")
        return Promise(LEARNS, PROVED) if any(reached) else Promise(LEARNS, BROKEN, "no output has a gradient for it")


def _rounding(heard: dict[str, list[Tensor]]) -> float:
    """What the precision in which streams are joined may explain, as a share of the largest output."""
    kinds = {x.dtype for xs in heard.values() for x in xs if x.is_floating_point()}
    return max([1e-4, *(4 * torch.finfo(kind).eps for kind in kinds)])


def _alike(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> bool:
    return len(xs) == len(ys) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(xs, ys, strict=True))


@contextmanager
def _random_projections(layer: FusionLayer) -> Iterator[None]:
    """Awake: the host feels the fusion; what was there is put back."""
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
