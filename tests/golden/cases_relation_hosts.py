"""COGMEN, CORECT and M3NET, whole."""

from __future__ import annotations

from typing import Any

import torch
from golden_cases import Arrays, case, inputs, ready
from torch import Tensor

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.host import Host
from fusionzoo_adapters.hosts.cogmen import Cogmen
from fusionzoo_adapters.hosts.corect import Corect


@case("cogmen_full")
def cogmen(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    batch = _batch(inputs(arrays), ("audio", "text", "visual"))
    host = Cogmen(
        _dims(batch),
        config["classes"],
        2,
        placement="early",
        hidden=config["hidden_size"],
        layers=config["seqcontext_nlayer"],
        window_past=config["wp"],
        window_future=config["wf"],
        heads=config["gnn_nheads"],
        variant="official",
    )
    return _log_probabilities(ready(host, arrays), batch)


@case("corect_full")
def corect(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    batch = _batch(inputs(arrays), ("text", "audio", "visual"))
    host = Corect(
        _dims(batch),
        config["classes"],
        2,
        hidden=config["hidden_size"],
        layers=config["encoder_nlayers"],
        window_past=config["wp"],
        window_future=config["wf"],
        heads=config["graph_transformer_nheads"],
        crossmodal_layers=config["num_crossmodal"],
        memory_layers=config["num_self_att"],
        variant="official",
    )
    return _log_probabilities(ready(host, arrays), batch)


@case("m3net_full")
def m3net(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    batch = _batch(inputs(arrays), ("text", "audio", "visual"))
    host = fusionzoo.get("m3net", "host")(
        _dims(batch),
        config["classes"],
        2,
        hidden=config["D_g"],
        graph_width=config["graph_hidden_size"],
        hyper_layers=config["num_L"],
        frequency_layers=config["num_K"],
        modal_embedding=config["use_modal"],
        text_views=4,
        views_norm="batch",
        max_edges=config["tables"],
        max_nodes=config["tables"],
        variant="official",
    )
    return _log_probabilities(ready(host, arrays), batch)


def _dims(batch: Batch) -> dict[str, int]:
    return {m: x.shape[-1] for m, x in batch.features.items() if x is not None}


def _batch(x: dict[str, Tensor], names: tuple[str, ...]) -> Batch:
    mask = x["lengths"].unsqueeze(1) > torch.arange(x["speakers"].shape[1])
    ids = [str(i) for i in range(len(mask))]
    # One padded step stands in for all of a dialogue, whose gradients it takes: none is asked for.
    features = {m: x[m] * mask.unsqueeze(-1) for m in names}
    return Batch(features, mask, x["speakers"], torch.full(mask.shape, -100), ids)


def _log_probabilities(host: Host, batch: Batch) -> dict[str, Tensor]:
    features: dict[str, Tensor | None] = {m: batch.features[m] for m in host.names}
    logits = host.encode(features, batch.mask, batch).logits
    return {"log_prob": logits.log_softmax(-1)[batch.mask]}
