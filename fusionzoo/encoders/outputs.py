"""What encoders give: states and their mask; choosing among a model's layers, and pooling states to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fusionzoo._display import brief
from fusionzoo.errors import OptionError, close_matches_hint
from fusionzoo.numerics import masked_mean, zero_padded

POOLINGS = ("mean", "cls", "max", "min")
#: `"last"` is the model's output; `"mean4"` the mean of the last four layers; `"views"` these four side by side.
LAYERS = ("last", "mean4", "views")


class Encoded(NamedTuple):
    """What an encoder gives.

    states : `(B, T, d)`, zero where padded.
    mask : bool `(B, T)`, True where real.
    """

    states: Tensor
    mask: Tensor

    def __repr__(self) -> str:
        return f"Encoded(states: {brief(self.states)}, mask: {brief(self.mask)})"


def check_pooling(pooling: str) -> str:
    """Return a name of `POOLINGS`; an `OptionError` for any other."""
    if pooling not in POOLINGS:
        raise OptionError(
            f"pooling={pooling!r}{close_matches_hint(str(pooling), POOLINGS) or '.'} Choices: {', '.join(POOLINGS)}."
        )
    return pooling


def check_layer(layer: str | int) -> str | int:
    """A name of `LAYERS`, or an index (0 is the embedding, -1 the last layer); digits in a text are an index."""
    if isinstance(layer, str) and layer.lstrip("-").isdigit():
        return int(layer)
    if isinstance(layer, bool) or not (isinstance(layer, int) or layer in LAYERS):
        raise OptionError(
            f"layer={layer!r}{close_matches_hint(str(layer), LAYERS) or '.'} Choices: {', '.join(LAYERS)}, or a layer's "
            f"index (0 is the embedding, -1 the last)."
        )
    return layer


def pool(states: Tensor, mask: Tensor, pooling: str = "mean") -> Tensor:
    """`(B, T, d)` to `(B, d)` over the real steps; an item without a real step gives zeros.

    `"cls"` is the first step, which is the sentence's own token in BERT-like models.
    """
    check_pooling(pooling)
    if pooling == "mean":
        return masked_mean(states, mask)
    if pooling == "cls":
        return zero_padded(states[:, 0], mask[:, 0])
    if pooling == "max":
        filled = states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
    else:
        filled = states.masked_fill(~mask.unsqueeze(-1), float("inf")).amin(1)
    return zero_padded(filled, mask.any(1))


def choose_layer(last: Tensor, every: Sequence[Tensor] | None, layer: str | int) -> Tensor:
    """The states of a layer (or of several, see `LAYERS`) from a model's output and its hidden states."""
    if layer == "last":
        return last
    assert every is not None
    if layer in ("mean4", "views"):
        if len(every) < 5:
            raise OptionError(
                f"layer={layer!r} needs a model of four layers or more, this one has {len(every) - 1}; take layer='last'"
            )
        return torch.stack(list(every[-4:])).mean(0) if layer == "mean4" else torch.cat(list(every[-4:]), dim=-1)
    index = int(layer)
    if not -len(every) <= index < len(every):
        raise OptionError(
            f"layer={index}: the model has {len(every) - 1} layers, so that an index is from {-len(every)} (the "
            f"embedding, also 0) to {len(every) - 1}"
        )
    return every[index]
