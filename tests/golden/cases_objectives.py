"""Golden cases of the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from golden_cases import Arrays, case, clips, inputs, ready
from torch import Tensor

from fusionzoo.batch import Batch
from fusionzoo.host import HostOutput
from fusionzoo_adapters.hosts.foal_net import FoalNet as FoalNetHost
from fusionzoo_plugins.avel import Projection
from fusionzoo_plugins.focal import Focal
from fusionzoo_plugins.mem import MEM
from fusionzoo_plugins.self_distillation import masked_kl, masked_nll
from fusionzoo_plugins.soft_hgr import SoftHGR
from fusionzoo_plugins.swfc import SWFC


def _given(streams: dict[str, Tensor], labels: Tensor) -> tuple[HostOutput, Batch]:
    """Streams `(N, d)` and labels `(N,)` as one dialogue of N utterances."""
    mask = torch.ones(1, len(labels), dtype=torch.bool)
    batch = Batch({m: x.detach().unsqueeze(0) for m, x in streams.items()}, mask, mask.long(), labels[None], ["0"])
    return HostOutput(torch.zeros(1, len(labels), 2), {m: x.unsqueeze(0) for m, x in streams.items()}), batch


@case("mmdfn_focal")
def mmdfn_focal(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    alpha = config.get("alpha")
    if isinstance(alpha, (int, float)):
        alpha = [alpha, 1 - alpha]
    classes = x["log_prob"].shape[1]
    if isinstance(alpha, Sequence):
        alpha = [*alpha, *[0.0] * (classes - len(alpha))]
    # Upstream takes log-probabilities (N, C, ...); any further axes are more samples.
    log_p = x["log_prob"].flatten(2).transpose(1, 2).flatten(0, 1) if x["log_prob"].dim() > 2 else x["log_prob"]
    objective = Focal(classes, gamma=config.get("gamma", 0), class_weights=alpha, variant="official")
    loss = objective.loss(log_p, x["target"].flatten())
    return {"loss": loss if config.get("size_average", True) else loss * x["target"].numel()}


@case("multiemo_swfc")
def multiemo_swfc(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    objective = SWFC(
        len(x["class_counts"]),
        x["class_counts"].detach(),
        temperature=config["temp_param"],
        focus=config["focus_param"],
        weighting=config["sample_weight_param"],
    )
    return {"loss": objective(*_given({"fused": x["features"]}, x["labels"]))}


@case("multiemo_softhgr")
def multiemo_softhgr(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    streams = inputs(arrays)
    labels = torch.zeros(len(streams["f_t"]), dtype=torch.long)
    return {"loss": SoftHGR(2, mode="official")(*_given(streams, labels))}


@case("foalnet_multitask")
def foalnet_multitask(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    host = FoalNetHost(
        {"audio": config["d_audio"], "visual": config["d_video"]},
        config["n_classes"],
        1,
        ("foal-net", {"layers": config["n_layers"], "heads": config["n_head"]}),
        variant="official",
    )
    matching = MEM(config["n_classes"], alignment=1.0, width=config["d_proj"], variant="official")
    matching.bind(host)
    ready(host, arrays)
    ready(matching, arrays)
    masks = {"audio": x["audio_mask"].bool(), "visual": x["video_mask"].bool()}
    labels = x["labels"].flatten()
    batch = clips({"audio": x["audio_hidden"], "visual": x["video"]}, masks, labels)
    out = host(batch)

    negatives = {"audio": x["neg_video_for_audio"], "visual": x["neg_audio_for_video"]}
    means = {m: out.streams[f"{m}.input"].squeeze(1) for m in masks}
    losses, pairs, sampling = [], {}, {}
    for m, n, name in (("audio", "visual", "a2v"), ("visual", "audio", "v2a")):
        one, other = (out.sequences[f"{k}.input"][0] for k in (m, n))
        losses.append(matching.match(m, n, one, other, labels, negatives[m], masks[m], masks[n]))
        right = host.fusion.pooled(m, n, one, other, masks[m], masks[n])
        wrong = host.fusion.pooled(m, n, one, other[negatives[m]], masks[m], masks[n][negatives[m]])
        pairs[m] = torch.cat((right, wrong))
        same = labels.unsqueeze(1) == labels
        sampling[name] = matching.similarity(m, n, means[m], means[n]).masked_fill(same, -1e4).softmax(1)
    assert matching.avel is not None
    return {
        "logits": out.logits.squeeze(1),
        "loss_avel": matching.avel(out, batch),
        "loss_mem": (losses[0] + losses[1]) / 2,
        "pair_audio": pairs["audio"],
        "pair_video": pairs["visual"],
        "cls_embedding": out.streams["fused"].squeeze(1),
        "neg_weights_a2v": sampling["a2v"],
        "neg_weights_v2a": sampling["v2a"],
    }


@case("foalnet_projection")
def foalnet_projection(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    projection = Projection(config["d_in"], config["d_out"], config.get("p", 0.5))
    return {"out": ready(projection, arrays)(inputs(arrays)["x"])}


@case("sdt_masked_kl")
def sdt_masked_kl(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    return {"loss": masked_kl(x["log_pred"], x["target"], x["mask"])}


@case("sdt_masked_nll")
def sdt_masked_nll(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)
    weight = x.get("weight")
    if weight is None and isinstance(meta["config"].get("weight"), list):
        weight = torch.tensor(meta["config"]["weight"])
    return {"loss": masked_nll(x["log_pred"], x["target"], x["mask"], weight)}
