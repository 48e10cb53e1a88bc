"""Dynamic fusion graph: a vertex for every set of modalities, each connection as strong as the moment needs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo.fusion import Dims
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._memory_fusion import MemoryFusion, previous
from fusionzoo_plugins._per_modality import Sizes
from fusionzoo_plugins._two_layers import TwoLayers

Subset = tuple[int, ...]


def subsets(of: Sequence[int], smallest: int = 1) -> list[Subset]:
    """All subsets of `smallest` or more elements, the small ones first."""
    return [s for r in range(smallest, len(of) + 1) for s in combinations(of, r)]


def key(subset: Subset) -> str:
    """`(0, 2)` as `"0_2"`."""
    return "_".join(map(str, subset))


class DynamicFusionGraph(nn.Module):
    """Vertices for every non-empty set of modalities, and one on top that reads them all.

    Parameters
    ----------
    widths : of the modalities' own vertices.
    width : of all others.
    pattern : hidden width of the networks.
    linear : leave out every non-linearity.
    """

    def __init__(self, widths: Sequence[int], width: int, pattern: int, linear: bool, dropout: float):
        super().__init__()
        self.modalities, self.linear = tuple(range(len(widths))), linear
        sizes = self.sizes(widths, width)
        self.nodes = nn.ModuleDict(
            {
                key(s): TwoLayers(sum(sizes[b] for b in subsets(s)[:-1]), pattern, width, dropout)
                for s in subsets(self.modalities, 2)
            }
        )
        self.top = TwoLayers(sum(sizes.values()), pattern, width, dropout)
        self.efficacy = TwoLayers(sum(widths), pattern, width, dropout)
        self.efficacy_out = nn.Linear(width, self.connections(len(widths)))

    def forward(self, vertices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The top vertex `(..., width)` and the efficacies `(..., connections)` from one vertex per modality.

        The efficacies come vertex by vertex, small sets first and the top last; a vertex's by the sets that it reads.
        """
        efficacies = self._run(self.efficacy, torch.cat(list(vertices), -1))
        efficacies = self.efficacy_out(efficacies if self.linear else F.relu(efficacies))
        if not self.linear:
            efficacies = efficacies.sigmoid()
        found: dict[Subset, Tensor] = {(m,): x for m, x in zip(self.modalities, vertices, strict=True)}
        used = 0

        def read(sources: list[Subset]) -> Tensor:
            nonlocal used
            strengths = efficacies[..., used : used + len(sources)].unbind(-1)
            used += len(sources)
            return torch.cat([found[s] * e.unsqueeze(-1) for s, e in zip(sources, strengths, strict=True)], -1)

        for subset in subsets(self.modalities, 2):
            found[subset] = self._run(self.nodes[key(subset)], read(subsets(subset)[:-1]))
        return self._run(self.top, read(subsets(self.modalities))), efficacies

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(network, TwoLayers)
        return network.fc2(network.fc1(x)) if self.linear else network(x)

    @staticmethod
    def sizes(widths: Sequence[int], width: int) -> dict[Subset, int]:
        """Width of every vertex but the top."""
        every = subsets(range(len(widths)))
        return {s: widths[s[0]] if len(s) == 1 else width for s in every}

    @staticmethod
    def connections(count: int) -> int:
        """Number of efficacies: 5, 19 or 65 for two, three or four modalities."""
        return sum(2 ** len(s) - 2 for s in subsets(range(count), 2)) + 2**count - 1


