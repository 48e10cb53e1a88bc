"""Adapters: what is known of a public repository's model, so that `fusionzoo.patch(model, "lmam")` needs nothing else.

An adapter is a plugin of kind "adapter": a class (or module) whose members are static, found by `recognise`. Only `recognise`
and one way to the site are needed; everything else has a default.

    recognise(model) -> bool
        Whether this is the model, told by its structure (class name, submodules, widths); the repository is not imported.
        Never raises for a foreign model; an exception counts as no.

    The site, one of:
        site : str, with widths(model) -> {modality: width}
            Path of the submodule whose first argument is the joined tensor (features side by side, in this order).
        site(model) -> Site | InputSite
            The site itself: an `InputSite`, or `declare(model, ...)` below, which names an expression in the source.
        example(model) -> (args, kwargs) and, where the best candidate is not the one, choose(sites) -> Site
            A small call of the model, traced as `find_sites` does. Sizes of the batch, the dialogues and, for arguments
            whose order matters, all of them, should differ, so that layouts can be told.

    layout : str, of the streams at the site; or layout(model) -> str. Without it, what the trace proved.
    context(model, args, kwargs) -> {"mask": bool (B, T)} | {"lengths": ...}
        Which steps of a call are real, and, for flat lists of nodes, the dialogues' lengths.
    modalities : what `find_sites` takes as `modalities=`, for `example`; or modalities(model).
    repairs : list of `Repair`, or repairs(model): without them the official code does not run on current torch, numpy or
        torch-geometric. `fusionzoo.modernise(model)` puts them in force for this instance; so does `patch` while it runs
        `example`, and only then.
    test_host() -> (model, args, kwargs)
        A small model of the kind and a call for it, for `fusionzoo check`, which else is given one (`--example`).
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from fusionzoo._installed import described
from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooError, FusionZooWarning, NoSiteError, PatchError
from fusionzoo.patching.call_chain import Step
from fusionzoo.patching.find.search import find_sites
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.fuse.joins import JOINS
from fusionzoo.patching.layouts import check_layout
from fusionzoo.patching.repairs import in_force, repair
from fusionzoo.patching.sites import InputSite, Site, Stream, grouped
from fusionzoo.patching.source import read_function, span
from fusionzoo.patching.turns import in_turn
from fusionzoo.patching.wrappers import host_of


def adapter_for(model: nn.Module) -> Any | None:
    """The installed adapter that knows a model; None where there is none."""
    for name in registry.names("adapter"):
        try:
            adapter = registry.get(name, "adapter")
        except FusionZooError:
            continue  # a broken plugin is reported by `fusionzoo plugins` and does not hide the others
        try:
            adapter = adapter() if isinstance(adapter, type) else adapter
            if adapter.recognise(model):
                return adapter
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # somebody else's code; whatever it raises, the others are asked
            warnings.warn(
                f"the adapter {name!r} failed to look at {type(model).__name__} and is passed over: "
                f"{described(error)}. Its recognise(model) should return False for a model it does not know.",
                FusionZooWarning,
                stacklevel=2,
            )
    return None


def part(adapter: Any, name: str, model: nn.Module, default: Any = None) -> Any:
    """A member of an adapter, called with the model where it is a function."""
    value = getattr(adapter, name, default)
    return value(model) if callable(value) else value


def adapter_context(model: nn.Module) -> Context | None:
    """The context function of the adapter that knows a model."""
    adapter = adapter_for(model)
    return None if adapter is None else getattr(adapter, "context", None)


def adapted(
    adapter: Any, model: nn.Module, layout: str | None, context: Context | None
) -> tuple[Site | InputSite, str | None, Context | None]:
    """Site, layout and context of a model that an adapter knows; what the caller gave goes first."""
    site = _site(adapter, model)
    layout = layout or part(adapter, "layout", model)
    return site, layout, context or getattr(adapter, "context", None)


def _site(adapter: Any, model: nn.Module) -> Site | InputSite:
    given = getattr(adapter, "site", None)
    if isinstance(given, str):
        widths = part(adapter, "widths", model)
        if not isinstance(widths, Mapping):
            raise PatchError(f"the adapter {_label(adapter)} names the submodule {given!r}, but has no widths(model)")
        layout = part(adapter, "layout", model)
        return InputSite("0", dict(widths), layout, path=given)
    if callable(given):
        return given(model)  # type: ignore[return-value]
    if isinstance(given, (Site, InputSite)):
        return given
    if not callable(getattr(adapter, "example", None)):
        raise PatchError(
            f"the adapter {_label(adapter)} has neither site nor example(model); see fusionzoo.patching.repositories"
        )
    args, kwargs = adapter.example(model)
    with ExitStack() as stack:
        stack.enter_context(in_force(model, part(adapter, "repairs", model, ()) or ()))
        sites = find_sites(model, *args, modalities=part(adapter, "modalities", model), **kwargs)
    choose = getattr(adapter, "choose", None)
    return sites[0] if choose is None else choose(sites)


def _label(adapter: Any) -> str:
    return getattr(adapter, "__name__", type(adapter).__name__)


def declare(
    model: nn.Module,
    path: str,
    steps: Sequence[tuple[str, str]],
    operands: Sequence[tuple[str, int]],
    *,
    kind: str = "cat",
    axis: int = -1,
    layout: str,
    result: int | None = None,
) -> Site:
    """A site named by its expression, without running the model.

    Parameters
    ----------
    model : nn.Module
        The model.
    path : str
        Of the module whose method leads to the site.
    steps : sequence of (str, str)
        Function and expression, from the method on: in this function, this expression (as `ast.unparse` writes it, or its
        beginning) leads to the next function or is the join itself.
    operands : sequence of (str, int)
        Modality and width of what is joined, in order; "" for what is no stream.
    kind : str
        The kind of join.
    axis : int
        Of the join; widths and layout say the rest.
    layout : str
        Of the streams.
    result : int, optional
        Features of the result; None for the sum of the operands' for "cat", else the first one's.

    >>> declare(model, "", [("forward", "torch.cat((t, a, v)")], [("text", 8), ("audio", 8), ("visual", 8)],
    ...         layout="(B, T, d)")                                                       # doctest: +SKIP
    """
    owner = model.get_submodule(path)
    layout = check_layout(layout)
    rank = {"(B, d)": 2, "(N, d)": 2, "(T, d)": 2}.get(layout, 3)
    found = [_declared(owner, *steps[0])]
    for name, expression in steps[1:]:
        found.append(_declared(found[-1][1], name, expression))
    streams = tuple(Stream(m, (0,) * (rank - 1) + (w,)) for m, w in operands)
    width = result or JOINS[kind].result_width([w for _, w in operands])
    last = found[-1][0]
    return Site(
        path=path,
        module=type(owner).__name__,
        file=last.file,
        line=last.position[0],
        function=last.qualname,
        kind=kind,
        op=kind,
        operands=streams,
        result=(0,) * (rank - 1) + (width,),
        axis=axis % rank,
        layout=layout,
        sure=True,
        calls=1,
        consumer="",
        live=True,
        groups=grouped(streams, False),
        steps=tuple(s for s, _ in found),
        total=len({m for m, _ in operands if m}),
        code=steps[-1][1],
        dtype=next(
            (str(p.dtype).removeprefix("torch.") for p in owner.parameters() if p.is_floating_point()), "float32"
        ),
    )


def _declared(where: Any, name: str, expression: str) -> tuple[Step, FunctionType]:
    if isinstance(where, nn.Module):
        value = inspect.getattr_static(where, name, None)
        function = getattr(value, "__func__", value)
        function = getattr(function, "__fz_base__", function)
    else:
        function = where.__globals__.get(name.rpartition(".")[2]) if isinstance(where, FunctionType) else None
        if isinstance(function, ModuleType):
            function = None
    if not isinstance(function, FunctionType):
        raise PatchError(f"there is no function {name!r} where the adapter expects it; the host's code has changed")
    code = function.__code__
    source = read_function(code.co_filename, code.co_qualname, code.co_firstlineno, function.__globals__)
    wanted = " ".join(expression.split())
    nodes = [n for n in ast.walk(source.node) if isinstance(n, (ast.Call, ast.BinOp))] if source is not None else []
    found = [n for n in nodes if ast.unparse(n).startswith(wanted)]
    if found:
        # The whole expression rather than a longer one that begins with it: `stack(x)`, not `stack(x).sum(0)`.
        node = min(found, key=lambda n: len(ast.unparse(n)))
        step = Step(code.co_filename, function.__module__, code.co_qualname, code.co_firstlineno, span(node))
        return step, function
    raise PatchError(f"{code.co_qualname} has no expression {expression!r}; the host's code has changed")


@in_turn
def modernise(module: nn.Module) -> list[str]:
    """Let a model of an official repository run on current torch, numpy and torch-geometric: this instance only.

    Returns what was changed, in words; nothing for a model that is modernised already.

    Raises
    ------
    NoSiteError
        No adapter knows the model.
    """
    module = host_of(module)
    adapter = adapter_for(module)
    if adapter is None:
        raise NoSiteError(f"no adapter knows {type(module).__name__}, so it is not known what it needs")
    return repair(module, tuple(part(adapter, "repairs", module) or ()))
