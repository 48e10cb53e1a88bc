"""How a fusion will sit at a site: widths, projections, where it is registered, and what does not fit."""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch import nn

from fusionzoo.errors import FusionZooError, FusionZooWarning, LayoutError, ModalityError
from fusionzoo.fusion import Fusion
from fusionzoo.patching.fuse.layer import Context, Plan
from fusionzoo.patching.sites import InputSite, Site

ATTRIBUTE = "fusionzoo_patch"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

AnySite = Site | InputSite


def holder_of(owner: nn.Module) -> nn.Module:
    """Where the layer is registered: a container runs whatever is registered in it, so the first part that is none."""
    if not isinstance(owner, _CONTAINERS):
        return owner
    for module in owner.modules():
        if not isinstance(module, _CONTAINERS):
            return module
    return owner


def path_to(owner: nn.Module, holder: nn.Module) -> str:
    path = next(name for name, m in owner.named_modules() if m is holder)
    return f"{path}." if path else ""


def free_name(model: nn.Module, owner: nn.Module) -> str:
    taken = {name.rpartition(".")[2] for root in (model, owner) for name, _ in root.named_modules()}
    return next(n for i in itertools.count() if (n := f"{ATTRIBUTE}_{i}") not in taken)


def device_of(owner: nn.Module, found: torch.device) -> torch.device:
    """Where the host is now; it may have moved since the site was found, or be kept elsewhere between calls."""
    return next((p.device for p in owner.parameters() if p.device.type != "meta"), found)


def dtype_of(owner: nn.Module, found: torch.dtype) -> torch.dtype:
    """That of the streams, or of the host's own weights where it is wider: under autocast, streams are in half precision."""
    own = next((p.dtype for p in owner.parameters() if p.dtype in _FLOATS), found)
    return torch.promote_types(own, found) if found in _FLOATS else found


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def make_plan(site: AnySite, mode: str, token: str) -> tuple[Plan, int | None]:
    """The plan, and the width that the fusion shall return (None for its own)."""
    if isinstance(site, InputSite):
        if len(site.widths) < 2:
            raise ModalityError(
                f"the widths of the modalities that are joined in {site.arg} are not known"
                f"{f' ({site.shape[-1]} features together)' if site.shape else ''}; give "
                f"site=fusionzoo.InputSite({site.arg!r}, widths={{'text': ..., 'audio': ...}})"
            )
        layout = site.layout or ("(B, d)" if len(site.shape) == 2 else "(B, T, d)")
        plan = Plan("input", mode, dict.fromkeys(site.widths, ()), dict(site.widths), 1, None, -1, layout, site.total,
                    True, token, False, site.where)  # fmt: skip
        return plan, site.total if mode == "replace" else None
    separate = site.kind in ("rows", "stack")
    if separate:
        width = site.stream_width(site.operands[next(iter(site.groups.values()))[0]].shape)
    elif site.kind == "outer":
        width = math.prod(site.result[site.leading :])
    else:
        width = site.result[site.feature_axis]
    what = f"{site.where} ({site.function})"
    plan = Plan(site.kind, mode, site.groups, site.widths, len(site.operands), site.axis, site.feature_axis, site.layout,
                width, True, token, site.varies, what, sources=site.sources, leading=site.leading, separate=separate)  # fmt: skip
    return plan, None if mode == "residual" or separate else width


def fitting(site: AnySite, layout: str) -> str:
    """A layout that a caller named, where the site's streams have as many axes."""
    axes = {"(B, T, d)": 2, "(T, B, d)": 2, "(..., d)": None}.get(layout, 1)
    found = {"(B, T, d)": 2, "(T, B, d)": 2, "(..., d)": None}.get(site.layout or "(..., d)", 1)
    if axes != found and None not in (axes, found):
        shape = site.shape if isinstance(site, InputSite) else site.operands[0].shape
        raise LayoutError(
            f"layout={layout!r} does not fit the streams at {site.where}, which are {tuple(shape)}, taken for {site.layout}"
        )
    return layout


def looks_across(fusion: Fusion) -> bool:
    """Whether a fusion looks across steps; one that nobody registered is taken to."""
    from fusionzoo.hub import provider_of

    try:
        spec, _ = provider_of(type(fusion), "fusion")
    except FusionZooError:
        return True
    return spec.level != "utterance"


def check_fit(site: AnySite, plan: Plan, context: Context | None, fusion: Fusion) -> None:
    if not plan.across:
        return
    name = type(fusion).__name__
    pieces = plan.kind == "rows" and any(len(w) > 1 for w in plan.groups.values())
    if plan.layout == "(N, d)" and context is None and not pieces:
        raise LayoutError(
            f"{name} looks across steps, and the streams at {site.where} are a flat list of nodes, in which it would mix "
            "dialogues; give context=lambda model, args, kwargs: {'lengths': ...}, or take a fusion of level 'utterance'"
        )
    if plan.layout in ("(B, T, d)", "(T, B, d)") and not site.sure:
        warnings.warn(
            f"{name} looks across steps; the streams at {site.where} are taken for {plan.layout}, which nothing in the model "
            "proves. Say so with layout='(B, T, d)' or layout='(T, B, d)'",
            FusionZooWarning,
            stacklevel=5,
        )
