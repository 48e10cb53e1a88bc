"""Crossmodal transformers: every modality is repeatedly reinforced by each of the others, frame to frame."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout, pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._crossmodal import CrossmodalEncoder
from fusionzoo_plugins._pair_attention import one_clock
from fusionzoo_plugins._per_modality import Sizes, per_modality

_POOLS = ("last",)


def last_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """The last real step of `x (B, T, d)`, `(B, d)`; zeros where no step is real."""
    if mask is None:
        return x[:, -1]
    index = (mask * torch.arange(x.shape[1], device=x.device)).amax(1)
    last = x.gather(1, index.view(-1, 1, 1).expand(-1, 1, x.shape[-1])).squeeze(1)
    return torch.where(mask.any(1, keepdim=True), last, 0.0)


class MulT(Fusion):
    r"""Multimodal transformer (MulT): crossmodal attention for every ordered pair of modalities.

    .. math::
        \hat x_m &= \operatorname{Conv1d}_m(x_m), \qquad
        z_{n \to m}^{(l)} = \operatorname{layer}^{(l)}_{n \to m}\big(z_{n \to m}^{(l-1)},\; \hat x_n\big), \qquad
        z^{(0)}_{n \to m} = \sqrt w\,\hat x_m + \mathrm{PE} \\
        h_m &= \operatorname{Transformer}_m\big([z_{n \to m}]_{n \ne m}\big), \qquad
        h = [h_1; \dots; h_M], \qquad
        y = W_o\,\big(h + W_2 \operatorname{relu}(W_1 h + b_1) + b_2\big) + b_o

    The target m asks, the source n answers, at every layer again from its low-level features. Aligned streams (of one
    length) join every target's step with the anchor's. Streams of different lengths have no common steps: then every
    target but the anchor enters through its last real step, the paper's pooling, the same at each of the anchor's steps.
    At steps where a modality is absent nothing reads it, and its own part of h is zero.

    Departs from the paper in keeping all steps (`pool=None`); `pool="last"` is the paper's last step of every target.
    Departs from the published code: padding is masked in convolution, attention and pooling, convolutions keep
    the length, nothing is causal (the paper has no such mask), the published "last step" is the last real one.

    Options
    -------
    width : common width w, default 40.
    heads : default the largest of 8, 4, 2, 1 that divides w.
    layers : of each crossmodal stack, default 4.
    memory_layers : of each target's self-attention stack; default max(layers, 3), as published.
    kernel : convolution kernel, one for all or one per modality (a sequence, or a mapping by name); default 1.
    self_pairs : a modality is its own source as well (MultiBench).
    causal : a step reads only steps up to its own; across modalities only where they are aligned.
    positions : add sinusoidal positions, counted from 1.
    aligned : whether equal lengths mean equal steps: True, False (never), or None, the default: they do where all
        lengths agree.
    pool : None, or `"last"`: one vector per sequence.
    variant : see `variants`.
    dropout : of residuals and hidden layers, default 0.1; attention_dropout 0.1; embed_dropout 0.1; out_dropout 0, of the
        last hidden layer.

    Parameters: with S sources a target, W = S w and :math:`L(d) = 12 d^2 + 13 d` a layer of width d:
    :math:`\sum_m k_m d_m w + M S\,(l\,L(w) + 2 w) + M\,(l' L(W) + 2 W) + 2\,((M W)^2 + M W)`, then the output map.
    Source: Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019, section 3;
    thuiar/MMSA@a94e65d07f, pliang279/MultiBench@49f9be224f.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)` with the anchor's T, or `(B, out_dim)` with pool;
    `Fused.streams[m]` is h_m `(B, T_m, W)`; `Fused.attention["text from audio"]` is `(B, heads, T_text, T_audio)` and
    `["text memory"]` `(B, heads, T_text, T_text)`, of the last layers.

    >>> MulT({"text": 8, "audio": 4}, width=8, layers=1)([torch.rand(2, 5, 8), torch.rand(2, 9, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {
        "official": "fusionzoo_plugins.official.mult:OfficialMulT",
        "multibench": "fusionzoo_plugins.official.mult:MultiBenchMulT",
    }
    reference_table = "fusionzoo_plugins.official.mult"
    #: Whether a step whose first convolved feature is exactly zero gets no position.
    zero_is_padding: ClassVar[bool] = False
    unaligned = True

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 40,
        heads: int | None = None,
        layers: int = 4,
        memory_layers: int | None = None,
        kernel: Sizes = 1,
        self_pairs: bool = False,
        causal: bool = False,
        positions: bool = True,
        aligned: bool | None = None,
        pool: str | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        embed_dropout: float = 0.1,
        out_dropout: float = 0.0,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = check_positive(width, "width", self)
        self.heads = pick_heads(self.width, heads, self)
        layers = check_positive(layers, "layers", self)
        memory_layers = (
            max(layers, 3) if memory_layers is None else check_positive(memory_layers, "memory_layers", self)
        )
        self.pool = None if pool is None else check_choice(pool, _POOLS, "pool", self)
        self.aligned, self.causal, self.out_dropout = (
            aligned,
            causal,
            check_probability(out_dropout, "out_dropout", self),
        )
        kernels = per_modality(kernel, self.names, "kernel", self)
        self.convolve = nn.ModuleList(self.convolution(d, k) for d, k in zip(self.dims.values(), kernels, strict=True))
        count = len(self.dims)
        #: Sources of every target, by number.
        self.sources = [[n for n in range(count) if self_pairs or n != m] for m in range(count)]
        rates = {
            "attention_dropout": check_probability(attention_dropout, "attention_dropout", self),
            "dropout": check_probability(dropout, "dropout", self),
            "embed_dropout": check_probability(embed_dropout, "embed_dropout", self),
        }
        shape: dict[str, Any] = {"positions": positions, "zero_is_padding": self.zero_is_padding, **rates}
        self.cross = nn.ModuleDict(
            {
                f"{m}-{n}": CrossmodalEncoder(self.width, self.heads, layers, **shape)
                for m, sources in enumerate(self.sources)
                for n in sources
            }
        )
        joined = len(self.sources[0]) * self.width
        self.memory = nn.ModuleList(CrossmodalEncoder(joined, self.heads, memory_layers, **shape) for _ in range(count))
        self.hidden = nn.Linear(count * joined, count * joined)
        self.reduce = nn.Linear(count * joined, count * joined)
        self.set_width(count * joined)

    def combine(self, streams: Streams) -> Fused:
        xs, masks = self._project(streams)
        targets, maps = [], {}
        for m, (name, sources) in enumerate(zip(self.names, self.sources, strict=True)):
            parts = []
            for n in sources:
                causal = self.causal and self.same_clock(xs[m], xs[n])
                part, weights = self.cross[f"{m}-{n}"](xs[m], xs[n], masks[n], causal, streams.attention)
                parts.append(part)
                if weights is not None:
                    maps[f"{name} from {self.names[n]}"] = weights
            joined = zero_padded(torch.cat(parts, -1), masks[m])
            target, weights = self.memory[m](joined, None, masks[m], self.causal, streams.attention)
            if weights is not None:
                maps[f"{name} memory"] = weights
            targets.append(zero_padded(target, masks[m]))
        joined = self._join(targets, masks)
        hidden = dropout(F.relu(self.hidden(joined)), self.out_dropout, self.training)
        return Fused(joined + self.reduce(hidden), dict(zip(self.names, targets, strict=True)), maps)

    def convolution(self, inputs: int, kernel: int) -> nn.Module:
        """What brings a modality to the common width."""
        return nn.Conv1d(inputs, self.width, kernel, bias=False)

    def convolved(self, conv: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A modality `(B, T, d_m)` at the common width, and where it is real."""
        assert isinstance(conv, nn.Conv1d)
        kernel = conv.kernel_size[0]
        padded = F.pad(x.transpose(1, 2), ((kernel - 1) // 2, kernel // 2))
        return conv(padded).transpose(1, 2), mask

    def same_clock(self, x: Tensor, y: Tensor) -> bool:
        """Whether steps of two modalities come before or after each other."""
        return self.aligned is not False and x.shape == y.shape

    def _project(self, streams: Streams) -> tuple[list[Tensor], list[Tensor | None]]:
        """Streams of one width, and where each is real."""
        xs, masks = [], []
        for conv, x, mask in zip(self.convolve, streams.x, streams.present, strict=True):
            x, mask = self.convolved(conv, x, mask)
            xs.append(zero_padded(x, mask))
            masks.append(mask)
        return xs, masks

    def _join(self, targets: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        """All targets side by side: `(B, T, M W)`, or `(B, M W)` with pooling."""
        steps = targets[0].shape[1]
        if one_clock(targets, self.aligned, self, self.names) and self.pool is None:
            return torch.cat(targets, -1)
        last = [last_real(t, m) for t, m in zip(targets, masks, strict=True)]
        if self.pool is not None:
            return torch.cat(last, -1)
        return torch.cat([targets[0], *(t.unsqueeze(1).expand(-1, steps, -1) for t in last[1:])], -1)


fusionzoo_register = fusionzoo.plugin(
    MulT,
    summary="crossmodal transformers for every ordered pair of modalities",
    paper="Tsai et al., Multimodal Transformer for Unaligned Multimodal Language Sequences, ACL 2019",
    code="thuiar/MMSA@a94e65d07f, pliang279/MultiBench@49f9be224f",
    level="sequence",
    handles={"attention"},
    diagram="""
    text["x_text"] --> q(("crossmodal stack"))
    others["x_audio, x_visual"] -- "keys, values" --> q
    q -- "one per source" --> cat(("concat"))
    cat --> mem["self-attention stack"]
    mem -- "one per target" --> all(("concat"))
    all --> y["residual MLP"]
    """,
)
