"""Where the real utterances of a padded batch lie: index tensors for packing, unpacking and reversing.

Everything is computed on the CPU from the lengths, which are Python integers, and copied to the device without waiting
for it: a forward pass never has to ask the GPU for a number.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x`, built on the CPU, on `device`; through pinned memory where that makes the copy asynchronous."""
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Layout:
    """The layout of one padded batch whose dialogues fill the first steps of their row.

    Parameters
    ----------
    lengths : real steps of each of the B dialogues.
    steps : T, the padded length, at least `max(lengths)`.
    device : where the index tensors are wanted.
    """

    def __init__(self, lengths: list[int], steps: int, device: torch.device):
        self.lengths, self.steps, self.device = lengths, steps, device
        self._lengths = torch.tensor(lengths)

    @classmethod
    def of(cls, batch: Batch) -> Layout:
        """The layout of a `Batch`."""
        return cls(batch.lengths_list(), batch.mask.shape[1], batch.mask.device)

    @property
    def size(self) -> tuple[int, int]:
        """`(B, T)`."""
        return len(self.lengths), self.steps

    @cached_property
    def nodes(self) -> Tensor:
        """Flat positions `(N,)` of the real steps in `(B * T)`, dialogue after dialogue."""
        real = torch.arange(self.steps) < self._lengths.unsqueeze(1)
        return to_device(real.flatten().nonzero().squeeze(1), self.device)

    @cached_property
    def _time_major(self) -> tuple[Tensor, Tensor]:
        # Longest dialogue first, all first steps, then all second steps, ...: the order that packed sequences have.
        order = self._lengths.argsort(descending=True, stable=True)
        real = torch.arange(self.steps).unsqueeze(1) < self._lengths[order]
        step, rank = real.nonzero(as_tuple=True)
        sizes = real.sum(1)
        return to_device(order[rank] * self.steps + step, self.device), sizes[sizes > 0]

    @cached_property
    def _mirror(self) -> Tensor:
        step = torch.arange(self.steps).expand(self.size)
        length = self._lengths.unsqueeze(1)
        mirrored = torch.where(step < length, length - 1 - step, step)
        flat = mirrored + torch.arange(len(self.lengths)).unsqueeze(1) * self.steps
        return to_device(flat.flatten(), self.device)

    def pack(self, x: Tensor) -> Tensor:
        """Real steps `(N, ...)` of `x (B, T, ...)`, dialogue after dialogue."""
        return x.flatten(0, 1).index_select(0, self.nodes)

    def unpack(self, nodes: Tensor) -> Tensor:
        """`(N, d)` back to `(B, T, d)`, zero at padded steps."""
        return self._scatter(nodes, self.nodes)

    def pack_sequence(self, x: Tensor) -> PackedSequence:
        """`x (B, T, d)` as torch's recurrent layers take it when padding must not be read."""
        index, sizes = self._time_major
        return PackedSequence(x.flatten(0, 1).index_select(0, index), sizes)

    def unpack_sequence(self, packed: PackedSequence) -> Tensor:
        """The inverse of `pack_sequence`, zero at padded steps."""
        return self._scatter(packed.data, self._time_major[0])

    def reverse(self, x: Tensor) -> Tensor:
        """Every dialogue of `x (B, T, ...)` back to front; padded steps stay where they are. Its own inverse."""
        return x.flatten(0, 1).index_select(0, self._mirror).unflatten(0, self.size)

    def _scatter(self, rows: Tensor, index: Tensor) -> Tensor:
        out = rows.new_zeros(self.size[0] * self.size[1], *rows.shape[1:])
        return out.index_copy_(0, index, rows).unflatten(0, self.size)


class Buckets:
    """Dialogues of similar length side by side.

    Within a bucket no dialogue is shorter than `ratio` times the longest, so that what costs the square of the length
    costs at most `1 / ratio^2` times the sum of the dialogues' own squares, and not B times the longest one's.

    ratio : None is 0.75 on a CPU, and 0.5 elsewhere, where fewer and larger operations are quicker.
    """

    def __init__(self, layout: Layout, ratio: float | None = None):
        self.layout = layout
        ratio = (0.75 if layout.device.type == "cpu" else 0.5) if ratio is None else ratio
        # The dialogues of every bucket and the length of its longest one, longest first.
        self.groups: list[tuple[list[int], int]] = []
        for row in sorted(range(len(layout.lengths)), key=lambda b: -layout.lengths[b]):
            length = max(layout.lengths[row], 1)
            if not self.groups or length < ratio * self.groups[-1][1]:
                self.groups.append(([], length))
            self.groups[-1][0].append(row)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """`(b, t)` of every bucket."""
        return [(len(rows), steps) for rows, steps in self.groups]

    @property
    def order(self) -> list[int]:
        """The dialogues, bucket after bucket."""
        return [row for rows, _ in self.groups for row in rows]
