"""What the hosts of yuntaoshou/LMAM @1ac9f43823 have in common that differs from ours, and the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Fused, Fusion
from fusionzoo.host import Host
from fusionzoo.reference import prefixed
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.text_views import Views

#: Entries that a branch which was not chosen leaves behind.
_UNUSED = ("lstm.", "lstm2.", "fc1.", "fc2.", "fc3.", "att.", "matchatt.", "linear2.")


class LMAMHost(Host):
    """The fusion reads and fills padded steps, where by contract it gives zeros; text views are batch normalised."""

    fixed: ClassVar[Mapping[str, object]] = {"views_norm": "batch"}
    views: Views | None

    def call_fusion(self, fusion: Fusion, streams: list[Tensor | None], dialogues: Dialogues) -> Fused:
        if any(x is None for x in streams):
            return super().call_fusion(fusion, streams, dialogues)
        match: Any = getattr(fusion, "match", None)
        if match is None or fusion.variant != "official":
            return fusion.fuse(streams)
        # `lmam` masks what it attends to, and nothing else.
        mask = dialogues.fusion_mask
        real = mask.get(self.names[0]) if isinstance(mask, Mapping) else mask
        fused, contexts, _ = match(streams[0], streams, real)
        # The map to out_dim is the identity where the host keeps the width, as published.
        return Fused(fusion.out(fused), dict(zip(self.names, contexts, strict=False)))

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the model in LMAM's repository, with its fusion where that is `lmam`.

        Raises
        ------
        ReferenceWeightsError : the host differs from that model, or an entry is missing, unknown or of another shape.
        """
        if self.views is None:
            raise ReferenceWeightsError(
                f"{type(self).__name__}: LMAM's hosts take four text views (normBNa to normBNd); build the host with "
                "text_views=4"
            )
        self.reference_names()
        if self.fusion is not None and self.loads_fusion():
            # Through the fusion's own loader, which knows the official names; on a wrong state it raises before the rest.
            self.fusion.load_reference(prefixed(state_dict, "matchatt."))
        super().load_reference(state_dict)

    def loads_fusion(self) -> bool:
        """Whether the model in LMAM's repository has the fusion's weights."""
        return self.placement == "late"

    def view_names(self) -> dict[str, str]:
        """The normalisations of the text views."""
        assert self.views is not None
        return {
            f"normBN{letter}.": f"views.norms.{i}"
            for i, letter in zip(range(self.views.views), "abcdefgh", strict=False)
        }

    def reference_unused(self) -> Sequence[str]:
        names = self.reference_names()
        return [p for p in _UNUSED if p not in names]
