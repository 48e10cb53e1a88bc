"""The fusion contract, for every installed fusion."""

from __future__ import annotations

import copy

import pytest
import torch

import fusionzoo
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.fusion import Fusion
from fusionzoo.testing.comparisons import gradients, reached, without_gradient

DIMS = {"text": 16, "audio": 6, "visual": 8}
NAMES = fusionzoo.names()


def streams(batch=3, steps=7, dims=DIMS, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(batch, steps, d, generator=generator, dtype=dtype) for m, d in dims.items()}


def ragged(batch=3, steps=7):
    return torch.arange(steps)[None] < torch.tensor([7, 4, 1])[:batch, None]


@pytest.fixture(params=NAMES)
def cls(request):
    return fusionzoo.get(request.param)


@pytest.fixture
def fusion(cls):
    torch.manual_seed(0)
    return cls(DIMS, 10).eval()


def test_every_input_form_gives_the_same(fusion):
    x = streams()
    y = fusion(x)
    assert y.shape == (3, 7, 10)
    torch.testing.assert_close(fusion(list(x.values())), y)
    torch.testing.assert_close(fusion(dict(reversed(x.items()))), y)
    torch.testing.assert_close(fusion.fuse(x).fused, y)
    flat = {m: v[:, 0] for m, v in x.items()}
    torch.testing.assert_close(fusion(flat), fusion({m: v[:, :1] for m, v in x.items()})[:, 0])
    torch.testing.assert_close(fusion(flat, torch.tensor([True, False, True]))[1], torch.zeros(10))


def test_sequence_dims_and_anchor_width(cls):
    fusion = cls([5, 4])
    assert fusion.names == ("m0", "m1")
    assert fusion([torch.rand(2, 5), torch.rand(2, 4)]).shape == (2, 5)


def test_padding_never_matters_and_output_there_is_zero(fusion):
    x, mask = streams(), ragged()
    y = fusion(x, mask)
    assert y[~mask].eq(0).all()
    poisoned = {m: torch.where(mask[..., None], v, torch.nan).requires_grad_() for m, v in x.items()}
    out = fusion(poisoned, mask)
    torch.testing.assert_close(out, y, rtol=0, atol=0)
    out.sum().backward()
    assert all(v.grad.isfinite().all() and v.grad[~mask].eq(0).all() for v in poisoned.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())
    shorter = fusion({m: v[1:2, :4] for m, v in x.items()})
    torch.testing.assert_close(y[1:2, :4], shorter, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter_and_modality(cls):
    # In eval mode: some draw at random in training.
    fusion = cls(DIMS, 10, missing="learned").eval().double()
    x = {m: v.requires_grad_() for m, v in streams(dtype=torch.float64).items()}
    mask = ragged()
    present = {m: mask & (torch.rand(3, 7, generator=torch.Generator().manual_seed(i)) > 0.3) for i, m in enumerate(x)}
    result = fusion.fuse(x, {**present, "text": mask})
    torch.stack([result.fused.pow(2).sum(), *result.losses.values()]).sum().backward()
    assert all(felt.any() for felt in reached({m: v.grad for m, v in x.items()}).values())
    # text was present everywhere: its stand-in took no part, nor does what has no gradient by its mathematics
    dead = {n for n, felt in reached(gradients(fusion)).items() if not felt.any()}
    assert dead == {"stand_ins.0", *without_gradient(fusion)}


@pytest.mark.parametrize("missing", ["zero", "learned"])
def test_missing_for_a_call_equals_missing_for_every_item(cls, missing):
    fusion = cls(DIMS, 10, missing=missing).eval()
    x, mask = streams(), ragged()
    absent = {m: v for m, v in x.items() if m != "audio"}
    masks = {"text": mask, "audio": torch.zeros_like(mask), "visual": mask}
    expected = fusion(absent, mask)
    torch.testing.assert_close(fusion({**x, "audio": None}, mask), expected)
    torch.testing.assert_close(fusion(x, masks), expected)
    assert (expected - fusion(x, mask)).abs().max() > 1e-4


def test_without_the_anchor(fusion):
    x, mask = streams(), ragged()
    y = fusion({"audio": x["audio"], "visual": x["visual"]}, mask)
    assert y.shape == (3, 7, 10)
    assert y[mask].isfinite().all()


@pytest.mark.filterwarnings("ignore::fusionzoo.errors.MaskWarning")  # a dialogue with data and no real step is meant
def test_fully_masked_rows_are_finite(fusion):
    x = {m: v.requires_grad_() for m, v in streams().items()}
    mask = ragged()
    mask[0] = False
    y = fusion(x, mask)
    assert y[0].eq(0).all()
    y.sum().backward()
    assert all(v.grad.isfinite().all() for v in x.values())


def test_missing_error(cls):
    fusion = cls(DIMS, missing="error")
    x, mask = streams(), ragged()
    fusion(x, mask)
    with pytest.raises(ShapeError, match=r"'audio' is missing.*missing='zero'"):
        fusion({"text": x["text"], "visual": x["visual"]})
    with pytest.raises(ShapeError, match="'audio' is missing at real steps"):
        fusion(x, {"text": mask, "audio": torch.zeros_like(mask), "visual": mask})


def test_parameter_count_is_as_declared(cls):
    for dims in (DIMS, {"a": 8, "b": 8, "c": 8}, {"a": 8, "b": 4}):
        for options in ({}, {"missing": "learned"}, {"out_dim": 8}, {"out_dim": 5}):
            fusion = cls(dims, **options)
            assert sum(p.numel() for p in fusion.parameters()) == cls.parameter_count(dims, **options)


def test_gradcheck(cls):
    torch.manual_seed(0)
    fusion = cls({"a": 4, "b": 3}, 3).double().eval()
    x = [torch.randn(2, 3, d, dtype=torch.float64, requires_grad=True) for d in (4, 3)]
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.autograd.gradcheck(lambda *v: fusion(v, mask), x)


def test_bfloat16_and_autocast(cls):
    fusion = cls(DIMS, 10).eval()
    x, mask = streams(), ragged()
    y = fusion(x, mask)
    half = copy.deepcopy(fusion).bfloat16()({m: v.bfloat16() for m, v in x.items()}, mask)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fusion(x, mask).float(), y, rtol=0.1, atol=0.1)


