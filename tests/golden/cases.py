"""How every golden case is computed here: `CASES` maps a case's name to a function of its recorded values.

A function takes the case's `meta` and arrays (`in.*` and `state.*`, packed states already unpacked), builds our module
from `meta["config"]`, loads the official weights, runs on the inputs in eval mode and float32, and returns the outputs
under their official names and in their official layout, attached to the autograd graph. Inputs are leaf tensors with
the golden shape; permutations happen inside the graph.

Nothing here depends on the sizes or options of the recorded files: any value of an option that the official constructor
takes works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo.batch import Batch, Clip
from fusionzoo.kernels.packing import Packing
from fusionzoo.layers import MatchingAttention, SimpleAttention
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_adapters.hosts.dialogue_gcn import DialogueGCN
from fusionzoo_adapters.hosts.official.conv_emotion import ConvEmotionHost
from fusionzoo_adapters.hosts.official.slot_edges import GRAPH_NAMES, SlotEdgeAttention, modern_names
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNNCell, Start, steps
from fusionzoo_adapters.parts.relational_convolution import WeightedRGCNConv
from fusionzoo_adapters.parts.relational_graph import GraphNetwork
from fusionzoo_adapters.parts.window_graph import window_mask

Arrays = Mapping[str, np.ndarray]
Case = Callable[[dict[str, Any], Arrays], dict[str, Tensor]]
CASES: dict[str, Case] = {}


def case(*names: str) -> Callable[[Case], Case]:
    """Register a function for these golden files."""

    def register(function: Case) -> Case:
        CASES.update(dict.fromkeys(names, function))
        return function

    return register


def inputs(arrays: Arrays) -> dict[str, Tensor]:
    """The `in.*` arrays as tensors; the float ones are leaves that want a gradient."""
    out = {}
    for key, value in arrays.items():
        if key.startswith("in."):
            tensor = torch.from_numpy(np.array(value))
            if tensor.is_floating_point():
                tensor = tensor.to(torch.get_default_dtype()).requires_grad_(
                    f"grad.{key[3:]}" in arrays or not _has_gradients(arrays)
                )
            out[key[3:]] = tensor
    return out


def _has_gradients(arrays: Arrays) -> bool:
    return any(k.startswith("grad.") and not k.startswith("grad.state.") for k in arrays)


def state(arrays: Arrays) -> dict[str, Tensor]:
    """The `state.*` arrays as tensors (integers stay integers), under the official names."""
    out = {k[6:]: torch.from_numpy(np.array(v)) for k, v in arrays.items() if k.startswith("state.")}
    return {k: v.to(torch.get_default_dtype()) if v.is_floating_point() else v for k, v in out.items()}


#: Where it is a list, the first module that is made ready is kept in it, and given again to all cases after.
kept: list[Any] | None = None


def ready(module: Any, arrays: Arrays) -> Any:
    """The module with the official weights, in eval mode."""
    if kept:
        return kept[0]
    module.load_reference(state(arrays))
    if kept is not None:
        kept.append(module)
    return module.eval()


def clips(
    values: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None, labels: Tensor | None = None
) -> Batch:
    """A batch of one-utterance dialogues from frames `(B, S, d)`."""
    size = (len(next(iter(values.values()))), 1)
    zeros = torch.zeros(size, dtype=torch.long)
    found = {m: Clip(x, None if masks is None else masks[m].bool()) for m, x in values.items()}
    ids = [str(i) for i in range(size[0])]
    labels = zeros if labels is None else labels.view(size)
    return Batch({}, zeros == 0, zeros, labels, ids, None, [1] * size[0], found)


# -- attention ---------------------------------------------------------------------------------------------------------


def _match(attention: MatchingAttention, arrays: Arrays, use_mask: bool = True) -> dict[str, Tensor]:
    x = inputs(arrays)
    mask = x["mask"].bool() if use_mask and "mask" in x else None
    pooled, alpha = attention(x["M"].transpose(0, 1), x["x"].unsqueeze(1), mask)
    return {"pooled": pooled.squeeze(1), "alpha": alpha}


def _matching(config: dict[str, Any], tanh: bool) -> MatchingAttention:
    form = config.get("att_type", "general")
    return MatchingAttention(
        config["mem_dim"], config["cand_dim"], form, config.get("alpha_dim"), tanh=tanh and form == "general2"
    )


@case("lmam_matching", "lmam_matching_separate")
def lmam_matching(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    names = [m for m in x if m not in ("mask", "emotions")]
    queries = [x[m].transpose(0, 1) for m in names]
    memory = x["emotions"].transpose(0, 1) if "emotions" in x else queries[0]
    rank: int = meta["config"]["rank"]
    fusion = ready(fusionzoo.get("lmam")(dict.fromkeys(names, rank), variant="official"), arrays)
    hidden, _, _ = fusion.match(memory, queries, x["mask"].bool() if "mask" in x else None)
    return {"hidden": hidden.transpose(0, 1)}


@case("lmam_attention", "lmam_attention_b")
def lmam_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    scores = {"scaled_dot_product": "scaled-dot", "dot_product": "dot", "mlp": "additive", "bi_linear": "bilinear"}
    fusion = fusionzoo.get("self-attention")(
        [config["embed_dim"]] * 2,
        config.get("out_dim"),
        heads=config.get("n_head", 4),
        hidden=config.get("hidden_dim") or config["embed_dim"] // config.get("n_head", 4),
        score=scores[config.get("score_function", "scaled_dot_product")],
        variant="official",
    )
    k, q = (x[n].unsqueeze(1) if x[n].dim() == 2 else x[n] for n in ("k", "q"))
    output, score = ready(fusion, arrays).attention(k, q)
    return {"output": output, "score": score}


@case("lmam_matching_attention", "lmam_matching_attention_nomask")
def lmam_matching_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    attention = MatchingAttention(config["rank"], config["cand_dim"], "general2", tanh=True)
    return _match(ready(attention, arrays), arrays)


@case("convemo_matching_dot", "convemo_matching_general", "convemo_matching_general2", "convemo_matching_concat")
def convemo_matching(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    # Only general2 looks at its mask upstream.
    attention = ready(_matching(meta["config"], tanh=False), arrays)
    return _match(attention, arrays, use_mask=attention.form == "general2")


@case("dialoguegcn_matching_general2")
def dialoguegcn_matching(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    attention = ready(_matching(meta["config"], tanh=True), arrays)
    return _match(attention, arrays, use_mask=attention.form == "general2")


@case("convemo_simple_attention")
def convemo_simple_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    attention = ready(SimpleAttention(meta["config"]["input_dim"]), arrays)
    pooled, alpha = attention(inputs(arrays)["M"].transpose(0, 1))
    return {"pooled": pooled, "alpha": alpha.unsqueeze(1)}


# -- sequential hosts --------------------------------------------------------------------------------------------------


def _batch(x: Mapping[str, Tensor], parties: int | None = None) -> tuple[dict[str, Tensor | None], Batch, int]:
    """The official `U (T, B, D)`, `qmask (T, B, P)`, `umask (B, T)` and `lengths (B,)` as ours: features, batch, P."""
    features = x["U"].transpose(0, 1)
    size = features.shape[:2]
    lengths = x["lengths"].tolist() if "lengths" in x else None
    if "umask" in x:
        mask = x["umask"] > 0
    elif lengths is not None:
        mask = torch.arange(size[1]) < torch.tensor(lengths).unsqueeze(1)
    else:
        mask = torch.ones(size, dtype=torch.bool)
    speakers = x["qmask"].argmax(-1).t() if "qmask" in x else torch.zeros(size, dtype=torch.long)
    count = parties or (x["qmask"].shape[-1] if "qmask" in x else 1)
    ids = [str(i) for i in range(size[0])]
    batch = Batch({"u": features}, mask, speakers, torch.full(size, -100), ids, None, lengths)
    return {"u": features}, batch, count


@case("convemo_bclstm_att", "convemo_bclstm_noatt")
def convemo_bclstm(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch, parties = _batch(inputs(arrays))
    host = BcLSTM(
        {"u": config["D_m"]},
        config.get("n_classes", 7),
        parties,
        hidden=config["D_e"],
        head_width=config["D_h"],
        attention=config.get("attention", False),
        variant="official",
    )
    host.keep_attention = True
    # encode, not forward: the reference also returns what it computes at padded steps.
    out = ready(host, arrays).encode(features, batch.mask, batch)
    result = {"log_prob": out.logits.log_softmax(-1).transpose(0, 1)}
    if "matching" in out.attention:
        result["alpha"] = out.attention["matching"].transpose(0, 1)
    return result


@case("convemo_dialoguernn_cell")
def convemo_dialoguernn_cell(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    x = inputs(arrays)
    cell: DialogueRNNCell = ready(
        DialogueRNNCell(
            config["D_m"],
            config["D_g"],
            config["D_p"],
            config["D_e"],
            listener_state=config.get("listener_state", False),
            context_attention=config.get("context_attention", "simple"),
            attention_width=config.get("D_a", 100),
        ),
        arrays,
    )
    batch, history, parties, emotion = x["U"].shape[0], x["g_hist"], x["q0"], x["e0"]
    start = Start(
        history.transpose(0, 1)[None] if history.numel() else parties.new_zeros(1, batch, 0, config["D_g"]),
        parties[None],
        emotion[None] if emotion.numel() else parties.new_zeros(1, batch, config["D_e"]),
    )
    speaker, active = x["qmask"].argmax(1), x["qmask"].amax(1) > 0
    packing = Packing([1] * batch, 1, speaker.device)
    utterances = [x["U"].unsqueeze(1)]
    after = steps([cell], utterances, speaker[None, :, None], parties.shape[1], packing, active[None, :, None], start)
    assert after.parties is not None
    out = {"g": after.state[0, :, 0], "q": after.parties[0], "e": after.emotion[0, :, 0]}
    return {**out, "alpha": after.weights[0]} if history.numel() else out


# -- DialogueGCN -------------------------------------------------------------------------------------------------------

_BASES = {"LSTM": "lstm", "GRU": "gru", "DialogRNN": "dialogue-rnn", "None": "none"}


def _recurrence(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "global_width": config.get("D_g", 100),
        "party_width": config.get("D_p", 100),
        "listener_state": config.get("listener_state", False),
        "context_attention": config.get("context_attention", "simple"),
        "attention_width": config.get("D_a") or 100,
    }


def _dialoguegcn_base(base: str) -> Case:
    def run(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
        config = meta["config"]
        features, batch, parties = _batch(inputs(arrays))
        host = DialogueGCN(
            {"u": config["D_m"]},
            config.get("n_classes", 7),
            parties,
            base=base,
            hidden=config["D_e"],
            graph=False,
            nodal_attention=config.get("att2", True),
            head_width=config["D_h"],
            variant="official",
            **_recurrence(config),
        )
        out = ready(host, arrays).encode(features, batch.mask, batch)
        return {
            "log_prob": out.logits.log_softmax(-1).transpose(0, 1),
            "emotions": out.streams["context"].transpose(0, 1),
        }

    return run


CASES["dialoguegcn_base_lstmmodel"] = _dialoguegcn_base("lstm")
CASES["dialoguegcn_base_grumodel"] = _dialoguegcn_base("gru")
CASES["dialoguegcn_base_dialogrnnmodel"] = _dialoguegcn_base("dialogue-rnn")


@case(*(f"dialoguegcn_full_{b}_{v}" for b in ("lstm", "gru", "none", "dialogrnn") for v in ("pyg13", "pyg2")))
def dialoguegcn_full(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch, parties = _batch(inputs(arrays), config["n_speakers"])
    host = fusionzoo.get("dialogue-gcn", "host")(
        {"u": config["D_m"]},
        config.get("n_classes", 7),
        parties,
        base=_BASES[str(config["base_model"])],
        hidden=config["D_e"],
        graph_width=config["graph_hidden_size"],
        window_past=config["window_past"],
        window_future=config["window_future"],
        nodal_attention=config.get("nodal_attention", True),
        max_seq_len=config["max_seq_len"],
        edge_norm=_weighted(arrays),
        variant="official",
        **_recurrence(config),
    )
    out = ready(host, arrays).encode(features, batch.mask, batch)
    logits = Packing.of(batch).pack(out.logits)
    return {"log_prob": logits if config.get("avec", False) else logits.log_softmax(-1)}


def _weighted(arrays: Arrays, prefix: str = "graph_net.conv1.") -> bool:
    """Whether the state is that of torch-geometric 1.3, whose convolution weighed the edges."""
    return f"state.{prefix}basis" in arrays


@case("dialoguegcn_graphnet_pyg13", "dialoguegcn_graphnet_pyg2")
def dialoguegcn_graphnet(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    x = inputs(arrays)
    network = GraphNetwork(
        config["num_features"],
        config.get("hidden_size", 64),
        config["num_classes"],
        config["num_relations"],
        bases=config.get("num_bases", 30),
        nodal_attention=config.get("nodal_attn", True),
        rectify=False,
        matching=ConvEmotionHost.matching,
    ).eval()
    names = {k: v for k, v in GRAPH_NAMES.items() if getattr(network, v.partition(".")[0]) is not None}
    parts = {theirs: network.get_submodule(ours) for theirs, ours in names.items()}
    copy_reference_parts(parts, modern_names(state(arrays)), tuple(GRAPH_NAMES))
    lengths = x["lengths"].tolist()
    layout = Packing(lengths, max(lengths), torch.device("cpu"))
    mask = torch.arange(layout.steps) < x["lengths"].unsqueeze(1)
    weight = x["edge_norm"] if _weighted(arrays, "conv1.") else None
    logits, _ = network(x["x"], x["edge_index"], x["edge_type"], weight, layout, mask)
    logits = layout.pack(logits)
    return {"log_prob": logits if config.get("avec", False) else logits.log_softmax(-1)}


@case("dialoguegcn_rgcn_pyg13", "dialoguegcn_rgcn_pyg2")
def dialoguegcn_rgcn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    x = inputs(arrays)
    conv = WeightedRGCNConv(
        config["in_channels"], config["out_channels"], config["num_relations"], config.get("num_bases", 30)
    )
    weight = x["edge_norm"] if _weighted(arrays, "") else None
    return {"out": ready(conv, arrays)(x["x"], x["edge_index"], x["edge_type"], weight)}


@case("dialoguegcn_edge_attention")
def dialoguegcn_edge_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    x = inputs(arrays)
    memory = x["M"].transpose(0, 1)
    mask = torch.arange(memory.shape[1]) < x["lengths"].unsqueeze(1)
    past, future = (None if config[k] == -1 else config[k] for k in ("window_past", "window_future"))
    attention: nn.Module = ready(SlotEdgeAttention(config["input_dim"], config["max_seq_len"]), arrays)
    return {"scores": attention(memory, window_mask(memory.shape[1], past, future, mask))}
