"""What the adapters of public repositories share: arguments of a call, what is real, known widths, sites of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import ModalityError
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site


def named(model: nn.Module, cls: str, *parts: str) -> bool:
    """Whether a model is of a class of this name and has these attributes."""
    return type(model).__name__ == cls and all(hasattr(model, p) for p in parts)


def given(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """An argument of a call, by position or name; None where it was not given."""
    return kwargs[name] if name in kwargs else args[place] if len(args) > place else None


def mask_of(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> dict[str, Any]:
    """Context from an argument that holds a mask `(B, T)`, one where a step is real."""
    mask = given(args, kwargs, place, name)
    return {} if mask is None else {"mask": mask.bool()}


def lengths_of(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> dict[str, Any]:
    """Context from an argument that holds the dialogues' lengths."""
    lengths = given(args, kwargs, place, name)
    return {} if lengths is None else {"lengths": lengths}


def shares(total: int, known: Sequence[Mapping[str, int]], argument: str) -> dict[str, int]:
    """The widths of modalities that were joined before the model, told by their sum."""
    for widths in known:
        if sum(widths.values()) == total:
            return dict(widths)
    sums = "; ".join(f"{sum(w.values())} ({', '.join(f'{k} {v}' for k, v in w.items())})" for w in known)
    raise ModalityError(
        f"the model takes {total} features, which are not the known {sums}; say what they are: "
        f"site=fusionzoo.InputSite({argument!r}, widths={{modality: width, ...}}, layout=...)"
    )


def stacked_nodes(model: Any) -> Site:
    """The nodes of MMGCN and of MM-DFN: split again after the graph and put side by side."""
    names = {"a": "audio", "v": "visual", "l": "text"}
    modals = [m for m in "avl" if m in model.modals]
    width = model.smax_fc.in_features // len(modals)
    slices = [":all_length", "all_length:all_length * 2", "all_length * 2:all_length * 3"][: len(modals)]
    code = f"torch.cat([{', '.join(f'features[{s}]' for s in slices)}]"
    return declare(model, "graph_model", [("forward", code)], [(names[m], width) for m in modals], layout="(N, d)")


def utterance_example(model: Any) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """A small call `(audio, video, text)` of LMF and of TFN, whose text alone has steps."""
    like = next(model.audio_subnet.parameters())
    shapes = (3, model.audio_in), (3, model.video_in), (3, 5, model.text_in)
    with torch.random.fork_rng(devices=[]):
        return tuple(torch.randn(*s, device=like.device, dtype=like.dtype) for s in shapes), {}
