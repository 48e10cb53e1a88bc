"""Checks of a fusion: modalities that are missing, for a whole call or for some items."""

from __future__ import annotations

import torch

from fusionzoo.errors import ShapeError
from fusionzoo.testing.comparisons import (
    close,
    differs,
    finite,
    gradients,
    ragged,
    reached,
    refuses,
    run,
    same,
    sent_back,
)
from fusionzoo.testing.runner import describe_error, fail, rules

rule = rules("fusion", theme="missing modalities")
_USE = "take absence from streams.present or streams.presence(), never from the values"


def _without(x, *names):
    return {m: v for m, v in x.items() if m not in names}


@rule()
def missing_any(subject):
    """Without any one modality, the anchor included, the output is finite."""
    fusion, x = subject.make(), subject.streams()
    for m in x:
        try:
            out = fusion(_without(x, m), ragged())
        except Exception as error:
            fail(f"without {m!r}: {describe_error(error)}", "expect a stream of zeros with present all False")
        finite(out, f"the output without {m!r}", "use masked_softmax and masked_mean, which take an empty row")


@rule()
def missing_all_but_one(subject):
    """With any one modality alone the output is finite."""
    fusion, x = subject.make(), subject.streams()
    for m in x:
        try:
            out = fusion({m: x[m]}, ragged())
        except Exception as error:
            fail(f"with {m!r} alone: {describe_error(error)}", "expect streams of zeros with present all False")
        finite(out, f"the output with {m!r} alone", "use masked_softmax and masked_mean, which take an empty row")


@rule()
def missing_every_refused(subject):
    """A call without any modality raises ShapeError."""
    fusion = subject.make()
    refuses(lambda: fusion({}), ShapeError, "a call without any stream")


@rule()
def missing_none_equals_absent(subject):
    """A stream that is None and one that is absent are the same."""
    fusion, x = subject.make(), subject.streams()
    last = list(x)[-1]
    same(
        fusion({**x, last: None}),
        fusion(_without(x, last)),
        "between None and an absent key",
        "leave both to the base class",
    )


@rule()
def missing_call_equals_items(subject):
    """Missing for the whole call is the same as missing, by mask, for every item."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    for m in x:
        masks = {k: torch.zeros_like(mask) if k == m else mask for k in x}
        what = f"between {m!r} absent from the call and {m!r} masked for every item"
        close(fusion(x, masks), fusion(_without(x, m), mask), what, _USE)


@rule()
def missing_items_independent(subject):
    """An item without a modality does not change the items that have it."""
    fusion, x, mask = subject.make(), subject.streams(), torch.ones(3, 5, dtype=torch.bool)
    complete = fusion(x, dict.fromkeys(x, mask))
    for m in x:
        lacking = mask.clone()
        lacking[1] = False
        out = fusion(x, {k: lacking if k == m else mask for k in x})
        fix = "decide per item: presence is (B, T, M), not one flag for the batch"
        close(out[::2], complete[::2], f"of items 0 and 2 when item 1 lacks {m!r}", fix)


@rule()
def missing_values_unread(subject):
    """The values of a modality where its mask is False are not read, NaN included."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    for m in x:
        there = mask & (torch.arange(5) % 2 == 0)
        masks = {k: there if k == m else mask for k in x}
        poisoned = {**x, m: torch.where(there.unsqueeze(-1), x[m], torch.nan)}
        what = f"when {m!r} holds NaN where it is missing"
        same(fusion(poisoned, masks), fusion(x, masks), what, f"{_USE}; leave the input to the base class")


@rule()
def missing_noticed(subject):
    """A missing modality changes the output."""
    x = subject.streams()
    complete = run(subject, (x,))
    for m in x:
        if not differs(run(subject, (_without(x, m),)), complete):
            fail(f"the output without {m!r} is the same as with it", "use every modality")


@rule()
def missing_learned(subject):
    """With missing="learned" a vector that learns stands in for every missing modality."""
    plain = {n for n, _ in subject.make(missing="zero").named_parameters()}
    x = subject.streams()
    for m in x:
        fusion, _, _ = sent_back(
            subject, (_without(x, m),), loss=lambda f, given: f(*given).square().sum(), missing="learned"
        )
        found = reached(gradients(fusion))
        own = [n for n in found if n not in plain]
        if not own:
            fail('missing="learned" builds no parameter', "pass missing on to super().__init__")
        if not any(bool(found[n].any()) for n in own):
            fail(f'with missing="learned" and without {m!r} no stand-in receives a gradient', "use streams.x as given")


@rule()
def missing_learned_idle(subject):
    """With missing="learned" and nothing missing, the output is that of missing="zero"."""
    zero, learned, x = subject.make(missing="zero"), subject.make(missing="learned"), subject.streams()
    learned.load_state_dict(zero.state_dict(), strict=False)
    fix = "let stand-ins act at missing steps only"
    close(learned(x, ragged()), zero(x, ragged()), "between missing='learned' and 'zero' with nothing missing", fix)


@rule()
def missing_error(subject):
    """With missing="error" a missing modality raises ShapeError that names it, and complete input is accepted."""
    fusion, x, mask = subject.make(missing="error"), subject.streams(), ragged()
    fusion(x, mask)
    last = list(x)[-1]
    refuses(lambda: fusion(_without(x, last)), ShapeError, f"{last!r} missing under missing='error'", (last,))
    masks = {m: torch.zeros_like(mask) if m == last else mask for m in x}
    refuses(lambda: fusion(x, masks), ShapeError, f"{last!r} masked under missing='error'", (last,))
