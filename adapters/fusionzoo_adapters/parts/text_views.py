"""Several views of one modality: the last four layers of RoBERTa that COSMIC's features hold, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.numerics import zero_padded

if TYPE_CHECKING:
    from fusionzoo.host import Host

NORMS = ("layer", "batch", "none")


class Views(nn.Module):
    """The mean of the normalised views of a modality: `(B, T, views * width)` to `(B, T, width)`.

    `norm="batch"` is BatchNorm1d a view, as the official hosts have it: in training its statistics take in the whole
    batch, padding included. `"layer"` is layer normalisation a view, `"none"` the plain mean.
    """

    def __init__(self, width: int, views: int, norm: str = "layer"):
        super().__init__()
        if width % check_positive(views, "text_views", self):
            raise OptionError(
                f"text_views={views} views lie side by side in the first modality, but its width {width} is no multiple of it"
            )
        self.views, self.width, self.norm = views, width // views, check_choice(norm, NORMS, "views_norm", self)
        kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.norms = nn.ModuleList(kinds[norm](self.width) for _ in range(views) if norm in kinds)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x (B, T, views * width)` and mask `(B, T)`; padded steps come out as zeros, with `norm="batch"` as they fall."""
        parts = x.unflatten(-1, (self.views, self.width)).unbind(-2)
        if self.norm == "batch":
            flat = [n(p.flatten(0, 1)).unflatten(0, p.shape[:2]) for n, p in zip(self.norms, parts, strict=True)]
            return torch.stack(flat).mean(0)
        if self.norm == "layer":
            parts = [n(p) for n, p in zip(self.norms, parts, strict=True)]
        return zero_padded(torch.stack(list(parts)).mean(0), mask)


def views_of(host: Host, views: int, norm: str) -> Views | None:
    """What averages the views of a host's first modality; None for one view. The options are checked either way."""
    check_choice(norm, NORMS, "views_norm", host)
    return None if views == 1 else Views(host.dims[host.names[0]], views, norm)


def widths_of(views: Views | None, dims: Mapping[str, int]) -> dict[str, int]:
    """The widths that the rest of a host sees."""
    return dict(dims) if views is None else {**dims, next(iter(dims)): views.width}


def averaged(
    views: Views | None, streams: Mapping[str, Tensor | None], present: Mapping[str, Tensor]
) -> dict[str, Tensor | None]:
    """The streams, the views of the first one averaged."""
    name, x = next(iter(streams.items()))
    return dict(streams) if views is None or x is None else {**streams, name: views(x, present[name])}
