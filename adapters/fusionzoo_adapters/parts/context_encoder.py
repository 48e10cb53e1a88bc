"""Sequential context encoders: from utterance features to features that know the dialogue around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fusionzoo._options import check_choice
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.packing import Layout
from fusionzoo.numerics import lstm_precision, zero_padded
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN, dialogue_rnns

BASES = ("lstm", "gru", "dialogue-rnn", "none")


class ContextEncoder(nn.Module):
    """`(B, T, width)` to `(B, T, directions * hidden)`.

    Parameters
    ----------
    width, hidden : input width, and state width of a direction.
    base : `lstm` and `gru` are bidirectional layers, `dialogue-rnn` the recurrence of DialogueRNN, `none` a linear map of
        each utterance.
    layers : of `lstm` and `gru`. dropout : between their layers, or on the states of `dialogue-rnn`.
    parties : largest number of speakers; used by `dialogue-rnn`.
    bare : run over padding instead of packing; real outputs then depend on it.
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
        bare: bool = False,
        directions: int = 2,
        options: Mapping | None = None,
    ):
        super().__init__()
        self.base, self.parties, self.bare = check_choice(base, BASES, "base", self), parties, bare
        self.rnn: nn.Module
        if base in ("lstm", "gru"):
            kind = nn.LSTM if base == "lstm" else nn.GRU
            between = dropout if layers > 1 else 0.0
            self.rnn = kind(width, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        elif base == "dialogue-rnn":
            extra = {"global_width": 150, "party_width": 150, **(options or {})}
            self.rnn = DialogueRNN(
                width, emotion_width=hidden, dropout=dropout, bare=bare, directions=directions, **extra
            )
        else:
            self.rnn = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor, speakers: Tensor) -> Tensor:
        """`x (B, T, width)`, mask and speakers `(B, T)`; speakers below `parties`. Zero at padding unless `bare`."""
        if self.base == "dialogue-rnn":
            return self.rnn(x, layout, mask, speakers, self.parties)
        if self.base == "none":
            return self.rnn(x) if self.bare else zero_padded(self.rnn(x), mask)
        if self.bare:
            return self.rnn(x)[0]
        if isinstance(self.rnn, nn.LSTM) and x.device.type == "cpu":
            return zero_padded(self._by_direction(self.rnn, x, layout), mask)
        packed: PackedSequence = self.rnn(layout.pack_sequence(x))[0]
        return layout.unpack_sequence(packed)

    def _by_direction(self, rnn: nn.LSTM, x: Tensor, layout: Layout) -> Tensor:
        """A bidirectional LSTM whose backward direction runs over reversed dialogues.

        Both directions then meet the padding last and the values equal those of a packed sequence, which torch's fast
        CPU kernel does not take (packing is about three times slower there).
        """

        def run(y: Tensor, suffix: str) -> Tensor:
            names = (f"{kind}_l{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            weights = [getattr(rnn, name) for name in names]
            with lstm_precision(y, weights[0]) as y:
                start = (y.new_zeros(1, y.shape[0], rnn.hidden_size),) * 2
                return torch.lstm(y, start, weights, True, 1, 0.0, self.training, False, True)[0]

        for layer in range(rnn.num_layers):
            back = layout.reverse(run(layout.reverse(x), f"{layer}_reverse"))
            x = torch.cat([run(x, str(layer)), back], -1)
            if layer + 1 < rnn.num_layers:
                x = dropout(x, rnn.dropout, self.training)
        return x


def encoded(
    encoders: Sequence[ContextEncoder], xs: Sequence[Tensor], layout: Layout, mask: Tensor, speakers: Tensor
) -> Iterator[Tensor]:
    """What several encoders make of a stream each, one after another; recurrences of DialogueRNN run side by side."""
    beside = [(e.rnn, x) for e, x in zip(encoders, xs, strict=True) if isinstance(e.rnn, DialogueRNN)]
    together: Iterator[Tensor] = iter(())
    if len(beside) > 1:
        rnns, read = zip(*beside, strict=True)
        together = iter(dialogue_rnns(rnns, read, layout, mask, speakers, encoders[0].parties))
    for encoder, x in zip(encoders, xs, strict=True):
        alone = len(beside) < 2 or not isinstance(encoder.rnn, DialogueRNN)
        yield encoder(x, layout, mask, speakers) if alone else next(together)
