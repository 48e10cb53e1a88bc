"""The weights of MFN as thuiar/MMSA@a94e65d07f and zerohd4869/MM-DFN@da97036606 have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusionzoo.reference import check_modalities
from fusionzoo_plugins.graph_mfn import GraphMFN
from fusionzoo_plugins.mfn import MFN

#: Official name of the modalities in the order of `dims`: language, audio, visual.
LETTERS = "lav"


def reference_names(fusion: MFN) -> Mapping[str, str]:
    """Three modalities, in the order language, audio, visual."""
    check_modalities(fusion.names, len(LETTERS), "MFN")
    return memory_names(fusion) | two_layers("att1_", "attend")


def reference_unused(fusion: MFN | GraphMFN) -> Sequence[str]:
    """Without `head` the output layers are left out."""
    return ("out_fc1.", "out_fc2.") if fusion.head is None else ()


def memory_names(fusion: MFN | GraphMFN) -> dict[str, str]:
    """What MFN and Graph-MFN share: LSTMs, gated memory, output layers."""
    names = {f"lstm_{letter}.": f"lstms.cells.{i}" for i, letter in enumerate(LETTERS)}
    for theirs, ours in (("att2", "update"), ("gamma1", "retain"), ("gamma2", "write")):
        names |= two_layers(f"{theirs}_", f"memory.{ours}")
    return names if fusion.head is None else names | two_layers("out_", "head")


def two_layers(prefix: str, path: str) -> dict[str, str]:
    """The two linear maps of a `TwoLayers`, as `fc1` and `fc2`."""
    return {f"{prefix}fc{i}.": f"{path}.fc{i}" for i in (1, 2)}
