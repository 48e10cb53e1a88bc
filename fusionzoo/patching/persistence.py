"""`Patch.save` and `load_patch`: the fusion's weights as safetensors, with the site, the options and the host's hashes."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fusionzoo import __version__
from fusionzoo.errors import CheckpointError, HostChangedError, PatchError
from fusionzoo.patching import frames as F
from fusionzoo.patching import install
from fusionzoo.patching import source as S
from fusionzoo.patching.adapters import adapter_context
from fusionzoo.patching.context import ArgumentContext
from fusionzoo.patching.layer import Context, FusionLayer
from fusionzoo.patching.patch import Patch
from fusionzoo.patching.sites import Site, read_site
from fusionzoo.patching.wrappers import home_of, host_of, refuse_unsynchronised

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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(data)
    os.replace(aside, path)
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
    ...) goes into the plain one, and the other way round.

    Parameters
    ----------
    path : what `Patch.save` wrote.
    context : as for `patch`; needed again where the saved patch had a callable of the caller's.

    Raises
    ------
    CheckpointError : not a saved patch, damaged, or weights that lack or have too much.
    HostChangedError : the host's code on the way to the site is not what it was.
    """
    if not isinstance(model, nn.Module):
        raise PatchError(f"load_patch takes a torch.nn.Module, not {type(model).__name__}")
    path = Path(path)
    meta, weights = _read(path)
    site = read_site(meta["site"])
    saved = meta["context"]
    if context is None and isinstance(saved, Mapping):
        context = ArgumentContext(**saved)
    elif context is None and saved == "callable":
        context = adapter_context(host_of(model))
        if context is None:
            raise PatchError(
                f"the patch in {str(path)!r} was made with a context= of its caller's, which cannot be saved; give it again: "
                "fusionzoo.load_patch(model, path, context=...)"
            )
    refuse_unsynchronised(model)
    host, where = home_of(model, site, meta["host"])
    site = replace(site, path=where)
    if isinstance(site, Site):
        site = _placed(host.get_submodule(where), site, tuple(meta["digests"]), host)
    patch = Patch._prepare(model, host, _fusion(meta["fusion"], str(path)), site, meta["mode"], context, {})
    _load(patch.layer, weights, str(path))
    patch._install()
    return patch


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            meta = (file.metadata() or {}).get(_KEY)
            weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  (not a mapping)
    except FileNotFoundError:
        raise CheckpointError(f"there is no saved patch at {str(path)!r}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or not a safetensors file: {error}") from error
    if meta is None:
        raise CheckpointError(f"{str(path)!r} holds weights, but was not written by Patch.save")
    read = json.loads(meta)
    if read.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} was saved by fusionzoo {read.get('fusionzoo')} in format {read.get('format')}; this fusionzoo "
            f"({__version__}) reads format {FORMAT}"
        )
    return read, weights


def _fusion(config: Mapping[str, Any], source: str) -> Fusion:
    from fusionzoo.hub import _build

    with torch.random.fork_rng(devices=[]):
        return _build(config, source)  # type: ignore[return-value]


def _load(layer: FusionLayer, weights: Mapping[str, torch.Tensor], source: str) -> None:
    from fusionzoo._weights import load_weights

    load_weights(layer, weights, source)


def _placed(owner: nn.Module, site: Site, digests: tuple[str, ...], model: nn.Module) -> Site:
    """The site in the host's files as they are here: other folders, and lines that moved as a whole, are fine."""
    steps: list[F.Step] = []
    for step, digest in zip(site.steps, digests, strict=True):
        file = _file(owner, step, model)
        if file is None:
            raise HostChangedError(
                f"the file of {step.qualname} ({step.file}) cannot be found for this {type(owner).__name__}"
            )
        found = S.find(file, step.qualname, step.line)
        line = step.line
        if digest and (found is None or found.digest != digest):
            moved = S.find_moved(file, step.qualname, digest)
            if moved is None:
                raise HostChangedError(
                    f"{step.qualname} in {file} has changed since the patch was saved; look for sites again with "
                    "fusionzoo.find_sites, patch anew, and load the weights with patch.load_state_dict"
                )
            line = moved
        position = install.moved(step.position, line - step.line)
        steps.append(F.Step(file, step.module, step.qualname, line, position))
    shift = steps[-1].line - site.steps[-1].line
    inner = tuple(install.moved(p, shift) for p in site.inner)
    kept = tuple((install.moved(p, shift), tuple(install.moved(i, shift) for i in more)) for p, more in site.kept)
    return replace(site, steps=tuple(steps), inner=inner, kept=kept, file=steps[-1].file, line=steps[-1].position[0])


def _file(owner: nn.Module, step: F.Step, model: nn.Module) -> str | None:
    """Where a step's code is now: the class's own method, an importable module, or a file of that name beside."""
    import sys

    name = step.qualname.rpartition(".")[2]
    for _, value in F.attributes(owner):
        for function in (getattr(value, "__func__", value), *install.closed_over(getattr(value, "__func__", value))):
            code = getattr(function, "__code__", None)
            if code is not None and code.co_qualname == step.qualname and code.co_name == name:
                return code.co_filename
            beside = getattr(function, "__globals__", {}).get(step.qualname)
            for other in (beside, *install.closed_over(beside)) if isinstance(beside, FunctionType) else ():
                if other.__code__.co_qualname == step.qualname and other.__module__ == step.module:
                    return other.__code__.co_filename
    module = sys.modules.get(step.module)
    if module is not None and getattr(module, "__file__", None):
        return module.__file__
    homes = {
        os.path.dirname(getattr(sys.modules.get(type(m).__module__), "__file__", None) or "") for m in model.modules()
    }
    for home in sorted(h for h in homes if h):
        beside = os.path.join(home, os.path.basename(step.file))
        if os.path.exists(beside):
            return beside
    try:
        spec = importlib.util.find_spec(step.module) if step.module not in ("", "__main__") else None
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin:
        return spec.origin
    return step.file if S.lines_of(step.file) else None
