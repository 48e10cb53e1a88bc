"""MulT as its authors, thuiar/MMSA@a94e65d07f and pliang279/MultiBench@49f9be224f have it, and their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError, ShapeError
from fusionzoo.reference import attention_names, split_joint, within
from fusionzoo_plugins._crossmodal import CrossmodalEncoder
from fusionzoo_plugins.mult import MulT

#: What the modalities are called by the authors and by MMSA, in the order of `dims`.
LETTERS = "lav"


class MultiBenchMulT(MulT):
    """What MultiBench's code computes.

    It convolves without padding and gives no position to a step whose first convolved feature happens to be zero. With
    `causal` modalities of other lengths are read causally too: step i up to i + the difference of the padded lengths.
    """

    variant = "multibench"
    zero_is_padding = True

    def convolved(self, conv: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not isinstance(conv, nn.Conv1d):
            return x, mask
        kernel = conv.kernel_size[0]
        if kernel > 1 and (self.pool is None or x.shape[1] < kernel):
            raise ShapeError(
                f"MulT(variant={self.variant!r}) convolves without padding: a kernel of {kernel} leaves "
                f"{x.shape[1] - kernel + 1} of {x.shape[1]} steps, none of them the original one; use "
                "pool='last' on sequences longer than the kernel, or variant='default'"
            )
        x = conv(x.transpose(1, 2)).transpose(1, 2)
        return x, mask if mask is None else mask[:, kernel - 1 :]

    def same_clock(self, x: Tensor, y: Tensor) -> bool:
        return True


class OfficialMulT(MultiBenchMulT):
    """What the authors' and MMSA's code computes.

    As `variant="multibench"`, and a modality whose width agrees is not convolved, whatever the kernel.
    """

    variant = "official"

    def convolution(self, inputs: int, kernel: int) -> nn.Module:
        return nn.Identity() if inputs == self.width else super().convolution(inputs, kernel)


def reference_names(fusion: MulT) -> Mapping[str, str]:
    """As MultiBench's `MULTModel` has them, which counts the modalities."""
    names = {f"proj.{i}.": f"convolve.{i}" for i, c in enumerate(fusion.convolve) if not isinstance(c, nn.Identity)}
    for m, sources in enumerate(fusion.sources):
        for n in sources:
            names |= _encoder(fusion, f"trans.{m}.{n}.", f"cross.{m}-{n}")
        names |= _encoder(fusion, f"trans_mems.{m}.", f"memory.{m}")
    names |= {"proj1.": "hidden", "proj2.": "reduce"}
    return names if isinstance(fusion.out, nn.Identity) else names | {"out_layer.": "out"}


def reference_unused(fusion: MulT) -> Sequence[str]:
    """Maps where the widths agree; the output layer where `out_dim` needs no map."""
    skipped = tuple(f"proj.{i}." for i, c in enumerate(fusion.convolve) if isinstance(c, nn.Identity))
    return (*skipped, "out_layer.") if isinstance(fusion.out, nn.Identity) else skipped


def reference_state(fusion: MulT, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Letters of modalities as numbers, for at most three, joint matrices taken apart, without empty buffers."""
    letters = LETTERS if len(fusion.names) <= len(LETTERS) else ""
    known = _official_names(fusion)
    state = {}
    for name, tensor in state_dict.items():
        if name.endswith((".version", "._float_tensor")):
            continue
        counted = _counted(name) if letters else name
        if not counted.startswith(known):
            raise ReferenceWeightsError(
                f"the official model has no entry {name!r} for {len(fusion.names)} modalities with "
                f"self_pairs={fusion.sources[0][0] == 0}; expected names that begin with {', '.join(known)}"
            )
        state[counted] = tensor
    return split_joint(state)


def _official_names(fusion: MulT) -> tuple[str, ...]:
    """What the entries of the official model begin with."""
    cross = (f"trans.{m}.{n}." for m, sources in enumerate(fusion.sources) for n in sources)
    each = (f"{part}.{i}." for part in ("proj", "trans_mems") for i in range(len(fusion.names)))
    return (*each, *cross, "proj1.", "proj2.", "out_layer.")


def _counted(name: str) -> str:
    """A name with the modalities' numbers in place of their letters."""
    name = re.sub(r"^proj_([lav])\.", lambda m: f"proj.{LETTERS.index(m[1])}.", name)
    name = re.sub(r"^trans_([lav])_mem\.", lambda m: f"trans_mems.{LETTERS.index(m[1])}.", name)
    pair = r"^trans_([lav])_with_([lav])\."
    return re.sub(pair, lambda m: f"trans.{LETTERS.index(m[1])}.{LETTERS.index(m[2])}.", name)


def _encoder(fusion: MulT, prefix: str, path: str) -> dict[str, str]:
    """The names of one stack of layers."""
    encoder = fusion.get_submodule(path)
    assert isinstance(encoder, CrossmodalEncoder)
    inner = {"layer_norms.0.": "norm", "layer_norms.1.": "norm_hidden", "fc1.": "expand", "fc2.": "reduce"}
    names = {f"{prefix}layer_norm.": f"{path}.norm"}
    for i in range(len(encoder.layers)):
        names |= within(f"{path}.layers.{i}", inner, f"{prefix}layers.{i}.")
        names |= attention_names(f"{prefix}layers.{i}.self_attn.", f"{path}.layers.{i}.attention")
    return names
