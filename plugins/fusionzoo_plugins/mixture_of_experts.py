"""Mixture of experts: a router decides per utterance which modality's experts speak."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_softmax, zero_padded


class MixtureOfExperts(Fusion):
    r"""Sparsely gated mixture of modality experts.

    .. math::
        s = W_g [x_1; \dots; x_M], \qquad p = \operatorname{softmax}(s), \qquad
        \mathcal K = \operatorname{top}_k(s), \qquad
        y = \sum_{e \in \mathcal K} g_e\, E_e(x_{m(e)}), \qquad g = \operatorname{softmax}_{\mathcal K}(s)

    with experts :math:`E_e(x) = W_2 \operatorname{GELU}(W_1 x)` (with biases), some for each modality and some that read
    all modalities together. The experts of a missing modality are never chosen. With one expert chosen :math:`g_e` is
    :math:`p_e`, as in Switch Transformers, since a softmax over one entry would teach the router nothing. Acts within a
    time step.

    `Fused.losses["load_balance"]` keeps the router from always choosing the same experts: over the real utterances of the
    batch, with :math:`f_e` the share of choices that fell on expert e and :math:`P_e` the mean of :math:`p_e`,

    .. math:: E \textstyle\sum_e f_e P_e

    which is 1 when all experts are used alike, and zero without any utterance.

    Every expert is computed for every utterance, so that a batch needs no sorting and the shapes do not depend on the data:
    top k here is a way to specialise experts, not to save time. The router has no noise and computes in float32, since
    rounding would choose other experts.

    Options
    -------
    width : width w of the experts' output; default `out_dim`.
    hidden : width h of their hidden layer; default w.
    experts : experts per modality.
    shared : experts that read all modalities.
    top_k : how many speak at an utterance; None for all.

    Parameters, with S the summed width, n experts per modality, s shared and E = n M + s of them: the router :math:`S E`,
    the experts :math:`(n + s) S h + E (h + h w + w)`.
    Source: Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", ICLR 2017,
    section 2; load balance: Fedus et al., "Switch Transformers", JMLR 23, 2022, equations 4 to 6.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["experts"]` is `(B, T, E)`, experts in the order of
    the modalities, shared ones last.

    >>> MixtureOfExperts({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        hidden: int | None = None,
        experts: int = 2,
        shared: int = 1,
        top_k: int | None = 2,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = w = self.out_dim if width is None else check_positive(width, "width", self)
        h = w if hidden is None else check_positive(hidden, "hidden", self)
        check_positive(experts, "experts", self)
        if isinstance(shared, bool) or not isinstance(shared, int) or shared < 0:
            raise OptionError(f"MixtureOfExperts: shared must be an integer, 0 or more, not {shared!r}")
        count = experts * len(self.dims) + shared
        if top_k is not None and check_positive(top_k, "top_k", self) > count:
            raise OptionError(
                f"MixtureOfExperts: top_k={top_k} of {count} experts ({experts} for each of {len(self.dims)} modalities, "
                f"{shared} shared); give at most {count}, or None for all"
            )
        self.per_modality, self.shared, self.top_k = experts, shared, top_k
        total = sum(self.dims.values())
        inputs = [d for d in self.dims.values() for _ in range(experts)] + [total] * shared
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, w)) for d in inputs)
        self.router = nn.Linear(total, count, bias=False)
        self.set_width(w)

    def combine(self, streams: Streams) -> Fused:
        joined = torch.cat(streams.x, -1)
        inputs = [x for x in streams.x for _ in range(self.per_modality)] + [joined] * self.shared
        outputs = torch.stack([e(x) for e, x in zip(self.experts, inputs, strict=True)], -1)
        scores = self._scores(joined)
        available = self._available(streams, scores)
        probabilities = masked_softmax(scores, available)
        chosen = self._choose(scores, available)
        gates = masked_softmax(scores, chosen)
        weights = probabilities * chosen if self.top_k == 1 else gates
        fused = (outputs @ weights.to(outputs.dtype).unsqueeze(-1)).squeeze(-1)
        losses = {"load_balance": load_balance(probabilities, chosen, streams.mask)}
        return Fused(fused, attention={"experts": gates} if streams.attention else {}, losses=losses)

    def _scores(self, x: Tensor) -> Tensor:
        """Router scores `(B, T, E)` in float32 or better, autocast or not: rounding would choose other experts."""
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # meta knows no autocast
            return F.linear(x.to(exact), self.router.weight.to(exact))

    def _available(self, streams: Streams, scores: Tensor) -> Tensor:
        """bool `(B, T, E)`: experts whose modality is present; shared ones read whatever is."""
        presence = streams.presence()
        if presence is None:
            return torch.ones_like(scores, dtype=torch.bool)
        anyone = presence.any(-1, keepdim=True).expand(-1, -1, self.shared)
        return torch.cat([presence.repeat_interleave(self.per_modality, -1), anyone], -1)

    def _choose(self, scores: Tensor, available: Tensor) -> Tensor:
        """bool `(B, T, E)`: the k available experts with the largest scores, or fewer where fewer are available."""
        if self.top_k is None:
            return available
        best = torch.where(available, scores, torch.finfo(scores.dtype).min).topk(self.top_k, -1).indices
        return torch.zeros_like(available).scatter(-1, best, torch.ones_like(best, dtype=torch.bool)) & available


def load_balance(probabilities: Tensor, chosen: Tensor, mask: Tensor | None) -> Tensor:
    """Number of experts times the sum over them of share of choices times mean probability; a scalar.

    probabilities, chosen : of the router, `(B, T, E)`.
    mask : bool `(B, T)`, True where a step is real.
    """
    count = probabilities.shape[-1]
    picks = zero_padded(chosen.to(probabilities.dtype), mask).flatten(0, 1).sum(0)
    steps = zero_padded(probabilities, mask).flatten(0, 1)
    real = chosen.shape[0] * chosen.shape[1] if mask is None else mask.sum().clamp(min=1)
    return count * (picks / picks.sum().clamp(min=1) * steps.sum(0) / real).sum()


fusionzoo_register = fusionzoo.plugin(
    MixtureOfExperts,
    summary="a router picks the experts of each modality that speak, top k",
    paper="Shazeer et al., Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer, ICLR 2017",
    handles={"attention", "losses"},
    diagram="""
    x["x_m"] --> experts["experts of modality m"] --> mix(("weighted sum"))
    all["x_1 ... x_M"] --> shared["shared experts"] --> mix
    all --> router["router, softmax over the top k"] --> mix
    mix --> y["y"]
    router --> loss["load balance loss"]
    """,
)
