"""`load_patch`: a saved fusion put back into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fusionzoo._weights import building_for, load_weights
from fusionzoo.errors import HostChangedError, PatchError
from fusionzoo.patching.call_chain import Step, moved
from fusionzoo.patching.fuse.contexts import Context, check_context, read_saved
from fusionzoo.patching.patched import Patch
from fusionzoo.patching.patcher import install, prepare, warn_of_another
from fusionzoo.patching.promises import Proof
from fusionzoo.patching.repositories import adapter_context
from fusionzoo.patching.rewrite.loaded_code import find_loaded
from fusionzoo.patching.saving import path_of, read
from fusionzoo.patching.sites import Site, read_site
from fusionzoo.patching.source import step_source
from fusionzoo.patching.turns import in_turn
from fusionzoo.patching.watch import watch
from fusionzoo.patching.wrappers import home_of, host_of

if TYPE_CHECKING:
    from fusionzoo.fusion import Fusion


@in_turn
def load_patch(model: nn.Module, path: str | PathLike[str], *, context: Context | None = None) -> Patch:
    """Put a saved fusion back into a model of the kind that it was saved from; weights included.

    What is around the model does not matter: a patch that was trained in a wrapped model (DataParallel, torch.compile, PEFT,
    ...) goes into the plain one, and the other way round. No code that the file names is run: the fusion is an installed
    plugin of that name, and the site is looked for among the functions that the model's classes have loaded already.

    Parameters
    ----------
    model : nn.Module
        A model of the kind that the patch was saved from.
    path : str or path
        What `Patch.save` wrote.
    context : callable, optional
        As for `patch`; needed again where the saved patch had a callable of the caller's.

    Raises
    ------
    CheckpointError
        Not a saved patch, damaged, or weights that lack or have too much.
    HostChangedError
        The host's code on the way to the site is not what it was, or is not loaded.
    """
    if not isinstance(model, nn.Module):
        raise PatchError(f"load_patch takes a torch.nn.Module, not {type(model).__name__}")
    path = path_of(path)
    check_context(context)
    meta, weights = read(path)
    site = read_site(meta["site"])
    saved = meta["context"]
    if context is None and isinstance(saved, Mapping):
        context = read_saved(saved)
    elif context is None and saved == "callable":
        context = adapter_context(host_of(model))
        if context is None:
            raise PatchError(
                f"the patch in {str(path)!r} was made with a context= of its caller's, which cannot be saved; give it again: "
                "fusionzoo.load_patch(model, path, context=...)"
            )
    host, where = home_of(model, site, meta.get("host", ""))
    site = replace(site, path=where)
    if isinstance(site, Site):
        site = _placed(host.get_submodule(where), site, tuple(meta["digests"]), host)
    with building_for(weights, f"{str(path)!r}"):
        patch = prepare(model, host, _fusion(meta["fusion"], str(path)), site, meta["mode"], context, {})
    load_weights(patch.layer, weights, str(path))
    install(patch)
    if (proof := meta.get("proof")) is not None:
        patch.proof = Proof.from_dict(proof, path.name)
        watch(patch, None)
    else:
        patch.proof = Proof.left_out(f"{path.name} was saved by a fusionzoo that kept no proof")
    try:
        warn_of_another(patch)
    except BaseException:  # a caller who takes warnings for errors
        patch.remove()
        raise
    return patch


def _fusion(config: Mapping[str, Any], source: str) -> Fusion:
    from fusionzoo.hub import build_saved

    with torch.random.fork_rng(devices=[]):
        return build_saved(config, source)  # type: ignore[return-value]


def _placed(owner: nn.Module, site: Site, digests: tuple[str, ...], model: nn.Module) -> Site:
    """The site in the host's files as they are here: other folders, and lines that moved as a whole, are fine."""
    steps: list[Step] = []
    for step, digest in zip(site.steps, digests, strict=True):
        found = find_loaded(model, owner, step, digest)
        if found is None:
            raise HostChangedError(
                f"{step.qualname} of {step.module}, in which the site is, is no function that this {type(owner).__name__} is made of; "
                "import what its forward imports late, or run the model once, and load the patch then"
            )
        source = step_source(found)
        if digest and (source is None or source.digest != digest):
            raise HostChangedError(
                f"{found.qualname} in {found.file} has changed since the patch was saved; look for sites again with "
                "fusionzoo.find_sites, patch anew, and load the weights with patch.load_state_dict"
            )
        steps.append(replace(found, position=moved(step.position, found.line - step.line)))
    shift = steps[-1].line - site.steps[-1].line
    inner = tuple(moved(p, shift) for p in site.inner)
    kept = tuple((moved(p, shift), tuple(moved(i, shift) for i in more)) for p, more in site.kept)
    return replace(site, steps=tuple(steps), inner=inner, kept=kept, file=steps[-1].file, line=steps[-1].position[0])
