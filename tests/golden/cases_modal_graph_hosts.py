"""MMGCN and MM-DFN: their graphs and their whole models, with every graph type and way of joining that runs upstream."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import Arrays, _recurrence, case, inputs, ready, state
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusionzoo.batch import Batch
from fusionzoo.kernels.packing import Packing
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.hosts.mm_dfn import MMDFN
from fusionzoo_adapters.hosts.mmgcn import MMGCN
from fusionzoo_adapters.hosts.official.modal_graph import MODAL_UNUSED, modal_names, modern_lstm
from fusionzoo_adapters.parts.modality_graph import ModalGCN

#: The official order of modalities, and which input each one is.
INPUTS = {"a": "U_a", "v": "U_v", "l": "U"}
GRAPHS = {"MMGCN": "modal", "GDF": "modal", "DeepGCN": "deep", "relation": "relation", "None": "none"}


@case("mmgcn_mm_gcn", "mmdfn_mm_gcn")
def mm_gcn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    names = [m for m in "avl" if m in config["modals"]]
    lengths = [int(n) for n in x["dia_len"]]
    streams = [pad_sequence(list(x[m].split(lengths)), batch_first=True) for m in names]
    layout = Packing(lengths, max(lengths), torch.device("cpu"))
    mask = torch.arange(max(lengths)) < x["dia_len"].unsqueeze(1)
    speakers = config.get("use_speaker", True) and "l" in names
    graph = ModalGCN(
        config["n_dim"],
        {
            "width": config["nhidden"],
            "layers": config["nlayers"],
            "lam": config["lamda"],
            "alpha": config["alpha"],
            "variant": config["variant"],
            "residue": config["use_residue"],
            "dynamic": config.get("reason_flag", False),
        },
        config.get("modal_weight", 1.0),
        speakers=config.get("n_speakers", 2) if speakers else 0,
        targets=[names.index("l")] if speakers else (),
        rows=["avl".index(m) for m in names] if config.get("use_modal", False) else None,
        table=3,
    )
    who = x["qmask"].argmax(-1).t()[:, : max(lengths)]
    parts = {theirs: graph.get_submodule(ours) for theirs, ours in modal_names(graph).items()}
    copy_reference_parts(parts, modern_lstm(state(arrays)), MODAL_UNUSED)
    out = graph.eval()(streams, [mask] * len(names), layout, who)
    return {"features": layout.pack(torch.cat(out, -1))}


def _inputs(x: dict[str, Tensor], names: list[str]) -> tuple[dict[str, Tensor | None], Batch]:
    features: dict[str, Tensor | None] = {m: x[INPUTS[m]].transpose(0, 1) for m in names}
    lengths = [int(n) for n in x["lengths"]]
    mask = torch.arange(x["U"].shape[0]) < torch.tensor(lengths).unsqueeze(1)
    ids = [str(i) for i in range(len(lengths))]
    speakers = x["qmask"].argmax(-1).t()
    return features, Batch({}, mask, speakers, torch.full(mask.shape, -100), ids, None, lengths)


def _fusion(config: dict[str, Any], arrays: Arrays, graph: str, count: int) -> Any:
    """The official `att_type` as a fusion."""
    join, shapes = config["att_type"], {k[6:]: v.shape for k, v in arrays.items() if k.startswith("state.")}
    if join in ("mfn", "mfn_only"):
        hidden = shapes["mfn.lstm_l.weight_hh"][1]
        sizes = dict.fromkeys(("hidden", "memory", "attention", "update", "retain", "write"), hidden)
        return "mfn", {"out_dim": 4 * hidden, **sizes}
    if graph == "modal":
        return "concat"
    if join == "gated":
        hidden = config["graph_hidden_size"]
        return "pairwise-gated", {"hidden": hidden, "out_dim": count * (count - 1) // 2 * hidden}
    if join == "tfn_only":
        width, post = shapes["tfn.audio_subnet.weight"][0], shapes["tfn.post_fusion_layer_1.weight"][0]
        out = shapes["tfn.post_fusion_layer_2.weight"][0]
        return "tfn", {"width": width, "hidden": (post,), "rectify": True, "out_dim": out}
    if join == "lmf_only":
        rank, _, out = shapes["lmf.audio_factor"]
        return "lmf", {"width": shapes["lmf.audio_subnet.weight"][0], "rank": rank, "out_dim": out}
    return "concat"


def _host(cls: Any, joins: tuple[str, ...], meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    graph = GRAPHS[str(config["graph_type"])]
    several = config["att_type"] in joins and config.get("multi_modal", True)
    # A single stream: the trainer has concatenated the features already.
    names = [m for m in "avl" if m in config["modals"]] if several else ["l"]
    features, batch = _inputs(x, names)
    base = {"LSTM": None, "GRU": "gru", "DialogRNN": "dialogue-rnn", "None": "none"}[str(config["base_model"])]
    linear = "state.linear_.weight"
    options: dict[str, Any] = {
        "graph": graph,
        "hidden": config["D_e"],
        "graph_width": config["graph_hidden_size"],
        "residue": config.get("use_residue", True),
        "window_past": config["window_past"],
        "window_future": config["window_future"],
        "max_seq_len": config["max_seq_len"],
        "nodal_attention": config.get("nodal_attention", True),
        "variant": "official",
    }
    convs = "graph_model.graph_net.convs." if graph == "modal" else "convs."
    numbers = [int(k.split(".")[-2]) for k in arrays if k.startswith("state.") and convs in k]
    options["depth"] = 1 + max(numbers, default=0)
    if not several:
        options["input_width"] = arrays[linear].shape[0] if linear in arrays else 0
        options |= {"base": base, "base_options": _recurrence(config)}
    else:
        recurrent = "l" in names and base != "none"
        options["context"] = "none" if base == "none" else "all" if config["av_using_lstm"] else "anchor"
        options["anchor"] = "l" if "l" in names else names[0]
        if not recurrent and options["context"] == "anchor":
            options["context"] = "none"
        options["speaker_embedding"] = "l" in names and config.get("use_speaker", True)
        options["modal_embedding"] = config.get("use_modal", False)
    weights, parties = [0.0] * 3, False
    if cls is MMDFN:
        weights = [float(w) for w in config.get("speaker_weights", "1-1-1").split("-")]
        parties = config.get("use_crn_speaker", False) and base is None
        options["speaker_weights"] = [weights["avl".index(m)] if parties else 0.0 for m in names]
        options["dynamic"] = config.get("reason_flag", False)
        options["across"] = config.get("modal_weight", 1.0)
        if graph == "modal" or not several:
            options |= {"alpha": config.get("alpha", 0.1), "lam": config.get("lamda", 0.5)}
        else:
            options |= {"alpha": 0.1, "lam": 0.5}
    if several and graph != "modal" and config["att_type"].startswith("mfn"):
        # Text first; after the modal graph, the order of its nodes.
        names = [m for m in "lav" if m in names]
        features = {m: features[m] for m in names}
        if cls is MMDFN:
            options["speaker_weights"] = [weights["avl".index(m)] if parties else 0.0 for m in names]
    fusion = _fusion(config, arrays, graph, len(names)) if several else "concat"
    widths = {m: f.shape[-1] for m, f in features.items() if f is not None}
    host = cls(widths, config["n_classes"], config["n_speakers"], fusion=fusion, **options)
    # encode, not forward: upstream the recurrences read what stands at padded steps.
    out = ready(host, arrays).encode(features, batch.mask, batch)
    logits = Packing.of(batch).pack(out.logits)
    raw = not several and graph == "relation" and config.get("avec", False)
    return {"log_prob": logits if raw else logits.log_softmax(-1)}


@case(
    "mmgcn_full",
    "mmgcn_full_2mod",
    "mmgcn_full_lstm3",
    *(f"mmgcn_x_{g}_{j}" for g in ("deepgcn", "none", "relation") for j in ("concat", "concat_subsequently", "gated")),
)
def mmgcn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    return _host(MMGCN, ("gated", "concat_subsequently"), meta, arrays)


@case("mmdfn_full", *(f"mmdfn_x_none_{j}" for j in ("concat_only", "gated", "lmf_only", "tfn_only")))
def mmdfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    joins = ("gated", "concat_subsequently", "mfn", "mfn_only", "tfn_only", "lmf_only", "concat_only")
    return _host(MMDFN, joins, meta, arrays)
