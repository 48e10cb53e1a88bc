"""A patch's file: the fusion's weights as safetensors, with the site, the options and the host's hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fusionzoo import __version__
from fusionzoo._file_schemas import InputSiteInPatch, PatchFile, SiteInPatch
from fusionzoo._files import write_bytes
from fusionzoo._schema import check, parse_json, shown
from fusionzoo._weights import read_tensors
from fusionzoo.errors import CheckpointError, PatchError, PatchOptionError
from fusionzoo.patching.fuse.contexts import ArgumentContext, StreamContexts
from fusionzoo.patching.fuse.joins import JOINS
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.sites import InputSite

if TYPE_CHECKING:
    from fusionzoo.patching.patched import Patch

_KEY = "fusionzoo_patch"
FORMAT = 1


def path_of(path: Any) -> Path:
    """A path as it was given to `Patch.save` or `load_patch`."""
    try:
        return Path(path)
    except TypeError:
        raise PatchOptionError(
            f"a saved patch is a file: give its path as text or a Path, not {type(path).__name__}"
        ) from None


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
        "context": asdict(context)
        if isinstance(context, (ArgumentContext, StreamContexts))
        else context and "callable",
        "proof": patch.proof.to_dict(),
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


def read(path: Path) -> tuple[PatchFile, dict[str, torch.Tensor]]:
    """What a saved patch says of itself, checked, and its weights."""
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
    kinds = [kind for kind in JOINS if kind != InputSite.kind]  # which has a record of its own
    if site["kind"] not in kinds:
        raise CheckpointError(f"{path}: site.kind: expected one of {', '.join(kinds)}, got {shown(site['kind'])}")
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
