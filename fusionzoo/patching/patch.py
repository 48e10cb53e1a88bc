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

from fusionzoo.errors import (
    HostChangedError,
    OptionError,
    PatchError,
    SiteNotReachedError,
    close_matches_hint,
)
from fusionzoo.host import FusionLike, build_fusion
from fusionzoo.patching import install, overrides
from fusionzoo.patching import source as S
from fusionzoo.patching.context import ArgumentContext
from fusionzoo.patching.intercept import Fallback
from fusionzoo.patching.layer import Context, FusionLayer, takes_unaligned, zero_projection
from fusionzoo.patching.layouts import check_layout
from fusionzoo.patching.names import ModalitiesLike
from fusionzoo.patching.planning import (
    ATTRIBUTE,
    AnySite,
    check_fit,
    device_of,
    fitting,
    free_name,
    holder_of,
    looks_across,
    make_plan,
    path_to,
)
from fusionzoo.patching.resolving import read_inputs, resolve
from fusionzoo.patching.sites import InputSite, Site
from fusionzoo.patching.untouched import untouched

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

    Parameters
    ----------
    fusion : a name, a `(name, options)` pair, or an instance built for the site's widths.
    site : one of `find_sites(...)`, an `InputSite`, or, with `inputs`, its index or `"file.py:47"`; None for what an
        adapter knows, or for the best candidate with `inputs`.
    mode : `"residual"` adds the fusion through a projection that starts at zero, so that nothing changes until it is
        trained; `"replace"` puts the fusion in the join's place.
    inputs : what the model is called with: `(args)`, or `(args, kwargs)` with a tuple and a dict, or a dict of keyword
        arguments. The site is looked for, and reached, with them.
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
    site, layout, context = resolve(model, site, inputs, layout, context, modalities)
    if layout is not None:
        site = replace(site, layout=fitting(site, check_layout(layout)), sure=True)
    if context is not None and not callable(context):
        raise OptionError(
            f"context= is a function of (model, args, kwargs) that returns {{'mask': ...}} or {{'lengths': ...}}, not "
            f"{type(context).__name__}"
        )
    if context is None and site.context is not None:
        context = ArgumentContext(*site.context)
    prepared = Patch._prepare(model, fusion, site, mode, context, options)
    if dry_run:
        prepared.dry = True
        return prepared
    prepared._install()
    if inputs is not None:
        try:
            prepared.verify(*read_inputs(inputs)[0], **read_inputs(inputs)[1])
        except Exception:
            prepared.remove()
            raise
    return prepared


