"""Non-local gate: slots of the anchor attend to slots of the other modalities, within one utterance."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_softmax, zero_padded


class NLGate(Fusion):
    r"""Non-local gate (NL-gate).

    Every vector is cut into slots of c channels, the anchor's mapped ones into N queries, every other modality's into S
    keys and S values:

    .. math::
        y = Q + \operatorname{softmax}(Q K^\top / \sqrt c)\,V, \qquad
        Q = \operatorname{rows}_N(W^q x_1), \quad K = [\operatorname{rows}_S(W^k_m x_m)]_{m \ge 2}, \quad
        V = [\operatorname{rows}_S(W^v_m x_m)]_{m \ge 2}

    One softmax weighs the slots of all modalities present. Acts within a time step.

    Options
    -------
    tokens : N, default 8.
    channels : c, default 32.
    memory : S, default 8.
    project : which of q, k, v have a map; default `"qkv"`. Without one the modality's width has to be N c (q) or S c
        (k, v).
    variant : see `variants`.

    Parameters: :math:`(d_1 + 1) N c + 2 \sum_{m \ge 2} (d_m + 1) S c` plus the output map from N c.
    Source: Wang, Tran and Feiszli, "What Makes Training Multi-modal Classification Networks Hard?", CVPR 2020, arXiv
    1905.12681, appendix F4 (as MultiBench cites it); pliang279/MultiBench@49f9be224f, `fusions/common_fusions.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["slots"]` is `(B, T, N, (M - 1) S)`.

    >>> NLGate({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.nl_gate:OfficialNLGate"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        tokens: int = 8,
        channels: int = 32,
        memory: int = 8,
        project: str = "qkv",
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.tokens = check_positive(tokens, "tokens", self)
        self.channels = check_positive(channels, "channels", self)
        self.memory = check_positive(memory, "memory", self)
        if not isinstance(project, str) or set(project) - set("qkv"):
            raise OptionError(f"NLGate: project names which of q, k and v have a map, such as 'qkv', not {project!r}")
        first, *others = self.dims
        self.query = self._map(first, tokens * channels, "q" in project)
        self.key = nn.ModuleList(self._map(m, memory * channels, "k" in project) for m in others)
        self.value = nn.ModuleList(self._map(m, memory * channels, "v" in project) for m in others)
        self.set_width(tokens * channels)

    def _map(self, name: str, width: int, build: bool) -> nn.Module:
        if build:
            return nn.Linear(self.dims[name], width)
        if self.dims[name] != width:
            raise OptionError(
                f"NLGate: {name!r} has width {self.dims[name]}, its slots take {width}; leave project='qkv', or choose "
                "tokens, memory and channels that multiply to the width"
            )
        return nn.Identity()

    def combine(self, streams: Streams) -> Fused:
        (first, *others), (here, *there) = streams.x, streams.present
        q = rearrange(zero_padded(self.query(first), here), "... (n c) -> ... n c", c=self.channels)
        keys = [zero_padded(f(x), m) for f, x, m in zip(self.key, others, there, strict=True)]
        values = [zero_padded(f(x), m) for f, x, m in zip(self.value, others, there, strict=True)]
        v = torch.cat([rearrange(x, "... (s c) -> ... s c", c=self.channels) for x in values], -2)
        presence = streams.presence()
        # One flag a slot, the same for all queries: (B, T, 1, (M - 1) S).
        slots = None if presence is None else presence[..., 1:].repeat_interleave(self.memory, -1).unsqueeze(-2)
        weights = masked_softmax(self.scores(q, keys), slots)
        return Fused(
            rearrange(q + weights @ v, "... n c -> ... (n c)"), {}, {"slots": weights} if streams.attention else {}
        )

    def scores(self, q: Tensor, keys: list[Tensor]) -> Tensor:
        """`(..., N, (M - 1) S)` from queries `(..., N, c)` and mapped keys `(..., S c)` of each other modality."""
        k = torch.cat([rearrange(x, "... (s c) -> ... c s", c=self.channels) for x in keys], -1)
        return q @ k * self.channels**-0.5


fusionzoo_register = fusionzoo.plugin(
    NLGate,
    summary="slots of the anchor attend to slots of the other modalities",
    paper="Wang et al., What Makes Training Multi-modal Classification Networks Hard?, CVPR 2020",
    code="pliang279/MultiBench@49f9be224f",
    handles={"attention"},
    diagram="""
    text["x_text"] --> q["N queries"] --> softmax(("softmax over slots"))
    others["x_audio, x_visual"] --> k["keys"] --> softmax
    others --> v["values"] --> mix(("weighted sum"))
    softmax --> mix --> add(("add"))
    q --> add --> y["y"]
    """,
)
