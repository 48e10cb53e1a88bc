"""Bands and packed transformers, the parts of COGMEN, CORECT and M3NET, beside plain forms."""

from __future__ import annotations

import pytest
import torch
from graph_hosts import close, transformer

from fusionzoo.kernels.bands import Band, BandAttention, ModalBandConv
from fusionzoo.kernels.grouped_attention import GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.testing.comparisons import counts, largest


@pytest.mark.parametrize("window", [(0, 0), (3, 0), (0, 2), (5, 4), (None, None), (None, 1)])
@pytest.mark.parametrize("itself", [True, False])
def test_a_band_holds_every_pair_of_the_window_once(window, itself):
    past, future = window
    layout = Packing([7, 1, 23, 4], 25, torch.device("cpu"))
    band = Band(layout, past, future, itself)
    pairs = band.dense(band.mask.unsqueeze(-1).float())[:, 0]
    for b, n in enumerate(layout.lengths):
        for i in range(25):
            for j in range(25):
                near = (past is None or j >= i - past) and (future is None or j <= i + future) and (itself or i != j)
                assert pairs[b, i, j] == (i < n and j < n and near)
    x = torch.randn(2, 35, 3)
    close(band.join(band.cut(x)), x)


def test_a_band_costs_in_proportion_to_the_utterances():
    sizes = [Band(Packing([n] * 3, n, torch.device("cpu")), 11, 5).mask.numel() for n in (100, 400, 1600)]
    assert sizes[2] / sizes[0] == pytest.approx(16, rel=0.1)


def test_band_attention_and_convolution_leave_out_what_is_missing():
    torch.manual_seed(0)
    layout = Packing([6, 3], 6, torch.device("cpu"))
    band, x = Band(layout, 2, 1), torch.randn(3, 9, 4)
    there = torch.ones(3, 9, dtype=torch.bool)
    there[1] = False
    attention, conv = BandAttention(4, 5, 2), ModalBandConv(4, 5, 3)
    x = torch.where(there.unsqueeze(-1), x, 0.0)
    for layer in (attention, conv):
        full = layer(x, band, there)
        other = x.clone()
        other[1] = 7.0 if layer is attention else 0.0
        changed = layer(other, band, there)
        full, changed = (y[0] if isinstance(y, tuple) else y for y in (full, changed))
        close(full[[0, 2]], changed[[0, 2]])


def test_stand_ins_equal_attention_over_every_padded_step():
    torch.manual_seed(0)
    model = make_transformer(groups=2, norm="post")
    layout = Packing([5, 2, 7], 7, torch.device("cpu"))
    pad = torch.randn(2, 3, 1, 6)
    real = (torch.arange(7) < torch.tensor(layout.lengths).unsqueeze(1)).view(1, 3, 7, 1)
    x = torch.where(real, torch.randn(2, 3, 7, 6), pad)
    whole = Tokens(Packing([7, 7, 7], 7, torch.device("cpu")))
    expected = model(torch.stack([whole.pack(y) for y in x]), whole).unflatten(1, (3, 7))
    tokens = Tokens(layout, stand_in=True)
    packed = model(torch.stack([tokens.pack(y) for y in x]), tokens)
    assert packed.shape[1] == 14 + 2
    close(tokens.utterances(packed), torch.stack([layout.pack(y) for y in expected]))


def make_transformer(groups: int, norm: str) -> GroupedTransformer:
    model = GroupedTransformer(groups, 6, 2, heads=2, norm=norm)
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.4
    return model


@pytest.mark.parametrize("pre", [True, False])
def test_grouped_transformers_are_as_many_transformers(pre):
    torch.manual_seed(0)
    model = make_transformer(3, "pre" if pre else "post")
    layout = Packing([4, 1], 4, torch.device("cpu"))
    tokens, x, memory = Tokens(layout), torch.randn(3, 5, 6), torch.randn(3, 5, 6)
    for m in (None, memory):
        out = model(x, tokens, m)
        for g in range(3):
            for part in (slice(0, 4), slice(4, 5)):
                expected = transformer(model, g, x[g, part], None if m is None else m[g, part], pre)
                close(out[g, part], expected)


def test_a_row_without_keys_attends_to_nothing():
    model = make_transformer(2, "pre").eval()
    layout = Packing([3, 2], 3, torch.device("cpu"))
    tokens, x, memory = Tokens(layout), torch.randn(2, 5, 6), torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[0, 1] = False
    out = model(x, tokens, memory, mask)
    grad = torch.autograd.grad(out.sum(), memory)[0]
    assert torch.isfinite(out).all()
    assert torch.isfinite(grad).all()
    assert (grad[0, 3:] == 0).all()
    assert counts(grad[1], largest(grad)).any()
