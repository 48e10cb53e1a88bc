"""Graph layers shared by fusions and hosts: every modality of every utterance is a node, every dialogue its own graph.

Nodes are `(B, M, T, d)`, modality by modality. The graphs of this field join the utterances of one modality with each
other and the modalities of one utterance with each other, nothing else; so a graph is kept as `T x T` blocks within the
modalities and diagonals across them (`ModalGraph`), a hypergraph as its weights (`ModalHypergraph`). Both are applied
with `graph @ nodes`, as a dense or sparse adjacency matrix `(N, N)` is to nodes `(N, d)`: the layers take either.
Presence masks are bool `(B, T, M)` as `Streams.presence()` gives them, None where every node exists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.gates import GATE_FORMS as GATE_FORMS
from fusionzoo.gates import PairwiseGate as PairwiseGate
from fusionzoo.kernels.dropout import dropout
from fusionzoo.numerics import masked_softmax
from fusionzoo.reference import copy_reference, copy_reference_parts

#: How `angular_graph` weighs its edges.
EDGES = ("similarity", "angle", "window")

# acos has no slope at 1: cosines are shrunk by this, as in the published code.
_SHRINK = 0.99999
#: Utterances further apart than this are not joined by the edges "window".
_REACH = 20


def _nodes(presence: Tensor) -> Tensor:
    """Presence `(B, T, M)` as nodes lie, `(B, M, T)`."""
    return presence.transpose(1, 2)


def _unit(x: Tensor) -> Tensor:
    """`x` of length one, in float32 at least; zero vectors stay zero and receive no gradient."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    square = x.square().sum(-1, keepdim=True)
    real = square > 0
    return x * torch.where(real, torch.where(real, square, 1.0).rsqrt(), 0.0)


def _angle_weight(cosine: Tensor, edges: str) -> Tensor:
    if edges == "window":
        # Numbers of Python in the published code, so constants to the gradient, and not shrunk.
        return 1 - torch.acos(cosine.detach().clamp(-1, 1)) / math.pi
    angle = torch.acos(cosine.clamp(-1, 1) * _SHRINK)
    return angle if edges == "angle" else 1 - angle / math.pi


def _self_weight(edges: str) -> float:
    """The weight of a node's edge to itself: a cosine of one."""
    return {"similarity": 1 - math.acos(_SHRINK) / math.pi, "angle": math.acos(_SHRINK), "window": 1.0}[edges]


# -- graphs ------------------------------------------------------------------------------------------------------------


def send(graph: Any, nodes: Tensor) -> Tensor:
    """`graph @ nodes`, in words that `torch.compile` follows where the graph is one of the classes below."""
    return graph.__matmul__(nodes)


@dataclass
class ModalGraph:
    """Edges of one graph per dialogue, in blocks; `graph @ nodes` sends `(B, M, T, d)` along them.

    within : `(B, M, T, T)`, weight of the edge to utterance i from utterance j of the same modality.
    across : `(B, M, M, T)`, weight to modality m from modality n at the same utterance; zero for m = n.

    Costs `M T^2 d` a dialogue; the dense matrix over a batch, as published, `(M sum T)^2 d`.
    """

    within: Tensor
    across: Tensor

    def __matmul__(self, nodes: Tensor) -> Tensor:
        out = self.within.to(nodes.dtype) @ nodes
        return out + (self.across.to(nodes.dtype).unsqueeze(-1) * nodes.unsqueeze(1)).sum(2)

    def dense(self) -> Tensor:
        """The adjacency matrices, `(B, M T, M T)`, modality by modality."""
        modalities = self.within.shape[1]
        eye = torch.eye(modalities, dtype=self.within.dtype, device=self.within.device)
        blocks = torch.einsum("bmij,mn->bminj", self.within, eye)
        return (blocks + torch.diag_embed(self.across).transpose(2, 3)).flatten(3).flatten(1, 2)

    def normalised(self) -> ModalGraph:
        """`D^-1/2 A D^-1/2`, with D the row sums; nodes without edges keep none."""
        degree = self.within.sum(-1) + self.across.sum(2)
        linked = degree > 0
        scale = torch.where(linked, torch.where(linked, degree, 1.0).rsqrt(), 0.0)
        return ModalGraph(
            self.within * scale.unsqueeze(-1) * scale.unsqueeze(-2),
            self.across * scale.unsqueeze(2) * scale.unsqueeze(1),
        )


