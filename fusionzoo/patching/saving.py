"""`Patch.save` and `load_patch`: the fusion's weights as safetensors, with the site, the options and the host's hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fusionzoo import __version__
from fusionzoo._file_schemas import InputSiteInPatch, PatchFile, SiteInPatch
from fusionzoo._files import write_bytes
from fusionzoo._schema import check, parse_json, shown
from fusionzoo._weights import building_for, load_weights, read_tensors
from fusionzoo.errors import CheckpointError, HostChangedError, PatchError
from fusionzoo.patching import call_chain as F
from fusionzoo.patching.find.real_steps import ArgumentContext
from fusionzoo.patching.fuse.layer import Context, FusionLayer
from fusionzoo.patching.patcher import Patch
from fusionzoo.patching.repositories import adapter_context
from fusionzoo.patching.rewrite import routes as install
from fusionzoo.patching.rewrite import source as S
from fusionzoo.patching.rewrite.loaded_code import find_loaded
from fusionzoo.patching.sites import Site, read_site
from fusionzoo.patching.wrappers import home_of, host_of

if TYPE_CHECKING:
    from fusionzoo.fusion import Fusion

_KEY = "fusionzoo_patch"
FORMAT = 1


def save(patch: Patch, path: Path) -> Path:
    """See `Patch.save`."""
    from safetensors.torch import save as pack

    from fusionzoo.hub import describe

    layer = patch.layer
    _refuse_changed(layer)
    context = layer.context
    meta = {
        "format": FORMAT,
        "fusionzoo": __version__,
        "host": type(patch.host).__name__,
        "mode": patch.mode,
        "site": patch.site.to_dict(),
        "digests": list(patch.digests),
        "fusion": describe(patch.fusion),
        "context": asdict(context) if isinstance(context, ArgumentContext) else "callable" if context else None,
    }
    weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in layer.state_dict().items()}
    data = pack(weights, metadata={_KEY: json.dumps(meta)})
    write_bytes(path, data)
    return path


def _refuse_changed(layer: FusionLayer) -> None:
    """Weights under other names than a fusion's own could not be loaded again."""
    strange = sorted(set(layer.state_dict()) ^ layer.names)
    if strange:
        raise PatchError(
            f"layers of the fusion were replaced or added to since it was made ({strange[0]} and {len(strange) - 1} more differ), and "
            "cannot be saved so. With PEFT, call merge_and_unload() first, or keep it out of the fusion with "
            "exclude_modules; with parametrizations, remove them first"
        )


def load_patch(model: nn.Module, path: str | PathLike[str], *, context: Context | None = None) -> Patch:
    """Put a saved fusion back into a model of the kind that it was saved from; weights included.

    What is around the model does not matter: a patch that was trained in a wrapped model (DataParallel, torch.compile, PEFT,
    ...) goes into the plain one, and the other way round. No code that the file names is run: the fusion is an installed
    plugin of that name, and the site is looked for among the functions that the model's classes have loaded already.

    Parameters
    ----------
    path : what `Patch.save` wrote.
    context : as for `patch`; needed again where the saved patch had a callable of the caller's.

    Raises
    ------
    CheckpointError : not a saved patch, damaged, or weights that lack or have too much.
    HostChangedError : the host's code on the way to the site is not what it was, or is not loaded.
    """
    if not isinstance(model, nn.Module):
        raise PatchError(f"load_patch takes a torch.nn.Module, not {type(model).__name__}")
    path = Path(path)
    meta, weights = _read(path)
    site = read_site(meta["site"])
    saved = meta["context"]
    if context is None and isinstance(saved, Mapping):
        context = ArgumentContext(saved["path"], saved["form"])
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
        patch = Patch._prepare(model, host, _fusion(meta["fusion"], str(path)), site, meta["mode"], context, {})
    load_weights(patch.layer, weights, str(path))
    patch._install()
    return patch


def _read(path: Path) -> tuple[PatchFile, dict[str, torch.Tensor]]:
    if not path.exists():
        raise CheckpointError(f"there is no saved patch at {str(path)!r}")
    weights, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise CheckpointError(f"{str(path)!r} holds weights, but was not written by Patch.save")
    read = parse_json(metadata[_KEY], str(path), CheckpointError)
    if isinstance(read, dict) and read.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} was saved by fusionzoo {shown(read.get('fusionzoo'))} in format {shown(read.get('format'))}; this "
            f"fusionzoo ({__version__}) reads format {FORMAT}"
        )
    meta = check(PatchFile, read, str(path), CheckpointError)
    site = meta["site"]
    of_input = isinstance(site, dict) and site.get("type") == "input"
    check(InputSiteInPatch if of_input else SiteInPatch, site, f"{path}: site", CheckpointError)
    if not of_input:
        _check_site(site, len(meta["digests"]), str(path))
    return meta, weights


def _check_site(site: Mapping[str, Any], digests: int, path: str) -> None:
    """That the numbers of a site point at what is there."""
    operands, steps = site["operands"], site["steps"]
    if digests != len(steps):
        raise CheckpointError(f"{path}: digests: expected {len(steps)}, one for every step, got {digests}")
    ranks = {len(o["shape"]) for o in operands}
    wrong = [
        *(("groups", i) for where in site["groups"].values() for i in where if i >= len(operands)),
        *(("groups", m) for m, where in site["groups"].items() if not where),
        *(("sources", k) for k, _ in site.get("sources", ()) if k >= len(site.get("kept", ()))),
        *(("feature_axis", site["feature_axis"]) for r in ranks if not -r <= site["feature_axis"] < max(r, 1)),
    ]
    if wrong:
        raise CheckpointError(f"{path}: site.{wrong[0][0]}: {shown(wrong[0][1])} points at nothing of this site")


def _fusion(config: Mapping[str, Any], source: str) -> Fusion:
    from fusionzoo.hub import build_saved

    with torch.random.fork_rng(devices=[]):
        return build_saved(config, source)  # type: ignore[return-value]


def _placed(owner: nn.Module, site: Site, digests: tuple[str, ...], model: nn.Module) -> Site:
    """The site in the host's files as they are here: other folders, and lines that moved as a whole, are fine."""
    steps: list[F.Step] = []
    for step, digest in zip(site.steps, digests, strict=True):
        found = find_loaded(model, owner, step, digest)
        if found is None:
            raise HostChangedError(
                f"{step.qualname} of {step.module}, in which the site is, is no function that this {type(owner).__name__} is made of; "
                "import what its forward imports late, or run the model once, and load the patch then"
            )
        source = S.step_source(found)
        if digest and (source is None or source.digest != digest):
            raise HostChangedError(
                f"{found.qualname} in {found.file} has changed since the patch was saved; look for sites again with "
                "fusionzoo.find_sites, patch anew, and load the weights with patch.load_state_dict"
            )
        steps.append(replace(found, position=install.moved(step.position, found.line - step.line)))
    shift = steps[-1].line - site.steps[-1].line
    inner = tuple(install.moved(p, shift) for p in site.inner)
    kept = tuple((install.moved(p, shift), tuple(install.moved(i, shift) for i in more)) for p, more in site.kept)
    return replace(site, steps=tuple(steps), inner=inner, kept=kept, file=steps[-1].file, line=steps[-1].position[0])
