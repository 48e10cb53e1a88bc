"""Memory fusion network: an LSTM per modality, attention over what their cells just learnt, and a gated memory of it."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo.fusion import Dims
from fusionzoo_plugins._memory_fusion import MemoryFusion, previous
from fusionzoo_plugins._per_modality import Sizes
from fusionzoo_plugins._two_layers import TwoLayers


class MFN(MemoryFusion):
    r"""Memory fusion network (MFN).

    .. math::
        h^m_t, c^m_t &= \operatorname{LSTM}_m(x^m_t, h^m_{t-1}, c^m_{t-1}), \qquad
        c^*_t = [c^1_{t-1}; \dots; c^M_{t-1}; c^1_t; \dots; c^M_t] \\
        a_t &= \operatorname{softmax}(D_a c^*_t) \odot c^*_t, \qquad \hat u_t = \tanh D_u a_t \\
        u_t &= \sigma(D_1 [a_t; u_{t-1}]) \odot u_{t-1} + \sigma(D_2 [a_t; u_{t-1}]) \odot \hat u_t, \qquad
        y_t = W [h^1_t; \dots; h^M_t; u_t] + b

    Every D is linear, ReLU, dropout, linear. Looks at the past only. A modality that is absent at a step keeps its state,
    and the memory keeps its own where no modality is present, so that padding is never read.

    Keeps every step (as MM-DFN does), where the paper and MMSA keep the last: `pool="last"`. Computes all input
    projections, attention and proposals before and after the recurrences, which then need two small products per step.

    Options
    -------
    hidden : width of each LSTM, one for all or one per modality (a sequence, or a mapping by name); default 64.
    memory : width of the memory, default 64.
    attention, update, retain, write : hidden widths of D_a, D_u, D_1 and D_2, default 64.
    head : hidden width of a two-layer output map with ReLU, as in MMSA; None, the default, for the linear one above.
    pool : None, or `"last"`: one vector per sequence, at its last real step.
    dropout : inside every D, default 0.2.

    Parameters: with H the summed hidden width, u the memory's: :math:`\sum_m 4 h_m (d_m + h_m + 2)`, then the four D
    (widths i, k, o have :math:`(i + 1) k + (k + 1) o`) from 2 H to 2 H, 2 H to u and twice 2 H + u to u, then the output
    map.
    Source: Zadeh et al., "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018; thuiar/MMSA@a94e65d07f,
    zerohd4869/MM-DFN@da97036606.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`, or `(B, out_dim)` with pool; `Fused.streams[m]` are the hidden
    states `(B, T, h_m)`; `Fused.attention["cells"]` is `(B, T, 2 H)`, the weight of every entry of c*.

    >>> MFN({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    reference_table = "fusionzoo_plugins.official.mfn"

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        hidden: Sizes = 64,
        memory: int = 64,
        attention: int = 64,
        update: int = 64,
        retain: int = 64,
        write: int = 64,
        head: int | None = None,
        pool: str | None = None,
        dropout: float = 0.2,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        sizes = {"memory": memory, "update": update, "retain": retain, "write": write}
        total = 2 * sum(self.build_lstms(hidden, pool, dropout, attention=attention, **sizes))
        self.attend = TwoLayers(total, attention, total, self.dropout)
        self.build_memory(total, head=head, **sizes)

    def states(self, xs: list[Tensor], presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, c = self.lstms(xs, presence)
        cells = torch.cat([previous(c), c], -1)
        weights = self.attend(cells).softmax(-1)
        u = self.memory(weights * cells, None if presence is None else presence.any(-1))
        return torch.cat([h, u], -1), weights

    def attention_maps(self, weights: Tensor) -> dict[str, Tensor]:
        return {"cells": weights}


fusionzoo_register = fusionzoo.plugin(
    MFN,
    summary="LSTM per modality, attention over their cells, gated shared memory",
    paper="Zadeh et al., Memory Fusion Network for Multi-view Sequential Learning, AAAI 2018",
    code="thuiar/MMSA@a94e65d07f, zerohd4869/MM-DFN@da97036606",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_text, x_audio, x_visual"] --> lstm["LSTM per modality"]
    lstm -- "cells of t-1 and t" --> att(("attention"))
    att --> gates["gated memory"]
    gates -- "next step" --> gates
    lstm -- "hidden states" --> cat(("concat"))
    gates --> cat
    cat --> y["output map"]
    """,
)
