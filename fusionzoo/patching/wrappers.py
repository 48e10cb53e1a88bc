"""Looking through what is put around a model: DataParallel, torch.compile, AveragedModel, PEFT, somebody's own wrapper.

A wrapper is told by what it does, not by its name: it has one submodule, which holds everything, and a forward that takes any
arguments and can only hand them on. A site's path and a patch's file are relative to the model inside.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fusionzoo.errors import HostChangedError, PatchError
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.holders import CONTAINERS
from fusionzoo.patching.source import read_function

if TYPE_CHECKING:
    from fusionzoo.patching.sites import InputSite, Site


def host_of(model: Any) -> Any:
    """The model inside its wrappers; the model itself where it has none."""
    seen: set[int] = set()
    while isinstance(model, nn.Module) and id(model) not in seen:
        seen.add(id(model))
        inner = _inside(model)
        if inner is None:
            break
        model = inner
    return model


def wrappers_of(model: nn.Module) -> list[nn.Module]:
    """The wrappers around a model, the outermost first."""
    out, host = [], host_of(model)
    while model is not host:
        out.append(model)
        inner = _inside(model)
        assert inner is not None
        model = inner
    return out


def _inside(module: nn.Module) -> nn.Module | None:
    base = getattr(type(module), "get_base_model", None)
    if callable(base) and hasattr(module, "peft_config"):  # PEFT, whose forward may spell out its arguments
        inner = base(module)
        return inner if isinstance(inner, nn.Module) and inner is not module else None
    children = [m for m in module.children() if not isinstance(m, FusionLayer)]
    if len(children) != 1 or isinstance(module, (*CONTAINERS, torch.jit.ScriptModule)):
        return None
    if next(module.parameters(recurse=False), None) is not None or len(list(module.children())) != 1:
        return None
    return children[0] if _hands_on(module) else None


def _hands_on(module: nn.Module) -> bool:
    """Whether a module's forward takes any arguments, and its own code does nothing but pass them to another call."""
    forward = inspect.getattr_static(type(module), "forward", None)
    if forward is nn.Module.forward:  # none of its own: OptimizedModule has it on the instance
        return "forward" in vars(module)
    if not inspect.isfunction(forward):
        return False
    _, *parameters = inspect.signature(forward).parameters.values()
    kinds = [p.kind for p in parameters]
    if kinds != [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return False
    if forward.__module__.partition(".")[0] == "torch":  # DataParallel and its like do more before they pass them on
        return True
    code = forward.__code__
    found = read_function(code.co_filename, code.co_qualname, code.co_firstlineno, forward.__globals__)
    return found is None or _passes(found.node, *(p.name for p in parameters))


def _passes(function: ast.AST, args: str, kwargs: str) -> bool:
    starred = {
        id(n)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for n in (
            *(a.value for a in call.args if isinstance(a, ast.Starred)),
            *(k.value for k in call.keywords if k.arg is None),
        )
    }
    used = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id in (args, kwargs)]
    return bool(used) and all(id(n) in starred for n in used)


def synchronise(model: nn.Module, layer: nn.Module) -> list[RemovableHandle]:
    """Do for a fusion what DDP or FSDP did for the parameters that it found when it was put around the model.

    All processes start from the first one's weights, and each gradient becomes the mean over the processes as soon as it is
    there. Nothing where there is no such wrapper, or one process alone: then whoever wraps later finds the fusion. What it
    returns ends it.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return []
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    kinds = (DistributedDataParallel, FullyShardedDataParallel, FSDPModule)
    found = next((m for m in (*wrappers_of(model), *host_of(model).modules()) if isinstance(m, kinds)), None)
    group = getattr(found, "process_group", None)
    size = distributed.get_world_size(group)
    if found is None or size == 1:
        return []
    first = distributed.get_global_rank(group, 0) if group is not None else 0
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            distributed.broadcast(tensor, first, group)

    def mean(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        distributed.all_reduce(parameter.grad, group=group)
        parameter.grad.div_(size)

    return [p.register_post_accumulate_grad_hook(mean) for p in layer.parameters() if p.requires_grad]


# -- where a saved patch belongs ---------------------------------------------------------------------------------------


def is_a(module: nn.Module, name: str) -> bool:
    """Whether a module's class, or one that it is derived from, has this name."""
    return any(c.__name__ == name for c in type(module).__mro__)


