"""Masks that mean the opposite are named, and others are not."""

from __future__ import annotations

import warnings

import pytest
import torch

import fusionzoo
from fusionzoo.errors import MaskWarning
from fusionzoo.host import HostOutput
from fusionzoo.testing.comparisons import ragged
from fusionzoo.testing.subjects import HostSubject

DIMS = {"text": 6, "audio": 4}


def streams(mask=None, fill=0.0):
    generator = torch.Generator().manual_seed(0)
    x = {m: torch.randn(3, 5, d, generator=generator) for m, d in DIMS.items()}
    return x if mask is None else {m: torch.where(mask.unsqueeze(-1), v, fill) for m, v in x.items()}


def fusion(name="concat"):
    return fusionzoo.get(name)(DIMS).eval()


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if issubclass(w.category, MaskWarning)]


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (streams(ragged()), ~ragged()),
        (streams(), ~ragged()),
        (streams(), torch.zeros(3, 5, dtype=torch.bool)),
        (streams(ragged()), dict.fromkeys(DIMS, ~ragged())),
    ],
    ids=["padded with zeros", "padded with anything", "all False", "one for each modality"],
)
def test_an_inverted_mask_is_named_once(x, mask):
    model = fusion()
    with pytest.warns(MaskWarning, match=r"item 0 of the batch has data.*give ~mask"):
        model(x, mask)
    assert told(lambda: model(x, mask)) == []


LEFT = ragged().flip(1)
HALF = torch.tensor([[True], [False], [True]]).expand(3, 5)
EMPTY = ragged() & HALF


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (streams(), None),
        (streams(), ragged()),
        (streams(ragged(), 1e4), ragged()),
        (streams(ragged(), torch.nan), ragged()),
        (streams(LEFT), LEFT),
        (streams(), LEFT),
        (streams(EMPTY), EMPTY),
        (streams(EMPTY, torch.nan), EMPTY),
        (streams(), {"text": ragged(), "audio": ragged() & HALF}),
        ({m: torch.zeros_like(v) for m, v in streams().items()}, ragged()),
    ],
)
def test_right_masks_are_not(x, mask):
    assert told(lambda: fusion()(x, mask)) == []


def test_only_the_first_masks_are_looked_at_and_never_in_a_program():
    model = fusion()
    for _ in range(model.mask_watch.CALLS):
        model(streams(), ragged())
    assert told(lambda: model(streams(), ~ragged())) == []
    model = fusion()
    arguments = (tuple(streams().values()), ~ragged())
    assert told(lambda: torch.export.export(model, arguments)) == []
    assert told(lambda: torch.jit.trace(model, arguments, check_trace=False)) == []
    assert model.mask_watch.left == model.mask_watch.CALLS


def test_a_host_names_the_mask_of_its_batch():
    subject = HostSubject("bc-lstm")
    batch = subject.batch()
    assert told(lambda: subject.make()(batch)) == []
    batch.mask, batch.lengths = ~batch.mask, None
    host = subject.make()
    host.encode = lambda features, mask, given: HostOutput(torch.zeros(*given.size, 3))
    with pytest.warns(MaskWarning, match="item 0"):
        host(batch)


def test_items_of_one_step_are_one_sequence():
    x = {m: v[:, 0] for m, v in streams().items()}
    assert told(lambda: fusion()(x, torch.tensor([True, False, True]))) == []
    with pytest.warns(MaskWarning):
        fusion()(x, torch.tensor([False, False, False]))
