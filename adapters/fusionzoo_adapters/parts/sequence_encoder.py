"""The encoders of COGMEN and CORECT: from utterance features to contexts of one width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.kernels.grouped_attention import TORCH_NAMES, GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Layout
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.parts.context_encoder import ContextEncoder

BASES = ("transformer", "lstm", "gru", "mlp")


class SequenceEncoder(nn.Module):
    """`(B, T, width)` to `(B, T, out)`, zero at padding; if `official`, with what it makes of a dialogue's first padded step.

    Parameters
    ----------
    width, out : as above.
    base : `transformer`, bidirectional `lstm` or `gru`, or `mlp`, two linear maps of each utterance with ReLU.
    layers : of the first three. dropout : within them.
    inner : width of the transformer; a linear map comes before it unless it is that of the input.
    official : norms after the blocks, a feed-forward width of 2048, as many heads as the first of 7 to 14 that divides
        the width (else 1), and padded steps attended to like others, which must be alike within a dialogue.
    """

    def __init__(
        self,
        width: int,
        out: int,
        base: str = "transformer",
        *,
        layers: int = 2,
        dropout: float = 0.0,
        inner: int | None = None,
        official: bool = False,
    ):
        super().__init__()
        self.base, self.official = check_choice(base, BASES, "base", self), official
        check_positive(layers, "layers", self)
        self.into: nn.Module = nn.Identity()
        if base == "transformer":
            inner = width if inner is None else check_positive(inner, "inner", self)
            if inner != width:
                self.into = nn.Linear(width, inner)
            self.encoder: nn.Module = GroupedTransformer(
                1,
                inner,
                layers,
                heads=next((h for h in range(7, 15) if inner % h == 0), 1) if official else None,
                hidden=2048 if official else None,
                norm="post" if official else "pre",
                dropout=dropout,
            )
            self.onto: nn.Module = nn.Linear(inner, out) if official or inner != out else nn.Identity()
        elif base == "mlp":
            self.encoder = nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out), nn.ReLU())
        else:
            if out % 2:
                raise OptionError(f"base={base!r} has two directions: their width {out} must be even")
            self.encoder = ContextEncoder(width, out // 2, base, layers=layers, dropout=dropout)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor, tokens: Tokens) -> Tensor:
        """x : `(B, T, width)`, zero at padding. tokens : with stand-ins for padding if `official`."""
        if self.base == "mlp":
            return self.encoder(x) if self.official else zero_padded(self.encoder(x), mask)
        if isinstance(self.encoder, ContextEncoder):
            return self.encoder(x, layout, mask, mask.long())
        y = self.encoder(self.into(tokens.pack(x)).unsqueeze(0), tokens)
        return tokens.layout.unpack(self.onto(y[0]))

    def rename(self, state: dict[str, Tensor], prefix: str, names: Mapping[str, str]) -> dict[str, nn.Module]:
        """Entries of an official encoder below `prefix` renamed, in place, and `{prefix: module}` of its parts.

        names : official names, below `prefix`, of the parts that this base has: `transformer` and `out`, or `rnn`.
        """
        if self.base == "mlp":
            return {prefix: self.encoder}
        if isinstance(self.encoder, ContextEncoder):
            return {f"{prefix}{names['rnn']}.": self.encoder.rnn}
        assert isinstance(self.encoder, GroupedTransformer)
        stack = f"{prefix}{names['transformer']}."
        rename_transformers(state, self.encoder, [stack], stack, TORCH_NAMES)
        return {stack: self.encoder, f"{prefix}{names['out']}.": self.onto}


def rename_transformers(
    state: dict[str, Tensor],
    transformer: GroupedTransformer,
    prefixes: list[str],
    prefix: str,
    names: Mapping[str, str],
    unused: tuple[str, ...] = (),
) -> None:
    """Put the official entries of the transformers below `prefixes` under the names of ours below `prefix`, in place."""
    states = [{k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in prefixes]
    used = transformer.official_names(names)
    own = transformer.renamed(states, names)
    for p in prefixes:
        for name in (*used, *unused):
            state.pop(p + name, None)
    state |= {prefix + k: v for k, v in own.items()}


class Highway(nn.Module):
    r"""`g relu(W x + b) + (1 - g) (V x + c)`, gate `g = sigmoid(U x + d)`, all of one width."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.nonlinear, self.linear = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * self.nonlinear(x).relu() + (1 - gate) * self.linear(x)

    def reference_parts(self) -> dict[str, nn.Module]:
        """`{official prefix: module}` in COGMEN and CORECT."""
        return {
            f"{name}.0.": part
            for name, part in (("gate", self.gate), ("nonlinear", self.nonlinear), ("linear", self.linear))
        }


#: Entries of the official classifiers of COGMEN and CORECT that take no part in the result.
UNUSED_CLASSIFIER = ("clf.emotion_att.", "clf.lin_7.", "clf.linear.", "clf.nll_loss.", "clf.bce_loss.")


def scored_by_seven(state: dict[str, Tensor], classes: int) -> None:
    """Official classifiers have a second last layer for 7 classes; put it in the first one's place where it is meant."""
    last = state.get("clf.lin2.weight")
    if classes == 7 and last is not None and len(last) != 7:
        for kind in ("weight", "bias"):
            if f"clf.lin_7.{kind}" in state:
                state[f"clf.lin2.{kind}"] = state[f"clf.lin_7.{kind}"]
