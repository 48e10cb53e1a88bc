"""Non-local gate: slots of the anchor attend to slots of the other modalities, within one utterance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_softmax, zero_padded
from fusionzoo.reference import copy_reference_parts

#: Official name of the three maps, by the letter of `project`.
MAPS = {"q": "qli", "k": "kli", "v": "vli"}


class NLGate(Fusion):
    r"""Non-local gate (NL-gate).

    Every vector is cut into slots of c channels, the anchor's mapped ones into N queries, every other modality's into S
    keys and S values:

    .. math::
        y = Q + \operatorname{softmax}(Q K^\top / \sqrt c)\,V, \qquad
        Q = \operatorname{rows}_N(W^q x_1), \quad K = [\operatorname{rows}_S(W^k_m x_m)]_{m \ge 2}, \quad
        V = [\operatorname{rows}_S(W^v_m x_m)]_{m \ge 2}

    One softmax weighs the slots of all modalities present. Acts within a time step.

    `variant="official"`, MultiBench's class: no :math:`1/\sqrt c`, and keys read as columns of c x S, so that key and value
    of a slot come from different features; with `project=""` there are no maps, as it is built there by default. Any number
    of modalities in both variants, two there.

    Options
    -------
    tokens : N, default 8. channels : c, default 32. memory : S, default 8. project : which of q, k, v have a map; default
        `"qkv"`. Without one the modality's width has to be N c (q) or S c (k, v). variant : `"default"` or `"official"`.

    Parameters: :math:`(d_1 + 1) N c + 2 \sum_{m \ge 2} (d_m + 1) S c` plus the output map from N c.
    Source: Wang, Tran and Feiszli, "What Makes Training Multi-modal Classification Networks Hard?", CVPR 2020, arXiv
    1905.12681, appendix F4 (as MultiBench cites it); pliang279/MultiBench@49f9be224f, `fusions/common_fusions.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["slots"]` is `(B, T, N, (M - 1) S)`.

    >>> NLGate({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants = ("default", "official")

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
        self.variant = check_choice(variant, self.variants, "variant", self)
        if not isinstance(project, str) or set(project) - set(MAPS):
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
        official = self.variant == "official"
        q = zero_padded(self.query(first), here).unflatten(-1, (self.tokens, self.channels))
        keys = [zero_padded(f(x), m) for f, x, m in zip(self.key, others, there, strict=True)]
        if official:
            k = torch.cat([x.unflatten(-1, (self.channels, self.memory)) for x in keys], -1)
        else:
            k = torch.cat([x.unflatten(-1, (self.memory, self.channels)) for x in keys], -2).mT
        values = [zero_padded(f(x), m) for f, x, m in zip(self.value, others, there, strict=True)]
        v = torch.cat([x.unflatten(-1, (self.memory, self.channels)) for x in values], -2)
        presence = streams.presence()
        # One flag a slot, the same for all queries: (B, T, 1, (M - 1) S).
        slots = None if presence is None else presence[..., 1:].repeat_interleave(self.memory, -1).unsqueeze(-2)
        scores = q @ k
        weights = masked_softmax(scores if official else scores * self.channels**-0.5, slots)
        return Fused((q + weights @ v).flatten(-2), {}, {"slots": weights} if streams.attention else {})

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load MultiBench's `NLgate` (`qli.*`, `kli.*`, `vli.*`, where they are built), for two modalities."""
        if self.variant != "official":
            raise OptionError("the official weights are those of NLGate(variant='official'); build it that way")
        if len(self.names) > 2:
            raise OptionError(
                f"the official NLgate has two modalities, this one {len(self.names)} ({', '.join(self.names)})"
            )
        maps = dict(zip(MAPS.values(), (self.query, self.key[0], self.value[0]), strict=True))
        copy_reference_parts({f"{n}.": m for n, m in maps.items() if isinstance(m, nn.Linear)}, state_dict)


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
