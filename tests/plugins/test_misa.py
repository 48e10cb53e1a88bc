"""Tests of misa."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins._misa_losses import cmd, orthogonality, reconstruction
from fusionzoo_plugins.misa import MISA, MISANetwork

DIMS = {"text": 6, "audio": 4, "visual": 5}
RAGGED = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(lengths=(5, 5, 5), batch=2, dims=DIMS):
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, n, d, generator=generator) for (m, d), n in zip(dims.items(), lengths, strict=True)}


def build(cls, *args, **options):
    torch.manual_seed(0)
    return cls(*args, **options).eval()


def test_misa_losses_are_those_of_the_real_rows():
    torch.manual_seed(0)
    x, y = torch.rand(2, 2, 5, 3)
    a, b = x[RAGGED], y[RAGGED]
    centred = a - a.mean(0), b - b.mean(0)
    expected = (a.mean(0) - b.mean(0)).norm()
    expected = expected + sum(((centred[0] ** k).mean(0) - (centred[1] ** k).mean(0)).norm() for k in (2, 3, 4, 5))
    x = x.masked_fill(~RAGGED.unsqueeze(-1), torch.nan)
    torch.testing.assert_close(cmd(x, y, RAGGED), expected)
    unit = [c / c.norm(dim=1, keepdim=True) for c in centred]
    torch.testing.assert_close(orthogonality(x, y, RAGGED), (unit[0].T @ unit[1]).square().mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(reconstruction(x, y, RAGGED), (a - b).square().mean())


@pytest.mark.parametrize("loss", [cmd, orthogonality, reconstruction])
@pytest.mark.parametrize("rows", [0, 1])
def test_misa_losses_of_no_row_and_of_one(loss, rows):
    x = torch.rand(4, 3, requires_grad=True)
    value = loss(x, torch.rand(4, 3), torch.arange(4) < rows)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if rows == 0 or loss is orthogonality:
        assert value == 0


def test_misa_compares_modalities_only_where_both_are_present():
    fusion, x = build(MISA, DIMS, width=8, difference=1.0), inputs()
    masks = dict.fromkeys(DIMS, RAGGED) | {"audio": RAGGED & (torch.arange(5) % 2 == 0)}
    out = fusion.fuse(x, masks)
    p, s = ({m: out.streams[f"{m}.{part}"] for m in DIMS} for part in ("private", "shared"))
    pairs = [(m, n, masks[m] & masks[n]) for m, n in combinations(DIMS, 2)]
    similarity = torch.stack([cmd(s[m][k], s[n][k]) for m, n, k in pairs]).mean()
    torch.testing.assert_close(out.losses["similarity"], similarity)
    difference = sum(orthogonality(p[m][masks[m]], s[m][masks[m]]) for m in DIMS)
    difference = difference + sum(orthogonality(p[m][k], p[n][k]) for m, n, k in pairs)
    torch.testing.assert_close(out.losses["difference"], difference)
    errors = [(out.streams[f"{m}.reconstruction"] - out.streams[m])[masks[m]].square().mean() for m in DIMS]
    torch.testing.assert_close(out.losses["reconstruction"], torch.stack(errors).mean())


def test_misa_adversarial_gradient_comes_back_reversed():
    def gradients(reverse):
        fusion = build(MISA, DIMS, width=8, match="adversarial", reverse=reverse)
        fusion.fuse(inputs(), RAGGED).losses["similarity"].backward()
        return fusion.shared.weight.grad, fusion.discriminator.fc2.weight.grad

    (shared, told), (twice, same) = gradients(1.0), gradients(2.0)
    torch.testing.assert_close(twice, 2 * shared)
    torch.testing.assert_close(same, told)


def test_misa_network_reads_sequences_whatever_their_padding():
    dims = {"text": 6, "visual": 5, "audio": 4}
    network = build(MISANetwork, dims, 3, cell="gru", width=8)
    x = inputs(dims=dims)
    out = network(x, RAGGED)
    assert out.fused.shape == (2, 3)
    assert out.streams["text.private"].shape == (2, 8)
    alone = network({m: v[1:, :3] for m, v in x.items()})
    torch.testing.assert_close(out.fused[1:], alone.fused)


def test_misa_refusals():
    with pytest.raises(OptionError, match="difference must be a number of at least 0"):
        MISA(DIMS, difference=-1)
    with pytest.raises(OptionError, match="one of"):
        MISA(DIMS, match="mse")
    with pytest.raises(OptionError, match="match='adversarial'"):
        MISA(DIMS, width=8).tell_apart(torch.zeros(2, 8))
    with pytest.raises(ReferenceWeightsError, match=r"missing transformer_encoder\.layers\.0\.norm1"):
        MISA(DIMS, width=8).load_reference({})
