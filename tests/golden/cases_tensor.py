"""Golden cases of concatenations, tensor products and Gaussian experts: MultiBench, MMSA, MM-DFN."""

from __future__ import annotations

import math
from typing import Any

import torch
from golden_cases import Arrays, case, inputs, ready
from torch import Tensor

from fusionzoo_plugins._mmsa_networks import EarlyFusionLSTM, SubNetworks
from fusionzoo_plugins.concat import Concat
from fusionzoo_plugins.concat_fc import ConcatFC
from fusionzoo_plugins.lmf import LowRankFusion
from fusionzoo_plugins.multiplicative_interactions import MultiplicativeInteractions
from fusionzoo_plugins.nl_gate import NLGate
from fusionzoo_plugins.product_of_experts import product_of_experts
from fusionzoo_plugins.tfn import TensorFusion

#: The official order of modalities in tensor products.
ORDER = ("audio", "video", "text")


def _modalities(arrays: Arrays, prefix: str = "m") -> list[Tensor]:
    x = inputs(arrays)
    return [x[f"{prefix}{i}"] for i in range(sum(k.startswith(prefix) for k in x))]


def _widths(xs: list[Tensor]) -> list[int]:
    return [x.shape[-1] for x in xs]


# -- MultiBench --------------------------------------------------------------------------------------------------------


