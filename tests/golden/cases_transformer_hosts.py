"""SDT and MultiEMO."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import Arrays, _batch, case, inputs, ready
from torch import Tensor

from fusionzoo.batch import Batch
from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.hosts.multiemo import MultiEMO
from fusionzoo_adapters.hosts.official.multiemo import OfficialContext
from fusionzoo_adapters.hosts.sdt import SDT


@case("multiemo_bimodel", "multiemo_bimodel_meld")
def multiemo_bimodel(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch, parties = _batch(inputs(arrays))
    both = config.get("dataset", "MELD") == "IEMOCAP"
    encoder = OfficialContext(
        config["D_m"],
        config.get("D_h", 100) if both else config["D_e"],
        config["D_e"],
        directions=2 if both else 1,
        **_recurrence(config),
    )
    out = ready(encoder, arrays)(features["u"], Packing.of(batch), batch.mask, batch.speakers, parties)
    return {"embeddings": out.transpose(0, 1)}


def _recurrence(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "global_width": config["D_g"],
        "party_width": config["D_p"],
        "listener_state": config.get("listener_state", False),
        "context_attention": config.get("context_attention", "simple"),
        "attention_width": config.get("D_a") or 100,
    }


@case("multiemo_full_iemocap", "multiemo_full_meld")
def multiemo_full(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    features = {m: x[f"{m}s"].transpose(0, 1) for m in ("text", "audio", "visual")}
    mask = x["utterance_masks"] > 0
    speakers = x["speaker_masks"].argmax(-1).t()
    ids = [str(i) for i in range(len(mask))]
    batch = Batch(features, mask, speakers, x["padded_labels"].view(mask.shape), ids)
    meld = config["dataset"] == "MELD"
    attention = {"layers": config["num_layers"], "heads": config["num_heads"], "hidden": config["hidden_dim"]}
    host = MultiEMO(
        {m: f.shape[-1] for m, f in features.items()},
        config["n_classes"],
        x["speaker_masks"].shape[-1],
        fusion=("multi-attn", attention) if config.get("multi_attn_flag", True) is True else "concat",
        width=config["model_dim"],
        hidden=config["D_e"],
        directions=1 if meld else 2,
        anchor_context=not meld,
        head_width=(2 if meld else 1) * config["model_dim"],
        variant="official",
        **_recurrence(config),
    )
    # encode, not forward: upstream, padded utterances are part of what the attention reads.
    out = ready(host, arrays).encode(features, mask, batch)
    real = batch.labels != -1
    result = {f"fused_{m}": out.streams[m] for m in features} | {"fc": out.streams["fused"], "logits": out.logits}
    return {name: value[real] for name, value in result.items()}


@case("sdt_full")
def sdt_full(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    features = {m: x[m].transpose(0, 1) for m in ("text", "audio", "visual")}
    mask = x["u_mask"] > 0
    ids = [str(i) for i in range(len(mask))]
    batch = Batch(features, mask, x["qmask"].argmax(-1), torch.full(mask.shape, -100), ids)
    host = SDT(
        {m: f.shape[-1] for m, f in features.items()},
        config["n_classes"],
        config["n_speakers"],
        width=config["hidden_dim"],
        heads=config["n_head"],
        gate="identity" if config["dataset"] == "MELD" else "learned",
        variant="official",
    )
    # encode, not forward: the reference also returns what it computes at padded steps.
    out = ready(host, arrays).encode(features, mask, batch)
    logits = {m[0]: out.streams[f"{m}.logits"] for m in features} | {"all": out.logits}
    result = {f"{m}_log_prob": y.log_softmax(-1) for m, y in logits.items()} | {"all_prob": out.logits.softmax(-1)}
    for m, y in logits.items():
        scaled = y / config["temp"]
        result[f"kl_{m}"] = scaled.softmax(-1) if m == "all" else scaled.log_softmax(-1)
    return result
