"""The recurrence over the utterances of one speaker alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.kernels.both_ways import both_ways


class PartyContext(nn.Module):
    """A bidirectional GRU over the utterances of each speaker alone: `(B, T, width)` to `(B, T, 2 * hidden)`.

    reads_padding : run over what follows a speaker's last utterance too, zeros up to the padded length, as the official code
        does; what a backward direction returns then depends on the padding.
    """

    def __init__(self, width: int, hidden: int, layers: int = 1, dropout: float = 0.0, *, reads_padding: bool = False):
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.rnn = nn.GRU(width, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.reads_padding = reads_padding

    def forward(self, xs: Sequence[Tensor], mask: Tensor, speakers: Tensor, parties: int) -> list[Tensor]:
        """As many `(B, T, 2 * hidden)`, zero at padding; all streams go through the same GRU, in one batch.

        mask : bool `(B, T)`.
        speakers : `(B, T)` below `parties`.
        """
        batch, steps = mask.shape
        own = (speakers.unsqueeze(-1) == torch.arange(parties, device=mask.device)) & mask.unsqueeze(-1)
        count = own.sum(1)
        rank = (torch.where(own, own.cumsum(1), 0).sum(-1) - 1).clamp(min=0)
        # Asking an accelerator how long the longest is would mean to wait for it.
        longest = max(int(count.max()), 1) if mask.device.type == "cpu" and not self.reads_padding else steps
        row = torch.arange(batch, device=mask.device).unsqueeze(1) * parties + speakers
        # Padded steps share one surplus slot at the end.
        slot = torch.where(mask, row * longest + rank, batch * parties * longest).flatten()
        joined = torch.stack(list(xs), 2)
        packed = joined.new_zeros(batch * parties * longest + 1, *joined.shape[2:])
        packed = packed.index_copy_(0, slot, zero_padded(joined, mask).flatten(0, 1))
        # (B P, S, K, width) -> (K B P, S, width)
        sequences = packed[:-1].view(batch * parties, longest, *joined.shape[2:]).movedim(2, 0).flatten(0, 1)
        lengths = count.flatten().repeat(len(xs))
        out = self.rnn(sequences)[0] if self.reads_padding else both_ways(self.rnn, sequences, lengths)
        out = out.reshape(len(xs), batch * parties * longest, -1)
        back = slot.clamp(max=batch * parties * longest - 1)
        return [zero_padded(y.index_select(0, back).view(batch, steps, -1), mask) for y in out]