def angular_graph(
    nodes: Tensor, presence: Tensor | None = None, across: float = 1.0, edges: str = "similarity"
) -> ModalGraph:
    r"""The graph of MMGCN: angular similarities, symmetrically normalised.

    .. math:: A_{ij} = 1 - \tfrac1\pi \arccos\big(0.99999 \cos(x_i, x_j)\big), \qquad \hat A = D^{-1/2} A D^{-1/2}

    within a modality for all pairs of utterances, the same one included, and across modalities within an utterance,
    there times `across` (the modal weight of MM-DFN). Nodes that are not present have no edges. A zero vector, for
    which the published code gives NaN, is at a right angle to every other.

    nodes : `(B, M, T, d)`.
    presence : bool `(B, T, M)`.
    edges : `"similarity"`, as above. The other two are what the published `GCNII_lyc` builds from its nodes when it is
        handed no graph, kept for its weights: `"angle"`, the angle itself, so that what differs most is joined most;
        and `"window"`, similarities up to 20 utterances apart that are constants to the gradient, one to itself.
    """
    check_choice(edges, EDGES, "edges", "angular_graph")
    unit = _unit(nodes)
    within = _angle_weight((unit @ unit.transpose(-1, -2)).to(unit.dtype), edges)
    cross = _angle_weight((unit.unsqueeze(1) * unit.unsqueeze(2)).sum(-1), edges) * across
    steps, modalities = nodes.shape[2], nodes.shape[1]
    # A node's similarity to itself is a constant; computed, it would send rounding noise back through a steep acos.
    within = torch.where(torch.eye(steps, dtype=torch.bool, device=nodes.device), _self_weight(edges), within)
    if edges == "window":
        step = torch.arange(steps, device=nodes.device)
        within = torch.where((step.unsqueeze(1) - step).abs() <= _REACH, within, 0.0)
    cross = torch.where(torch.eye(modalities, dtype=torch.bool, device=nodes.device).unsqueeze(-1), 0.0, cross)
    if presence is not None:
        there = _nodes(presence)
        within = torch.where(there.unsqueeze(-1) & there.unsqueeze(-2), within, 0.0)
        cross = torch.where(there.unsqueeze(1) & there.unsqueeze(2), cross, 0.0)
    return ModalGraph(within, cross).normalised()


# -- GCNII -------------------------------------------------------------------------------------------------------------


