"""Bidirectional LSTMs and GRUs over dialogues of different lengths, none of which reads padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fusionzoo.kernels import fast_form
from fusionzoo.kernels.dropout import dropout
from fusionzoo.numerics import lstm_precision, zero_padded


def plain_both_ways(rnn: nn.LSTM | nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """torch's own layers over a packed sequence, which waits for the lengths where they lie on a device."""
    with lstm_precision(x, rnn.get_parameter("weight_ih_l0")) as x:
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        out = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]
    return zero_padded(out, torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1))


@fast_form(plain_both_ways)
def both_ways(rnn: nn.LSTM | nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """`(B, T, 2 * hidden)` from `x (B, T, width)` and lengths `(B,)`, zero at padding.

    The backward direction runs forward over reversed dialogues: both then meet the padding last, and torch's fast CPU
    kernel for LSTMs, which takes no packed sequence, gives the same values.
    """
    step, length = torch.arange(x.shape[1], device=x.device), lengths.unsqueeze(1)
    mirror = torch.where(step < length, length - 1 - step, step)
    mirror = (mirror + torch.arange(len(x), device=x.device).unsqueeze(1) * x.shape[1]).flatten()

    def turned(y: Tensor) -> Tensor:
        return y.flatten(0, 1).index_select(0, mirror).view(y.shape)

    for layer in range(rnn.num_layers):
        x = torch.cat([_one_way(rnn, x, f"{layer}"), turned(_one_way(rnn, turned(x), f"{layer}_reverse"))], -1)
        if layer + 1 < rnn.num_layers:
            x = dropout(x, rnn.dropout, rnn.training)
    return zero_padded(x, step < length)


def _one_way(rnn: nn.LSTM | nn.GRU, x: Tensor, suffix: str) -> Tensor:
    weights: list[Tensor] = [
        rnn.get_parameter(f"{kind}_l{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    with lstm_precision(x, weights[0]) as x:
        start = x.new_zeros(1, x.shape[0], rnn.hidden_size)
        if isinstance(rnn, nn.LSTM):
            return torch.lstm(x, (start, start), weights, True, 1, 0.0, rnn.training, False, True)[0]
        return torch.gru(x, start, weights, True, 1, 0.0, rnn.training, False, True)[0]
