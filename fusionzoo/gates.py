"""Gated attention of pairs of modalities, shared by fusions and hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_probability
from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.kernels.dropout import dropout
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts

#: Forms of `PairwiseGate`.
GATE_FORMS = ("pairs", "background")


class PairwiseGate(nn.Module):
    r"""Gated attention of pairs of modalities, within a time step.

    `form="pairs"`, for every pair p < q, gates from the inputs and one per step:

    .. math:: z = \sigma\big(w_{pq}\,[x_p; x_q; x_p \odot x_q] + b_{pq}\big), \qquad
              h_{pq} = z \tanh(W_p x_p + b_p) + (1 - z) \tanh(W_q x_q + b_q)

    concatenated over the pairs. `form="background"`: the first modality as it is, then of every other one

    .. math:: h_m = \sigma(U_m [x_m; x_1] + c_m) \odot (W_m x_m + b_m)

    Parameters
    ----------
    width : of every modality.
    hidden : of one h.
    modalities : their number.
    dropout : on the inputs, in training.

    Source: `MMGatedAttention` of MMGCN, M3NET and MM-DFN, `att_type` "general" and "av_bg_fusion".
    """

    def __init__(self, width: int, hidden: int, modalities: int, *, form: str = "pairs", dropout: float = 0.0):
        super().__init__()
        self.form = check_choice(form, GATE_FORMS, "form", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.pairs = list(combinations(range(modalities), 2))
        if form == "pairs":
            self.transform = nn.ModuleList(nn.Linear(width, hidden) for _ in range(modalities))
            self.gate = nn.ModuleList(nn.Linear(3 * width, 1) for _ in self.pairs)
        else:
            self.transform = nn.ModuleList(nn.Linear(width, hidden) for _ in range(modalities - 1))
            self.gate = nn.ModuleList(nn.Linear(2 * width, hidden) for _ in range(modalities - 1))

    def forward(self, xs: Sequence[Tensor], presence: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The concatenation `(..., .)`, and the shares of every gate, which sum to one over their last axis.

        xs : one `(..., width)` per modality, zero where absent.
        presence : bool `(..., M)`. A pair of which one is absent is the other; of which both are absent, zero. An
            absent modality gated by the first gives zeros. Shares: of a pair `(..., 2)`, those of its two modalities;
            in the background form `(..., hidden, 2)` per modality, what passes and what is held back.
        """
        if len(xs) != (len(self.transform) if self.form == "pairs" else len(self.transform) + 1):
            raise ShapeError(f"{type(self).__name__} was built for another number of modalities than {len(xs)}")
        xs = [dropout(x, self.dropout, self.training) for x in xs]
        if self.form == "background":
            return self._background(xs, presence)
        hidden = [torch.tanh(t(x)) for t, x in zip(self.transform, xs, strict=True)]
        outs, shares = [], []
        for gate, (p, q) in zip(self.gate, self.pairs, strict=True):
            z = torch.sigmoid(gate(torch.cat([xs[p], xs[q], xs[p] * xs[q]], -1)))
            first, second = z, 1 - z
            if presence is not None:
                has_p, has_q = presence[..., p, None], presence[..., q, None]
                first = torch.where(has_q, z, 1.0) * has_p
                second = torch.where(has_p, 1 - z, 1.0) * has_q
            outs.append(first * hidden[p] + second * hidden[q])
            shares.append(torch.cat([first, second], -1))
        return torch.cat(outs, -1), shares

    def _background(self, xs: list[Tensor], presence: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        outs, shares = [xs[0]], []
        for i, (transform, gate) in enumerate(zip(self.transform, self.gate, strict=True), 1):
            z = torch.sigmoid(gate(torch.cat([xs[i], xs[0]], -1)))
            outs.append(zero_padded(z * transform(xs[i]), None if presence is None else presence[..., i]))
            shares.append(torch.stack([z, 1 - z], -1))
        return torch.cat(outs, -1), shares

    def load_reference(self, state: Mapping[str, Tensor], letters: Sequence[str] = ("a", "v", "l")) -> None:
        """Load the official weights.

        letters : which of the official modalities `a`, `v`, `l` ours are, in our order: for pairs a part of a, v, l in
            that order; for the background form `l` first. Entries of others exist upstream and take no part.
        """
        order = [i for i in letters if i in "avl"]
        expected = sorted(order, key=("avl" if self.form == "pairs" else "lav").index)
        if list(letters) != expected or len(set(letters)) != len(letters):
            wants = "a, v, l" if self.form == "pairs" else "l, a, v"
            raise OptionError(
                f"the official weights of {type(self).__name__}(form={self.form!r}) are for modalities in the order "
                f"{wants} (audio, visual, text), not {', '.join(letters)}; build it with the modalities in that order"
            )
        if self.form == "pairs":
            parts: dict[str, nn.Module] = {f"transform_{m}.": t for m, t in zip(letters, self.transform, strict=True)}
            parts |= {
                f"transform_{letters[p]}{letters[q]}.": g for (p, q), g in zip(self.pairs, self.gate, strict=True)
            }
            known = ("a", "v", "l", "av", "al", "vl")
        else:
            parts = {f"scalar_{m}l.": t for m, t in zip(letters[1:], self.transform, strict=True)}
            parts |= {f"transform_{m}l.": g for m, g in zip(letters[1:], self.gate, strict=True)}
            known = ("al", "vl")
        ignored = [f"{kind}_{m}." for kind in ("transform", "scalar") for m in known if f"{kind}_{m}." not in parts]
        copy_reference_parts(parts, state, ignored)