class GraphMFN(MemoryFusion):
    r"""Graph memory fusion network (Graph-MFN): a memory that reads a dynamic fusion graph.

    .. math::
        h^m_t &= \operatorname{LSTM}_m(x^m_t, h^m_{t-1}), \qquad
        v_{\{m\}} = \operatorname{relu}(W_m [h^m_{t-1}; h^m_t] + b_m), \qquad
        \alpha = \sigma\big(D_\alpha(v_{\{1\}}, \dots, v_{\{M\}})\big) \\
        v_S &= D_S\big([\alpha_{B \to S}\, v_B]_{\emptyset \ne B \subsetneq S}\big), \qquad
        \tau_t = D_\tau\big([\alpha_{B \to \tau}\, v_B]_{\emptyset \ne B}\big), \qquad \hat u_t = \tanh D_u \tau_t \\
        u_t &= \sigma(D_1 [\tau_t; u_{t-1}]) \odot u_{t-1} + \sigma(D_2 [\tau_t; u_{t-1}]) \odot \hat u_t, \qquad
        y_t = W [h^1_t; \dots; h^M_t; u_t] + b

    with a vertex S for every set of two or more modalities and one efficacy for every connection. Looks at the past only.
    The graph of all steps is computed at once. A modality that is absent at a step keeps its state and has a vertex of
    zeros; the memory stays as it is where no modality is present.

    Two to four modalities: connections grow as :math:`3^M` (5, 19, 65; a fifth would make 211) and networks as
    :math:`2^M`.

    Keeps every step, where paper and published code keep the last: `pool="last"`.

    Options
    -------
    hidden : width of each LSTM and of its vertex, one for all or one per modality (a sequence, or a mapping by name);
        default 64.
    node : width of the other vertices, default 64.
    pattern : hidden width of the graph's networks, default 100, as published.
    memory : width of the memory, default 64.
    update, retain, write : hidden widths of D_u, D_1 and D_2, default 64.
    head : hidden width of a two-layer output map with ReLU, as in MMSA; None, the default, for the linear one above.
    pool : None, or `"last"`: one vector per sequence, at its last real step.
    dropout : inside every D, default 0.2.
    variant : see `variants`.

    Parameters: with n the node width, k the pattern's, u the memory's: :math:`\sum_m 4 h_m (d_m + h_m + 2) + (2 h_m + 1)
    h_m`, networks of :math:`(i + 1) k + (k + 1) n` for every S, top and efficacies with i the width of what they read,
    :math:`(n + 1) E` for E connections, D_u from n to u, D_1 and D_2 from n + u to u, then the output map.
    Source: Zadeh et al., "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic Fusion
    Graph", ACL 2018, section 4; thuiar/MMSA@a94e65d07f.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`, or `(B, out_dim)` with pool; `Fused.streams[m]` are the hidden
    states `(B, T, h_m)`. `states` gives the efficacies `(B, T, E)`.

    >>> GraphMFN({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.graph_mfn:OfficialGraphMFN"}
    reference_table = "fusionzoo_plugins.official.graph_mfn"
    #: Whether the graph's networks are products of linear maps, and efficacies unbounded.
    linear: ClassVar[bool] = False
    modalities = (2, 4)

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        hidden: Sizes = 64,
        node: int = 64,
        pattern: int = 100,
        memory: int = 64,
        update: int = 64,
        retain: int = 64,
        write: int = 64,
        head: int | None = None,
        pool: str | None = None,
        dropout: float = 0.2,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        sizes = {"memory": memory, "update": update, "retain": retain, "write": write}
        widths = self.build_lstms(hidden, pool, dropout, node=node, pattern=pattern, **sizes)
        self.vertices = nn.ModuleList(nn.Linear(2 * h, h) for h in widths)
        # Not `graph`: a module that torch.export makes has an attribute of that name.
        self.vertex_graph = DynamicFusionGraph(widths, node, pattern, self.linear, self.dropout)
        self.build_memory(node, head=head, **sizes)

    def states(self, xs: list[Tensor], presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, _ = self.lstms(xs, presence)
        pairs = zip(previous(h).split(self.lstms.hidden, -1), h.split(self.lstms.hidden, -1), strict=True)
        vertices = [
            zero_padded(F.relu(vertex(torch.cat(pair, -1))), None if presence is None else presence[..., m])
            for m, (vertex, pair) in enumerate(zip(self.vertices, pairs, strict=True))
        ]
        top, efficacies = self.vertex_graph(vertices)
        u = self.memory(top, None if presence is None else presence.any(-1))
        return torch.cat([h, u], -1), efficacies


fusionzoo_register = fusionzoo.plugin(
    GraphMFN,
    summary="graph over every set of modalities with learnt strengths, and a memory",
    paper="Zadeh et al., Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic "
    "Fusion Graph, ACL 2018",
    code="thuiar/MMSA@a94e65d07f",
    level="dialogue",
    diagram="""
    x["x_text, x_audio, x_visual"] --> lstm["LSTM per modality"]
    lstm --> one["vertex per modality"]
    one -- "times efficacy" --> sets["vertex per set of modalities"]
    one -- "times efficacy" --> top["top vertex"]
    sets -- "times efficacy" --> top
    top --> mem["gated memory"]
    lstm --> y["output map"]
    mem --> y
    """,
)
