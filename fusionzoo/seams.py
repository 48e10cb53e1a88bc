"""What the parts of a host see of a batch, and the kinds of a seam, which is a place in a host where the fusion may sit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusionzoo._display import Displayed
from fusionzoo.fusion import Fused, Fusion, MaskLike
from fusionzoo.kernels.packing import Packing

if TYPE_CHECKING:
    from fusionzoo.batch import Batch

#: What goes on after a seam: the fused stream alone; the streams with the fused one as one more of them; or the streams
#: side by side, to which what the fusion made of linear maps of them is added further down (`Host.rejoin`).
KINDS = ("replace", "beside", "around")

#: A placement with this ending adds a linear map of the streams side by side to what the fusion returns.
RESIDUAL = "-residual"

#: Streams by name, `(B, T, d)` each; None where the whole batch lacks a modality.
Streams = Mapping[str, Tensor | None]


@dataclass(repr=False)
class Dialogues(Displayed):
    """A batch as the parts of a host see it, beside the streams, and what they report.

    Attributes
    ----------
    batch : the batch itself.
    speakers : `(B, T)` long, below the host's `num_speakers`, at padded steps too.
    present : bool `(B, T)` per stream, where it is there.
    missing : the modalities that the whole batch lacks.
    fusion_mask : what a fusion gets: bool `(B, T)`, or such a mask per modality.
    keep_attention : whether attention maps are wanted.
    streams, losses, attention : what the fusion and the host report, by name.
    aside : what the fusion at a seam of the kind `"around"` returned, until `Host.rejoined`.
    """

    batch: Batch
    speakers: Tensor
    present: dict[str, Tensor]
    missing: frozenset[str]
    fusion_mask: MaskLike
    keep_attention: bool
    streams: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    aside: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, features: Streams, mask: MaskLike, num_speakers: int, keep_attention: bool) -> Dialogues:
        """A batch with these features and the mask that a fusion would get."""
        present = {}
        for name, x in features.items():
            own = mask.get(name) if isinstance(mask, Mapping) else mask
            present[name] = torch.zeros_like(batch.mask) if x is None else batch.mask if own is None else own
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters, and
        # padding may carry any number.
        speakers = batch.speakers.clamp(0, num_speakers - 1)
        missing = frozenset(m for m, x in features.items() if x is None)
        return cls(batch, speakers, present, missing, mask, keep_attention)

    @property
    def mask(self) -> Tensor:
        """bool `(B, T)`: the real utterances."""
        return self.batch.mask

    @cached_property
    def packing(self) -> Packing:
        """Where the padding lies."""
        return Packing.of(self.batch)

    def complete(self, names: Iterable[str]) -> bool:
        """Whether these streams are there at every real utterance, and known to be."""
        return all(self.present[m] is self.mask for m in names)

    def mask_for(self, fusion: Fusion) -> MaskLike:
        """The mask in the fusion's names: an instance may name its modalities differently; they agree in order and width."""
        if not isinstance(self.fusion_mask, Mapping):
            return self.fusion_mask
        masks = self.fusion_mask
        return {theirs: masks[ours] for theirs, ours in zip(fusion.names, self.present, strict=False) if ours in masks}

    def take(self, fused: Fused) -> None:
        """Keep what a fusion reports."""
        self.streams |= {"fused": fused.fused, **fused.streams}
        self.losses |= fused.losses
        self.attention |= fused.attention

    def show(self, streams: Streams) -> None:
        """Report streams of the host; what the fusion made of one of the same name stays."""
        self.streams |= {m: x for m, x in streams.items() if x is not None and m not in self.streams}

    def show_attention(self, **maps: Tensor | None) -> None:
        """Report attention maps, where they are wanted."""
        if self.keep_attention:
            self.attention |= {name: x for name, x in maps.items() if x is not None}


def joined(streams: Sequence[Tensor | None], widths: Iterable[int]) -> Tensor:
    """Streams side by side, zeros for what is missing."""
    there = next(x for x in streams if x is not None)
    parts = zip(streams, widths, strict=True)
    return torch.cat([there.new_zeros(*there.shape[:2], w) if x is None else x for x, w in parts], -1)