@case("mb_concat")
def mb_concat(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    xs = [x.flatten(1) for x in _modalities(arrays)]
    return {"out": Concat(_widths(xs), sum(_widths(xs))).eval()(xs)}


@case("mb_concat_early")
def mb_concat_early(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    xs = _modalities(arrays)
    return {"out": Concat(_widths(xs), sum(_widths(xs))).eval()(xs)}


@case("mb_stack")
def mb_stack(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    xs = [x.flatten(1) for x in _modalities(arrays)]
    joined = Concat(_widths(xs), sum(_widths(xs))).eval()(xs)
    return {"out": joined.unflatten(1, (len(xs), -1)).transpose(1, 2)}


@case("mb_concat_linear")
def mb_concat_linear(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, xs = meta["config"], _modalities(arrays)
    if config.get("concat_dim", 1) in (-1, xs[0].dim() - 1):
        fusion = ready(ConcatFC(_widths(xs), config["output_dim"], hidden=()), arrays)
        return {"out": fusion(xs)}
    # Rows of equal width one after another: every one is mapped alone.
    fusion = ready(ConcatFC([1, config["input_dim"] - 1], config["output_dim"], hidden=()), arrays)
    rows = torch.cat(xs, config.get("concat_dim", 1))
    return {"out": fusion([rows[..., :1], rows[..., 1:]])}


@case("mb_lowrank_tensor_fusion")
def mb_lowrank_tensor_fusion(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    fusion = LowRankFusion(config["input_dims"], config["output_dim"], rank=config["rank"])
    return {"out": ready(fusion, arrays)([x.flatten(1) for x in _modalities(arrays)])}


@case("mb_tensor_fusion")
def mb_tensor_fusion(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    xs = _modalities(arrays)
    return {"out": TensorFusion(_widths(xs), 1, project=False, hidden=()).outer(xs)}


@case("mb_mi2_matrix", "mb_mi2_matrix3D", "mb_mi2_scalar", "mb_mi2_vector")
def mb_mi2(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, xs = meta["config"], _modalities(arrays)
    xs = [x.flatten(1) for x in xs] if config.get("flatten") else xs
    form, flip = config["output"], config.get("flip", False)
    shape = config["output_dim"]
    # The diagonal and scalar forms keep the width of the modality that is mapped, whatever output_dim says.
    out = {"matrix3D": lambda: math.prod(shape), "matrix": lambda: shape}.get(form, lambda: _widths(xs)[not flip])()
    fusion = MultiplicativeInteractions(
        _widths(xs),
        out,
        form=form,
        rows=shape[0] if form == "matrix3D" else 1,
        flip=flip,
        clip=config.get("clip"),
        grad_clip=config.get("grad_clip"),
        project=False,
    )
    fused = ready(fusion, arrays)(xs)
    return {"out": fused.unflatten(-1, shape) if form == "matrix3D" else fused}


@case("mb_mi3", "mb_mi3_nontask")
def mb_mi3(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, xs = meta["config"], _modalities(arrays)
    fusion = MultiplicativeInteractions(config["input_dims"], config["output_dim"], project=False)
    fusion = ready(fusion, arrays)
    return {"out": fusion(xs) if config.get("task") == "affect" else fusion.all_pairs(xs)}


@case("mb_mvae_poe")
def mb_mvae_poe(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    mean, log_variance = product_of_experts(
        _modalities(arrays, "mu"), _modalities(arrays, "lv"), priors=config["size"][0], eps=config.get("eps", 1e-8)
    )
    return {"mu": mean, "logvar": log_variance}


@case("mb_nlgate")
def mb_nlgate(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, xs = meta["config"], _modalities(arrays)
    fusion = NLGate(
        _widths(xs),
        config["thw_dim"] * config["c_dim"],
        tokens=config["thw_dim"],
        channels=config["c_dim"],
        memory=config["tf_dim"],
        project="".join(letter for letter in "qkv" if config.get(f"{letter}_linear")),
        variant="official",
    )
    return {"out": ready(fusion, arrays)(xs)}


# -- MM-DFN ------------------------------------------------------------------------------------------------------------


@case("mmdfn_tfn")
def mmdfn_tfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    fusion = TensorFusion(
        dict(zip(ORDER, config["input_dims"], strict=True)),
        config["output_dim"],
        width=config["hidden_dims"],
        hidden=(config["post_fusion_dim"],),
        rectify=True,
    )
    return {"out": ready(fusion, arrays)(inputs(arrays))}


@case("mmdfn_lmf")
def mmdfn_lmf(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    fusion = LowRankFusion(
        dict(zip(ORDER, config["input_dims"], strict=True)),
        config["output_dim"],
        width=config["hidden_dims"],
        rank=config["rank"],
        softmax=config.get("use_softmax", False),
    )
    return {"out": ready(fusion, arrays)(inputs(arrays))}


# -- MMSA --------------------------------------------------------------------------------------------------------------


def _classes(config: dict[str, Any]) -> int:
    return config["num_classes"] if config["train_mode"] == "classification" else 1


def _encoded_widths(config: dict[str, Any], text: int) -> dict[str, int]:
    return dict(zip(ORDER, (*config["hidden_dims"][1:], text), strict=True))


def _network(config: dict[str, Any], fusion: Any, bounded: bool = False) -> SubNetworks:
    return SubNetworks(
        dict(zip(("text", "audio", "video"), config["feature_dims"], strict=True)),
        fusion,
        hidden=config["hidden_dims"][0],
        dropout=dict(zip(ORDER, config["dropouts"], strict=False)),
        bounded=bounded,
    )


def _answer(network: SubNetworks, arrays: Arrays, joined: Any) -> dict[str, Tensor]:
    encoded = ready(network, arrays).encode(inputs(arrays))
    features = {f"feat_{m[0]}": encoded[m] for m in ORDER}
    return {**features, "feat_f": joined([encoded[m] for m in ORDER]), "M": network.decide(encoded)}


@case("mmsa_tfn")
def mmsa_tfn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    widths, classes = _encoded_widths(config, config["text_out"]), _classes(config)
    fusion = TensorFusion(widths, classes, project=False, hidden=(config["post_fusion_dim"],) * 2)
    return _answer(_network(config, fusion, bounded=classes == 1), arrays, fusion.outer)


@case("mmsa_lmf")
def mmsa_lmf(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    fusion = LowRankFusion(
        _encoded_widths(config, config["hidden_dims"][0] // 2), _classes(config), rank=config["rank"]
    )
    return _answer(_network(config, fusion), arrays, lambda xs: fusion.factors.products(xs).squeeze())


@case("mmsa_lf_dnn")
def mmsa_lf_dnn(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    widths = _encoded_widths(config, config["text_out"])
    fusion = ConcatFC(widths, _classes(config), hidden=(config["post_fusion_dim"],) * 2)
    return _answer(_network(config, fusion), arrays, lambda xs: torch.cat(xs, -1))


@case("mmsa_ef_lstm")
def mmsa_ef_lstm(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config = meta["config"]
    network = EarlyFusionLSTM(
        dict(zip(("text", "audio", "video"), config["feature_dims"], strict=True)),
        _classes(config),
        hidden=config["hidden_dims"],
        layers=config["num_layers"],
        dropout=config["dropout"],
        steps=config["seq_lens"],
    )
    return {"M": ready(network, arrays)(inputs(arrays))}
