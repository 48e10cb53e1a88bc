"""The shared attention layers by their definitions, and at the edges: masks, empty rows, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.layers import FORMS, MatchingAttention, SimpleAttention
from fusionzoo.reference import copy_reference_parts


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


def build(form: str, tanh: bool = False) -> MatchingAttention:
    torch.manual_seed(0)
    return MatchingAttention(4, 4 if form == "dot" else 3, form, alpha_width=5, tanh=tanh).double()


def data(attention: MatchingAttention):
    memory = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 3, attention.query_width, dtype=torch.float64, requires_grad=True)
    return memory, query, torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1]], dtype=torch.bool)


def score(attention: MatchingAttention, m, x):
    if attention.form == "concat":
        s = attention.vector_prod(torch.tanh(attention.transform(torch.cat([m, x]))))[0]
    else:
        s = (x if attention.form == "dot" else attention.transform(x)) @ m
    return s.tanh() if attention.tanh else s


@pytest.mark.parametrize("tanh", [False, True])
def test_matching_by_definition(form, tanh):
    attention = build(form, tanh)
    memory, query, mask = data(attention)
    pooled, weights = attention(memory, query, mask)
    assert pooled.shape == (2, 3, 4)
    assert weights.shape == (2, 3, 6)
    for b in range(2):
        real = mask[b].nonzero().squeeze(1)
        for q in range(3):
            expected = torch.stack([score(attention, memory[b, j], query[b, q]) for j in real]).softmax(0)
            torch.testing.assert_close(weights[b, q, real], expected)
            torch.testing.assert_close(pooled[b, q], expected @ memory[b, real])
    assert (weights[~mask.unsqueeze(1).expand(-1, 3, -1)] == 0).all()
    torch.testing.assert_close(attention(memory, query)[1].sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_padding_and_empty_rows_reach_neither_values_nor_gradients(form):
    attention = build(form)
    memory, query, mask = data(attention)
    expected = attention(memory[:1], query[:1], mask[:1])[0]
    poisoned = memory.detach().clone()
    poisoned[~mask] = float("nan")
    poisoned[1] = float("inf")
    poisoned.requires_grad_()
    mask[1] = False
    pooled, weights = attention(poisoned, query, mask)
    torch.testing.assert_close(pooled[:1], expected)
    assert (pooled[1] == 0).all()
    assert (weights[1] == 0).all()
    (pooled.square().sum() + weights.square().sum()).backward()
    for tensor in (poisoned, query, *attention.parameters()):
        assert torch.isfinite(tensor.grad).all()
    assert (poisoned.grad[~mask] == 0).all()


def test_matching_gradients(form):
    attention = build(form, tanh=True)
    memory, query, mask = data(attention)
    assert torch.autograd.gradcheck(lambda m, q: attention(m, q, mask), (memory, query))


def test_parameter_counts(form):
    expected = {"general2": 3 * 4 + 4, "general": 3 * 4, "dot": 0, "concat": (4 + 3 + 1) * 5}
    assert sum(p.numel() for p in build(form).parameters()) == expected[form]


def test_simple_attention():
    torch.manual_seed(0)
    attention, memory = SimpleAttention(4), torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    pooled, weights = attention(memory, mask)
    expected = attention.scalar(memory[0, mask[0]]).squeeze(-1).softmax(0)
    torch.testing.assert_close(weights[0, mask[0]], expected)
    torch.testing.assert_close(pooled[0], expected @ memory[0, mask[0]])
    assert (pooled[1] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "general3"}, "general2"),
        ({"form": "dot"}, "equal widths"),
        ({"form": "concat"}, "alpha_width"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        MatchingAttention(4, 3, **options)


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        MatchingAttention(4, 4)(torch.randn(2, 4), torch.randn(2, 1, 4))


def test_reference_weights_are_checked_before_anything_is_copied(form):
    attention = build(form)
    state = {k: v + 1 for k, v in attention.state_dict().items()}
    before = {k: v.clone() for k, v in attention.state_dict().items()}
    with pytest.raises(ReferenceWeightsError, match="unknown extra"):
        attention.load_reference({**state, "extra": torch.zeros(1)})
    if state:
        with pytest.raises(ReferenceWeightsError, match="missing"):
            attention.load_reference({})
        name = next(iter(state))
        with pytest.raises(ReferenceWeightsError, match="shape"):
            attention.load_reference({**state, name: torch.zeros(9, 9)})
    assert all(torch.equal(v, before[k]) for k, v in attention.state_dict().items())
    attention.load_reference(state)
    assert all(torch.equal(v, state[k]) for k, v in attention.state_dict().items())


def test_parts_of_a_reference():
    first, second = nn.Linear(2, 3), nn.Linear(3, 1)
    state = {
        f"{p}.{k}": torch.ones_like(v) for p, m in (("a", first), ("b", second)) for k, v in m.state_dict().items()
    }
    copy_reference_parts({"a.": first, "b.": second}, {**state, "unused.weight": torch.zeros(1)}, ignored=("unused.",))
    assert all((p == 1).all() for m in (first, second) for p in m.parameters())
    with pytest.raises(ReferenceWeightsError, match=r"unused\.weight"):
        copy_reference_parts({"a.": first, "b.": second}, {**state, "unused.weight": torch.zeros(1)})
    with torch.no_grad():
        first.weight.zero_()
    with pytest.raises(ReferenceWeightsError, match=r"b\.bias"):
        copy_reference_parts({"a.": first, "b.": second}, {k: v for k, v in state.items() if k != "b.bias"})
    assert (first.weight == 0).all()
