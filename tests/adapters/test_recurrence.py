"""The written-out gradients of DialogueRNN's loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.kernels.gru_loop import GRU
from fusionzoo_adapters.parts.dialogue_rnn import CONTEXT_ATTENTIONS, DialogueRNNCell, Start, steps

LENGTHS = [2, 4, 1]
CPU = torch.device("cpu")


def cells(count: int, attention: str, listener: bool, dropout: float = 0.0) -> list[DialogueRNNCell]:
    torch.manual_seed(0)
    options = {"listener_state": listener, "context_attention": attention, "attention_width": 3, "tanh": True}
    return [DialogueRNNCell(3, 3, 2, 2, dropout=dropout, **options).double() for _ in range(count)]


def test_packing_puts_the_longest_dialogue_first():
    packing = Packing(LENGTHS, 5, CPU)
    assert packing.sizes == [3, 2, 1, 1]
    assert packing.order.tolist() == [1, 0, 2]
    x = torch.arange(15.0).view(3, 5, 1)
    rows = packing.pack_rows(x)
    assert rows.flatten().tolist() == [5, 0, 10, 6, 1, 7, 8]
    assert packing.earlier.tolist() == [0, 1, 3, 5]
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    torch.testing.assert_close(packing.unpack_rows(rows), x * mask.unsqueeze(-1))
    torch.testing.assert_close(rows[packing.rows[mask]], x[mask])


@pytest.mark.parametrize("listener", [False, True])
@pytest.mark.parametrize("attention", CONTEXT_ATTENTIONS)
def test_gradients(attention, listener):
    models = cells(2, attention, listener, dropout=0.3)
    xs = [torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True) for _ in models]
    history = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    parties = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    emotion = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    speakers = torch.randint(2, (2, 3, 5))
    weights = [p for m in models for p in m.parameters()]
    # A padded step among those that are computed.
    active = torch.ones(2, 3, 5, dtype=torch.bool)
    active[:, 1, 2:] = False

    def outputs(*_):
        torch.manual_seed(1)
        start = Start(history, parties, emotion)
        out = steps(models, xs, speakers, 2, Packing(LENGTHS, 5, CPU), active, start)
        assert out.parties is not None
        return out.emotion, out.state, out.parties, out.weights

    assert torch.autograd.gradcheck(outputs, (*xs, history, parties, emotion, *weights), fast_mode=True)


@pytest.mark.parametrize("attention", CONTEXT_ATTENTIONS)
def test_a_dialogue_in_two_pieces(attention):
    (cell,) = cells(1, attention, False)
    x, speakers = torch.randn(2, 6, 3, dtype=torch.float64), torch.randint(2, (1, 2, 6))
    zeros = [torch.zeros(1, 2, *shape, dtype=torch.float64) for shape in ((0, 3), (2, 2), (2,))]
    whole = steps([cell], [x], speakers, 2, Packing([6, 6], 6, CPU), start=Start(*zeros))
    first = steps([cell], [x[:, :4]], speakers[..., :4], 2, Packing([4, 4], 4, CPU), start=Start(*zeros))
    assert first.parties is not None
    after = Start(first.state, first.parties, first.emotion[:, :, -1])
    second = steps([cell], [x[:, 4:]], speakers[..., 4:], 2, Packing([2, 2], 2, CPU), start=after)
    torch.testing.assert_close(torch.cat([first.emotion, second.emotion], 2), whole.emotion)
    torch.testing.assert_close(second.parties, whole.parties)
    torch.testing.assert_close(second.weights[:, :, 1], whole.weights[:, :, 5])


def test_the_plain_recurrence_equals_torch():
    torch.manual_seed(0)
    gru = nn.GRU(3, 4, batch_first=True).double()
    x = torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True)
    packing = Packing(LENGTHS, 5, CPU)
    names = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
    input_weight, input_bias, weight, bias = (gru.get_parameter(n) for n in names)
    gates = nn.functional.linear(packing.pack_rows(x), input_weight, input_bias).unsqueeze(0)
    rows = GRU.apply(gates, weight.unsqueeze(0), bias.unsqueeze(0), x.new_zeros(1, 3, 4), None, packing)
    assert isinstance(rows, torch.Tensor)
    out = packing.unpack_rows(rows)[0]
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    expected = nn.utils.rnn.pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=5)[0]
    torch.testing.assert_close(out, expected)
    cotangent, sources = torch.randn_like(out), [x, *gru.parameters()]
    grads = torch.autograd.grad((out * cotangent).sum(), sources)
    for a, b in zip(grads, torch.autograd.grad((expected * cotangent).sum(), sources), strict=True):
        torch.testing.assert_close(a, b)
