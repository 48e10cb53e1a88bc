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


class Packing:
    """Where the real steps of one padded batch lie, whose dialogues fill the first steps of their row.

    There are two orders of the real steps. `nodes`: dialogue after dialogue. `rows`: all first steps, then all second
    steps, ..., within a step the longest dialogue first, so that the dialogues that go on are the first rows of the next
    step: the order that torch's packed sequences have.

    Parameters
    ----------
    lengths
        Real steps of each of the B dialogues.
    steps
        T, the padded length, at least `max(lengths)`.
    device
        Where the index tensors are wanted.
    """

    def __init__(self, lengths: list[int], steps: int, device: torch.device):
        self.lengths, self.steps, self.device = lengths, steps, device
        self._lengths = torch.tensor(lengths)

    @classmethod
    def of(cls, batch: Batch) -> Packing:
        """That of a `Batch`."""
        return cls(batch.lengths_list(), batch.mask.shape[1], batch.mask.device)

    @property
    def size(self) -> tuple[int, int]:
        """`(B, T)`."""
        return len(self.lengths), self.steps

    @property
    def total(self) -> int:
        """N, the number of real steps."""
        return sum(self.lengths)

    @cached_property
    def ends(self) -> Tensor:
        """The lengths `(B,)`, where they are wanted."""
        return to_device(self._lengths, self.device)

    # -- dialogue after dialogue ---------------------------------------------------------------------------------------

    @cached_property
    def nodes(self) -> Tensor:
        """Flat positions `(N,)` of the real steps in `(B * T)`, dialogue after dialogue."""
        real = torch.arange(self.steps) < self._lengths.unsqueeze(1)
        return to_device(real.flatten().nonzero().squeeze(1), self.device)

    def pack(self, x: Tensor) -> Tensor:
        """Real steps `(N, ...)` of `x (B, T, ...)`, dialogue after dialogue."""
        return x.flatten(0, 1).index_select(0, self.nodes)

    def unpack(self, nodes: Tensor) -> Tensor:
        """`(N, ...)` back to `(B, T, ...)`, zero at padded steps."""
        out = nodes.new_zeros(len(self.lengths) * self.steps, *nodes.shape[1:])
        return out.index_copy_(0, self.nodes, nodes).unflatten(0, self.size)

    @cached_property
    def _mirror(self) -> Tensor:
        step = torch.arange(self.steps).expand(self.size)
        length = self._lengths.unsqueeze(1)
        mirrored = torch.where(step < length, length - 1 - step, step)
        flat = mirrored + torch.arange(len(self.lengths)).unsqueeze(1) * self.steps
        return to_device(flat.flatten(), self.device)

    def reverse(self, x: Tensor) -> Tensor:
        """Every dialogue of `x (B, T, ...)` back to front; padded steps stay where they are. Its own inverse."""
        return x.flatten(0, 1).index_select(0, self._mirror).unflatten(0, self.size)

    # -- step after step -----------------------------------------------------------------------------------------------

    @cached_property
    def _longest_first(self) -> Tensor:
        return self._lengths.argsort(descending=True, stable=True)

    @cached_property
    def _real(self) -> Tensor:
        return torch.arange(self.steps).unsqueeze(1) < self._lengths[self._longest_first]

    @cached_property
    def sizes(self) -> list[int]:
        """How many dialogues reach each step, as far as one does."""
        return [n for n in self._real.sum(1).tolist() if n]

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each step."""
        return [sum(self.sizes[:i]) for i in range(len(self.sizes))]

    def step(self, i: int) -> slice:
        """The rows of a step."""
        return slice(self.starts[i], self.starts[i] + self.sizes[i])

    @cached_property
    def order(self) -> Tensor:
        """The dialogues `(B,)`, longest first."""
        return to_device(self._longest_first, self.device)

    @cached_property
    def ranks(self) -> Tensor:
        """Place `(B,)` of every dialogue in `order`."""
        return to_device(self._longest_first.argsort(), self.device)

    @cached_property
    def flat(self) -> Tensor:
        """Position `(N,)` of every row in the padded batch `(B * T)`."""
        step, rank = self._real.nonzero(as_tuple=True)
        return to_device(self._longest_first[rank] * self.steps + step, self.device)

    @cached_property
    def rows(self) -> Tensor:
        """Row `(B, T)` of every step of the padded batch; at padding that of the last step."""
        step = torch.minimum(torch.arange(self.steps), (self._lengths - 1).clamp(min=0).unsqueeze(1))
        first = torch.tensor([*self.starts, 0])[step]
        return to_device(first + self._longest_first.argsort().unsqueeze(1), self.device)

    @cached_property
    def earlier(self) -> Tensor:
        """The row of the step before, for every row from the second step on."""
        firsts = [torch.arange(n) + start for n, start in zip(self.sizes[1:], self.starts, strict=False)]
        return to_device(torch.cat(firsts) if firsts else torch.zeros(0, dtype=torch.long), self.device)

    def pack_rows(self, x: Tensor) -> Tensor:
        """Rows `(..., N, d)` of `x (..., B, T, d)`."""
        return x.flatten(-3, -2).index_select(-2, self.flat)

    def unpack_rows(self, rows: Tensor) -> Tensor:
        """`(..., N, d)` back to `(..., B, T, d)`, zero at padded steps."""
        out = rows.new_zeros(*rows.shape[:-2], len(self.lengths) * self.steps, rows.shape[-1])
        return out.index_copy_(-2, self.flat, rows).unflatten(-2, self.size)

    def pack_sequence(self, x: Tensor) -> PackedSequence:
        """`x (B, T, d)` as torch's recurrent layers take it when padding must not be read."""
        return PackedSequence(self.pack_rows(x), torch.tensor(self.sizes))

    def unpack_sequence(self, packed: PackedSequence) -> Tensor:
        """The inverse of `pack_sequence`, zero at padded steps."""
        return self.unpack_rows(packed.data)


class Buckets:
    """Dialogues of similar length side by side.

    Within a bucket no dialogue is shorter than `ratio` times the longest, so that what costs the square of the length
    costs at most `1 / ratio^2` times the sum of the dialogues' own squares, and not B times the longest one's.

    Parameters
    ----------
    packing : of the batch.
    ratio : None is 0.75 on a CPU, and 0.5 elsewhere, where fewer and larger operations are quicker.
    """

    def __init__(self, packing: Packing, ratio: float | None = None):
        self.packing = packing
        ratio = (0.75 if packing.device.type == "cpu" else 0.5) if ratio is None else ratio
        # The dialogues of every bucket and the length of its longest one, longest first.
        self.groups: list[tuple[list[int], int]] = []
        for row in sorted(range(len(packing.lengths)), key=lambda b: -packing.lengths[b]):
            length = max(packing.lengths[row], 1)
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
