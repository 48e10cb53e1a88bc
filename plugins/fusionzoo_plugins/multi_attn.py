"""MultiAttn: every modality has a stack of layers that reads the other modalities one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.layers import dropout
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import WithReference, within
from fusionzoo_plugins._pair_attention import PairAttention

_TABLE = "fusionzoo_plugins.official.multi_attn"


class BidirectionalAttention(WithReference, PairAttention):
    """`PairAttention` that loads the published one, whose heads have a linear map each."""

    reference_table = _TABLE

    def reference_names(self) -> Mapping[str, str]:
        names = {f"{part}_matrix.": part for part in ("query", "key", "value")}
        return names | {"projection_matrix.": "mix"}


class MultiAttnLayer(WithReference, nn.Module):
    r"""One layer: a query stream reads each source in turn, then a feed-forward network; post-norm residuals.

    .. math:: X \leftarrow \operatorname{LN}(X + \operatorname{MHA}_k(X, P_k, P_k)),\; k = 1, 2, \dots \qquad
              X \leftarrow \operatorname{LN}(X + W_2 \operatorname{relu}(W_1 X + b_1) + b_2)

    Parameters
    ----------
    width : of all streams.
    sources : how many streams are read.
    heads : of each attention.
    hidden : of the feed-forward network.
    dropout : on what is added to the residual.
    """

    reference_table = _TABLE

    def __init__(self, width: int, sources: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attend = nn.ModuleList(BidirectionalAttention(width, heads=heads) for _ in range(sources))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(sources + 1))
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        sources: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, list[Tensor | None]]:
        """`(B, T, width)`, and per source the weights `(B, heads, T, S)` if asked for.

        x : `(B, T, width)`.
        sources : `(B, S, width)` each.
        masks : bool `(B, S)` each, True where real, or None.
        """
        masks = [None] * len(sources) if masks is None else masks
        maps = []
        for attend, norm, source, mask in zip(self.attend, self.norms, sources, masks, strict=False):
            out, weights = attend(x, source, source, mask, need_weights)
            x = norm(x + dropout(out, self.dropout, self.training))
            maps.append(weights)
        # The published network drops twice in a row, which is once at this rate.
        twice = 1 - (1 - self.dropout) ** 2
        out = dropout(self.reduce(F.relu(self.expand(x))), twice, self.training)
        return self.norms[-1](x + out), maps

    def reference_names(self) -> Mapping[str, str]:
        names = {"ff.linear_W1.": "expand", "ff.linear_W2.": "reduce"}
        names |= {f"add_norm_{i + 1}.layer_norm.": f"norms.{i}" for i in range(len(self.norms))}
        for i, attend in enumerate(self.attend):
            assert isinstance(attend, BidirectionalAttention)
            names |= within(f"attend.{i}", attend.reference_names(), f"attn_{i + 1}.")
        return names


class MultiAttn(Fusion):
    r"""Stacks of bidirectional cross-attention, one stack per modality (MultiAttn of MultiEMO).

    Layer l of modality m reads the other modalities :math:`n_1, n_2, \dots` one after another, in the order of `dims`:

    .. math::
        X &\leftarrow \operatorname{LN}\big(X + \operatorname{MHA}^{(l)}_{m,k}(X,\, x_{n_k},\, x_{n_k})\big),
            \quad k = 1, \dots, M - 1, \qquad X_0 = x_m \\
        X &\leftarrow \operatorname{LN}\big(X + W_2 \operatorname{relu}(W_1 X + b_1) + b_2\big), \qquad
        y = W\,[X^{(L)}_1; \dots; X^{(L)}_M] + b

    Keys and values are the modalities as they come in, at every layer; only the query stream is updated. "Bidirectional"
    means without causal mask: every utterance of the dialogue is read. Modalities of another width are projected first.

    Departs from the published code, which attends to padded utterances (they are not zero there, for the biases): padding
    and absent utterances are not read, an entirely absent modality adds nothing to the others, and the stream of a modality
    is zero where it is absent.

    Options
    -------
    layers : L; default 2, as published for MELD (IEMOCAP: 6).
    heads : of every attention, default 4, each of `width // heads` features, which need not divide.
    hidden : of the feed-forward networks; default 4 width.
    width : common width w; default 256.
    dropout : on what is added to the residuals, default 0.1 (the published scripts: 0).
    variant : see `variants`.

    Parameters: projections, then per modality and layer :math:`(M-1)(4 w^2 + 4 w) + 2 w M + 2 w h + h + w`, then the
    output map. With M = 3, w = 256, h = 1024 and without output map 18,961,920 for six layers and 6,320,640 for two.

    Source: Shi and Huang, "MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion
    Recognition in Conversations", ACL 2023, section "Multimodal Fusion"; code TaoShi1998/MultiEMO-ACL2023@e96458b870,
    `Model/MultiAttn.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams[m]` is `(B, T, w)`;
    `Fused.attention["text<-audio.0"]` is `(B, heads, T, T)`: what text reads of audio in layer 0.

    >>> MultiAttn({"text": 8, "audio": 4}, width=8)([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.multi_attn:OfficialMultiAttn"}
    reference_table = _TABLE

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        width: int = 256,
        dropout: float = 0.1,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = check_positive(width, "width", self)
        self.heads = check_positive(heads, "heads", self)
        if heads > width:
            raise OptionError(f"MultiAttn: heads={heads} exceeds the width {width}; every head needs a feature")
        hidden = 4 * width if hidden is None else check_positive(hidden, "hidden", self)
        dropout = check_probability(dropout, "dropout", self)
        layers, count = check_positive(layers, "layers", self), len(self.dims)
        self.project = nn.ModuleList(projection(d, width) for d in self.dims.values())
        self.stacks = nn.ModuleList(
            nn.ModuleList(MultiAttnLayer(width, count - 1, heads, hidden, dropout) for _ in range(layers))
            for _ in range(count)
        )
        self.set_width(count * width)

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        masks = self.masks(streams)
        outputs, maps = [], {}
        for m, stack in enumerate(self.stacks):
            others = [n for n in range(len(xs)) if n != m]
            x = xs[m]
            for depth, layer in enumerate(stack.children()):
                x, weights = layer(x, [xs[n] for n in others], [masks[n] for n in others], streams.attention)
                for n, w in zip(others, weights, strict=True):
                    if w is not None:
                        maps[f"{self.names[m]}<-{self.names[n]}.{depth}"] = w
            outputs.append(zero_padded(x, masks[m]))
        return Fused(torch.cat(outputs, -1), dict(zip(self.names, outputs, strict=True)), maps)

    def masks(self, streams: Streams) -> list[Tensor | None]:
        """Which steps of each modality are read."""
        return streams.present

    def reference_names(self) -> Mapping[str, str]:
        if len(self.dims) != 3 or any(isinstance(p, nn.Linear) for p in self.project):
            raise ReferenceWeightsError(
                f"the published MultiAttnModel fuses three modalities of one width without projecting them, this one "
                f"{dict(self.dims)} at width {self.width}; build it for three of width={self.width}"
            )
        names: dict[str, str] = {}
        for m, modality in enumerate(("text", "audio", "visual")):
            for depth, layer in self.stacks[m].named_children():
                assert isinstance(layer, MultiAttnLayer)
                prefix = f"multiattn_{modality}.multiattn_layers.{depth}."
                names |= within(f"stacks.{m}.{depth}", layer.reference_names(), prefix)
        return names


fusionzoo_register = fusionzoo.plugin(
    MultiAttn,
    summary="per-modality stacks of cross-attention that read the others in turn",
    paper="Shi and Huang, MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion "
    "Recognition in Conversations, ACL 2023",
    code="TaoShi1998/MultiEMO-ACL2023@e96458b870",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_m"] -- queries --> first["attention, + residual, layer norm"]
    p["first other modality"] -- keys, values --> first
    first --> second["attention, + residual, layer norm"]
    r["next other modality"] -- keys, values --> second
    second --> feed["feed-forward, + residual, layer norm"]
    feed -- next layer --> first
    feed --> cat(("concat over m")) --> linear["W, b"] --> y["y"]
    """,
)
