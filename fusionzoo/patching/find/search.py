"""`find_sites`: from one traced forward to the sites, the best candidate first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionzoo.errors import ModalityError, NoSiteError, PatchError
from fusionzoo.patching.calls import Call, attempt, explained, misfit
from fusionzoo.patching.find.grouping import sites_of
from fusionzoo.patching.fuse.joins import OPERATIONS
from fusionzoo.patching.modalities import ORDER, Leaf, ModalitiesLike, find_modalities, is_other
from fusionzoo.patching.signatures import bind, forward_of
from fusionzoo.patching.sites import InputSite, SiteList, dtype_name
from fusionzoo.patching.trace.events import Trace
from fusionzoo.patching.trace.labels import MODALITY_BITS
from fusionzoo.patching.trace.last_seen import fates, meetings
from fusionzoo.patching.trace.tracer import run
from fusionzoo.patching.turns import in_turn
from fusionzoo.patching.wrappers import host_of


@in_turn
def find_sites(model: nn.Module, *args: object, modalities: ModalitiesLike = None, **kwargs: object) -> SiteList:
    """Every place in the model's own code where streams of different modalities meet, the best candidate first.

    Runs `model(*args, **kwargs)` once, in the mode that the model is in; buffers, random state and arguments are left as
    they were.

    A wrapper around the model (DataParallel, torch.compile, PEFT, ...) is looked through: paths of sites begin inside it. One
    argument that forward does not take as it is, such as a dict of keyword arguments, is read as `patch` reads `inputs=`.

    Parameters
    ----------
    model : nn.Module
        The model, of whatever package.
    *args : object
        What it is called with; a `fusionzoo.patching.Call` in their place is that call.
    modalities : mapping or sequence, optional
        What the arguments are, where their names do not say it: a mapping of argument (or a path such as `"x[0]"`,
        `"batch['t']"`) to modality, None for "no modality", or to a mapping of modality to width where an argument holds
        several side by side, or to a list of names where it holds them one after the other along an axis; or a sequence of
        names in the order of the arguments. An argument named `modalities` of the
        model itself is passed in a `Call`.
    **kwargs : object
        The keyword arguments of the call.

    Raises
    ------
    ModalityError
        No argument, or just one, looks like a stream, and none was named.
    NoSiteError
        Streams never meet; says what was seen.

    >>> find_sites(model, text, audio, visual)[0]                                    # doctest: +SKIP
    Site(cat (cat, axis -1) of text:200, audio:200, visual:200 at model.py:47 in Net.forward ...)
    """
    model, call = host_of(model), Call(*args, **kwargs)
    if len(args) != 1 or kwargs or not isinstance(model, nn.Module) or isinstance(args[0], Tensor):
        return sites_of_call(model, call, modalities)
    if isinstance(args[0], Call):
        return sites_of_call(model, args[0], modalities)
    if misfit(model, call) is not None:
        return attempt(model, args[0], lambda meant: sites_of_call(model, meant, modalities))
    try:
        return sites_of_call(model, call, modalities)
    except Exception:  # what was given to inputs= may have been given here: (batch,), {"batch": batch}, (args, kwargs)
        if not isinstance(args[0], (tuple, list, Mapping)):
            raise
        try:
            return attempt(model, args[0], lambda meant: sites_of_call(model, meant, modalities))
        except Exception:  # neither reading runs: the error of the call as it was written says more
            pass
        raise


def sites_of_call(model: nn.Module, call: Call, modalities: ModalitiesLike = None) -> SiteList:
    """`find_sites` of a model without wrappers, with one call's arguments."""
    trace = explained(model, call, lambda: trace_model(model, call, modalities))
    sites = sites_of(trace)
    if not sites:
        alike = [x.path for x in trace.leaves if x.modality]
        if len(trace.names) == 1 and len({x.hint for x in trace.leaves if x.modality}) > 1:
            raise ModalityError(
                f"{', '.join(alike)} of {type(model).__name__} are all taken for {trace.names[0]}, so that nothing could meet; say "
                f"which they are: modalities={{{', '.join(f'{a!r}: ...' for a in alike)}}}"
            )
        raise NoSiteError(nothing_found(model, trace))
    return sites


