"""Golden cases of the graph layers and fusions: MMGCN, MM-DFN, M3NET."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import Arrays, case, inputs, ready, state
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusionzoo.graphs import GCNII, FrequencyConv, GCNIIConv, HypergraphConv, angular_graph, incidence_hypergraph
from fusionzoo_plugins.hypergraph import HypergraphFusion
from fusionzoo_plugins.pairwise_gated import PairwiseGated


@case("mmgcn_graph_convolution")
def mmgcn_graph_convolution(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    conv = GCNIIConv(
        config["in_features"],
        config["l"],
        lam=config["lamda"],
        alpha=config["alpha"],
        variant=config["variant"],
        residual=config["residual"],
    )
    x = inputs(arrays)
    return {"output": ready(conv, arrays)(x["input"], x["adj"], x["h0"])}


def _gcnii(config: dict[str, Any]) -> GCNII:
    return GCNII(
        config["nfeat"],
        config["nhidden"],
        config["nlayers"],
        lam=config["lamda"],
        alpha=config["alpha"],
        dropout=config["dropout"],
        variant=config["variant"],
        dynamic=config.get("reason_flag", False),
        residue=config["use_residue"],
        classes=None if config["return_feature"] else config["nclass"],
    )


def _padded(x: dict[str, Tensor], names: str) -> tuple[list[Tensor], Tensor]:
    """The modalities `(B, T, d)` of dialogues one after another, and the mask."""
    lengths = [int(n) for n in x["dia_len"]]
    streams = [pad_sequence(list(x[m].split(lengths)), batch_first=True) for m in names]
    return streams, torch.arange(max(lengths)) < x["dia_len"].unsqueeze(1)


def _run_gcnii(config: dict[str, Any], arrays: Arrays) -> Tensor:
    """`(N, .)`: along the recorded adjacency matrix, or along the graph that the reference builds without one."""
    x, net = inputs(arrays), ready(_gcnii(config), arrays)
    if "adj" in x:
        return net(x["x"], x["adj"])
    (nodes,), mask = _padded(x, "x")
    edges = "window" if config.get("new_graph", False) else "angle"
    out = net(nodes.unsqueeze(1), angular_graph(nodes.unsqueeze(1), mask.unsqueeze(-1), edges=edges))
    return out.squeeze(1)[mask]


@case("mmgcn_gcnii_lyc", "mmgcn_gcnii_lyc_self", "mmgcn_gcnii_lyc_window")
def mmgcn_gcnii_lyc(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    return {"output": _run_gcnii(meta["config"], arrays)}


@case("mmdfn_gcnii_dynamic", "mmdfn_gcnii_dynamic_self")
def mmdfn_gcnii_dynamic(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    return {"out": _run_gcnii(meta["config"], arrays)}


@case("mmgcn_big_adj")
def mmgcn_big_adj(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    names = [m for m in "avl" if m in config["modals"]]
    streams, mask = _padded(inputs(arrays), "".join(names))
    presence = mask.unsqueeze(-1).expand(-1, -1, len(names))
    graph = angular_graph(torch.stack(streams, 1), presence, config.get("modal_weight", 1.0)).dense()
    # The official matrix is one over the batch: modality by modality, there dialogue by dialogue.
    number = mask.flatten().cumsum(0).view_as(mask) - 1
    count = int(mask.sum())
    adj = graph.new_zeros(len(names) * count, len(names) * count)
    for block, real, index in zip(graph, mask, number, strict=True):
        node = torch.cat([index[real] + m * count for m in range(len(names))])
        inside = real.repeat(len(names))
        adj = adj.index_put((node.unsqueeze(1), node.unsqueeze(0)), block[inside][:, inside])
    return {"adj": adj}


@case("m3net_high_conv")
def m3net_high_conv(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    return {"out": ready(FrequencyConv(meta["config"]["in_channels"]), arrays).along(x["x"], x["edge_index"])}


@case("m3net_hypergraph_conv")
def m3net_hypergraph_conv(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    index = x["hyperedge_index"]
    edges = x["hyperedge_weight"] if "hyperedge_weight" in x else torch.ones(int(index[1].max()) + 1)
    # Without node weights every incidence counts one, which is what ones at every node number give.
    nodes = x.get("EW_weight", torch.ones(len(x["x"])))
    hypergraph = incidence_hypergraph(index, len(x["x"]), edges, nodes, "official")
    conv = HypergraphConv(config["out_channels"], bias=config.get("bias", True))
    return {"out": ready(conv, arrays)(x["x"], hypergraph)}


@case("m3net_hypergcn")
def m3net_hypergcn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x, weights = meta["config"], inputs(arrays), state(arrays)
    width: int = config["n_dim"]
    residue = config.get("use_residue", True)
    fusion = HypergraphFusion(
        dict.fromkeys("lav", width),
        3 * (2 * config["nhidden"] + residue * width),
        hidden=config["nhidden"],
        hyper_layers=config.get("num_L", 3),
        frequency_layers=config.get("num_K", 4),
        residue=residue,
        variant="official",
        edges=len(weights["hyperedge_weight"]),
        incidences=len(weights["EW_weight"]),
    )
    streams, mask = _padded(x, "lav")
    # Embeddings are the host's: they are added to what the fusion is given.
    if config.get("use_speaker", True):
        table = weights["speaker_embeddings.weight"].requires_grad_()
        streams[0] = streams[0] + table[x["qmask"].transpose(0, 1).argmax(-1)]
    if config.get("use_modal", False):
        table = weights["modal_embeddings.weight"].requires_grad_()
        streams = [s + table["avl".index(m)] for s, m in zip(streams, "lav", strict=True)]
    return {"out": ready(fusion, arrays)(streams, mask)[mask]}


@case("mmgcn_gated_attention", "mmgcn_gated_attention_bg")
def mmgcn_gated_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    background = config["att_type"] == "av_bg_fusion"
    modals = config.get("modals", "avl")
    names = [m for m in ("lav" if background else "avl") if m in modals]
    width: int = config["mem_dim"]
    hidden = config["cand_dim"]
    pairs = len(names) * (len(names) - 1) // 2
    fusion = PairwiseGated(
        dict.fromkeys(names, width),
        width + (len(names) - 1) * hidden if background else pairs * hidden,
        form="background" if background else "pairs",
        hidden=hidden,
    )
    return {"out": ready(fusion, arrays)([x[m] for m in names])}
