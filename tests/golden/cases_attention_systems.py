"""Golden cases of MultiEMO's MultiAttn, MemoCMT and Foal-Net."""

from __future__ import annotations

from typing import Any

from golden_cases import Arrays, case, clips, inputs, ready
from torch import Tensor

from fusionzoo_adapters.hosts.memo_cmt import MemoCMT as MemoCMTHost
from fusionzoo_plugins.foal_net import CrossLayer, JointAttention, SoftAttention
from fusionzoo_plugins.multi_attn import BidirectionalAttention, MultiAttn, MultiAttnLayer

# -- MultiEMO ----------------------------------------------------------------------------------------------------------


@case("multiemo_bidir_cross_attention", "multiemo_multihead")
def multiemo_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    attention = BidirectionalAttention(
        config["model_dim"],
        heads=config.get("num_heads", 1),
        key_width=config["K_dim"],
        value_width=config["V_dim"],
        mix="num_heads" in config,
    )
    out, _ = ready(attention, arrays)(x["query"], x["key"], x["value"])
    return {"output" if "num_heads" in config else "attention": out}


@case("multiemo_multiattn_layer")
def multiemo_layer(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    layer = MultiAttnLayer(config["model_dim"], 2, config["num_heads"], config["hidden_dim"])
    return {"output": ready(layer, arrays)(x["q"], [x["a"], x["b"]])[0]}


@case("multiemo_multiattn_model")
def multiemo_model(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    fusion = MultiAttn(
        dict.fromkeys(("text", "audio", "visual"), config["model_dim"]),
        layers=config["num_layers"],
        heads=config["num_heads"],
        hidden=config["hidden_dim"],
        width=config["model_dim"],
        variant="official",
    )
    return ready(fusion, arrays).fuse(x).streams


# -- MemoCMT -----------------------------------------------------------------------------------------------------------


@case(*(f"memocmt_fusion_{pool}" for pool in ("cls", "mean", "max", "min", "segments")))
def memocmt_fusion(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    audio = x["audio_hidden"]
    if "n_segments" in x:
        audio = audio.mean(1).unflatten(0, (-1, int(x["n_segments"])))
    host = MemoCMTHost(
        {"text": config["text_encoder_dim"], "audio": config["audio_encoder_dim"]},
        config["num_classes"],
        1,
        ("memo-cmt", {"heads": config["num_attention_head"], "fused_width": config["fusion_dim"]}),
        pool=config["fusion_head_output_type"],
        hidden=config["linear_layer_output"],
        fusion_width=config["fusion_dim"],
        variant="official",
    )
    host.keep_attention = True
    out = ready(host, arrays)(clips({"text": x["text_hidden"], "audio": audio}))
    return {
        "logits": out.logits.squeeze(1),
        "pooled": out.streams["fused"].squeeze(1),
        "text_norm": out.sequences["audio"][0],
        "audio_norm": out.sequences["text"][0],
        "text_attn": out.attention["audio<-text"],
        "audio_attn": out.attention["text<-audio"],
    }


@case("memocmt_textonly", "memocmt_audioonly")
def memocmt_unimodal(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    ((key, x),) = inputs(arrays).items()
    name = key.partition("_")[0]
    host = MemoCMTHost(
        {name: config["dim"]},
        config["num_classes"],
        1,
        pool=config["fusion_head_output_type"],
        hidden=config["linear_layer_output"],
        variant="official",
    )
    out = ready(host, arrays)(clips({name: x}))
    return {"logits": out.logits.squeeze(1), "pooled": out.streams["fused"].squeeze(1)}


# -- Foal-Net ----------------------------------------------------------------------------------------------------------


@case("foalnet_cross_attention")
def foalnet_cross_attention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    layer = CrossLayer(
        config["decode_dim"], config["encode_dim"], heads=config["n_head"], width=config["d_model"], fill=-1e4
    )
    out, _ = ready(layer, arrays)(x["q"], x["k"], x["v"], x.get("mask"))
    return {"out": out}


@case("foalnet_multihead")
def foalnet_multihead(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    attention = JointAttention(config["d_model"], heads=config["n_head"])
    return {"out": ready(attention, arrays)(x["q"], x["k"], x["v"], x.get("mask"), fill=-1e4)[0]}


@case("foalnet_softattention", "foalnet_softattention_nomask")
def foalnet_softattention(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    attention = ready(SoftAttention(meta["config"]["hidden_dim"]), arrays)
    return {"out": attention(x["inputs"], x.get("mask"))[0]}