class GCNIIConv(nn.Module):
    r"""One layer of GCNII: graph convolution with initial residual and identity mapping.

    .. math::
        H &= A x, \qquad R = (1 - \alpha) H + \alpha h_0, \qquad \theta = \log(\lambda / l + 1) \\
        y &= \theta\, S W + (1 - \theta) R, \qquad S = [H; h_0] \text{ (variant) or } R

    Parameters
    ----------
    width : of nodes, in and out.
    level : l, the layer's number from 1.
    lam, alpha : as above.
    variant : `S = [H; h_0]`, with a weight of twice the rows.
    residual : add x.

    Source: Chen et al., "Simple and Deep Graph Convolutional Networks", ICML 2020, equation 5; `GraphConvolution` of
    MMGCN and MM-DFN. Learnt parameters: `2 d^2`, without `variant` `d^2`.
    """

    def __init__(
        self,
        width: int,
        level: int,
        *,
        lam: float = 0.5,
        alpha: float = 0.1,
        variant: bool = True,
        residual: bool = False,
    ):
        super().__init__()
        self.theta, self.alpha, self.variant, self.residual = math.log(lam / level + 1), alpha, variant, residual
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(width * (1 + variant), width).uniform_(-bound, bound))

    def forward(self, x: Tensor, graph: Any, initial: Tensor) -> Tensor:
        """`x` and `initial` of shape `(B, M, T, d)` with a `ModalGraph`, or `(N, d)` with a matrix `(N, N)`."""
        hidden = send(graph, x)
        mixed = (1 - self.alpha) * hidden + self.alpha * initial
        sent = (torch.cat([hidden, initial], -1) if self.variant else mixed) @ self.weight
        out = self.theta * sent + (1 - self.theta) * mixed
        return out + x if self.residual else out

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weight: `weight`."""
        copy_reference(self, state)


class GCNII(nn.Module):
    r"""A stack of `GCNIIConv`, optionally with an LSTM that runs over its depth.

    .. math:: h^0 = \operatorname{ReLU}(W x + b), \qquad h^l = \operatorname{ReLU}(\operatorname{GCNII}_l(A, h^{l-1}, h^0))

    and with `dynamic=True`, one LSTM cell shared by all layers, every node a sequence over depth,

    .. math:: g^l, c^l = \operatorname{LSTM}(h^{l-1}, (g^{l-1}, c^{l-1})), \qquad
              h^l = \operatorname{ReLU}(\operatorname{GCNII}_l(A, g^l, h^0)) + h^{l-1}

    Parameters
    ----------
    inputs : width of the nodes.
    width : d, of the layers.
    layers : their number.
    lam, alpha, variant : of `GCNIIConv`.
    dropout : on the input, after the first map and after every layer, in training.
    dynamic : the LSTM.
    residue : return `[x; h]`, not h alone.
    classes : also map `[x; h]` to that many log-probabilities.

    Source: `GCNII_lyc` of MMGCN and, dynamic, of MM-DFN.
    Learnt parameters: `(inputs + 1) d + 2 layers d^2`, dynamic `8 d^2 + 8 d` more.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        layers: int,
        *,
        lam: float = 0.5,
        alpha: float = 0.1,
        dropout: float = 0.0,
        variant: bool = True,
        dynamic: bool = False,
        residue: bool = True,
        classes: int | None = None,
    ):
        super().__init__()
        check_positive(layers, "layers", self)
        if not isinstance(lam, (int, float)) or lam <= 0:
            raise OptionError(f"{type(self).__name__}: lam must be a positive number, not {lam!r}")
        if classes and not residue:
            raise OptionError(f"{type(self).__name__}: classes are read from [x; h]; build it with residue=True")
        alpha = check_probability(alpha, "alpha", self)
        self.width, self.dropout, self.residue = width, check_probability(dropout, "dropout", self), residue
        self.fcs = nn.ModuleList([nn.Linear(inputs, width)])
        if classes:
            self.fcs.append(nn.Linear(inputs + width, classes))
        self.convs = nn.ModuleList(
            GCNIIConv(width, level + 1, lam=lam, alpha=alpha, variant=variant) for level in range(layers)
        )
        self.rnn = nn.LSTMCell(width, width) if dynamic else None

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        """Nodes `(B, M, T, inputs)` with a `ModalGraph`, or `(N, inputs)` with a matrix; `(..., inputs + d)`."""
        x = self._drop(x)
        initial = F.relu(self.fcs[0](x))
        h = self._drop(initial)
        carried: tuple[Tensor, Tensor] | None = None
        for conv in self.convs:
            before = h
            if self.rnn is not None:
                gated, memory = self.rnn(h.reshape(-1, self.width), carried)
                carried, h = (gated, memory), gated.view_as(h)
            h = self._drop(F.relu(conv(h, graph, initial)))
            if self.rnn is not None:
                h = h + before
        if self.residue:
            h = torch.cat([x, h], -1)
        return self.fcs[1](h).log_softmax(-1) if len(self.fcs) > 1 else h

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights: `fcs.*`, `convs.*` and, dynamic, `rnn.*` (which MM-DFN always has)."""
        parts: dict[str, nn.Module] = {"fcs.": self.fcs, "convs.": self.convs}
        if self.rnn is not None:
            parts["rnn."] = self.rnn
        renamed = {k.removesuffix("_l0") if k.startswith("rnn.") else k: v for k, v in state.items()}
        copy_reference_parts(parts, renamed, ("rnn.",))


# -- hypergraphs -------------------------------------------------------------------------------------------------------


@dataclass
class ModalHypergraph:
    """A hyperedge over the utterances of every modality and one over the modalities of every utterance.

    `hypergraph @ nodes` gathers nodes into hyperedges and scatters these back, each with its weights `(B, M, T)`.
    """

    gather_context: Tensor
    gather_cross: Tensor
    scatter_context: Tensor
    scatter_cross: Tensor

    def __matmul__(self, nodes: Tensor) -> Tensor:
        context = self.gather_context.unsqueeze(-2) @ nodes
        cross = (self.gather_cross.unsqueeze(-1) * nodes).sum(1, keepdim=True)
        return self.scatter_context.unsqueeze(-1) * context + self.scatter_cross.unsqueeze(-1) * cross


def weighted_hypergraph(
    context: Tensor, cross: Tensor, share: Tensor, presence: Tensor | None = None
) -> ModalHypergraph:
    """The hypergraph whose hyperedges are weighted means of their nodes, and whose nodes mix their two hyperedges.

    context, cross : scores `(B, M, T)` of the nodes; their softmax within each hyperedge weighs its nodes.
    share : `(M,)` or `(B, M, T)`, what a node takes from its context hyperedge; it takes the rest from its cross-modal
        one.
    presence : bool `(B, T, M)`; nodes that are not present enter no hyperedge.
    """
    there = None if presence is None else _nodes(presence)
    share = (share.view(1, -1, 1) if share.dim() == 1 else share).expand_as(context)
    return ModalHypergraph(
        masked_softmax(context, there, -1), masked_softmax(cross, there, 1), share.to(context.dtype), 1 - share
    )


def numbered_hypergraph(
    edge_weight: Tensor, node_weight: Tensor, shape: tuple[int, int, int], mask: Tensor | None = None
) -> ModalHypergraph:
    """The hypergraph of the published M3NET, whose weights are tables indexed by running number in the batch.

    Nodes are numbered dialogue by dialogue, there modality by modality; hyperedges dialogue by dialogue, there the
    modalities first. A hyperedge is the sum of its nodes over the sum of their entries in `node_weight`, a node the sum
    of its two hyperedges over the sum of their entries in `edge_weight`.

    shape : `(B, M, T)`.
    mask : bool `(B, T)`, real utterances; only they are numbered. A number beyond a table raises IndexError.
    """
    batch, modalities, steps = shape
    real = torch.ones(batch, steps, dtype=torch.bool, device=edge_weight.device) if mask is None else mask
    length = real.sum(1)
    before = length.cumsum(0) - length
    rank = torch.where(real, real.cumsum(1) - 1, 0)
    modality = torch.arange(modalities, device=real.device)
    first_edge = before + modalities * torch.arange(batch, device=real.device)
    node = (modalities * before).view(-1, 1, 1) + modality.view(1, -1, 1) * length.view(-1, 1, 1) + rank.unsqueeze(1)
    there = real.unsqueeze(1)
    weight = torch.where(there, node_weight[torch.where(there, node, 0)], 0.0)
    context_id = torch.where(length.unsqueeze(1) > 0, first_edge.unsqueeze(1) + modality, 0)
    cross_id = torch.where(real, first_edge.unsqueeze(1) + modalities + rank, 0)
    mixed = _inverse(edge_weight[context_id].unsqueeze(-1) + edge_weight[cross_id].unsqueeze(1))
    gather_context = torch.where(there, _inverse(weight.sum(2, keepdim=True)), 0.0).expand(shape)
    gather_cross = _inverse(weight.sum(1, keepdim=True)).expand(shape)
    return ModalHypergraph(gather_context, gather_cross, mixed, mixed)


@dataclass
class IncidenceHypergraph:
    """Any hypergraph, as a list of incidences; `hypergraph @ nodes` takes nodes `(N, d)`.

    index : long `(2, I)`, node and hyperedge of every incidence.
    gather, scatter : its weights `(I,)`.
    edges : how many.
    """

    index: Tensor
    gather: Tensor
    scatter: Tensor
    edges: int

    def __matmul__(self, nodes: Tensor) -> Tensor:
        node, edge = self.index
        gathered = nodes.new_zeros(self.edges, nodes.shape[-1])
        gathered = gathered.index_add(0, edge, (nodes[node] * self.gather.unsqueeze(-1)).to(nodes.dtype))
        return torch.zeros_like(nodes).index_add(0, node, (gathered[edge] * self.scatter.unsqueeze(-1)).to(nodes.dtype))


def incidence_hypergraph(
    index: Tensor,
    nodes: int,
    edge_weight: Tensor,
    node_weight: Tensor,
    variant: str = "default",
) -> IncidenceHypergraph:
    """Weights of a list of incidences: hyperedges are weighted means of nodes, nodes weighted means of hyperedges.

    index : long `(2, I)`.
    nodes : N.
    edge_weight : `(E,)`.
    node_weight : `(I,)`, one per incidence.
    variant : `"official"` for what M3NET computes: sums that are divided by the sums of weights, and `node_weight` is
        read at the number of the node instead of the incidence.
    """
    check_choice(variant, ("default", "official"), "variant", "incidence_hypergraph")
    node, edge = index
    gamma = node_weight[node] if variant == "official" else node_weight
    omega = edge_weight[edge]
    gather = _inverse(gamma.new_zeros(len(edge_weight)).index_add(0, edge, gamma))[edge]
    scatter = _inverse(omega.new_zeros(nodes).index_add(0, node, omega))[node]
    if variant != "official":
        gather, scatter = gather * gamma, scatter * omega
    return IncidenceHypergraph(index, gather, scatter, len(edge_weight))


def _inverse(x: Tensor) -> Tensor:
    """1 / x, zero at zero."""
    some = x != 0
    return torch.where(some, 1 / torch.where(some, x, 1.0), 0.0)


class HypergraphConv(nn.Module):
    r"""Hypergraph convolution of M3NET: nodes to hyperedges, hyperedges to nodes, bias, LeakyReLU; no weight matrix.

    .. math:: y = \operatorname{LeakyReLU}_{0.01}\big(D\, H\, \Omega B\, H^\top x + b\big)

    Source: `HypergraphConv` of M3NET, whose further weights take no part. Learnt parameters: d, the bias.
    """

    def __init__(self, width: int, *, bias: bool = True):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor, hypergraph: Any) -> Tensor:
        """`(B, M, T, d)` with a `ModalHypergraph`, or `(N, d)` with an `IncidenceHypergraph`."""
        out = send(hypergraph, x)
        return F.leaky_relu(out if self.bias is None else out + self.bias, 0.01)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official `bias`; `weight`, `edgeweight` and `edgefc.*` exist upstream and are not used there."""
        unused = ("weight", "edgeweight", "edgefc.weight", "edgefc.bias")
        copy_reference(self, {k: v for k, v in state.items() if k not in unused})


