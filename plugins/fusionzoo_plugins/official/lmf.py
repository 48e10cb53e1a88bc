"""LMF as pliang279/MultiBench@49f9be224f trains it, and the weights of that, of MMSA's and of MM-DFN's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionzoo.reference import check_modalities
from fusionzoo_plugins.lmf import LowRankFusion

#: Modalities by their names in MMSA and MM-DFN, in their order.
ORDER = ("audio", "video", "text")


class OfficialLowRankFusion(LowRankFusion):
    """What MultiBench's class trains.

    Its factors are in a plain list that no optimiser sees, so that they stay random constants, and only w and b learn:
    :math:`R + d_{out}` parameters; started as there.
    """

    variant = "official"
    trained = False


def reference_names(fusion: LowRankFusion) -> Mapping[str, str]:
    """`LMF` of MMSA after its sub-networks and of MM-DFN, or MultiBench's `LowRankTensorFusion`.

    MMSA and MM-DFN name the modalities: build it in their order, audio, video, text.
    """
    count = min(len(ORDER), len(fusion.names))
    return {"factors.": "factors"} | {f"{ORDER[i]}_subnet.": f"project.{i}" for i in range(count)}


def reference_state(fusion: LowRankFusion, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The factors under one name.

    MultiBench's factors, which are not in its state dict, are taken as `factors.0`, `factors.1`, ...
    """
    listed = any(k.startswith("factors.") for k in state_dict)
    if not listed:
        check_modalities(fusion.names, len(ORDER), "LMF without entries factors.0, factors.1, ...")
    names = {f"factors.{i}" if listed else f"{ORDER[i]}_factor": f"factor{i}" for i in range(len(fusion.names))}
    return {
        k if "_subnet." in k else f"factors.{names.get(k, k.removeprefix('m.'))}": value
        for k, value in state_dict.items()
    }