def home_of(model: nn.Module, site: Site | InputSite, host: str) -> tuple[nn.Module, str]:
    """The module whose call a saved site belongs to, and the site's path in it.

    Names gain a prefix in a wrapper: leading parts of the path may be missing here, and the host may be somewhere inside.

    host : name of the class that the patch was saved from.
    """
    inside = host_of(model)
    wanted = getattr(site, "module", None)
    hosts = [m for m in inside.modules() if is_a(m, host)]
    for group in _where_to_look(inside, hosts, site.path, wanted):
        found = [(m, path) for m, path in group if _holds(m, path, site.path, wanted)]
        if len(found) > 1:
            names = {id(m): n for n, m in inside.named_modules()}
            where = [names[id(m)] for m, _ in found]
            raise PatchError(
                f"the patch was saved from one {host}, and this {type(inside).__name__} has {len(found)} places for it "
                f"({', '.join(where)}); load it into the one that you mean: fusionzoo.load_patch(model.get_submodule({where[0]!r}), path)"
            )
        if found:
            return found[0]
    raise HostChangedError(
        f"the patch was saved from a {wanted or 'module'} at {site.path or '<root>'!r} of a {host}; this "
        f"{type(inside).__name__} has none there{'' if hosts else ', nor anywhere inside'}"
    )


def _where_to_look(
    inside: nn.Module, hosts: list[nn.Module], path: str, wanted: str | None
) -> Iterator[list[tuple[nn.Module, str]]]:
    """Modules and the site's path in each, the likeliest first; those in one list are equally likely."""
    if wanted or path or inside in hosts:
        yield [(inside, path)]
    yield [(m, path) for m in hosts]
    if hosts:
        return
    shorter = path  # saved from within a wrapper, whose names are in front, or from a host around this one
    while shorter:
        shorter = shorter.partition(".")[2]
        yield [(inside, shorter)]
    yield [(m, "") for m in inside.modules()] if wanted else [(inside, path)]


def _holds(module: nn.Module, path: str, saved: str, wanted: str | None) -> bool:
    """Whether a module has at this path what the site, whose path was saved, can be in."""
    owner = dict(module.named_modules()).get(path)  # by name alone: no attribute that the file names is looked up
    if owner is None:
        return False
    return is_a(owner, wanted) if wanted else bool(path) or path == saved


# -- copies of a fusion that a wrapper has made ------------------------------------------------------------------------


def layers_of(host: nn.Module, token: str) -> dict[str, FusionLayer]:
    """Every copy of a patch's layer in a model, by its path, those in use first.

    PEFT's `modules_to_save` keeps the original beside a copy for each adapter, and calls one of them.
    """
    found = {n: m for n, m in host.named_modules() if isinstance(m, FusionLayer) and m.plan.token == token}
    idle: set[str] = set()
    for path, module in host.named_modules():
        copies, original = getattr(module, "modules_to_save", None), getattr(module, "original_module", None)
        if isinstance(copies, nn.ModuleDict) and isinstance(original, nn.Module):
            active = next(iter(getattr(module, "active_adapters", None) or ()), "")
            used = original if getattr(module, "disable_adapters", False) or active not in copies else copies[active]
            inside = {id(m) for m in used.modules()}
            start = f"{path}." if path else ""
            idle |= {n for n, m in found.items() if n.startswith(start) and id(m) not in inside}
    return dict(sorted(found.items(), key=lambda item: item[0] in idle))
