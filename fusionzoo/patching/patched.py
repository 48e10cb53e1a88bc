"""`Patch`: a fusion in a model, to look at, to train, to save and to take out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fusionzoo._notebook import html_lines
from fusionzoo._weights import load_weights
from fusionzoo.errors import SiteNotReachedError
from fusionzoo.patching.calls import Call, explained
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.promises import Proof
from fusionzoo.patching.rewrite.override import drop
from fusionzoo.patching.saving import path_of, save
from fusionzoo.patching.sites import AnySite, InputSite, Site
from fusionzoo.patching.source import step_source
from fusionzoo.patching.trace.no_trace_left import untouched
from fusionzoo.patching.turns import in_turn
from fusionzoo.patching.wrappers import layers_of, wrappers_of


class Patch:
    """A fusion in a model.

    Attributes
    ----------
    model : nn.Module
        What was patched.
    host : nn.Module
        The model inside its wrappers, to which the site's path is relative.
    site : Site or InputSite
        Where.
    mode : str
        How: `"residual"` or `"replace"`.
    fusion : nn.Module
        The fusion layer; its parameters belong to the model.
    dry : bool
        Whether nothing was changed (`dry_run=True`).
    """

    def __init__(self, model: nn.Module, host: nn.Module, site: AnySite, mode: str, layer: FusionLayer, name: str):
        self.model, self.host, self.site, self.mode = model, host, site, mode
        self.name, self._layer = name, layer
        self.synchronised: list[RemovableHandle] = []
        self._frozen: list[nn.Parameter] = []
        layer.proof = Proof.left_out("no batch was given; patch(..., inputs=batch) tries it out")
        self.dry = False
        self.active = False

    @property
    def proof(self) -> Proof:
        """What was tried of the patch's promises on the caller's batch, and how it ended."""
        return self.layer.proof

    @proof.setter
    def proof(self, proof: Proof) -> None:
        self.layer.proof = proof

    @property
    def layer(self) -> FusionLayer:
        """What was put into the model: the fusion, and its projections. Where a wrapper made copies, the one in use."""
        copies = layers_of(self.host, self._layer.plan.token) if self.active else {}
        return next(iter(copies.values()), self._layer)

    @property
    def fusion(self) -> nn.Module:
        """The fusion in the layer."""
        return self.layer.fusion

    @property
    def digests(self) -> tuple[str, ...]:
        """Hash of the source of every function on the way to the site."""
        if isinstance(self.site, InputSite):
            return ()
        if not hasattr(self, "_digests"):
            found = [step_source(s) for s in self.site.steps]
            self._digests = tuple("" if f is None else f.digest for f in found)
        return self._digests

    # -- using ----------------------------------------------------------------------------------------------------

    def parameters(self) -> Iterator[nn.Parameter]:
        """The fusion's parameters and those of its projections; no parameter of the host."""
        return self.layer.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with names."""
        return self.layer.named_parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The fusion's weights and those of its projections."""
        return self.layer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` gave; names and shapes that do not fit raise `CheckpointError` in words."""
        load_weights(self.layer, state, "the given state dict")

    @property
    def calls(self) -> int:
        """How often the host has come by the site since it was patched."""
        return self.layer.calls

    @in_turn
    def verify(self, *args: object, **kwargs: object) -> None:
        """Run the model once and see that it reaches the site; leaves buffers and random state as they were.

        Raises `SiteNotReachedError`.
        """
        if not self.active:
            raise SiteNotReachedError(
                f"this patch is not in the model: it was {'a dry run' if self.dry else 'removed'}"
            )
        layer = self.layer
        before = layer.calls
        call = Call(*args, **kwargs).fresh()
        eager = torch.compiler.set_stance("force_eager")  # a model may have been compiled in place
        with untouched(self.host), torch.no_grad(), eager:
            layer._random = dict(layer._random)
            explained(self.host, call, lambda: call.of(self.host))
        reached, layer.calls = layer.calls > before, before
        if not reached:
            raise SiteNotReachedError(
                f"this call of {type(self.host).__name__} does not come by {self.site.where}, where the fusion was put; "
                "give inputs of the kind that the site was found with, or look for sites with these"
            )

    def freeze_host(self) -> Patch:
        """Switch off the gradients of everything but the patches in the model; `remove` switches them on again."""
        own = {id(p) for m in self.host.modules() if isinstance(m, FusionLayer) for p in m.parameters()}
        for p in self.host.parameters():
            if id(p) not in own and p.requires_grad:
                p.requires_grad_(False)
                self._frozen.append(p)
        return self

    @in_turn
    def remove(self) -> None:
        """Take the fusion out; the model is exactly as before. Removing twice does nothing."""
        token, own = self._layer.plan.token, self.name
        for module in self.host.modules():
            drop(
                module,
                routes=lambda old: tuple(r for r in old if r.name != own),
                tokens=lambda old: tuple(t for t in old if t != token),
                inputs=lambda old: tuple(i for i in old if i[0].rpartition(".")[2] != own),
                fallbacks=lambda old: tuple(f for f in old if f.name != own),
            )
        copies = {id(m) for m in layers_of(self.host, token).values()}
        for module in list(self.host.modules()):
            put = dict(module.named_children()).get(own)
            if put is not None and any(id(m) in copies for m in put.modules()):
                delattr(module, own)
        for handle in self.synchronised:
            handle.remove()
        self.synchronised.clear()
        for p in self._frozen:
            p.requires_grad_(True)
        self._frozen.clear()
        self.active = False

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the fusion's weights as safetensors, with the site and the options; see `fusionzoo.load_patch`."""
        return save(self, path_of(path))

    def summary(self) -> str:
        """What was put where, and what it costs in parameters."""
        layer = self.layer
        own = sum(p.numel() for p in layer.parameters())
        copies = {id(p) for m in self.host.modules() if isinstance(m, FusionLayer) for p in m.parameters()}
        host = sum(p.numel() for p in self.host.parameters() if id(p) not in copies)
        plan = layer.plan
        around = ", ".join(type(m).__name__ for m in reversed(wrappers_of(self.model)))
        lines = [
            f"{type(layer.fusion).__name__} in {type(self.host).__name__}{f' (inside {around})' if around else ''}, {self.mode}"
            + (" (dry run: nothing changed)" if self.dry else "" if self.active else " (removed)"),
            f"  site        {self.site}",
            f"  streams     {', '.join(f'{m}: {w}' for m, w in plan.widths.items())}, layout {plan.layout}",
            f"  context     {layer.context or 'none'}",
            f"  goes back   {'into the rows of every modality' if plan.separate else 'into the joined tensor'}, width {plan.width}",
            f"  parameters  {own:,} of its own, {host:,} of the host",
            "  optimizer   one that was made before the patch trains none of them until "
            "optimizer.add_param_group({'params': list(patch.parameters())})",
            *self._untrained(layer),
            *(
                ["  synchronised by hooks of its own: the wrapper knows only the parameters that it was made with"]
                if self.synchronised
                else []
            ),
        ]
        first, *more = str(self.proof).splitlines()
        lines += [f"  proof       {first}", *(f"              {line}" for line in more)]
        if isinstance(self.site, Site) and self.site.code:
            lines.append(f"  replaces    {self.site.code}")
            lines.append(
                f"  by          {'result - out(fusion(...)), out starting at zero' if self.mode == 'residual' else 'out(fusion(...))'}"
            )
        return "\n".join(lines)

    def _untrained(self, layer: FusionLayer) -> list[str]:
        """What keeps the fusion from learning, or from being kept: somebody froze it, PEFT does not know it."""
        parameters = list(layer.parameters())
        frozen = [p for p in parameters if not p.requires_grad]
        lines = []
        if frozen:
            how = "frozen" if len(frozen) == len(parameters) else "frozen in part"
            lines.append(
                f"  {how:<11} {len(frozen)} of its {len(parameters)} parameter tensors have requires_grad=False and are not trained. "
                f"With PEFT, modules_to_save=[{self.name!r}] in the configuration trains and saves the fusion; else: "
                "for p in patch.parameters(): p.requires_grad_(True)"
            )
        adapted = next((m for m in wrappers_of(self.model) if hasattr(m, "peft_config")), None)
        if (
            adapted is not None
            and not frozen
            and not any(".modules_to_save." in n for n in layers_of(self.host, layer.plan.token))
        ):
            lines.append(
                f"  saved       not by {type(adapted).__name__}.save_pretrained, which does not know the fusion: use patch.save(path)"
            )
        return lines

    __str__ = summary

    def _repr_html_(self) -> str:
        return html_lines(self.summary())

    def __repr__(self) -> str:
        return f"Patch({type(self.fusion).__name__} at {self.site.where}, {self.mode})"