class Patch:
    """A fusion in a model.

    model, site, mode : what was patched, where and how.
    fusion : the fusion layer; its parameters belong to the model.
    dry : whether nothing was changed (`dry_run=True`).
    """

    def __init__(self, model: nn.Module, site: AnySite, mode: str, layer: FusionLayer, name: str, owner: nn.Module):
        self.model, self.site, self.mode = model, site, mode
        self.layer, self.name = layer, name
        self._owner = owner
        self._holder = holder_of(owner)
        self._overrides: list[tuple[nn.Module, str]] = []
        self._frozen: list[nn.Parameter] = []
        self.dry = False
        self.active = False

    @property
    def fusion(self) -> nn.Module:
        return self.layer.fusion

    # -- building -------------------------------------------------------------------------------------------------

    @classmethod
    def _prepare(
        cls,
        model: nn.Module,
        fusion: Any,
        site: AnySite,
        mode: str,
        context: Context | None,
        options: Mapping[str, Any],
    ) -> Patch:
        try:
            owner = model.get_submodule(site.path)
        except AttributeError:
            raise HostChangedError(
                f"{type(model).__name__} has no submodule {site.path!r}, in which the site was found; look for sites again"
            ) from None
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
        layer = FusionLayer(built, plan, out, context).to(device=device_of(owner, device), dtype=dtype)
        layer.train(owner.training)
        return cls(model, site, mode, layer, name, owner)

    def _install(self) -> None:
        """Register the layer and shadow the method; all of it or nothing."""
        site, owner = self.site, self._owner
        if isinstance(owner, torch.jit.ScriptModule):
            raise PatchError(
                f"{site.path or 'the model'} is a ScriptModule, whose code cannot be changed; patch the module before "
                "torch.jit.script or torch.jit.trace"
            )
        self._holder.add_module(self.name, self.layer)
        try:
            if isinstance(site, InputSite):
                path = f"{path_to(owner, self._holder)}{self.name}"
                overrides.change(owner, "forward", inputs=lambda old: (*old, path))
                self._overrides.append((owner, "forward"))
            else:
                self._install_join(site, owner)
            if self.layer.context is not None:
                token = self.layer.plan.token
                overrides.change(self.model, "forward", tokens=lambda old: (*old, token))
                self._overrides.append((self.model, "forward"))
        except BaseException:
            self.remove()
            raise
        self.active = True

    def _install_join(self, site: Site, owner: nn.Module) -> None:
        first = site.steps[0]
        names = overrides.methods(owner, first)
        if not names:
            raise HostChangedError(
                f"{type(owner).__name__} at {site.path or '<root>'} has no method {first.qualname} as in {first.file}; "
                "look for sites again with fusionzoo.find_sites"
            )
        for name in names:
            if site.how == "rewrite":
                route = install.Route(self.name, site.steps, site.inner, site.kept, site.op, self.digests)
                overrides.change(owner, name, routes=lambda old, r=route: (*old, r))
            else:
                last = site.steps[-1]
                fallback = Fallback(self.name, site.op, last.file, last.qualname, last.position)
                overrides.change(owner, name, fallbacks=lambda old, f=fallback: (*old, f))
            self._overrides.append((owner, name))

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
        from fusionzoo.patching.finding import _fresh

        if not self.active:
            raise SiteNotReachedError(
                f"this patch is not in the model: it was {'a dry run' if self.dry else 'removed'}"
            )
        before = self.layer.calls
        with untouched(self.model), torch.no_grad():
            self.layer._random = dict(self.layer._random)
            self.model(*_fresh(args, {}), **_fresh(kwargs, {}))
        reached, self.layer.calls = self.layer.calls > before, before
        if not reached:
            raise SiteNotReachedError(
                f"this call of {type(self.model).__name__} does not come by {self.site.where}, where the fusion was put; "
                "give inputs of the kind that the site was found with, or look for sites with these"
            )

    def freeze_host(self) -> Patch:
        """Switch off the gradients of everything but the patches in the model; `remove` switches them on again."""
        own = {id(p) for m in self.model.modules() if isinstance(m, FusionLayer) for p in m.parameters()}
        for p in self.model.parameters():
            if id(p) not in own and p.requires_grad:
                p.requires_grad_(False)
                self._frozen.append(p)
        return self

    def remove(self) -> None:
        """Take the fusion out; the model is exactly as before. Removing twice does nothing."""
        token, own = self.layer.plan.token, self.name
        for owner, name in reversed(self._overrides):
            overrides.change(
                owner,
                name,
                routes=lambda old: tuple(r for r in old if r.name != own),
                tokens=lambda old: tuple(t for t in old if t != token),
                inputs=lambda old: tuple(i for i in old if i.rpartition(".")[2] != own),
                fallbacks=lambda old: tuple(f for f in old if f.name != own),
            )
        self._overrides.clear()
        if getattr(self._holder, self.name, None) is self.layer:
            delattr(self._holder, self.name)
        for p in self._frozen:
            p.requires_grad_(True)
        self._frozen.clear()
        self.active = False

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the fusion's weights as safetensors, with the site and the options; see `fusionzoo.load_patch`."""
        from fusionzoo.patching.persistence import save

        return save(self, Path(path))

    def summary(self) -> str:
        """What was put where, and what it costs in parameters."""
        own = sum(p.numel() for p in self.parameters())
        host = sum(p.numel() for p in self.model.parameters()) - (own if self.active else 0)
        plan = self.layer.plan
        lines = [
            f"{type(self.fusion).__name__} in {type(self.model).__name__}, {self.mode}"
            + (" (dry run: nothing changed)" if self.dry else "" if self.active else " (removed)"),
            f"  site        {self.site}",
            f"  streams     {', '.join(f'{m}: {w}' for m, w in plan.widths.items())}, layout {plan.layout}",
            f"  context     {self.layer.context or 'none'}",
            f"  goes back   {'into the rows of every modality' if plan.separate else 'into the joined tensor'}, width {plan.width}",
            f"  parameters  {own:,} of its own, {host:,} of the host",
        ]
        if isinstance(self.site, Site) and self.site.code:
            lines.append(f"  replaces    {self.site.code}")
            lines.append(
                f"  by          {'result - out(fusion(...))' if self.mode == 'residual' else 'out(fusion(...))'}"
            )
        return "\n".join(lines)

    __str__ = summary

    def __repr__(self) -> str:
        return f"Patch({type(self.fusion).__name__} at {self.site.where}, {self.mode})"
