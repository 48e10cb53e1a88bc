"""Golden cases of MMSA's recurrent and transformer fusions, and of the copies of two of them elsewhere."""

from __future__ import annotations

import re
from typing import Any

import torch
from golden_cases import Arrays, case, inputs, ready, state
from torch import Tensor

from fusionzoo_plugins.graph_mfn import GraphMFN
from fusionzoo_plugins.mag import MAG
from fusionzoo_plugins.mfn import MFN
from fusionzoo_plugins.misa import MISANetwork
from fusionzoo_plugins.mult import MulT

MODALITIES = ("text", "audio", "video")


def _classes(config: dict[str, Any]) -> int:
    return config["num_classes"] if config["train_mode"] == "classification" else 1


def _layers(arrays: Arrays, pattern: str) -> int:
    """How many layers a stack of the recorded state has; the files shorten what the official constructor builds."""
    found = [re.match(rf"{pattern}\.layers\.(\d+)\.", name) for name in state(arrays)]
    return 1 + max(int(m[1]) for m in found if m)


@case("mmsa_mult")
def mmsa_mult(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    width, heads = config["dst_feature_dim_nheads"]
    fusion = MulT(
        dict(zip(MODALITIES, config["feature_dims"], strict=True)),
        _classes(config),
        width=width,
        heads=heads,
        layers=config["nlevels"],
        memory_layers=_layers(arrays, "trans_l_mem"),
        kernel=[config[f"conv1d_kernel_size_{m}"] for m in "lav"],
        causal=config["attn_mask"],
        positions=any(k.endswith("embed_positions._float_tensor") for k in state(arrays)),
        pool="last",
        variant="official",
    )
    out = ready(fusion, arrays).fuse({m: x[m] for m in MODALITIES})
    last = [out.streams[m][:, -1] for m in MODALITIES]
    return {"feat_t": last[0], "feat_a": last[1], "feat_v": last[2], "feat_f": torch.cat(last, -1), "M": out.fused}


@case("mb_mult")
def mb_mult(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    fusion = MulT(
        config["n_features"],
        config["output_dim"],
        width=config["embed_dim"],
        heads=config["num_heads"],
        layers=config["layers"],
        memory_layers=_layers(arrays, r"trans_mems\.0"),
        self_pairs=True,
        causal=config["attn_mask"],
        pool=None if config["all_steps"] else "last",
        variant="multibench",
    )
    return {"out": ready(fusion, arrays)([x[f"m{i}"] for i in range(config["n_modalities"])])}


# -- memory fusion -----------------------------------------------------------------------------------------------------


def _memory_options(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden": config["hidden_dims"],
        "memory": config["memsize"],
        "retain": config["gamma1Config"]["shapes"],
        "write": config["gamma2Config"]["shapes"],
        "head": config["outConfig"]["shapes"],
        "pool": "last",
    }


@case("mmsa_mfn")
def mmsa_mfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    fusion = MFN(
        dict(zip(MODALITIES, config["feature_dims"], strict=True)),
        _classes(config),
        attention=config["NN1Config"]["shapes"],
        update=config["NN2Config"]["shapes"],
        **_memory_options(config),
    )
    streams = [x[m] for m in MODALITIES]
    logits = ready(fusion, arrays)(streams)
    return {"M": logits, "L": fusion.states(streams)[0][:, -1]}


@case("mmdfn_mfn")
def mmdfn_mfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    width, hidden = int(meta["config"]["d"]), int(meta["config"]["hidden"])
    sizes = dict.fromkeys(("hidden", "memory", "attention", "update", "retain", "write"), hidden)
    fusion = ready(MFN([width] * 3, 4 * hidden, **sizes), arrays)
    x = inputs(arrays)["x"].transpose(0, 1)
    return {"out": fusion(list(x.split(width, -1))).transpose(0, 1)}


@case("mmsa_mag")
def mmsa_mag(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    names = ("text", "acoustic", "visual")
    dims: dict[str, int] = dict(zip(names, config["feature_dims"], strict=True))
    fusion = ready(MAG(dims, beta=config["beta_shift"], variant="official"), arrays)
    return {"out": fusion({m: x[m] for m in names})}


@case("mmsa_misa", "mmsa_misa_adversarial")
def mmsa_misa(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    text, audio, video = config["feature_dims"]
    weights = state(arrays)
    network = MISANetwork(
        {"text": text, "video": video, "audio": audio},
        _classes(config),
        cell=config["rnncell"],
        width=config["hidden_size"],
        feedforward=len(weights["transformer_encoder.layers.0.linear1.bias"]),
        match="cmd" if config["use_cmd_sim"] else "adversarial",
        reverse=config["reverse_grad_weight"],
    )
    sequences = {"text": x["text_hidden"], "video": x["video"], "audio": x["audio"]}
    out = ready(network, arrays)(sequences, x["mask"] > 0)
    shared = [out.streams[f"{m}.shared"] for m in sequences]
    computed = {"out": out.fused, "sp_s": network.classify(torch.stack(shared).mean(0))}
    for m, x_shared in zip(sequences, shared, strict=True):
        private = out.streams[f"{m}.private"]
        computed[f"private_{m[0]}"], computed[f"shared_{m[0]}"] = private, x_shared
        computed[f"orig_{m[0]}"], computed[f"recon_{m[0]}"] = out.streams[m], out.streams[f"{m}.reconstruction"]
        computed[f"sp_{m[0]}"] = computed[f"sp_p_{m[0]}"] = network.classify(private)
        if network.fusion.match == "adversarial":
            # domain_label_t upstream, and so on.
            told = network.fusion.tell_apart(x_shared)
            computed |= {f"{prefix}_{m[0]}": told for prefix in ("domain", "domain_label", "dom")}
    # A file records some of what the reference computes.
    return {name: value for name, value in computed.items() if f"out.{name}" in arrays}


@case("mmsa_graph_mfn")
def mmsa_graph_mfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    fusion = GraphMFN(
        dict(zip(MODALITIES, config["feature_dims"], strict=True)),
        _classes(config),
        node=config["inner_node_dim"],
        pattern=len(state(arrays)["nets.0_1.0.bias"]),
        update=config["NNConfig"]["shapes"],
        variant="official",
        **_memory_options(config),
    )
    streams = [x[m] for m in MODALITIES]
    logits = ready(fusion, arrays)(streams)
    # Upstream hands the efficacies out as numbers, without gradient.
    return {"out": logits, "efficacies": fusion.states(streams)[1].transpose(0, 1).detach()}
