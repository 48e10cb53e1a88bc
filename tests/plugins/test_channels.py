"""What fusions that reweigh channels share."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ShapeError
from fusionzoo_plugins.cfn_sr import CFNSR
from fusionzoo_plugins.film import FiLM
from fusionzoo_plugins.mmtm import MMTM
from fusionzoo_plugins.msaf import MSAF

DIMS = {"text": 8, "audio": 6, "visual": 5}


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def unaligned() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    x = inputs((5, 7, 4))
    lengths = {"text": (5, 3), "audio": (7, 2), "visual": (3, 4)}
    return x, {
        m: torch.arange(v.shape[1]) < torch.tensor(lengths[m]).unsqueeze(1) for m, v in zip(DIMS, x, strict=True)
    }


@pytest.mark.parametrize("cls", [CFNSR, MSAF, MMTM])
def test_unaligned_streams_enter_as_means_beside_the_anchor(cls):
    xs, masks = unaligned()
    with pytest.raises(ShapeError, match="join='anchor'"):
        cls(DIMS)(xs, masks)
    torch.manual_seed(0)
    beside = cls(DIMS, 19, join="anchor").eval()
    pooled = cls(DIMS, 19, join="pool").eval()
    pooled.load_state_dict(beside.state_dict())
    result, vector = beside.fuse(xs, masks), pooled(xs, masks)
    assert result.fused.shape == (2, 5, 19)
    assert vector.shape == (2, 19)
    streams = result.streams
    audio = torch.stack([streams["audio"][0].mean(0), streams["audio"][1, :2].mean(0)])
    torch.testing.assert_close(vector[:, 8:14], audio)
    torch.testing.assert_close(result.fused[0, :, 8:14], audio[:1].expand(5, -1))
    torch.testing.assert_close(vector[1, :8], streams["text"][1, :3].mean(0))
    flat = [x[:, 0] for x in xs]
    torch.testing.assert_close(pooled(flat), beside(flat))


def test_film_on_unaligned_streams_conditions_on_means():
    xs, masks = unaligned()
    fusion = FiLM(DIMS, hidden=4, scope="dialogue").eval()
    means = [xs[1][1, :2].mean(0), xs[2][1, :4].mean(0)]
    parts = [g(x) for g, x in zip(fusion.generators, means, strict=True)]
    scale, shift = (parts[0] + parts[1]).chunk(2, -1)
    torch.testing.assert_close(fusion(xs, masks)[1, :3], (1 + scale) * xs[0][1, :3] + shift)
    with pytest.raises(ShapeError, match="scope='dialogue'"):
        FiLM(DIMS)(xs, masks)
