"""`patch`: a fusion put into somebody else's model, this instance only."""

from __future__ import annotations

import difflib
import random
import warnings
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import nn

from fusionzoo._options import accepted_options
from fusionzoo._registry import registry
from fusionzoo.errors import (
    FusionZooWarning,
    HostChangedError,
    PatchError,
    PatchOptionError,
    ShapeError,
    close_matches_hint,
)
from fusionzoo.host import FusionLike, build_fusion, name_and_options
from fusionzoo.patching.arguments import check_argument
from fusionzoo.patching.calls import Call, attempt, shown
from fusionzoo.patching.choice import resolve
from fusionzoo.patching.fuse.contexts import Context, check_context
from fusionzoo.patching.fuse.layer import FusionLayer, takes_unaligned, zero_projection
from fusionzoo.patching.holders import ATTRIBUTE, free_name, holder_of, path_to
from fusionzoo.patching.layouts import check_layout
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.patched import Patch
from fusionzoo.patching.placement import as_told, check_fit, device_of, dtype_of, looks_across, make_plan, warn_of_guess
from fusionzoo.patching.promises import NOT_TRIED, PADDING, Proof
from fusionzoo.patching.readings import found
from fusionzoo.patching.rewrite.interceptor import Fallback
from fusionzoo.patching.rewrite.override import add_route, change, entries, methods
from fusionzoo.patching.rewrite.routes import Route
from fusionzoo.patching.selection import Selection, listed
from fusionzoo.patching.signatures import forward_of
from fusionzoo.patching.sites import AnySite, InputSite, Site
from fusionzoo.patching.turns import in_turn
from fusionzoo.patching.watch import watch
from fusionzoo.patching.wrappers import host_of, synchronise

MODES = ("residual", "replace")


@in_turn
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
    prove: bool = True,
    **options: object,
) -> Patch:
    """Put a fusion into a model that somebody else wrote: this instance only, its source and class untouched.

    A model inside wrappers (DataParallel, torch.compile, PEFT, ...) is patched where it is, and wrappers can come later.

    Parameters
    ----------
    model : nn.Module
        The model, of whatever package.
    fusion : str, dict or Fusion
        Its name, a mapping of its name and options (`{"name": "lmam", "rank": 4}`), or an instance built for the site's widths.
    site : Site, InputSite, int or str, optional
        One of `find_sites(...)`, an `InputSite`, or, with `inputs`, its index or `"file.py:47"`; None for what an adapter
        knows, or for the best candidate with `inputs`.
    mode : str
        `"residual"` adds the fusion through a projection that starts at zero, so that nothing changes until it is trained;
        `"replace"` puts the fusion in the join's place.
    inputs : object, optional
        What the model is called with: a tuple of arguments, `(args, kwargs)` with a tuple and a dict, a dict of keyword
        arguments, one batch (a dict, list, dataclass, named tuple, tensor, ...) as forward takes it, or a
        `fusionzoo.patching.Call`. The site is looked for, reached, and proved with them.
    context : callable, optional
        `context(model, args, kwargs)` returns `{"mask": bool (B, T)}` or `{"lengths": ...}`, which say which steps are real
        and, in a flat list of nodes, which rows are one dialogue; or one for each stream, `{"mask": {"text": ..., "audio": ...}}`.
    layout : str, optional
        Of the streams at the site, where the trace could not prove it: `"(T, B, d)"`, `"(N, d)"`, ...
    modalities : mapping or sequence, optional
        Names of the arguments, as for `find_sites`.
    dry_run : bool
        Change nothing; `print` what comes back.
    prove : bool
        With `inputs`, try out on them that samples stay apart, padding stays unseen, and more; see `Patch.proof`.
    **options : object
        Of the fusion.

    Raises
    ------
    NoSiteError, ModalityError, LayoutError, LeakError, SiteNotReachedError, HostChangedError
        See `fusionzoo.errors`; all are `PatchError`. The model is as it was then.

    >>> patch = fusionzoo.patch(model, "lmam", site=fusionzoo.find_sites(model, *batch)[0])       # doctest: +SKIP
    """
    if mode not in MODES:
        raise PatchOptionError(f"mode={mode!r} is not one of {', '.join(MODES)}{close_matches_hint(str(mode), MODES)}")
    if not isinstance(model, nn.Module):
        raise PatchError(f"patch takes a torch.nn.Module, not {type(model).__name__}")
    _check_options(fusion, options)
    host = host_of(model)
    sites, layout, context = resolve(host, site, inputs, layout, context, modalities)
    if layout is not None:
        layout = check_layout(layout)
        sites = [as_told(s, layout) for s in sites]
    check_context(context)

    def build(at: AnySite, told: Context | None) -> Patch:
        return prepare(model, host, fusion, at, mode, told, options)

    if inputs is None or dry_run or not prove:
        made = build(sites[0], found(sites[0], context).context)
        made.dry = dry_run
        if inputs is None and not dry_run:
            install(made)
        elif not dry_run:
            attempt(host, inputs, lambda call: _reached(made, call))
        if not prove:
            made.proof = Proof.left_out("prove=False")
    else:
        named = site is not None
        made = attempt(
            host,
            inputs,
            lambda call: Selection(host, call, build, install, named, layout, context, modalities).first_proved(sites),
        )
        watch(made, modalities)
    try:
        _warn(made, tried=inputs is not None and prove and not dry_run)
        warn_of_another(made)
    except BaseException:  # a caller who takes warnings for errors
        made.remove()
        raise
    return made


