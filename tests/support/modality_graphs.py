"""Nodes that are utterances of modalities, and their graphs written out edge by edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

B, M, T, D = 3, 3, 5, 6
DIMS: dict[str, int] = {"text": D, "audio": D, "visual": D}
#: Every test reads these two; whoever wants others changes a copy.
NODES = torch.randn(B, M, T, D, generator=torch.Generator().manual_seed(0))
#: Dialogues of 5, 3 and 1 utterances; the second has no audio at its second, the third no visual at all.
PRESENCE = (torch.arange(T) < torch.tensor([[5], [3], [1]])).unsqueeze(-1).repeat(1, 1, M)
PRESENCE[1, 1, 1] = PRESENCE[2, :, 2] = False


def present(presence, b):
    """(modality, step) of every node of dialogue b."""
    return [(m, t) for m in range(M) for t in range(T) if presence[b, t, m]]


def rows(x, b, pairs):
    return torch.stack([x[b, m, t] for m, t in pairs])


def joined(p, q):
    """Whether two different nodes are neighbours."""
    return p != q and (p[0] == q[0] or p[1] == q[1])


def adjacency(x, pairs, across=1.0):
    """The normalised angular graph, edge by edge."""
    a = x.new_zeros(len(pairs), len(pairs))
    for i, p in enumerate(pairs):
        for j, q in enumerate(pairs):
            if p == q or joined(p, q):
                cosine = 0.99999 * nn.functional.cosine_similarity(x[i], x[j], 0)
                a[i, j] = (1 - torch.acos(cosine) / math.pi) * (1.0 if p[0] == q[0] else across)
    degree = a.sum(1)
    return a / (degree[:, None] * degree).sqrt()


def hyperedges(pairs):
    """(node, hyperedge) of every incidence: modalities first, then utterances, and which hyperedges are modalities."""
    index = [(i, m) for i, (m, _) in enumerate(pairs)] + [(i, M + t) for i, (_, t) in enumerate(pairs)]
    return torch.tensor(index).T


def over_one_dense_graph(fusion: nn.Module) -> tuple[Tensor, Tensor]:
    """What a graph fusion makes of the nodes, and what its layers do over one dense graph of the whole batch."""
    fused = fusion(list(NODES.unbind(1)), {m: PRESENCE[..., i] for i, m in enumerate(DIMS)})
    pairs = [present(PRESENCE, b) for b in range(B)]
    dense = torch.block_diag(*[adjacency(rows(NODES, b, p), p) for b, p in enumerate(pairs)])
    out = fusion.gcn(torch.cat([rows(NODES, b, p) for b, p in enumerate(pairs)]), dense)
    expected = torch.zeros(B, T, M, out.shape[-1])
    for row, (b, m, t) in zip(out, [(b, m, t) for b, p in enumerate(pairs) for m, t in p], strict=True):
        expected[b, t, m] = row
    return fused, expected.flatten(2)
