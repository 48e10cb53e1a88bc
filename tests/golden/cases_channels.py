"""Golden cases of CFN-SR and MSAF, through the fusions' own layers."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import Arrays, case, clips, inputs, ready
from torch import Tensor

from fusionzoo_adapters.hosts.msaf import MSAF
from fusionzoo_plugins._causal_encoder import CausalEncoder, EncoderLayer, PackedAttention, SinusoidalPositions
from fusionzoo_plugins.cfn_sr import CrossModalBlock
from fusionzoo_plugins.msaf import MSAFBlock


@case("cfnsr_crossmodal", "cfnsr_crossmodal_nores")
def cfnsr_crossmodal(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    block = CrossModalBlock(
        config["x_channels"],
        width=config["k"],
        heads=config.get("heads", 8),
        layers=config.get("layers", 5),
        spatial=config.get("spatial", True),
        residual=not meta["name"].endswith("nores"),
        variant="official",
    )
    out, _ = ready(block, arrays)(x["x"], x["y"])
    return {"x_out": out, "y_out": x["y"] * 1}


@case("cfnsr_mha")
def cfnsr_mha(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    q, k, v = (x[n].transpose(0, 1) for n in ("q", "k", "v"))
    attention = PackedAttention(
        config["embed_dim"],
        config["num_heads"],
        bias=config.get("bias", True),
        bias_kv=config.get("add_bias_kv", False),
        zero_attn=config.get("add_zero_attn", False),
    )
    steps, keys = q.shape[1], k.shape[1]
    mask = torch.ones(1, steps, keys, dtype=torch.bool).tril(abs(keys - steps)) if config.get("future_mask") else None
    attn, weights = ready(attention, arrays)(q, k, v, mask, need_weights=True)
    return {"attn": attn.transpose(0, 1), "weights": weights}


@case("cfnsr_positions")
def cfnsr_positions(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    positions = SinusoidalPositions(
        config["embedding_dim"], config.get("padding_idx", 0), bool(config.get("left_pad", 0))
    )
    return {"emb": ready(positions, arrays)(inputs(arrays)["x"])}


def _time_first(module: Any, arrays: Arrays) -> dict[str, Tensor]:
    """Of a query alone, or with what it reads, in the order of the file."""
    streams = [x.transpose(0, 1) for x in inputs(arrays).values()]
    return {"out": ready(module, arrays)(*streams).transpose(0, 1)}


@case("cfnsr_encoder_layer")
def cfnsr_encoder_layer(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    layer = EncoderLayer(config["embed_dim"], config.get("num_heads", 4), causal=config.get("attn_mask", False))
    return _time_first(layer, arrays)


@case("cfnsr_transformer_encoder")
def cfnsr_transformer_encoder(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    encoder = CausalEncoder(
        config["embed_dim"],
        config["num_heads"],
        config["layers"],
        causal=config.get("attn_mask", False),
        zero_is_padding=True,
    )
    return _time_first(encoder, arrays)


@case("msaf_1d", "msaf_2d", "msaf_3d", "msaf_train")
def msaf(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    options = ("block_dropout", "lowest_atten", "reduction_factor", "split_block")
    given = {k: config[k] for k in options if k in config}
    block = ready(MSAFBlock(config["in_channels"], config["block_channel"], **given, variant="official"), arrays)
    block.train(meta.get("mode", "eval").startswith("train"))
    return {f"y{i}": y for i, y in enumerate(block([x[f"x{i}"] for i in range(len(x))]))}


@case("msaf_mosei_lstm")
def msaf_lstm(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    options = {
        "block": config["block_channel"],
        "segments": config["split_block"],
        "reduction": config["reduction_factor"],
    }
    names = ("visual", "audio", "text")
    host = MSAF(
        dict(zip(names, config["input_dims"], strict=True)),
        1,
        1,
        ("msaf", options),
        channels=dict(zip(names, config["channels"], strict=True)),
        variant="official",
    )
    return {"out": ready(host, arrays)(clips(x)).logits.squeeze(1)}
