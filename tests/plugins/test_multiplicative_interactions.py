"""Tests of multiplicative-interactions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo_plugins.multiplicative_interactions import MultiplicativeInteractions

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def maps(fusion: nn.Module, i: int = 0) -> tuple[Tensor, ...]:
    m = fusion.maps[i]
    return m.W, m.U, m.V, m.b


def mi(form: str, weights: tuple[Tensor, ...], z: Tensor, x: Tensor) -> Tensor:
    """One sample, by the definition."""
    w, u, v, b = weights
    if form == "matrix":
        return torch.stack([z @ w[..., o] @ x for o in range(w.shape[-1])]) + z @ u + x @ v + b
    if form == "vector":
        return torch.diag(z @ w + v) @ x + z @ u + b
    return (z @ w + v) * x + z @ u + b


@pytest.mark.parametrize("form", ["matrix", "vector", "scalar"])
@pytest.mark.parametrize("flip", [False, True])
def test_multiplicative_interactions_of_two(form, flip):
    dims = {"text": 5, "audio": 3}
    fusion = shaken(MultiplicativeInteractions(dims, 3, form=form, project=False, flip=flip))
    xs = streams()[:2]
    out = fusion(xs)
    for b in range(2):
        z, x = (xs[flip][b, 1], xs[not flip][b, 1])
        torch.testing.assert_close(out[b, 1], fusion.out(mi(form, maps(fusion), z, x)))


@pytest.mark.parametrize("form", ["matrix", "vector", "scalar"])
def test_multiplicative_interactions_of_three(form):
    fusion, xs = shaken(MultiplicativeInteractions(DIMS, 4, form=form, project=False)), streams()
    x, y, z = (s[1, 2] for s in xs)
    if form == "matrix":
        w, u, v, b = maps(fusion)
        a = torch.einsum("n,m,nmpq->pq", x, y, w) + torch.einsum("n,npq->pq", x, u)
        a = a + torch.einsum("m,mpq->pq", y, v) + b
        expected = z @ a + mi(form, maps(fusion, 1), x, y)
    else:
        expected = fusion.out(mi(form, maps(fusion, 1), mi(form, maps(fusion), x, y), z))
    torch.testing.assert_close(fusion(xs)[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_all_pairs_has_the_fusion_on_its_diagonal():
    fusion = shaken(MultiplicativeInteractions(DIMS, 4, project=False))
    xs = [x[:, 0] for x in streams(3)]
    pairs = fusion.all_pairs(xs)
    assert pairs.shape == (3, 3, 4)
    torch.testing.assert_close(pairs.diagonal().mT, fusion(xs), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(pairs[0, 1], pairs[1, 1])


def test_matrix3d_is_a_matrix_flattened():
    dims, xs = {"text": 5, "audio": 3}, streams()[:2]
    cube = shaken(MultiplicativeInteractions(dims, 6, form="matrix3D", rows=2, project=False))
    flat = MultiplicativeInteractions(dims, 6, project=False).eval()
    flat.load_reference({k: v.reshape(*v.shape[:-2], 6) for k, v in cube.maps[0].state_dict().items()})
    torch.testing.assert_close(cube(xs), flat(xs))


def test_clipping_of_values_and_gradients():
    dims, xs = {"text": 5, "audio": 3}, streams()[:2]
    plain = shaken(MultiplicativeInteractions(dims, 6, project=False))
    clipped = MultiplicativeInteractions(dims, 6, project=False, clip=(-0.5, 0.5), grad_clip=(-0.1, 0.2))
    clipped.load_state_dict(plain.state_dict())
    torch.testing.assert_close(clipped(xs), plain([x.clamp(-0.5, 0.5) for x in xs]))
    clipped(xs).sum().backward()
    plain([x.clamp(-0.5, 0.5) for x in xs]).sum().backward()
    for a, b in zip(clipped.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad.clamp(-0.1, 0.2))


@pytest.mark.parametrize(
    ("dims", "options", "message"),
    [
        (DIMS, {"form": "matrix3D"}, "takes two modalities"),
        ({"a": 4, "b": 3}, {"form": "matrix3D", "rows": 3}, "rows divide out_dim=4"),
        (DIMS, {"clip": (1, -1)}, "lower and an upper bound"),
        (DIMS, {"form": "cube"}, "form='cube' is not one of"),
        (DIMS, {"width": 3, "project": False}, "needs project=True"),
        ([2, 2, 2, 2], {}, "fuses 2 to 3 modalities, got 4"),
    ],
)
def test_multiplicative_interactions_refuse(dims, options, message):
    with pytest.raises(OptionError, match=message):
        MultiplicativeInteractions(dims, **options)