def _check_options(fusion: FusionLike, options: Mapping[str, object]) -> None:
    """Refuse a misspelt argument of `patch` that would be handed to the fusion as an option."""
    own = [n for n in signature(patch).parameters if n not in ("model", "fusion", "options")]
    for name in options:
        like = difflib.get_close_matches(name, own, n=1, cutoff=0.75)
        if like and not (isinstance(fusion, str) and name in accepted_options(registry.get(fusion))):
            raise PatchOptionError(
                f"patch has no argument {name!r}; did you mean {like[0]!r}? Other keywords are options of the fusion"
            )


def warn_of_another(patch: Patch) -> None:
    """Say that there is another fusion at the very site."""
    site, there = patch.site, set[str]()
    for entry in entries(patch.host.get_submodule(site.path)):
        if isinstance(site, InputSite):
            there |= {path.rpartition(".")[2] for path, arg in entry.override.inputs if arg == site.arg}
            continue
        way = [(s.key, s.position) for s in site.steps]
        there |= {r.name for r in entry.override.routes if [(s.key, s.position) for s in r.steps] == way}
        there |= {f.name for f in entry.override.fallbacks if getattr(f, "position", None) == site.steps[-1].position}
    if patch.dry or not there - {patch.name}:
        return
    warnings.warn(
        f"there is another fusion at {patch.site.where} already, and both act now, one after the other; take one out with its patch's "
        "remove()",
        FusionZooWarning,
        stacklevel=4,
    )


def _warn(patch: Patch, tried: bool) -> None:
    """Say what is not proved of the layout, and what does not hold of a site that is taken all the same."""
    broken = patch.proof.broken()
    if broken:
        warnings.warn(
            f"a fusion at {patch.site.where} does not keep that {listed(broken)}; see patch.proof",
            FusionZooWarning,
            stacklevel=4,
        )
    if tried and all(p.state == NOT_TRIED for p in patch.proof.promises):
        warnings.warn(f"a fusion at {patch.site.where}: {patch.proof}", FusionZooWarning, stacklevel=4)
    layer = patch.layer
    warn_of_guess(patch.site, layer.plan, layer.context, layer.fusion, patch.proof.holds(PADDING))


def _reached(patch: Patch, call: Call) -> None:
    """Put a patch in, and see that a call comes by it."""
    install(patch)
    try:
        call.of(patch.verify)
    except ShapeError as error:
        patch.remove()
        raise PatchError(str(error)) from error
    except BaseException:
        patch.remove()
        raise


def prepare(
    model: nn.Module,
    host: nn.Module,
    fusion: Any,
    site: AnySite,
    mode: str,
    context: Context | None,
    options: Mapping[str, Any],
) -> Patch:
    """A patch that is not in the model yet: the fusion built for the site's widths, and its projections."""
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
    device, dtype = torch.device(site.device), dtype_of(owner, site)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
        if isinstance(fusion, str):
            fusion = (fusion, {})
        elif isinstance(fusion, Mapping):
            fusion = name_and_options(fusion)
        if isinstance(fusion, tuple) and len(fusion) == 2 and isinstance(fusion[1], Mapping):
            fusion = (fusion[0], {**fusion[1], **options})
        elif options:
            raise PatchOptionError(f"options ({', '.join(options)}) go with a fusion's name, not with an instance")
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
    return Patch(model, host, site, mode, layer, name)


def install(patch: Patch) -> None:
    """Register the layer and rewrite the method; all of it or nothing."""
    site, layer = patch.site, patch.layer
    owner = patch.host.get_submodule(site.path)
    if isinstance(owner, torch.jit.ScriptModule):
        raise PatchError(
            f"{site.path or 'the model'} is a ScriptModule, whose code cannot be changed; patch the module before "
            "torch.jit.script or torch.jit.trace"
        )
    holder = holder_of(owner)
    holder.add_module(patch.name, layer)
    try:
        if isinstance(site, InputSite):
            entry = f"{path_to(owner, holder)}{patch.name}", str(site.arg)
            change(owner, "forward", inputs=lambda old: (*old, entry))
        else:
            _install_join(patch, site, owner)
        if layer.context is not None:
            change(patch.host, "forward", tokens=lambda old: (*old, layer.plan.token))
        patch.synchronised = synchronise(patch.model, layer)
    except BaseException:
        patch.remove()
        raise
    patch.active = True


def _install_join(patch: Patch, site: Site, owner: nn.Module) -> None:
    first, last = site.steps[0], site.steps[-1]
    if site.how == "rewrite":
        names = add_route(owner, Route(patch.name, site.steps, site.inner, site.kept, site.op, patch.digests))
    else:
        names = methods(owner, first)
        fallback = Fallback(patch.name, site.op, last.file, last.qualname, last.position)
        for name in names:
            change(owner, name, fallbacks=lambda old: (*old, fallback))
    if not names:
        raise HostChangedError(
            f"{type(owner).__name__} at {site.path or '<root>'} has no method {first.qualname} as in {first.file}; "
            "look for sites again with fusionzoo.find_sites"
        )