class FrequencyConv(nn.Module):
    r"""Graph convolution of M3NET whose gates are signed, so that it lets low and high frequencies through.

    .. math:: y_i = \sum_{j \in N(i)} \frac{\tanh(w\,[x_i; x_j] + b)}{\sqrt{|N(i)|\,|N(j)|}}\; x_j

    Neighbours are the other utterances of the modality and the other modalities of the utterance. A layer adds y to x.

    Source: Chen et al., "Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion
    Recognition in Conversation", CVPR 2023; `highConv` of the official code. Learnt parameters: `2 d + 1`.
    """

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(2 * width, 1)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a node adds to a gate as the target and as the source, bias with the first."""
        width = x.shape[-1]
        scores = F.linear(x, self.gate.weight.view(2, width))
        return scores[..., 0] + self.gate.bias, scores[..., 1]

    def graph(self, x: Tensor, presence: Tensor | None = None) -> ModalGraph:
        """The gates, normalised, as edges; nodes `(B, M, T, d)`, presence `(B, T, M)`."""
        batch, modalities, steps, _ = x.shape
        target, source = self._halves(x)
        there = torch.ones(batch, modalities, steps, dtype=torch.bool, device=x.device)
        there = there if presence is None else _nodes(presence)
        degree = there.sum(2, keepdim=True) + there.sum(1, keepdim=True) - 2
        linked = there & (degree > 0)
        scale = torch.where(linked, degree.clamp(min=1).to(x.dtype).rsqrt(), 0.0)
        others = ~torch.eye(steps, dtype=torch.bool, device=x.device)
        within = torch.tanh(target.unsqueeze(-1) + source.unsqueeze(-2))
        within = torch.where(others, within * scale.unsqueeze(-1) * scale.unsqueeze(-2), 0.0)
        other_modalities = ~torch.eye(modalities, dtype=torch.bool, device=x.device).unsqueeze(-1)
        across = torch.tanh(target.unsqueeze(2) + source.unsqueeze(1))
        across = torch.where(other_modalities, across * scale.unsqueeze(2) * scale.unsqueeze(1), 0.0)
        return ModalGraph(within, across)

    def forward(self, x: Tensor, presence: Tensor | None = None) -> Tensor:
        """Nodes `(B, M, T, d)`, presence `(B, T, M)`; `(B, M, T, d)` without the residual."""
        return send(self.graph(x, presence), x)

    def along(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes `(N, d)` along edges `(2, E)`, source and target; degrees count the edges that leave a node."""
        source, target = edge_index
        # In float32: bfloat16 cannot count beyond 256.
        ones = torch.ones_like(source, dtype=torch.float32)
        scale = _inverse(ones.new_zeros(len(x)).index_add(0, source, ones)).sqrt().to(x.dtype)
        as_target, as_source = self._halves(x)
        weight = torch.tanh(as_target[target] + as_source[source]) * scale[source] * scale[target]
        return torch.zeros_like(x).index_add(0, target, weight.unsqueeze(-1) * x[source])

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights: `gate.weight`, `gate.bias`."""
        copy_reference(self, state)
