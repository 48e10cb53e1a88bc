"""Packing, reversing and the sequential encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.dialogue_rnn import CONTEXT_ATTENTIONS, DialogueRNN, DialogueRNNCell, dialogue_rnns, run

LENGTHS = [2, 5, 1, 3]


def layout(steps: int = 6) -> Packing:
    return Packing(LENGTHS, steps, torch.device("cpu"))


def padded_mask(steps: int = 6) -> torch.Tensor:
    return torch.arange(steps) < torch.tensor(LENGTHS).unsqueeze(1)


def test_packing_and_back():
    x, mask = torch.randn(4, 6, 3), padded_mask()
    nodes = layout().pack(x)
    torch.testing.assert_close(nodes, x[mask])
    torch.testing.assert_close(layout().unpack(nodes), x * mask.unsqueeze(-1))
    packed = layout().pack_sequence(x)
    expected = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    torch.testing.assert_close(packed.data, expected.data)
    assert packed.batch_sizes.tolist() == expected.batch_sizes.tolist()
    torch.testing.assert_close(layout().unpack_sequence(packed), x * mask.unsqueeze(-1))


def test_reversing_is_per_dialogue_and_its_own_inverse():
    x = torch.arange(24).view(4, 6)
    flipped = layout().reverse(x)
    assert flipped[1].tolist() == [10, 9, 8, 7, 6, 11]
    assert torch.equal(layout().reverse(flipped), x)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_fast_lstm_on_the_cpu_equals_the_packed_one(layers):
    torch.manual_seed(0)
    encoder = ContextEncoder(3, 4, "lstm", layers=layers).double()
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    fast = encoder(x, layout(), padded_mask(), torch.zeros(4, 6, dtype=torch.long))
    packed = layout().unpack_sequence(encoder.rnn(layout().pack_sequence(x))[0])
    torch.testing.assert_close(fast, packed)
    cotangent = torch.randn_like(fast)
    sources = [x, *encoder.parameters()]
    for a, b in zip(
        torch.autograd.grad((fast * cotangent).sum(), sources),
        torch.autograd.grad((packed * cotangent).sum(), sources),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_dropout_between_lstm_layers_acts_in_training_only():
    encoder = ContextEncoder(3, 4, "lstm", layers=2, dropout=0.5)
    x, mask, speakers = torch.randn(4, 6, 3), padded_mask(), torch.zeros(4, 6, dtype=torch.long)
    assert not torch.allclose(encoder(x, layout(), mask, speakers), encoder(x, layout(), mask, speakers))
    encoder.eval()
    assert torch.equal(encoder(x, layout(), mask, speakers), encoder(x, layout(), mask, speakers))


def test_attention_weights_are_collected_and_sum_to_one():
    cell = DialogueRNNCell(5, 5, 4, 3, context_attention="general")
    weights: list[torch.Tensor] = []
    run([cell], [torch.randn(2, 4, 5)], torch.zeros(1, 2, 4).long(), torch.ones(1, 2, 4).bool(), 1, weights)
    assert [tuple(w.shape) for w in weights] == [(1, 2, 1), (1, 2, 2), (1, 2, 3)]
    for w in weights:
        torch.testing.assert_close(w.sum(-1), torch.ones(1, 2))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("attention", CONTEXT_ATTENTIONS)
def test_recurrences_side_by_side_equal_each_alone(attention, directions):
    torch.manual_seed(0)
    widths = (5, 5, 5) if attention == "dot" else (5, 7, 2)
    options = {"context_attention": attention, "attention_width": 6, "directions": directions, "listener_state": True}
    rnns = [DialogueRNN(w, 5, 4, 3, **options).double() for w in widths]
    xs = [torch.randn(4, 6, w, dtype=torch.float64) for w in widths]
    speakers = torch.randint(3, (4, 6))
    together = dialogue_rnns(rnns, xs, layout(), padded_mask(), speakers, 3)
    for rnn, x, out in zip(rnns, xs, together, strict=True):
        assert out.shape == (4, 6, 3 * directions)
        torch.testing.assert_close(out, rnn(x, layout(), padded_mask(), speakers, 3))
