"""What the graph fusions of MMGCN and MM-DFN share: the angular graph of a dialogue, GCNII over it, concatenation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.graphs import GCNII, angular_graph
from fusionzoo.numerics import zero_padded


class ModalGraphFusion(Fusion):
    """Nodes are utterances of modalities, projected to one width; GCNII's `[x; h]` is concatenated over modalities."""

    dynamic: ClassVar[bool] = False

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        hidden: int | None = None,
        layers: int = 4,
        lam: float = 0.5,
        alpha: float = 0.1,
        across: float = 1.0,
        dropout: float = 0.1,
        residue: bool = True,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = default_width(self.dims[self.anchor]) if width is None else check_positive(width, "width", self)
        hidden = self.width if hidden is None else check_positive(hidden, "hidden", self)
        if isinstance(across, bool) or not isinstance(across, (int, float)) or across < 0:
            raise OptionError(f"{type(self).__name__}: across must be a number from 0 upwards, not {across!r}")
        self.across = across
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        self.gcn = GCNII(
            self.width, hidden, layers, lam=lam, alpha=alpha, dropout=dropout, dynamic=self.dynamic, residue=residue
        )
        self.set_width(len(self.dims) * (hidden + residue * self.width))

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        nodes = rearrange(xs, "m b t w -> b m t w")
        out = self.gcn(nodes, angular_graph(nodes, streams.presence(), self.across))
        per_modality = [zero_padded(h, m) for h, m in zip(out.unbind(1), streams.present, strict=True)]
        return Fused(torch.cat(per_modality, -1), dict(zip(self.names, per_modality, strict=True)))

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the published `GCNII_lyc` (`fcs.*`, `convs.*`, `rnn.*`, or all of them below `graph_net.`).

        That graph has no projections: for modalities of one width.
        """
        self.gcn.load_reference({k.removeprefix("graph_net."): v for k, v in state_dict.items()})


def default_width(anchor: int) -> int:
    """The anchor's width, at most the published 200: the layers repeat it at every depth."""
    return min(anchor, 200)
