"""SDT as butterfliesss/SDT@60af921823 has it, `model.py:Transformer_Based_Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Fused, Fusion
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.hosts.sdt import FUSION, SDT
from fusionzoo_adapters.parts.published_fusion import load_with_fusion

#: What upstream calls the three modalities, in the order of `dims`, and the linear maps of their features.
MODALITIES = ("t", "a", "v")
INPUTS = ("textf_input.", "acouf_input.", "visuf_input.")
#: A layer of a transformer.
LAYER = {
    "self_attn.linear_q.": "attention.query",
    "self_attn.linear_k.": "attention.key",
    "self_attn.linear_v.": "attention.value",
    "self_attn.linear.": "attention.mix",
    "feed_forward.w_1.": "feed_forward.expand",
    "feed_forward.w_2.": "feed_forward.reduce",
    "feed_forward.layer_norm.": "feed_forward.norm",
    "layer_norm.": "norm",
}


class OfficialSDT(SDT):
    """What the published code does differently.

    - The fusion gets no mask, so that it fills padded utterances and, if it looks across utterances, reads them.
    - The embedding has a row for the speaker of padding, which nothing real reads.
    - No dropout of inputs and none before the joint classifier; by default more of it in the transformers, eight times the
      width, and the students in the host.

    The official weights are those of text, audio and visual, in the order of `dims`, `late` and with the speaker embedding.
    Another fusion than `sdt-gate` has no counterpart there and is left as it is; students that the host was built without
    are ignored.
    """

    variant = "official"
    preset: ClassVar = {"width": 1024, "dropout": 0.5, "students": True}
    fixed: ClassVar = {"input_dropout": 0.0}
    fills_padding = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.dropout = Dropout(0.0)

    def build_speakers(self) -> nn.Embedding:
        return nn.Embedding(self.num_speakers + 1, self.width, padding_idx=self.num_speakers)

    def call_fusion(self, fusion: Fusion, streams: list[Tensor | None], dialogues: Dialogues) -> Fused:
        if any(x is None for x in streams):
            return super().call_fusion(fusion, streams, dialogues)
        return fusion.fuse(streams, attention=self.keep_attention)

    def reference_names(self) -> Mapping[str, str]:
        if self.placement != "late" or len(self.names) != len(MODALITIES):
            raise ReferenceWeightsError(
                f"SDT: official weights fit placement='late' and three modalities; this host has {self.placement!r} and "
                f"{', '.join(self.names)}"
            )
        if self.speaker_embedding is None:
            raise ReferenceWeightsError("SDT: the official model has a speaker embedding; build it with one")
        names = {"speaker_embeddings.": "speaker_embedding", "all_output_layer.": "classifier"}
        names |= {prefix: f"projections.{i}" for i, prefix in enumerate(INPUTS)}
        students = zip(MODALITIES, self.students, strict=False)
        names |= {f"{m}_output_layer.2.": f"students.{i}" for i, (m, _) in enumerate(students)}
        for i, target in enumerate(MODALITIES):
            names[f"features_reduce_{target}."] = f"views.{i}.reduce"
            for n, source in enumerate(sources_of(target)):
                names |= self.pair_names(f"{source}_{target}", f"views.{i}", n)
        return names

    def pair_names(self, pair: str, view: str, source: int) -> dict[str, str]:
        """Of the transformer and the gate between two modalities."""
        there = dict(self.named_modules())
        names = {f"{pair}_gate.": f"{view}.gates.{source}"}
        for layer, _ in there[f"{view}.encoders.{source}.layers"].named_children():
            path = f"{view}.encoders.{source}.layers.{layer}"
            names |= {f"{pair}.transformer_inter.{layer}.{theirs}": f"{path}.{ours}" for theirs, ours in LAYER.items()}
        # The first layer has no norm, and where there is no gate an identity stands in its place.
        return {k: path for k, path in names.items() if path in there and not isinstance(there[path], nn.Identity)}

    def reference_unused(self) -> Sequence[str]:
        pairs = [f"{source}_{target}" for target in MODALITIES for source in sources_of(target)]
        parts = (".pos_emb.", ".transformer_inter.0.layer_norm.", "_gate.")
        unused = [f"{pair}{part}" for pair in pairs for part in parts]
        return ["last_gate.", *(f"{m}_output_layer." for m in MODALITIES), *unused]

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # A convolution of kernel one upstream is a linear map here.
        return {k: v.squeeze(-1) if k.startswith(INPUTS) and v.dim() == 3 else v for k, v in state_dict.items()}

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        load_with_fusion(self, FUSION, state_dict, "last_gate.", super().load_reference)


def sources_of(target: str) -> tuple[str, ...]:
    """What a modality reads, itself first."""
    return (target, *(m for m in MODALITIES if m != target))
