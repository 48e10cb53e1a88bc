"""Low-rank matching attention: one small matching map, shared by all modalities, reads the whole dialogue."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.numerics import masked_mean, masked_softmax, zero_padded


class LMAM(Fusion):
    r"""Low-rank matching attention (LMAM).

    Default, what the paper claims. All modalities, projected to width d where they differ, are both query and memory; one
    matching map of rank r is shared by all of them:

    .. math::
        s^{mn}_{ij} &= \tanh\big(\langle P Q^\top x^m_i + b,\; x^n_j\rangle / \sqrt d\,\big) \\
        a^{mn}_{ij} &= \operatorname{softmax}_{(n,j)} s^{mn}_{ij} \qquad
        c^m_i = \sum_{n,j} a^{mn}_{ij}\, x^n_j \\
        z^m_i &= x^m_i + \operatorname{GELU}(c^m_i) \qquad
        y_i = \tfrac{1}{|\mathcal M_i|} \sum_{m \in \mathcal M_i} z^m_i

    The softmax runs over the utterances of every modality at once, so that intra- and inter-modal similarities are
    weighed against each other, and audio and video reach the output through values and residual, not only through
    weights. :math:`\mathcal M_i` are the modalities present at utterance i. Scores need r + 1 products instead of d.

    Where it is weak: what only two modalities of one utterance show together, such as words and a tone that contradict each
    other. The mean adds up what each modality says. Modalities are multiplied in the weights alone, where every one of the
    :math:`M T` streams of a dialogue has the share :math:`1 / (M T)`, times :math:`e^{-2}` to :math:`e^2`, since tanh bounds
    the scores: the longer the dialogue, the less of an utterance's own pair comes through. With `interaction=k` the products
    of an utterance's own pairs, of rank k, are added to :math:`y_i`:

    .. math::
        B \sum_{m < n \in \mathcal M_i} h^m_i \odot h^n_i, \qquad h^m_i = \tanh(A_m x^m_i + a_m)

    Departures of the default from the paper, of which only the abstract could be consulted: the rank (an eighth of the
    width), which map is factorised, :math:`1/\sqrt d` (keeps tanh out of saturation) and the mean over modalities.
    `interaction` is not the paper's.

    Options
    -------
    rank : r; default `max(1, width // 8)`.
    width : d; default the anchor's.
    residual : add :math:`x^m_i`; `False` is the plain matching of the paper's early-fusion panel.
    interaction : k, the rank of the products of pairs of modalities; 0, as in the paper, has none.
    variant : see `variants`.

    Parameters: :math:`2 d r + d` for the matching map, plus projections, plus :math:`M (d + 1) k + k d` for the
    interaction. A Q/K/V set has :math:`3(d^2 + d)`: at d = 512 the default is 66,048 of 787,968, 8.4 %.

    Source: Shou et al., "A Low-rank Matching Attention based Cross-modal Feature Fusion Method for Conversational
    Emotion Recognition", IEEE TAFFC 16(2), 2025, arXiv 2306.17799; code yuntaoshou/LMAM@1ac9f43823,
    `baseline/LMAM.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["text->audio"]` is `(B, T, T)`: the weights of
    text queries over audio memory. Over all memories they sum to one.

    >>> LMAM({"text": 16, "audio": 8, "visual": 4})([torch.rand(2, 5, d) for d in (16, 8, 4)]).shape
    torch.Size([2, 5, 16])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.lmam:OfficialLMAM"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        rank: int | None = None,
        width: int | None = None,
        residual: bool = True,
        interaction: int = 0,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        self.residual = residual
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        self.build_match(rank)
        self.build_interaction(interaction)
        self.set_width(self.width)

    def build_match(self, rank: int | None) -> None:
        """The weights of the matching."""
        self.rank = max(1, self.width // 8) if rank is None else check_positive(rank, "rank", self)
        if self.rank > self.width:
            raise OptionError(f"LMAM: rank={rank} exceeds the width {self.width}; a low rank is at most the width")
        # Entries of P Q^T have the deviation of a linear layer's default initialisation, 1 / sqrt(3 d).
        std = (3 * self.width * self.rank) ** -0.25
        self.query_factor = nn.Parameter(torch.randn(self.width, self.rank) * std)
        self.memory_factor = nn.Parameter(torch.randn(self.width, self.rank) * std)
        self.bias = nn.Parameter(torch.zeros(self.width))

    def build_interaction(self, rank: int) -> None:
        """The weights of the products of pairs, where there are any."""
        self.interaction = 0 if rank == 0 else check_positive(rank, "interaction (0 for none)", self)
        if self.interaction:
            self.factors = nn.ModuleList(nn.Linear(self.width, rank) for _ in self.dims)
            self.products = nn.Linear(rank, self.width, bias=False)

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        fused = self.fuse_projected(xs, streams)
        if self.interaction:
            fused.fused = fused.fused + self.products(self.pairs(xs, streams))
        return fused

    def pairs(self, xs: list[Tensor], streams: Streams) -> Tensor:
        """The sum over pairs of modalities of the products of their factors, `(B, T, interaction)`."""
        factors = zip(self.factors, xs, streams.present, strict=True)
        h = torch.stack([zero_padded(torch.tanh(f(x)), m) for f, x, m in factors])
        # Half of what the square of the sum has beside the squares.
        return (h.sum(0).square() - h.square().sum(0)) / 2

    def fuse_projected(self, xs: list[Tensor], streams: Streams) -> Fused:
        """The matching of streams `(B, T, width)`."""
        steps = streams.shape[1]
        presence = streams.presence()
        memory = torch.cat(xs, 1)  # (B, M T, d), modality by modality
        keys = None if presence is None else rearrange(presence, "b t m -> b (m t)")
        # <Q P^T x, y> + <b, y>: queries and keys meet in r dimensions; the bias term depends on the key alone.
        scores = (memory @ self.query_factor) @ (memory @ self.memory_factor).transpose(1, 2)
        scores = torch.tanh((scores + (memory @ self.bias).unsqueeze(1)) * self.width**-0.5)
        weights = masked_softmax(scores, None if keys is None else keys.unsqueeze(1))
        context = F.gelu(weights @ memory)
        z = rearrange(memory + context if self.residual else context, "b (m t) d -> b t m d", t=steps)
        fused = masked_mean(z, presence)
        per_modality = dict(zip(self.names, z.unbind(2), strict=True))
        maps: dict[str, Tensor] = {}
        if streams.attention:
            grid = rearrange(weights, "b (q t) (k s) -> q k b t s", t=steps, s=steps)
            maps = {f"{q}->{k}": grid[i, j] for i, q in enumerate(self.names) for j, k in enumerate(self.names)}
        return Fused(fused, per_modality, maps)


fusionzoo_register = fusionzoo.plugin(
    LMAM,
    summary="low-rank matching attention over all utterances of all modalities",
    paper="Shou et al., A Low-rank Matching Attention based Cross-modal Feature Fusion Method for Conversational "
    "Emotion Recognition, IEEE TAFFC 16(2) 2025, arXiv 2306.17799",
    code="yuntaoshou/LMAM@1ac9f43823",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_1 ... x_M"] --> match["tanh of P Q^T matching, rank r, one map for all"]
    match --> softmax["softmax over all utterances of all modalities"]
    softmax --> pool["weighted sum of x"]
    x --> pool
    pool --> gelu["GELU"] --> add(("+"))
    x --> add
    add --> mean(("mean over modalities")) --> y["y"]
    """,
)
