"""Crossmodal transformers: every modality is repeatedly reinforced by each of the others, frame to frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import ReferenceWeightsError, ShapeError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout, pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts
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
    Departs from the official code, by default: padding is masked in convolution, attention and pooling, convolutions keep
    the length, nothing is causal (the paper has no such mask), the published "last step" is the last real one.
    `variant="official"` convolves without padding, skips the convolution where the widths agree whatever its kernel, and
    gives no position to a step whose first convolved feature happens to be zero; `variant="multibench"` is the same
    without the skipping.

    Options
    -------
    width : common width w, default 40. heads : default the largest of 8, 4, 2, 1 that divides w. layers : of each
        crossmodal stack, default 4. memory_layers : of each target's self-attention stack; default max(layers, 3), as
        published.
    kernel : convolution kernel, one for all or one per modality (a sequence, or a mapping by name); default 1.
    self_pairs : a modality is its own source as well (MultiBench). causal : a step reads only steps up to its own; across modalities
        only where they are aligned (`official`: always, step i up to i + the difference of the padded lengths).
    positions : add sinusoidal positions, counted from 1. aligned : whether equal lengths mean equal steps: True, False
        (never), or None, the default: they do where all lengths agree.
    pool : None, or `"last"`: one vector per sequence. variant : see above.
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

    variants = ("default", "official", "multibench")
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
        self.variant = check_choice(variant, self.variants, "variant", self)
        self.pool = None if pool is None else check_choice(pool, _POOLS, "pool", self)
        self.aligned, self.causal, self.out_dropout = (
            aligned,
            causal,
            check_probability(out_dropout, "out_dropout", self),
        )
        kernels = per_modality(kernel, self.names, "kernel", self)
        official = variant != "default"
        convolved = [_convolves(d, self.width, variant) for d in self.dims.values()]
        self.convolve = nn.ModuleList(
            nn.Conv1d(d, self.width, k, bias=False) if c else nn.Identity()
            for d, k, c in zip(self.dims.values(), kernels, convolved, strict=True)
        )
        count = len(self.dims)
        #: Sources of every target, by number.
        self.sources = [[n for n in range(count) if self_pairs or n != m] for m in range(count)]
        rates = {
            "attention_dropout": check_probability(attention_dropout, "attention_dropout", self),
            "dropout": check_probability(dropout, "dropout", self),
            "embed_dropout": check_probability(embed_dropout, "embed_dropout", self),
        }
        shape: dict[str, Any] = {"positions": positions, "official": official, **rates}
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
                # Only steps of one clock come before or after each other.
                clock = self.variant != "default" or (self.aligned is not False and xs[m].shape == xs[n].shape)
                part, weights = self.cross[f"{m}-{n}"](xs[m], xs[n], masks[n], self.causal and clock, streams.attention)
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

    def _project(self, streams: Streams) -> tuple[list[Tensor], list[Tensor | None]]:
        """Streams of one width, and where each is real; the official convolution shortens both."""
        xs, masks = [], []
        for conv, x, mask in zip(self.convolve, streams.x, streams.present, strict=True):
            if isinstance(conv, nn.Conv1d):
                kernel = conv.kernel_size[0]
                if self.variant != "default" and kernel > 1 and (self.pool is None or x.shape[1] < kernel):
                    raise ShapeError(
                        f"MulT(variant={self.variant!r}) convolves without padding: a kernel of {kernel} leaves "
                        f"{x.shape[1] - kernel + 1} of {x.shape[1]} steps, none of them the original one; use "
                        "pool='last' on sequences longer than the kernel, or variant='default'"
                    )
                x = x.transpose(1, 2)
                x = x if self.variant != "default" else F.pad(x, ((kernel - 1) // 2, kernel // 2))
                x = conv(x).transpose(1, 2)
                if mask is not None and x.shape[1] < mask.shape[1]:
                    mask = mask[:, kernel - 1 :]
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

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the official `MULT` of MMSA, of the authors' repository (both three modalities) or `MULTModel` of MultiBench.

        The official output layer goes to this fusion's output map; it is left out where `out_dim` needs no map.
        """
        letters = "lav"
        names = {f"proj_{letter}.": f"convolve.{i}." for i, letter in enumerate(letters)}
        names |= {f"proj.{i}.": f"convolve.{i}." for i in range(len(self.names))}
        for m, sources in enumerate(self.sources):
            names |= {f"trans.{m}.{n}.": f"cross.{m}-{n}." for n in sources}
            names |= {f"trans_mems.{m}.": f"memory.{m}."}
            if len(self.names) <= len(letters):
                names |= {f"trans_{letters[m]}_with_{letters[n]}.": f"cross.{m}-{n}." for n in sources}
                names |= {f"trans_{letters[m]}_mem.": f"memory.{m}."}
        names |= {"proj1.": "hidden.", "proj2.": "reduce.", "out_layer.": "out."}
        inner = {
            ".self_attn.out_proj.": ".attention.mix.",
            ".layer_norms.0.": ".norm.",
            ".layer_norms.1.": ".norm_hidden.",
            ".layer_norm.": ".norm.",
            ".fc1.": ".expand.",
            ".fc2.": ".reduce.",
        }
        state: dict[str, Tensor] = {}
        for official, tensor in state_dict.items():
            if official.endswith((".version", "._float_tensor")):
                continue
            prefix = next((p for p in names if official.startswith(p)), None)
            if prefix is None:
                raise ReferenceWeightsError(
                    f"the official model has no entry {official!r} for {len(self.names)} modalities with "
                    f"self_pairs={self.sources[0][0] == 0}; expected names that begin with {', '.join(names)}"
                )
            name = names[prefix] + official[len(prefix) :]
            for theirs, ours in inner.items():
                name = name.replace(theirs, ours)
            head, joint, kind = name.partition("self_attn.in_proj_")
            if joint:
                blocks = tensor.unflatten(0, (3, -1)) if len(tensor) % 3 == 0 else [tensor] * 3
                state |= {
                    f"{head}attention.{p}.{kind}": t for p, t in zip(("query", "key", "value"), blocks, strict=True)
                }
            else:
                state[name] = tensor
        skipped = [f"convolve.{i}." for i, c in enumerate(self.convolve) if isinstance(c, nn.Identity)]
        parts: dict[str, nn.Module] = {f"convolve.{i}.": c for i, c in enumerate(self.convolve)}
        parts |= {"cross.": self.cross, "memory.": self.memory, "hidden.": self.hidden, "reduce.": self.reduce}
        parts["out."] = self.out
        if isinstance(self.out, nn.Identity):
            skipped.append("out.")
        copy_reference_parts({k: v for k, v in parts.items() if k not in skipped}, state, skipped)


def _convolves(inputs: int, width: int, variant: str) -> bool:
    """Whether a modality is convolved: MMSA and the authors skip it where the widths agree."""
    return variant != "official" or inputs != width


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
    q -- "one a source" --> cat(("concat"))
    cat --> mem["self-attention stack"]
    mem -- "one a target" --> all(("concat"))
    all --> y["residual MLP"]
    """,
)
