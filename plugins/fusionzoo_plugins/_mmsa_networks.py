"""Whole networks of the utterance-level literature, as thuiar/MMSA has them: what stands around a fusion there.

`SubNetworks` with `TensorFusion`, `LowRankFusion` or `ConcatFC` inside is MMSA's `TFN`, `LMF` or `LF_DNN`. Their batch norms
want two utterances or more in training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionzoo.fusion import Fusion
from fusionzoo.layers import dropout
from fusionzoo.numerics import lstm_precision, zero_padded
from fusionzoo.reference import WithReference, check_reference, copy_reference, prefixed


def last_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """`(B, d)`: the last real step of `x (B, T, d)`; mask bool `(B, T)`, padding at the end."""
    if mask is None:
        return x[:, -1]
    last = (mask.sum(1) - 1).clamp(min=0)
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)


class SubNet(nn.Module):
    """Batch norm, dropout and three ReLU layers, over utterance vectors `(B, inputs)` -> `(B, hidden)`."""

    def __init__(self, inputs: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(inputs), dropout
        self.linear_1 = nn.Linear(inputs, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = dropout(self.norm(x), self.dropout, self.training)
        return self.linear_3(self.linear_2(self.linear_1(x).relu()).relu()).relu()


class TextSubNet(nn.Module):
    """Last state of an LSTM and a linear map, over words `(B, T, inputs)` -> `(B, outputs)`."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, batch_first=True)
        self.linear_1 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        with lstm_precision(zero_padded(x, mask), self.rnn.get_parameter("weight_ih_l0")) as words:
            states, _ = self.rnn(words)
        return self.linear_1(last_real(states, mask))


class SubNetworks(nn.Module):
    """An LSTM over the words, ReLU layers over the other modalities' utterance vectors, and a fusion of what they give.

    Parameters
    ----------
    inputs : modality to width of its features.
    fusion : any fusion; its `dims` are the widths that the sub-networks give, its `out_dim` the number of classes.
    text : the modality that is a sequence of words.
    hidden : width of its LSTM.
    dropout : modality to rate, in front of its layers; none where it has no entry, and none on the text.
    bounded : squash the answer to `output_shift` + (0, `output_range`), -3 to 3 unless loaded: MMSA's TFN in regression.

    Shapes: text `(B, T, d)`, the others `(B, d)` or `(B, 1, d)`; mask bool `(B, T)` of the words -> `(B, out_dim)`.
    Source: Zadeh et al., EMNLP 2017, section 4.1; thuiar/MMSA@a94e65d07f, `models/subNets/FeatureNets.py`.
    """

    output_range: Tensor
    output_shift: Tensor

    def __init__(
        self,
        inputs: Mapping[str, int],
        fusion: Fusion,
        *,
        hidden: int,
        text: str = "text",
        dropout: Mapping[str, float] | None = None,
        bounded: bool = False,
    ):
        super().__init__()
        self.fusion, self.text, self.bounded = fusion, text, bounded
        rates = dropout or {}
        self.subnets = nn.ModuleDict(
            {
                m: TextSubNet(inputs[m], hidden, width) if m == text else SubNet(inputs[m], width, rates.get(m, 0.0))
                for m, width in fusion.dims.items()
            }
        )
        if bounded:
            self.register_buffer("output_range", torch.tensor([6.0]))
            self.register_buffer("output_shift", torch.tensor([-3.0]))

    def encode(self, streams: Mapping[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        """What the sub-networks give, `(B, w)` by modality."""
        return {
            m: net(streams[m], mask) if m == self.text else net(streams[m].flatten(1))
            for m, net in self.subnets.items()
        }

    def decide(self, encoded: Mapping[str, Tensor]) -> Tensor:
        """The answer from what `encode` gave."""
        out = self.fusion(encoded)
        return out.sigmoid() * self.output_range + self.output_shift if self.bounded else out

    def forward(self, streams: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        return self.decide(self.encode(streams, mask))

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load MMSA's `TFN`, `LMF` or `LF_DNN`; modalities are named, and the fusion's are, audio, video, text in this order."""
        parts = {f"{m}_subnet.": net for m, net in self.subnets.items()}
        scale = {k: v for k, v in state_dict.items() if k in ("output_range", "output_shift")}
        for prefix, net in parts.items():
            check_reference(net, prefixed(state_dict, prefix), prefix)
        # The fusion first: what it refuses, unknown names among it, leaves the network as it was.
        self.fusion.load_reference({k: v for k, v in state_dict.items() if not k.startswith((*parts, *scale))})
        for prefix, net in parts.items():
            copy_reference(net, prefixed(state_dict, prefix))
        if self.bounded:
            with torch.no_grad():
                for name, value in scale.items():
                    self.get_buffer(name).copy_(value)


class EarlyFusionLSTM(WithReference, nn.Module):
    """Concatenation at every step, an LSTM, and two linear maps of its last state: MMSA's `EF_LSTM`.

    Parameters
    ----------
    dims : modality to width.
    num_classes : width of the answer.
    hidden, layers, dropout : of the LSTM.
    steps : length of all sequences, for the batch norm over steps of the published code, which has one scale per step;
        None leaves the norm out and takes sequences of any length.

    Shapes: streams `(B, T, d_m)`, mask bool `(B, T)`, padding at the end -> `(B, num_classes)`.
    Source: Williams et al., "Recognizing Emotions in Video Using Multimodal DNN Feature Fusion", Challenge-HML 2018;
    thuiar/MMSA@a94e65d07f, `models/singleTask/EF_LSTM.py`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        steps: int | None = None,
    ):
        super().__init__()
        self.names, self.dropout = tuple(dims), dropout
        self.norm = nn.Identity() if steps is None else nn.BatchNorm1d(steps)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(sum(dims.values()), hidden, layers, dropout=between, batch_first=True)
        self.linear = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, num_classes)

    def forward(self, streams: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """Answers `(B, num_classes)`."""
        x = self.norm(zero_padded(torch.cat([streams[m] for m in self.names], -1), mask))
        with lstm_precision(x, self.lstm.get_parameter("weight_ih_l0")) as steps:
            states, _ = self.lstm(steps)
        x = dropout(last_real(states, mask), self.dropout, self.training)
        return self.out(dropout(self.linear(x).relu(), self.dropout, self.training))

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}
