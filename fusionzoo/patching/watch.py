"""What a batch could not show of a patch's promises, tried with the first one that can: once, in the model's own forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fusionzoo.errors import LeakError
from fusionzoo.patching.altered import Altered
from fusionzoo.patching.calls import Call
from fusionzoo.patching.experiment import Experiment
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.padding import Padding
from fusionzoo.patching.promises import APART, BROKEN, PADDING
from fusionzoo.patching.prove import judge
from fusionzoo.patching.rewrite.override import change
from fusionzoo.patching.running import running_call
from fusionzoo.patching.sites import AnySite
from fusionzoo.patching.torch_calls import everything_in
from fusionzoo.patching.turns import in_turn

if TYPE_CHECKING:
    from torch import nn

    from fusionzoo.patching.fuse.layer import FusionLayer
    from fusionzoo.patching.patched import Patch


@dataclass
class Watch:
    """Looks at the calls of a patched model until one can show what is left to be tried.

    Attributes
    ----------
    site : Site or InputSite
        Where the fusion is.
    modalities : mapping or sequence, optional
        Names of the arguments.
    looks : int
        How many calls will be looked at.
    """

    site: AnySite
    modalities: ModalitiesLike
    looks: int = 100
    leak: str = ""
    bare: bool = False
    busy: bool = False

    def __call__(self, layer: FusionLayer) -> bool:
        """Whether the layer shall stand aside; tries what is left, where this call can show it."""
        if torch.compiler.is_compiling():
            return False
        if self.bare or self.busy:
            return self.bare
        if self.leak:
            raise LeakError(self.leak)
        running = running_call(layer.plan.token)
        if running is None or not _usual(layer):
            return False
        model, args, kwargs, _ = running
        call = Call(*args, **kwargs)
        self.looks -= 1
        if all(type(x) is torch.Tensor and not x.is_meta for x in everything_in([args, kwargs])):
            shown = self._shown(layer, model, call)
            if shown:
                self._try(layer, model, call, shown)
        if not self.leak and (self.looks <= 0 or not layer.proof.later):
            layer.watch = None
        return False

    def _shown(self, layer: FusionLayer, model: nn.Module, call: Call) -> list[str]:
        """What this call can show of what is left."""
        try:
            altered = Altered(model, call, self.site, self.modalities)
            tests = {APART: lambda: altered.samples, PADDING: lambda: Padding(altered, layer.context).poisoned()}
            return [words for words in layer.proof.later if not isinstance(tests[words](), str)]
        except Exception:  # a call of another form than the one that was tried
            return []

    @in_turn
    def _try(self, layer: FusionLayer, model: nn.Module, call: Call, promises: list[str]) -> None:
        proof = layer.proof
        try:
            self.busy = self.bare = True
            experiment = Experiment(model, call, self.site, self.modalities, layer.context)
            self.bare = False
            found = {p.words: p for p in judge(experiment, layer, promises).promises if p.words in promises}
        finally:
            self.busy = self.bare = False
        layer.proof = replace(
            proof,
            promises=tuple(found.get(p.words, p) for p in proof.promises),
            forwards=proof.forwards + experiment.forwards,
        )
        broken = [p for p in found.values() if p.state == BROKEN]
        if broken:
            self.leak = (
                f"{type(layer.fusion).__name__} at {self.site.where}, whose streams were taken for {layer.plan.layout}, leaks, which "
                f"the batch that it was patched with could not show: {'; '.join(p.why for p in broken)}. Take the patch out "
                "(patch.remove()) and patch with a batch like this one: fusionzoo.patch(model, ..., inputs=batch)"
            )
            raise LeakError(self.leak)


def _usual(layer: FusionLayer) -> bool:
    """Whether the model runs by itself: no replica, no graph that is recorded, no other process that waits for this one."""
    distributed = torch.distributed
    if next(layer.parameters(), None) is None or torch.jit.is_tracing():  # replicas hold their weights otherwise
        return False
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def watch(patch: Patch, modalities: ModalitiesLike) -> None:
    """Let a patch try by itself what its proof leaves to a later batch; nothing where it leaves nothing."""
    layer = patch.layer
    if not layer.proof.later:
        return
    layer.watch = Watch(patch.site, modalities)
    token = layer.plan.token
    change(patch.host, "forward", tokens=lambda old: old if token in old else (*old, token))
