"""MultiEMO as TaoShi1998/MultiEMO-ACL2023@e96458b870 has it, `Model/MultiEMO_Model.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Fused, Fusion
from fusionzoo.reference import WithReference
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.hosts.multiemo import FUSION, MultiEMO, UnimodalContext
from fusionzoo_adapters.parts.published_fusion import is_named, load_with_fusion

#: What upstream calls the three modalities, in the order of `dims`.
MODALITIES = ("text", "audio", "visual")


class OfficialContext(WithReference, UnimodalContext):
    """`BiModel`, with `directions=2` that for IEMOCAP, with 1 that for MELD."""

    reads_padding = True

    def reference_names(self) -> Mapping[str, str]:
        paths = {
            "dialog_rnn_f.dialogue_cell.": "rnn.forward_cell",
            "dialog_rnn_r.dialogue_cell.": "rnn.backward_cell",
            "linear.": "linear",
        }
        there = dict(self.named_modules())
        return {name: path for name, path in paths.items() if path in there}

    def reference_unused(self) -> Sequence[str]:
        return ("dialog_rnn_r.", "linear.")  # of directions that do not run


class OfficialMultiEMO(MultiEMO):
    """What the published code does differently.

    - The fusion gets no mask, so that `multi-attn` attends to padded utterances, which are not zero there, and a
      dialogue's outputs depend on its batch; the forward recurrence reads padding, which reaches real utterances through
      the fusion alone.
    - The classifier drops logits instead of hidden units, which makes some classes impossible at random.
    - No speaker embedding and no dropout of inputs; by default no other dropout either, and twice the width.

    The official weights are those of three modalities, `late`. With the fusion `multi-attn` its weights are loaded too, with
    it or `concat` (upstream `multi_attn_flag=False`) those of `fc`; another fusion has no counterpart there and is left as
    it is. What upstream holds and, for MELD, never runs is ignored.
    """

    variant = "official"
    preset: ClassVar = {"width": 256, "dropout": 0.0, "state_dropout": 0.0}
    fixed: ClassVar = {"input_dropout": 0.0, "speaker_embedding": False}
    context = OfficialContext

    def call_fusion(self, fusion: Fusion, streams: list[Tensor | None], dialogues: Dialogues) -> Fused:
        if any(x is None for x in streams):
            return super().call_fusion(fusion, streams, dialogues)
        return fusion.fuse(streams, attention=self.keep_attention)

    def classify(self, z: Tensor) -> Tensor:
        return self.head.dropout(self.head.out(F.relu(self.head.hidden(z))))

    def reference_names(self) -> Mapping[str, str]:
        if self.placement != "late" or len(self.names) != len(MODALITIES):
            raise ReferenceWeightsError(
                f"MultiEMO: official weights fit placement='late' and three modalities; this host has "
                f"{self.placement!r} and {', '.join(self.names)}"
            )
        names = {"mlp.linear_1.": "head.hidden", "mlp.linear_2.": "head.out"}
        for i, (m, context) in enumerate(zip(MODALITIES, self.encoders, strict=True)):
            names[f"{m}_fc."] = f"projections.{i}"
            if isinstance(context, OfficialContext):
                own = context.reference_names()
                names |= {f"{m}_dialoguernn.{k}": f"encoders.{i}.{path}" for k, path in own.items()}
        assert self.fusion is not None
        if (self.grouped or is_named(self.fusion, "concat")) and isinstance(self.fusion.out, nn.Linear):
            names["fc."] = "fusion.out"
        return names

    def reference_unused(self) -> Sequence[str]:
        idle = ("dialog_rnn_f.", "dialog_rnn_r.", "linear.")
        return ["multiattn.", "fc.", *(f"{m}_dialoguernn.{part}" for m in MODALITIES for part in idle)]

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        load_with_fusion(self, FUSION, state_dict, "multiattn.", super().load_reference)
