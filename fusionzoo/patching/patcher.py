"""`patch`: a fusion put into somebody else's model, this instance only, and taken out again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fusionzoo.errors import (
    HostChangedError,
    OptionError,
    PatchError,
    SiteNotReachedError,
    close_matches_hint,
)
from fusionzoo.host import FusionLike, build_fusion
from fusionzoo.patching.arguments import check_argument
from fusionzoo.patching.calls import attempt, explained, shown
from fusionzoo.patching.find.choice import resolve
from fusionzoo.patching.find.real_steps import ArgumentContext
from fusionzoo.patching.fuse.arrange import check_layout
from fusionzoo.patching.fuse.layer import Context, FusionLayer, takes_unaligned, zero_projection
from fusionzoo.patching.fuse.placement import (
    ATTRIBUTE,
    AnySite,
    check_fit,
    device_of,
    dtype_of,
    fitting,
    free_name,
    holder_of,
    looks_across,
    make_plan,
    path_to,
)
from fusionzoo.patching.modalities import ModalitiesLike, forward_of
from fusionzoo.patching.rewrite import override as overrides
from fusionzoo.patching.rewrite import routes as install
from fusionzoo.patching.rewrite import source as S
from fusionzoo.patching.rewrite.interceptor import Fallback
from fusionzoo.patching.sites import InputSite, Site
from fusionzoo.patching.trace.no_trace_left import untouched
from fusionzoo.patching.wrappers import host_of, layers_of, synchronise, wrappers_of

MODES = ("residual", "replace")


def patch(
    model: nn.Module,
    fusion: FusionLike,
    site: AnySite | int | str | None = None,
    *,
    mode: str = "residual",
    inputs: object = None,
    context: Context | None = None,
    layout: str | None = None,
    modalities: ModalitiesLike = None,
    dry_run: bool = False,
    **options: object,
) -> Patch:
    """Put a fusion into a model that somebody else wrote: this instance only, its source and class untouched.

    A model inside wrappers (DataParallel, torch.compile, PEFT, ...) is patched where it is, and wrappers can come later.

    Parameters
    ----------
    fusion : a name, a `(name, options)` pair, or an instance built for the site's widths.
    site : one of `find_sites(...)`, an `InputSite`, or, with `inputs`, its index or `"file.py:47"`; None for what an
        adapter knows, or for the best candidate with `inputs`.
    mode : `"residual"` adds the fusion through a projection that starts at zero, so that nothing changes until it is
        trained; `"replace"` puts the fusion in the join's place.
    inputs : what the model is called with: a tuple of arguments, `(args, kwargs)` with a tuple and a dict, a dict of
        keyword arguments, or one batch (a dict, list, dataclass, named tuple, tensor, ...), as forward takes it. The site is
        looked for, and reached, with them.
    context : `callable(model, args, kwargs)` that returns `{"mask": bool (B, T)}` or `{"lengths": ...}`, which say which
        steps are real and, in a flat list of nodes, which rows are one dialogue.
    layout : of the streams at the site, where the trace could not prove it: `"(T, B, d)"`, `"(N, d)"`, ...
    modalities : names of the arguments, as for `find_sites`.
    dry_run : change nothing; `print` what comes back.
    options : of the fusion.

    Raises
    ------
    NoSiteError, ModalityError, LayoutError, SiteNotReachedError, HostChangedError : see `fusionzoo.errors`; all are
        `PatchError`. The model is as it was then.

    >>> patch = fusionzoo.patch(model, "lmam", site=fusionzoo.find_sites(model, *batch)[0])       # doctest: +SKIP
    """
    if mode not in MODES:
        raise OptionError(f"mode={mode!r} is not one of {', '.join(MODES)}{close_matches_hint(str(mode), MODES)}")
    if not isinstance(model, nn.Module):
        raise PatchError(f"patch takes a torch.nn.Module, not {type(model).__name__}")
    host = host_of(model)
    site, layout, context = resolve(host, site, inputs, layout, context, modalities)
    if layout is not None:
        site = replace(site, layout=fitting(site, check_layout(layout)), sure=True)
    if context is not None and not callable(context):
        raise OptionError(
            f"context= is a function of (model, args, kwargs) that returns {{'mask': ...}} or {{'lengths': ...}}, not "
            f"{type(context).__name__}"
        )
    if context is None and site.context is not None:
        context = ArgumentContext(*site.context)
    prepared = Patch._prepare(model, host, fusion, site, mode, context, options)
    if dry_run:
        prepared.dry = True
        return prepared
    prepared._install()
    if inputs is not None:
        try:
            attempt(host, inputs, lambda args, kwargs: prepared.verify(*args, **kwargs))
        except Exception:
            prepared.remove()
            raise
    return prepared


class Patch:
    """A fusion in a model.

    model, site, mode : what was patched, where and how.
    host : the model inside its wrappers, to which the site's path is relative.
    fusion : the fusion layer; its parameters belong to the model.
    dry : whether nothing was changed (`dry_run=True`).
    """

    def __init__(self, model: nn.Module, host: nn.Module, site: AnySite, mode: str, layer: FusionLayer, name: str):
        self.model, self.host, self.site, self.mode = model, host, site, mode
        self.name, self._layer = name, layer
        self._frozen: list[nn.Parameter] = []
        self._synchronised: list[RemovableHandle] = []
        self.dry = False
        self.active = False

    @property
    def layer(self) -> FusionLayer:
        """What was put into the model: the fusion, and its projections. Where a wrapper made copies, the one in use."""
        copies = layers_of(self.host, self._layer.plan.token) if self.active else {}
        return next(iter(copies.values()), self._layer)

    @property
    def fusion(self) -> nn.Module:
        return self.layer.fusion

    # -- building -------------------------------------------------------------------------------------------------

    @classmethod
    def _prepare(
        cls,
        model: nn.Module,
        host: nn.Module,
        fusion: Any,
        site: AnySite,
        mode: str,
        context: Context | None,
        options: Mapping[str, Any],
    ) -> Patch:
        try:
            owner = host.get_submodule(site.path)
        except AttributeError:
            raise HostChangedError(
                f"{type(host).__name__} has no submodule {site.path!r}, in which the site was found; look for sites again"
            ) from None
        if isinstance(site, InputSite):
            check_argument(forward_of(owner), str(site.arg), shown(owner))
        name = free_name(model, owner)
        plan, out_dim = make_plan(site, mode, f"{ATTRIBUTE}:{random.SystemRandom().getrandbits(48):012x}")
        device, dtype = torch.device(site.device), getattr(torch, site.dtype)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
        with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
            if isinstance(fusion, str):
                fusion = (fusion, {})
            if isinstance(fusion, tuple) and len(fusion) == 2:
                fusion = (fusion[0], {**fusion[1], **options})
            elif options:
                raise OptionError(f"options ({', '.join(options)}) go with a fusion's name, not with an instance")
            built = build_fusion(fusion, plan.widths, out_dim)
            across = looks_across(built)
            plan = replace(plan, across=across, unaligned=takes_unaligned(built))
            check_fit(site, plan, context, built)
            out: dict[str, nn.Module] = {}
            for m in plan.widths if plan.separate else ("joined",):
                if mode == "residual":
                    out[m] = zero_projection(built.out_dim, plan.width)
                else:
                    out[m] = nn.Identity() if built.out_dim == plan.width else nn.Linear(built.out_dim, plan.width)
        layer = FusionLayer(built, plan, out, context).to(device=device_of(owner, device), dtype=dtype_of(owner, dtype))
        layer.train(owner.training)
        return cls(model, host, site, mode, layer, name)

    def _install(self) -> None:
        """Register the layer and rewrite the method; all of it or nothing."""
        site, layer = self.site, self._layer
        owner = self.host.get_submodule(site.path)
        if isinstance(owner, torch.jit.ScriptModule):
            raise PatchError(
                f"{site.path or 'the model'} is a ScriptModule, whose code cannot be changed; patch the module before "
                "torch.jit.script or torch.jit.trace"
            )
        holder = holder_of(owner)
        holder.add_module(self.name, layer)
        try:
            if isinstance(site, InputSite):
                entry = f"{path_to(owner, holder)}{self.name}", str(site.arg)
                overrides.change(owner, "forward", inputs=lambda old: (*old, entry))
            else:
                self._install_join(site, owner)
            if layer.context is not None:
                overrides.change(self.host, "forward", tokens=lambda old: (*old, layer.plan.token))
            self._synchronised = synchronise(self.model, layer)
        except BaseException:
            self.remove()
            raise
        self.active = True

    def _install_join(self, site: Site, owner: nn.Module) -> None:
        first, last = site.steps[0], site.steps[-1]
        if site.how == "rewrite":
            names = overrides.add_route(
                owner, install.Route(self.name, site.steps, site.inner, site.kept, site.op, self.digests)
            )
        else:
            names = overrides.methods(owner, first)
            fallback = Fallback(self.name, site.op, last.file, last.qualname, last.position)
            for name in names:
                overrides.change(owner, name, fallbacks=lambda old: (*old, fallback))
        if not names:
            raise HostChangedError(
                f"{type(owner).__name__} at {site.path or '<root>'} has no method {first.qualname} as in {first.file}; "
                "look for sites again with fusionzoo.find_sites"
            )

    @property
    def digests(self) -> tuple[str, ...]:
        """Hash of the source of every function on the way to the site."""
        if isinstance(self.site, InputSite):
            return ()
        if not hasattr(self, "_digests"):
            found = [S.step_source(s) for s in self.site.steps]
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
        from fusionzoo._weights import load_weights

        load_weights(self.layer, state, "the given state dict")

    @property
    def calls(self) -> int:
        """How often the host has come by the site since it was patched."""
        return self.layer.calls

    def verify(self, *args: object, **kwargs: object) -> None:
        """Run the model once and see that it comes by the site; leaves buffers and random state as they were.

        Raises `SiteNotReachedError`.
        """
        from fusionzoo.patching.find.search import _fresh

        if not self.active:
            raise SiteNotReachedError(
                f"this patch is not in the model: it was {'a dry run' if self.dry else 'removed'}"
            )
        layer = self.layer
        before = layer.calls
        call = tuple(_fresh(args, {})), _fresh(kwargs, {})
        eager = torch.compiler.set_stance("force_eager")  # a model may have been compiled in place
        with untouched(self.host), torch.no_grad(), eager:
            layer._random = dict(layer._random)
            explained(self.host, call, lambda: self.host(*call[0], **call[1]))
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

    def remove(self) -> None:
        """Take the fusion out; the model is exactly as before. Removing twice does nothing."""
        token, own = self._layer.plan.token, self.name
        for module in self.host.modules():
            overrides.drop(
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
        for handle in self._synchronised:
            handle.remove()
        self._synchronised.clear()
        for p in self._frozen:
            p.requires_grad_(True)
        self._frozen.clear()
        self.active = False

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the fusion's weights as safetensors, with the site and the options; see `fusionzoo.load_patch`."""
        from fusionzoo.patching.saving import save

        return save(self, Path(path))

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
            *self._untrained(layer),
            *(
                ["  synchronised by hooks of its own: the wrapper knows only the parameters that it was made with"]
                if self._synchronised
                else []
            ),
        ]
        if isinstance(self.site, Site) and self.site.code:
            lines.append(f"  replaces    {self.site.code}")
            lines.append(
                f"  by          {'result - out(fusion(...))' if self.mode == 'residual' else 'out(fusion(...))'}"
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

    def __repr__(self) -> str:
        return f"Patch({type(self.fusion).__name__} at {self.site.where}, {self.mode})"
