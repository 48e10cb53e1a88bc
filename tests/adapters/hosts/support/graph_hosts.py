"""Batches, hosts with random weights and plain formulas of the tests of COGMEN, CORECT and M3NET."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo.batch import Batch
from fusionzoo.kernels.bands import BandAttention
from fusionzoo.kernels.grouped_attention import GroupedTransformer

DIMS = {"text": 14, "audio": 5, "visual": 6}

LENGTHS = [6, 1, 4]

M3 = {"hidden": 8, "graph_width": 12, "hyper_layers": 2, "frequency_layers": 2, "dropout": 0.0, "input_dropout": 0.0}

COG = {"hidden": 8, "window_past": 2, "window_future": 1, "dropout": 0.0, "input_dropout": 0.0}

COR = {**COG, "heads": 2}


def make(cls, dims=DIMS, fusion="concat", seed=0, **options):
    """A host in eval mode with every parameter and running statistic away from where it starts."""
    torch.manual_seed(seed)
    host = cls(dims, 4, 2, fusion=fusion, **options).eval()
    with torch.no_grad():
        for p in host.parameters():
            p.copy_(torch.randn_like(p) * (0.6 / p.shape[-1] ** 0.5 if p.dim() > 1 else 0.3))
        for name, b in host.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(0, 0.3)
            elif name.endswith("running_var"):
                b.uniform_(0.5, 1.5)
    return host


def make_batch(lengths=LENGTHS, steps=None, dims=DIMS, seed=1) -> Batch:
    steps = steps or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    features = {m: torch.randn(*mask.shape, d, generator=generator) * mask.unsqueeze(-1) for m, d in dims.items()}
    speakers = torch.randint(2, mask.shape, generator=generator) * mask
    labels = torch.zeros_like(speakers).masked_fill(~mask, -100)
    return Batch(features, mask, speakers, labels, [str(b) for b in range(len(lengths))], None, list(lengths))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def gathered(weights: Tensor, values: list[Tensor]) -> Tensor:
    return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(values[0]))


def graph_attention(layer: BandAttention, x: list[Tensor], neighbours: list[list[int]]) -> list[Tensor]:
    """Nodes one at a time over a list of neighbours each."""
    out = []
    for i, near in enumerate(neighbours):
        heads = []
        for h in range(layer.heads):
            rows = slice(h * layer.out, (h + 1) * layer.out)
            q = layer.lin_query(x[i])[rows]
            keys = [layer.lin_key(x[j])[rows] for j in near]
            values = [layer.lin_value(x[j])[rows] for j in near]
            weights = torch.stack([q @ k / math.sqrt(layer.out) for k in keys]).softmax(0)
            heads.append(gathered(weights, values))
        out.append(layer.lin_skip(x[i]) + torch.cat(heads))
    return out


def transformer(model: GroupedTransformer, g: int, x: Tensor, memory: Tensor | None = None, pre: bool = True) -> Tensor:
    """One transformer of a group over one dialogue `(T, d)` by torch's own attention, layer by layer."""
    x, memory = x * model.scale, None if memory is None else memory * model.scale
    for layer in model.layers:

        def norm(part, y):
            return F.layer_norm(y, y.shape[-1:], part.weight[g, 0], part.bias[g, 0])

        def linear(part, y):
            return y @ part.weight[g] + part.bias[g, 0]

        q = norm(layer.norm1, x) if pre else x
        m = q if memory is None else norm(layer.norm1, memory) if pre else memory
        parts = (linear(layer.query, q), linear(layer.key, m), linear(layer.value, m))
        width = x.shape[-1] // layer.heads
        heads = []
        for h in range(layer.heads):
            a, b, c = (p[:, h * width : (h + 1) * width] for p in parts)
            heads.append((a @ b.t() / math.sqrt(width)).softmax(-1) @ c)
        x = x + linear(layer.mix, torch.cat(heads, -1))
        x = x if pre else norm(layer.norm1, x)
        hidden = linear(layer.reduce, linear(layer.expand, norm(layer.norm2, x) if pre else x).relu())
        x = x + hidden if pre else norm(layer.norm2, x + hidden)
    return x if model.norm is None else F.layer_norm(x, x.shape[-1:], model.norm.weight[g, 0], model.norm.bias[g, 0])


def dialogues(batch: Batch):
    """Of every dialogue its number, its length and its speakers."""
    for b, n in enumerate(batch.lengths_list()):
        yield b, n, batch.speakers[b]
