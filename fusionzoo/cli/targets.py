"""`path/to/script.py:build`: a model and the arguments of a call, for the command line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fusionzoo.errors import FusionZooError, PatchError, close_matches_hint
from fusionzoo.patching.calls import readings
from fusionzoo.patching.find.search import find_sites
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.sites import SiteList
from fusionzoo.patching.wrappers import host_of


def build_target(target: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Call `build` of a script or module; the script's own folder can be imported from, as when it is run."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise PatchError(f"{target!r} does not name a function; write path/to/script.py:build")
    module = _load(where)
    function = getattr(module, name, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise PatchError(f"{where} has no function {name!r}{close_matches_hint(name, names)}")
    with _said(f"{name}() of {where}"):
        built = function()
    if not isinstance(built, tuple) or len(built) not in (2, 3) or not isinstance(built[0], nn.Module):
        raise PatchError(f"{name}() must return (model, args) or (model, args, kwargs), not {type(built).__name__}")
    model, args = built[:2]
    if len(built) == 3:
        return model, tuple(args) if isinstance(args, (list, tuple)) else (args,), dict(built[2])
    _, call = readings(host_of(model), args)[0]
    return model, call.args, call.kwargs


def sites_of(target: str, modalities: ModalitiesLike = None) -> SiteList:
    """The sites of what `build` returns."""
    model, args, kwargs = build_target(target)
    with _said(f"{type(model).__name__}, run with what {target.rpartition(':')[2]}() gave,"):
        return find_sites(model, *args, modalities=modalities, **kwargs)


@contextmanager
def _said(who: str) -> Iterator[None]:
    """Somebody else's exception in one line; --debug shows where it came from."""
    try:
        yield
    except FusionZooError:
        raise
    except Exception as error:
        raise PatchError(f"{who} raises {type(error).__name__}: {error}") from error


def _load(where: str) -> Any:
    if not where.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        try:
            with _said(where):
                return importlib.import_module(where)
        except PatchError as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == where:
                raise PatchError(f"there is no module {where!r}; a script's path ends in .py") from None
            raise
    if not os.path.isfile(where):
        raise PatchError(f"there is no file {where!r}")
    path = os.path.abspath(where)
    sys.path.insert(0, os.path.dirname(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _said(where):
        spec.loader.exec_module(module)
    return module
