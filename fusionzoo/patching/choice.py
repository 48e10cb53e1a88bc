"""Which site `patch` means: one that was given, the best candidate for some inputs, or what an adapter knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fusionzoo.errors import ModalityError, NoSiteError, PatchError
from fusionzoo.patching.calls import Call, attempt
from fusionzoo.patching.find.search import sites_of_call
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.repositories import adapted, adapter_for
from fusionzoo.patching.signatures import bind, forward_of
from fusionzoo.patching.sites import AnySite, InputSite, Site, SiteList


def resolve(
    model: nn.Module, site: Any, inputs: Any, layout: str | None, context: Context | None, modalities: ModalitiesLike
) -> tuple[AnySite, str | None, Context | None]:
    """Site, layout and context from what `patch` was given."""
    if isinstance(site, (Site, InputSite)):
        if isinstance(modalities, Sequence) and not isinstance(modalities, str):
            site = renamed(site, list(modalities))
        if isinstance(site, InputSite) and site.layout is None and not site.path and inputs is not None:
            site = _completed(model, site, inputs)
        return site, layout, context
    if isinstance(site, SiteList):
        raise PatchError(f"site= takes one site, not a list of {len(site)}; pick one, such as sites[0]")
    if site is not None and not isinstance(site, (int, str)):
        raise PatchError(
            f"site= is one of fusionzoo.find_sites(model, ...), an InputSite, an index or 'file.py:47', not {type(site).__name__}"
        )
    if inputs is not None:
        sites = attempt(model, inputs, lambda call: sites_of_call(model, call, modalities))
        if site is None or isinstance(site, int):
            index = site or 0
            if not -len(sites) <= index < len(sites):
                raise NoSiteError(f"there is no site {index}; {len(sites)} were found:\n{sites}")
            return sites[index], layout, context
        hits = [s for s in sites if s.where.endswith(site) or (s.path and s.path == site)]
        if not hits:
            raise NoSiteError(f"no site is at {site!r}; these were found:\n{sites}")
        return hits[0], layout, context
    if site is not None:
        raise PatchError(
            f"site={site!r} can only be looked up with inputs=(what the model is called with); or pick one of "
            "fusionzoo.find_sites(model, ...)"
        )
    adapter = adapter_for(model)
    if adapter is None:
        raise NoSiteError(
            f"no adapter knows {type(model).__name__}; say where: site=fusionzoo.find_sites(model, *batch)[0], or "
            "inputs=batch for the best candidate"
        )
    return adapted(adapter, model, layout, context)


def _completed(model: nn.Module, site: InputSite, inputs: Any) -> InputSite:
    """An input site with the layout and the lengths or mask that one run of the model tells."""

    def found(call: Call) -> list[InputSite]:
        names = list(bind(forward_of(model), call.args, call.kwargs))
        arg = str(site.arg)
        arg = names[int(arg)] if arg.isdigit() and int(arg) < len(names) else arg
        sites = sites_of_call(model, call, {arg: site.widths})
        return [s for s in sites if isinstance(s, InputSite) and s.arg == arg]

    try:
        told = attempt(model, inputs, found)
    except Exception:  # what is wrong with site or inputs is said in words when the patch is put in
        return site
    return replace(site, layout=told[0].layout, context=told[0].context) if told else site


def renamed(site: AnySite, names: list[str]) -> AnySite:
    if len(names) != len(site.modalities):
        raise ModalityError(
            f"modalities= gives {len(names)} names ({', '.join(names)}) for the {len(site.modalities)} streams of the site "
            f"({', '.join(site.modalities)})"
        )
    if isinstance(site, InputSite):
        return replace(site, widths=dict(zip(names, site.widths.values(), strict=True)))
    return replace(site, groups=dict(zip(names, site.groups.values(), strict=True)))