def trace_model(model: nn.Module, call: Call, modalities: ModalitiesLike) -> Trace:
    """One traced forward."""
    if not isinstance(model, nn.Module):
        raise PatchError(
            f"find_sites takes a torch.nn.Module, not {type(model).__name__}; wrap a plain object in a module whose forward "
            "calls it"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise PatchError(
            f"{getattr(model, 'original_name', type(model).__name__)} is a ScriptModule: its code is compiled and cannot be looked "
            "into or changed; patch the module before torch.jit.script or torch.jit.trace"
        )
    lazy = next((n for n, p in model.named_parameters() if nn.parameter.is_lazy(p)), None)
    if lazy is not None:
        raise PatchError(
            f"{type(model).__name__} is not initialised yet: {lazy} gets its shape in the first forward; call the model once before"
        )
    call = call.fresh()
    arguments = bind(forward_of(model), call.args, call.kwargs)
    leaves = find_modalities(arguments, modalities)
    names = list(dict.fromkeys(name for leaf in leaves for name in leaf.names))
    names.sort(key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER))
    if not names:
        seen = ", ".join(f"{x.path} {tuple(x.tensor.shape)} {dtype_name(x.tensor.dtype)}" for x in leaves) or "none"
        if arrays := [name for name, value in arguments.items() if hasattr(value, "__array_interface__")]:
            raise ModalityError(
                f"{', '.join(arrays)} of {type(model).__name__} are numpy arrays, which cannot be followed into the model; give tensors: "
                "torch.as_tensor(x) of each"
            )
        raise ModalityError(
            f"none of the arguments of {type(model).__name__} looks like a stream of features (tensors seen: {seen}); "
            "name them with modalities={'argument': 'text', ...}"
        )
    if meta := [x.path for x in leaves if x.tensor.is_meta]:
        raise PatchError(
            f"{meta[0]} of {type(model).__name__} is on the meta device, which holds no values; give a batch that the model can compute"
        )
    if len(names) > MODALITY_BITS:
        raise ModalityError(f"at most {MODALITY_BITS} modalities can be told apart, not {len(names)}")
    bit = {n: 1 << i for i, n in enumerate(names)}

    def bits(leaf: Leaf) -> Tensor | int:
        if leaf.widths or leaf.stacked:
            return torch.tensor(
                [bit[n] for n, w in (leaf.widths or dict.fromkeys(leaf.stacked, 1)).items() for _ in range(w)]
            )
        return bit[leaf.modality or ""]

    trace = Trace([], names, leaves, arguments, len(call.args))
    run(lambda: call.of(model), model, trace, bits, OPERATIONS)
    return trace


def nothing_found(model: nn.Module, trace: Trace) -> str:
    """What to say where no site was found."""
    seen = ", ".join(f"{x.path} {tuple(x.tensor.shape)} as {x.modality}" for x in trace.leaves if x.modality)
    scripted = [name for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        trace.seen.append(f"{scripted[0]} is a ScriptModule, which cannot be looked into")
    others = ", ".join(x.path for x in trace.leaves if x.modality is None and x.widths is None)
    if len(trace.names) == 1:
        (leaf,) = [x for x in trace.leaves if x.modality][:1]
        return (
            f"{type(model).__name__} receives one stream only: {seen}{f' (taken for no streams: {others})' if others else ''}. "
            f"If its features were joined before the model, use site={InputSite(leaf.path).as_code()}; if other "
            f"arguments are modalities too, name them with modalities={{...}}{_tokens(trace)}"
        )
    if trace.compared:
        return _only_compared(model, trace)
    nearest = [*trace.seen, *meetings(trace.calls, trace.names)][:3] or ["no operation took two of them"]
    same = _one_tensor_for_two(trace)
    return (
        f"the streams of {type(model).__name__} never meet in code that could be patched. Seen: {seen}"
        f"{f'; taken for no streams: {others}' if others else ''}. Nearest: {'; '.join(nearest)}. "
        f"{same or '; '.join(fates(trace.calls, trace.names, trace.output_labels))}. If the names are wrong, give modalities={{...}}{_tokens(trace)}"
    )


def _tokens(trace: Trace) -> str:
    """A hint at arguments that may be token ids under a name that does not say so."""
    unnamed = [x.path for x in trace.leaves if x.path in trace.looked_up and not is_other(x.hint)]
    if not unnamed:
        return ""
    named = {x.path: x.modality for x in trace.leaves if x.modality} | dict.fromkeys(unnamed, "text")
    return (
        f"; {', '.join(unnamed)}, which an embedding has rows for, may be tokens: "
        f"modalities={{{', '.join(f'{k!r}: {v!r}' for k, v in named.items())}}}"
    )


def _only_compared(model: nn.Module, trace: Trace) -> str:
    """What to say of a dual encoder."""
    event = trace.compared[0]
    last = event.steps[-1]
    widths = dict.fromkeys(trace.names, event.operands[0].shape[-1])
    return (
        f"{type(model).__name__} only compares {' and '.join(trace.names)}: a dual encoder, which scores every sample of one with every "
        f"sample of the other ({last.file}:{last.position[0]}, {last.qualname}). Nothing is joined there, so that a fusion has no place in "
        "it. Join what its encoders give in a module of your own (torch.cat([...], -1) and a head, then patch that module), or call a "
        f"fusion on it: fusionzoo.get('lmam')({widths})"
    )


def _one_tensor_for_two(trace: Trace) -> str:
    """What to say where one tensor was given for two streams, which cannot be told apart then."""
    seen: dict[int, Leaf] = {}
    for x in trace.leaves:
        other = seen.setdefault(id(x.tensor), x)
        if other.modality != x.modality:
            return f"{other.path} and {x.path} are one and the same tensor: give each its own"
    return ""
