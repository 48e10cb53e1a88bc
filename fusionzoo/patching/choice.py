"""Which sites `patch` may mean: one that was given, the candidates for some inputs, or what an adapter knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fusionzoo.errors import ModalityError, NoSiteError, PatchError
from fusionzoo.patching.calls import Call, attempt
from fusionzoo.patching.find.search import sites_of_call
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.modalities import ModalitiesLike, check_modalities
from fusionzoo.patching.repositories import adapted, adapter_for
from fusionzoo.patching.signatures import bind, forward_of
from fusionzoo.patching.sites import AnySite, InputSite, Site, SiteList


def resolve(
    model: nn.Module, site: Any, inputs: Any, layout: str | None, context: Context | None, modalities: ModalitiesLike
) -> tuple[list[AnySite], str | None, Context | None]:
    """Sites, the best one first, layout and context from what `patch` was given."""
    if isinstance(site, (Site, InputSite)):
        return [_completed(model, _as_named(site, modalities), inputs)], layout, context
    if isinstance(site, SiteList):
        raise PatchError(f"site= takes one site, not a list of {len(site)}; pick one, such as sites[0]")
    if isinstance(site, bool) or (site is not None and not isinstance(site, (int, str))):
        raise PatchError(
            f"site= is one of fusionzoo.find_sites(model, ...), an InputSite, an index or 'file.py:47', not {type(site).__name__}"
        )
    adapter = adapter_for(model) if site is None and (inputs is None or modalities is None) else None
    if inputs is not None and adapter is None:
        sites = attempt(model, inputs, lambda call: sites_of_call(model, call, modalities))
        return _picked(sites, site), layout, context
    if site is not None:
        raise PatchError(
            f"site={site!r} can only be looked up with inputs=(what the model is called with); or pick one of "
            "fusionzoo.find_sites(model, ...)"
        )
    if adapter is None:
        raise NoSiteError(
            f"no adapter knows {type(model).__name__}; say where: site=fusionzoo.find_sites(model, *batch)[0], or "
            "inputs=batch for the best candidate"
        )
    known, layout, context = adapted(adapter, model, layout, context)
    return [known], layout, context


def _picked(sites: SiteList, wanted: int | str | None) -> list[AnySite]:
    """The site of this index, place in the source or path; where none is asked for, all that reach the model's output."""
    if wanted is None:
        live = [s for s in sites if s.live]
        if not live:
            raise NoSiteError(
                "nothing of what is computed where streams meet reaches the model's output, so that a fusion there would have no "
                f"effect and could not learn; site=0 puts one there all the same. Found:\n{sites}"
            )
        return live
    if isinstance(wanted, str):
        hits = [s for s in sites if _is_at(s, wanted)]
        if not hits:
            raise NoSiteError(f"no site is at {wanted!r}; these were found:\n{sites}")
        return hits[:1]
    if not -len(sites) <= wanted < len(sites):
        raise NoSiteError(f"there is no site {wanted}; {len(sites)} were found:\n{sites}")
    return [sites[wanted]]


def _is_at(site: AnySite, wanted: str) -> bool:
    """Whether a site is at a place in the source ("file.py:47", with folders or without), or in a submodule of this path."""
    if isinstance(site, InputSite):
        return wanted in (site.where, site.arg)
    place = f"/{site.file}:{site.line}".replace(os.sep, "/")
    return place.endswith(f"/{wanted.replace(os.sep, '/').lstrip('/')}") or (bool(site.path) and site.path == wanted)


def _completed(model: nn.Module, site: AnySite, inputs: Any) -> AnySite:
    """A site of the model's inputs with the layout and the lengths or mask that one run of the model tells."""
    if not isinstance(site, InputSite) or site.layout is not None or site.path or inputs is None:
        return site

    def found(call: Call) -> list[InputSite]:
        names = list(bind(forward_of(model), call.args, call.kwargs))
        arg = str(site.arg)
        arg = names[int(arg)] if arg.isdigit() and int(arg) < len(names) else arg
        sites = sites_of_call(model, call, {arg: site.widths})
        return [s for s in sites if isinstance(s, InputSite) and s.arg == arg]

    try:
        told = attempt(model, inputs, found)
    except (
        Exception
    ):  # of the host's own code, or ours: said in words when the patch is put in and run with the same call
        return site
    return replace(site, layout=told[0].layout, context=site.context or told[0].context) if told else site


def _as_named(site: AnySite, modalities: ModalitiesLike) -> AnySite:
    """The site with the names that were given for its streams, where that was done by a list."""
    check_modalities(modalities)
    if not isinstance(modalities, Sequence):
        return site
    names = list(modalities)
    if len(names) != len(site.modalities):
        raise ModalityError(
            f"modalities= gives {len(names)} names ({', '.join(names)}) for the {len(site.modalities)} streams of the site "
            f"({', '.join(site.modalities)})"
        )
    if isinstance(site, InputSite):
        return replace(site, widths=dict(zip(names, site.widths.values(), strict=True)))
    return replace(site, groups=dict(zip(names, site.groups.values(), strict=True)))
