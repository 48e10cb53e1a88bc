"""MEM as ASolitaryMan/Foal-Net@781849fdf6 has it, `model.py`, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.reference import no_reference, within
from fusionzoo_plugins.mem import MEM
from fusionzoo_plugins.official.foal_net import unused_except


class OfficialMEM(MEM):
    """With the published AVEL: see that objective."""

    variant = "official"


def reference_names(objective: MEM) -> Mapping[str, str]:
    """The heads, audio's first, and AVEL's weights where alignment is not 0."""
    if len(objective.heads) != 2:
        raise ReferenceWeightsError(
            "the official weights of MEM are for two modalities, audio first; bind it to such a host"
        )
    names = {"a2v_head.": "heads.0", "v2a_head.": "heads.1"}
    if objective.avel is None:
        return names
    aligned = objective.avel.reference_names()
    if not aligned:
        raise ReferenceWeightsError(no_reference(objective.avel))
    return names | within("avel", aligned)


def reference_unused(objective: MEM) -> Sequence[str]:
    """The rest of the official `MultiTaskModel`."""
    return unused_except(*reference_names(objective))


def reference_state(objective: MEM, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """As AVEL reads it."""
    return state_dict if objective.avel is None else objective.avel.reference_state(state_dict)
