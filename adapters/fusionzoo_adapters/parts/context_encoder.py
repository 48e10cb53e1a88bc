"""Sequential context encoders: from utterance features to features that know the dialogue around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fusionzoo._options import check_choice
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.kernels.both_ways import both_ways
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN, dialogue_rnns

BASES = ("lstm", "gru", "dialogue-rnn", "none")


class ContextEncoder(nn.Module):
    """`(B, T, width)` to `(B, T, directions * hidden)`.

    Parameters
    ----------
    width, hidden : input width, and state width of a direction.
    base : `lstm` and `gru` are bidirectional layers, `dialogue-rnn` the recurrence of DialogueRNN, `none` a linear map of
        each utterance.
    layers : of `lstm` and `gru`.
    dropout : between their layers, or on the states of `dialogue-rnn`.
    parties : largest number of speakers; used by `dialogue-rnn`.
    reads_padding : run over padding instead of packing; real outputs then depend on it.
    directions : 2, or for `dialogue-rnn` also 1, forward alone.
    options : further options of `DialogueRNNCell`, with global_width and party_width.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        base: str = "lstm",
        *,
        layers: int = 2,
        dropout: float = 0.0,
        parties: int = 2,
        reads_padding: bool = False,
        directions: int = 2,
        options: Mapping | None = None,
    ):
        super().__init__()
        self.base, self.parties, self.reads_padding = check_choice(base, BASES, "base", self), parties, reads_padding
        self.rnn: nn.Module
        if base in ("lstm", "gru"):
            kind = nn.LSTM if base == "lstm" else nn.GRU
            between = dropout if layers > 1 else 0.0
            self.rnn = kind(width, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        elif base == "dialogue-rnn":
            extra = {"global_width": 150, "party_width": 150, **(options or {})}
            self.rnn = DialogueRNN(
                width,
                emotion_width=hidden,
                dropout=dropout,
                reads_padding=reads_padding,
                directions=directions,
                **extra,
            )
        else:
            self.rnn = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor, packing: Packing, mask: Tensor, speakers: Tensor) -> Tensor:
        """`x (B, T, width)`, mask and speakers `(B, T)`; speakers below `parties`. Zero at padding unless `reads_padding`."""
        if self.base == "dialogue-rnn":
            return self.rnn(x, packing, mask, speakers, self.parties)
        if self.base == "none":
            return self.rnn(x) if self.reads_padding else zero_padded(self.rnn(x), mask)
        if self.reads_padding:
            return self.rnn(x)[0]
        if isinstance(self.rnn, nn.LSTM) and x.device.type == "cpu":
            return both_ways(self.rnn, x, torch.tensor(packing.lengths))
        packed: PackedSequence = self.rnn(packing.pack_sequence(x))[0]
        return packing.unpack_sequence(packed)


def encoded(
    encoders: Sequence[ContextEncoder], xs: Sequence[Tensor], packing: Packing, mask: Tensor, speakers: Tensor
) -> Iterator[Tensor]:
    """What several encoders make of a stream each, one after another; recurrences of DialogueRNN run side by side."""
    beside = [(e.rnn, x) for e, x in zip(encoders, xs, strict=True) if isinstance(e.rnn, DialogueRNN)]
    together: Iterator[Tensor] = iter(())
    if len(beside) > 1:
        rnns, read = zip(*beside, strict=True)
        together = iter(dialogue_rnns(rnns, read, packing, mask, speakers, encoders[0].parties))
    for encoder, x in zip(encoders, xs, strict=True):
        alone = len(beside) < 2 or not isinstance(encoder.rnn, DialogueRNN)
        yield encoder(x, packing, mask, speakers) if alone else next(together)
