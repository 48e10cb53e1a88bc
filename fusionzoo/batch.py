"""One batch of dialogues: what a host's `forward` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fusionzoo._display import Displayed


@dataclass(repr=False)
class Clip(Displayed):
    """One medium of the utterances of a batch before any encoder; row `b * T + t` is utterance t of dialogue b.

    values : samples `(B * T, S)` float, frame features `(B * T, S, d)` float, pictures `(B * T, S, 3, H, W)` uint8; or
        `B * T` texts.
    mask : bool `(B * T, S)`, True where a step is real; a row without any lacks the medium. None for texts, of which an
        empty one lacks it.
    """

    values: Tensor | list[str]
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def map(self, function: Callable[[Tensor], Tensor]) -> Clip:
        """The same with `function` applied to its tensors."""
        return Clip(
            function(self.values) if isinstance(self.values, Tensor) else self.values,
            None if self.mask is None else function(self.mask),
        )


@dataclass(repr=False)
class Batch(Displayed):
    """B dialogues of up to T utterances, batch first, padded at the end.

    Parameters
    ----------
    features : modality -> `(B, T, d_m)` float; a modality that the whole batch lacks is absent.
    mask : `(B, T)` bool, True where an utterance is real.
    speakers : `(B, T)` long, 0-based within the dialogue in order of first appearance; 0 where padded.
    labels : `(B, T)` long; -100 where padded or unlabelled.
    ids : B dialogue ids.
    present : modality -> `(B, T)` bool, True where that modality was recorded; None means everywhere.
    lengths : utterances per dialogue as Python ints, so that packing a sequence needs no wait for the device; None
        means that they are computed from `mask` when asked for (which waits for the device).
    scores : `(B, T)` float, NaN where padded or without one; None without scores.
    clips : modality -> `Clip`: recordings and words for hosts that encode them (see `fusionzoo.clip_host`), which then
        are in the place of features.
    """

    features: dict[str, Tensor]
    mask: Tensor
    speakers: Tensor
    labels: Tensor
    ids: list[str]
    present: dict[str, Tensor] | None = None
    lengths: list[int] | None = None
    clips: dict[str, Clip] = field(default_factory=dict)
    scores: Tensor | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the batch has, as features or as clips."""
        return (*self.features, *(m for m in self.clips if m not in self.features))

    @property
    def size(self) -> tuple[int, int]:
        """`(B, T)`."""
        return int(self.mask.shape[0]), int(self.mask.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.mask.device

    @property
    def num_utterances(self) -> int:
        """Number of real utterances, padding not counted."""
        return sum(self.lengths_list())

    def lengths_list(self) -> list[int]:
        """Utterances per dialogue, B Python ints."""
        if self.lengths is None:
            self.lengths = [int(n) for n in self.mask.sum(1).tolist()]
        return self.lengths

    def modality_masks(self) -> Tensor | dict[str, Tensor]:
        """What to hand to a fusion as `mask`: `(B, T)`, or one `(B, T)` per modality when some were not recorded."""
        if not self.present:
            return self.mask
        return {m: self.mask & self.present[m] if m in self.present else self.mask for m in self.modalities}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on `device`; tensors already there are shared, not copied."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return self._map(move)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from where a non-blocking copy runs beside the computation."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, fn) -> Batch:
        return replace(
            self,
            features={m: fn(x) for m, x in self.features.items()},
            mask=fn(self.mask),
            speakers=fn(self.speakers),
            labels=fn(self.labels),
            present=None if self.present is None else {m: fn(x) for m, x in self.present.items()},
            clips={m: c.map(fn) for m, c in self.clips.items()},
            scores=None if self.scores is None else fn(self.scores),
        )
