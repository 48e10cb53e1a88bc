"""DialogueRNN, and the hosts of LMAM's repository."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from golden_cases import Arrays, _batch, _recurrence, case, inputs, ready
from torch import Tensor

from fusionzoo.batch import Batch
from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_adapters.hosts.dialogue_rnn import DialogueRNNHost
from fusionzoo_adapters.hosts.text_cnn import TextCNN
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN, dialogue_rnns


@case(
    *(f"convemo_dialoguernn_{a}_{n}listener" for a in ("simple", "general", "general2", "concat") for n in ("", "no"))
)
def convemo_dialoguernn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch, parties = _batch(inputs(arrays))
    host = DialogueRNNHost(
        {"u": config["D_m"]},
        config.get("n_classes", 7),
        parties,
        hidden=config["D_e"],
        head_width=2 * config["D_h"],
        attention=config.get("att2", True),
        variant="official",
        **_recurrence(config),
    )
    host.keep_attention = True
    out = ready(host, arrays).encode(features, batch.mask, batch)
    weights: list[Tensor] = []
    dialogue_rnns(
        [cast(DialogueRNN, host.encoders[0].rnn)],
        [features["u"]],
        Packing.of(batch),
        batch.mask,
        batch.speakers,
        parties,
        weights,
    )
    result = {"log_prob": out.logits.log_softmax(-1).transpose(0, 1)}
    if "matching" in out.attention:
        result["alpha"] = out.attention["matching"].transpose(0, 1)
    if weights:
        result["alpha_f_last"], result["alpha_b_last"] = weights[-1].unbind(0)
    return result


def _lmam_batch(x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Batch]:
    """LMAM's `r1 .. r4, audio, visual (T, B, d)`, the text views side by side."""
    text = torch.cat([x[f"r{i}"] for i in range(1, 5)], -1)
    features = {"text": text, "audio": x["audio"], "visual": x["visual"]}
    features = {m: v.transpose(0, 1) for m, v in features.items()}
    mask = x["umask"] > 0
    speakers = x["qmask"].argmax(-1).t()
    ids = [str(i) for i in range(len(mask))]
    return features, Batch(features, mask, speakers, torch.full(mask.shape, -100), ids)


_OFFICIAL = ("lmam", {"variant": "official"})


@case("lmam_host_lstm", "lmam_host_lstm_concat")
def lmam_host_lstm(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch = _lmam_batch(inputs(arrays))
    late = config["attention"] == "LMAM"
    width = arrays["state.lstm2.weight_hh_l0"].shape[1]
    host = BcLSTM(
        {m: x.shape[-1] for m, x in features.items()},
        config["n_classes"],
        2,
        fusion=_OFFICIAL if late else "concat",
        placement="late" if late else "early",
        hidden=width,
        head_width=config["D_h"],
        fusion_width=2 * width if late else None,
        text_views=4,
        variant="lmam",
    )
    out = ready(host, arrays).encode(features, batch.mask, batch)
    return {"log_prob": out.logits.log_softmax(-1).transpose(0, 1)}


@case("lmam_host_dialoguernn")
def lmam_host_dialoguernn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    features, batch = _lmam_batch(inputs(arrays))
    host = DialogueRNNHost(
        {m: x.shape[-1] for m, x in features.items()},
        config["n_classes"],
        arrays["in.qmask"].shape[-1],
        fusion=_OFFICIAL,
        hidden=config["D_e"],
        global_width=config["D_g"],
        party_width=config["D_p"],
        listener_state=config.get("listener_state", False),
        parallel_width=arrays["state.fc1.weight"].shape[0],
        text_views=4,
        variant="lmam",
    )
    out = ready(host, arrays).encode(features, batch.mask, batch)
    return {"log_prob": out.logits.log_softmax(-1).transpose(0, 1)}


@case(*(f"lmam_host_textcnn_{form}" for form in ("concat", "concat_part", "fixed", "part")))
def lmam_host_textcnn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    x = inputs(arrays)
    features, batch = _lmam_batch(x)
    late = config["attention"] == "LMAM"
    width = arrays["state.linear1.weight"].shape[0]
    host = TextCNN(
        {m: f.shape[-1] for m, f in features.items()},
        config["num_classes"],
        2,
        fusion=_OFFICIAL if late else "concat",
        hidden=width,
        head_width=arrays["state.linear4.weight"].shape[0],
        fusion_width=width if late else None,
        text_views=4,
        variant="official",
    )
    if "out.fused" in arrays:
        # Only what the classifier is given is recorded; as shipped, LMAM's does not fit it.
        shape = host.head.hidden.weight.shape
        arrays = {**arrays, "state.linear4.weight": np.zeros(shape, np.float32)}
    if not late:
        arrays = {k: v for k, v in arrays.items() if not k.startswith("state.matchatt.")}
    out = ready(host, arrays).encode(features, batch.mask, batch)
    if "out.fused" in arrays:
        return {"fused": out.streams["fused"].transpose(0, 1)}
    return {"log_prob": out.logits.log_softmax(-1).transpose(0, 1)}