def test_state_dict_round_trip_and_determinism(cls):
    torch.manual_seed(1)
    a, b = cls(DIMS).eval(), cls(DIMS).eval()
    b.load_state_dict(a.state_dict(), strict=True)
    x = streams()
    state = torch.get_rng_state()
    torch.testing.assert_close(a(x), b(x), rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state()), "eval mode must not draw random numbers"


def test_inputs_are_left_alone(fusion):
    x, mask = streams(), ragged()
    before = {m: v.clone() for m, v in x.items()}
    fusion.fuse(x, mask)
    assert all(torch.equal(x[m], before[m]) for m in x)


def test_wrong_inputs_are_named(fusion):
    x = streams()
    with pytest.raises(ShapeError, match=r"'audio' has width 5.*built for 6"):
        fusion({**x, "audio": torch.rand(3, 7, 5)})
    with pytest.raises(ShapeError, match=r"'vidual'.*did you mean 'visual'"):
        fusion({**x, "vidual": x["visual"]})
    with pytest.raises(ShapeError, match=r"fuses 3 streams .* got 2"):
        fusion(list(x.values())[:2])
    with pytest.raises(ShapeError, match="every stream is missing"):
        fusion({})
    with pytest.raises(ShapeError, match="differ in batch"):
        fusion({**x, "audio": torch.rand(2, 7, 6)})
    with pytest.raises(ShapeError, match=r"mask\.bool\(\)"):
        fusion(x, torch.ones(3, 7))
    with pytest.raises(ShapeError, match="mask must have shape"):
        fusion(x, torch.ones(3, 6, dtype=torch.bool))
    with pytest.raises(ShapeError, match="float dtype"):
        fusion({**x, "audio": torch.ones(3, 7, 6, dtype=torch.long)})
    with pytest.raises(ShapeError, match="convert them to one dtype"):
        fusion({**x, "audio": x["audio"].double()})


def test_wrong_options_are_named(cls):
    with pytest.raises(OptionError, match=r"'mising'.*did you mean 'missing'"):
        cls(DIMS, mising="zero")
    with pytest.raises(OptionError, match="'zreo' is not one of"):
        cls(DIMS, missing="zreo")
    with pytest.raises(OptionError, match="positive integer"):
        cls({"text": 0, "audio": 3})
    with pytest.raises(OptionError, match="out_dim"):
        cls(DIMS, 0)
    with pytest.raises(OptionError, match=r"at least 2|2 to|exactly 2"):
        cls({"text": 4})


def test_docstring_names_its_source(cls):
    assert cls.__doc__
    assert "Source" in cls.__doc__
    assert "Shapes" in cls.__doc__


def test_a_fusion_without_official_code_says_so():
    with pytest.raises(ReferenceWeightsError, match="no official implementation"):
        fusionzoo.get("concat")(DIMS).load_reference({})


def test_base_class_asks_for_combine():
    with pytest.raises(NotImplementedError, match="combine"):
        Fusion(DIMS)(streams())


def test_masks_of_unaligned_sequences():
    fusion = fusionzoo.get("cross-attention")(DIMS, 10, queries="anchor").eval()
    x = {"text": torch.rand(2, 5, 16), "audio": torch.rand(2, 9, 6), "visual": torch.rand(2, 3, 8)}
    masks = {m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()}
    masks["audio"][0, 4:] = False
    y = fusion(x, masks)
    assert y.shape == (2, 5, 10)
    cut = {**x, "audio": x["audio"][:, :4]}
    torch.testing.assert_close(fusion(cut, {**masks, "audio": masks["audio"][:, :4]})[0], y[0])
    with pytest.raises(ShapeError, match="queries='anchor'"):
        fusionzoo.get("cross-attention")(DIMS)(x, masks)
    with pytest.raises(ShapeError, match="differ in batch or length"):
        fusionzoo.get("concat")(DIMS)(x)
