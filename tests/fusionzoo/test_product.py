"""Products by oneDNN are torch's own, gradients included."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fusionzoo import _product
from fusionzoo._product import Linear, Product, _packs, grouped_linear, linear, weight_gradient

needs_packs = pytest.mark.skipif(not _packs(), reason="this torch reaches no oneDNN in float32")


@pytest.fixture
def every_size(monkeypatch):
    """Products of every size go to oneDNN, on whatever processor."""
    monkeypatch.setattr(_product, "LEAST", 1)
    monkeypatch.setattr(_product, "_is_faster", _packs)


class Watched(TorchDispatchMode):
    """Counts the products by oneDNN."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "mkldnn" in func.namespace
        return func(*args, **(kwargs or {}))


def uses(f, *args):
    with Watched() as watched:
        f(*args)
    return watched.count


@pytest.mark.parametrize("rows", [1, 5])
def test_packed_products_are_plain_ones(rows):
    torch.manual_seed(0)
    weight, x = torch.randn(2, 128, 160), torch.randn(2, rows, 128)
    for w in (weight, weight.transpose(1, 2).contiguous().transpose(1, 2)):
        product = Product(w, 20)
        assert (product.packed is not None) == _packs()
        for offset in (None, torch.randn(2, rows, 160), torch.randn(2, 1, 160)):
            before = None if offset is None else offset.clone()
            expected = x.double() @ weight.double() + (0 if offset is None else offset.double())
            torch.testing.assert_close(product(x, offset).double(), expected, atol=1e-4, rtol=1e-5)
            assert offset is None or torch.equal(offset, before)
    assert Product(weight, 3).packed is None
    assert Product(weight.double(), 20).packed is None
    with torch.backends.mkldnn.flags(enabled=False):
        assert Product(weight, 20).packed is None


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "cut": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[..., :1].expand_as(x),
}


@needs_packs
@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
def test_grouped_products_of_every_layout(of_x, of_weight, bias, every_size):
    torch.manual_seed(0)
    x, w = LAYOUTS[of_x](torch.randn(3, 7, 5)), LAYOUTS[of_weight](torch.randn(3, 5, 4))
    sources = [x.detach().requires_grad_(), w.detach().requires_grad_()]
    if bias:
        sources.append(torch.randn(3, 1, 4, requires_grad=True))
    assert uses(grouped_linear, *sources) == 3
    exact = [s.detach().double().requires_grad_() for s in sources]
    out, expected = grouped_linear(*sources), exact[0] @ exact[1] + (exact[2] if bias else 0)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    cotangent = torch.randn(out.shape)
    grads = torch.autograd.grad(out, sources, cotangent)
    for a, b in zip(grads, torch.autograd.grad(expected, exact, cotangent.double()), strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


@needs_packs
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("outputs", [2, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_is_torch_s(shape, outputs, bias, every_size):
    torch.manual_seed(0)
    own, plain = Linear(3, outputs, bias), nn.Linear(3, outputs, bias)
    plain.load_state_dict(own.state_dict())
    x = torch.randn(shape)
    results = []
    for layer in (own, plain):
        source = x.clone().requires_grad_()
        out = layer(source)
        out.square().sum().backward()
        results.append([out, source.grad, *(p.grad for p in layer.parameters())])
    assert (uses(own, x) > 0) == (x.numel() > 0)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.grad.stride() == p.stride() for p in own.parameters())
    assert str(own) == str(plain)
    # By the same protocol as pickle.
    torch.testing.assert_close(copy.deepcopy(own)(x), plain(x))


@needs_packs
def test_second_gradients_and_tangents(every_size):
    torch.manual_seed(0)
    x, w, b = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True), torch.randn(5)
    results = []
    for f in (linear, nn.functional.linear):
        (grad,) = torch.autograd.grad(f(x, w, b).tanh().sum(), x, create_graph=True)
        second = torch.autograd.grad(grad.square().sum(), (x, w))
        with forward_ad.dual_level():
            out = f(forward_ad.make_dual(x, x.detach() + 1), forward_ad.make_dual(w, w.detach() - 1), b)
            tangent = forward_ad.unpack_dual(out).tangent
            only = forward_ad.unpack_dual(f(x, w, forward_ad.make_dual(b, b + 1))).tangent
        results.append([*second, tangent, only])
    for a, c in zip(*results, strict=True):
        torch.testing.assert_close(a, c)


@needs_packs
def test_the_weight_gradient_sums_over_the_rows(every_size):
    torch.manual_seed(0)
    for a, b in ((3, 6), (6, 3)):
        grad, x = torch.randn(2, 9, a), torch.randn(2, 9, b)
        torch.testing.assert_close(weight_gradient(grad, x), grad.mT @ x)


@needs_packs
def test_where_torch_s_product_is_used(every_size, monkeypatch):
    layer, x = Linear(3, 4), torch.randn(2, 3)
    assert uses(layer, x) == 1
    assert uses(layer.double(), x.double()) == 0
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert uses(layer, x) == 0
    with torch.backends.mkldnn.flags(enabled=False):
        assert uses(layer, x) == 0
    assert uses(torch.func.vmap(layer), x) == 0
    assert uses(torch.func.grad(lambda y: layer(y).sum()), x) == 0
    assert uses(lambda y: torch.jit.trace(layer, y, check_trace=False), x) == 0

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen = []
    with Seen():
        assert uses(layer, x) == 0
    assert nn.functional.linear in seen
    assert layer.to("meta")(x.to("meta")).is_meta
    layer = Linear(3, 4)
    graph = torch.export.export(layer, (x,)).graph
    assert "linear" in str(graph)
    assert "mkldnn" not in str(graph)
    monkeypatch.setattr(_product, "LEAST", 25)
    assert uses(layer, x) == 0
