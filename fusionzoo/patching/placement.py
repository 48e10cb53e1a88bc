"""How a fusion will sit at a site: widths, projections, where it is registered, and what does not fit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fusionzoo.errors import FusionZooError, FusionZooWarning, LayoutError, ModalityError, PatchError
from fusionzoo.fusion import Fusion
from fusionzoo.hub import provider_of
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.fuse.layer import Plan
from fusionzoo.patching.layouts import PADDED_ROWS, STEP_AXES, TIMED
from fusionzoo.patching.sites import AnySite, InputSite, dtype_name


def device_of(owner: nn.Module, found: torch.device) -> torch.device:
    """Where the host is now; it may have moved since the site was found, or be kept elsewhere between calls."""
    return next((p.device for p in owner.parameters() if p.device.type != "meta"), found)


def dtype_of(owner: nn.Module, site: AnySite) -> torch.dtype:
    """That of the streams, or of the host's own weights where it is wider: under autocast, streams are in half precision."""
    found = getattr(torch, site.dtype, None)
    if found not in _FLOATS:
        raise PatchError(
            f"the streams at {site.where} are {site.dtype}, in which no fusion can compute; take one of "
            f"{', '.join(map(dtype_name, _FLOATS))}"
        )
    own = next((p.dtype for p in owner.parameters() if p.dtype in _FLOATS), found)
    return torch.promote_types(own, found)


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def make_plan(site: AnySite, mode: str, token: str) -> tuple[Plan, int | None]:
    """The plan, and the width that the fusion shall return (None for its own)."""
    if isinstance(site, InputSite):
        if len(site.widths) < 2:
            raise ModalityError(
                f"the widths of the modalities that are joined in {site.arg} are not known"
                f"{f' ({site.shape[-1]} features together)' if site.shape else ''}; give "
                f"site={site.as_code()}, or, where they lie one after the other along another axis, their names: "
                f"modalities={{{site.arg!r}: ['text', 'audio', ...]}}"
            )
        layout = site.layout or ("(B, d)" if len(site.shape) == 2 else "(B, T, d)")
        plan = Plan("input", mode, dict.fromkeys(site.widths, ()), dict(site.widths), 1, None, -1, layout, site.total,
                    True, token, False, site.where)  # fmt: skip
        return plan, site.total if mode == "replace" else None
    operand = site.operands[next(iter(site.groups.values()))[0]]
    width = site.join.back_width(site.stream_width(operand.shape), site.stream_width(site.result))
    what = f"{site.where} ({site.function})"
    plan = Plan(site.kind, mode, site.groups, site.widths, len(site.operands), site.axis, site.feature_axis, site.layout,
                width, True, token, site.varies, what, sources=site.sources, leading=site.leading)  # fmt: skip
    return plan, None if mode == "residual" or plan.separate else width


def as_told(site: AnySite, layout: str) -> AnySite:
    """A site in the layout that a caller named, where its streams have as many axes."""
    axes, found = STEP_AXES.get(layout), STEP_AXES.get(site.layout or "(..., d)")
    if axes != found and None not in (axes, found):
        shape = site.shape if isinstance(site, InputSite) else site.operands[0].shape
        raise LayoutError(
            f"layout={layout!r} does not fit the streams at {site.where}, which are {tuple(shape)}, taken for {site.layout}"
        )
    kept = site.layout == layout or site.layout not in PADDED_ROWS  # else it tells of a padded batch
    return replace(site, layout=layout, sure=True, context=site.context if kept else None)


def looks_across(fusion: Fusion) -> bool:
    """Whether a fusion looks across steps; one that nobody registered is taken to."""
    try:
        spec, _ = provider_of(type(fusion), "fusion")
    except FusionZooError:
        return True
    return spec.level != "utterance"


def check_fit(site: AnySite, plan: Plan, context: Context | None, fusion: Fusion) -> None:
    """That a fusion which looks across steps can tell the dialogues of a flat list apart."""
    flat = plan.layout == "(N, d)" and not plan.join.tells_dialogues(plan.groups)
    if plan.across and context is None and (flat or plan.layout in PADDED_ROWS):
        raise LayoutError(
            f"{type(fusion).__name__} looks across steps, and the streams at {site.where} are a flat list of nodes, in which it would "
            f"mix dialogues; {_told_by(site, 'how many rows each dialogue has')} (rows of a padded batch: layout='(B*T, d)'), or take "
            "a fusion of level 'utterance'"
        )


def warn_of_guess(site: AnySite, plan: Plan, context: Context | None, fusion: Any, dry: bool) -> None:
    """A warning where a fusion looks across steps, and the layout or that all steps are real is a guess.

    dry : whether it is proved that padding stays unseen.
    """
    if not plan.across or plan.layout not in TIMED:
        return
    missing = "" if dry else _missing(site, context)
    if not site.sure:
        warnings.warn(
            f"{type(fusion).__name__} looks across steps; the streams at {site.where} are taken for {plan.layout}, which nothing in the "
            f"model proves. Say so with layout='(B, T, d)' or layout='(T, B, d)'{missing}",
            FusionZooWarning,
            stacklevel=5,
        )
    elif missing:
        warnings.warn(
            f"{type(fusion).__name__} looks across steps at {site.where}{missing}", FusionZooWarning, stacklevel=5
        )


def _missing(site: AnySite, context: Context | None) -> str:
    """That nobody says which steps are real, where an argument of the call looks as if it did."""
    if context is not None or not getattr(site, "hints", ()):
        return ""
    return (
        f", and nothing proves which steps are padding, so that all are taken for real; {_told_by(site, 'which are')}"
    )


def _told_by(site: AnySite, what: str) -> str:
    """The context= to give, as a line to paste: what fits this call, else each form that there is."""
    found: tuple[str, ...] = getattr(site, "hints", ())
    if not found:
        found = ("{'lengths': [7, 5, 3]}", "{'lengths': [T] * B}", "{'mask': ...}")
        return f"say {what} with context=lambda model, args, kwargs: {' or '.join(found)}, a mask (B, T) that is True where real"
    return f"say {what}, which fits this call: " + " or ".join(
        f"context=lambda model, args, kwargs: {x}" for x in found
    )
