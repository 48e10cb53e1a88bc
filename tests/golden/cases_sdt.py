"""SDT's layers: attention, feed-forward block, encoder and gates."""

from __future__ import annotations

from typing import Any

from golden_cases import Arrays, case, inputs, ready
from torch import Tensor

from fusionzoo.transformer import Attention, DialogueTransformer, FeedForward
from fusionzoo_plugins.sdt_gate import SDTGate, UnimodalGate


@case("sdt_multihead")
def sdt_multihead(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    attention = ready(Attention(config["model_dim"], heads=config["head_count"]), arrays)
    real = ~x["mask"] if "mask" in x else None
    out, _ = attention(x["query"], x["key"], real, values=x["value"])
    return {"out": out}


@case("sdt_ffn")
def sdt_ffn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    block = FeedForward(config["d_model"], config["d_ff"], activation="gelu-tanh", eps=1e-6)
    return {"out": ready(block, arrays)(inputs(arrays)["x"])}


@case("sdt_encoder_intra", "sdt_encoder_cross")
def sdt_encoder(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    encoder = DialogueTransformer(
        config["d_model"], heads=config["heads"], hidden=config["d_ff"], layers=config["layers"]
    )
    queries, memory = (x["x"], None) if "x" in x else (x["x_b"], x["x_a"])
    out, _ = ready(encoder, arrays)(queries, memory, x["mask"] != 0, x["speaker_emb"])
    return {"out": out}


@case("sdt_unimodal_gate")
def sdt_unimodal_gate(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    gate = UnimodalGate(config["hidden_size"], learned=config.get("dataset") != "MELD")
    return {"out": ready(gate, arrays)(inputs(arrays)["a"])}


@case("sdt_multimodal_gate")
def sdt_multimodal_gate(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    width: int = meta["config"]["hidden_size"]
    fusion = ready(SDTGate(dict.fromkeys(x, width), unimodal="none"), arrays)
    return {"out": fusion(x)}
