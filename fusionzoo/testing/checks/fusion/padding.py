"""Checks of a fusion: padding is never read, and the items of a batch do not know each other."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import close, finite, gradients, ragged, reached, same, sent_back
from fusionzoo.testing.runner import fail, rules, skip

rule = rules("fusion", theme="padding and batch")
_PAD = "mask with streams.mask or streams.present: masked_softmax, masked_mean, zero_padded from fusionzoo.numerics"


def _real(out: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The rows that count: real steps, or all items where the method pools."""
    return out[mask] if out.dim() == 3 else out


@rule()
def padding_output_zero(subject):
    """Outputs at padded steps are exactly zero."""
    if subject.pools:
        skip("the method pools: there is no output at a step")
    mask = ragged()
    out = subject.make()(subject.streams(), mask)
    if bool((out[~mask] != 0).any()):
        fail(f"outputs at padded steps reach {float(out[~mask].abs().max()):.3g}", "leave forward to the base class")


@rule()
def padding_poison(subject):
    """NaN at padded steps does not change a real step's output."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    poisoned = {m: torch.where(mask.unsqueeze(-1), v, torch.nan) for m, v in x.items()}
    fix = f"NaN * 0 is NaN: use torch.where instead of multiplying by the mask; {_PAD}"
    same(_real(fusion(poisoned, mask), mask), _real(fusion(x, mask), mask), "when padding holds NaN", fix)


@rule()
def padding_poison_gradient(subject):
    """NaN at padded steps reaches no gradient, and padded steps receive none."""
    mask = ragged()
    poisoned = {m: torch.where(mask.unsqueeze(-1), v, torch.nan) for m, v in subject.streams().items()}
    fusion, (x, _), _ = sent_back(subject, (poisoned, mask), leaves=True)
    for m, felt in reached({m: v.grad for m, v in x.items()}).items():
        if felt.dim() and (not bool(x[m].grad.isfinite().all()) or bool(felt[~mask].any())):
            fail(f"the gradient of {m!r} is not finite, or not zero at padded steps", _PAD)
    if any(g is not None and not bool(g.isfinite().all()) for g in gradients(fusion).values()):
        fail("NaN in the padding reaches the gradient of a parameter", _PAD)


@rule()
def padding_content(subject):
    """Large finite values at padded steps do not change a real step's output."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    rubbish = {m: torch.where(mask.unsqueeze(-1), v, 1e4) for m, v in x.items()}
    same(_real(fusion(rubbish, mask), mask), _real(fusion(x, mask), mask), "with the values at padded steps", _PAD)


@rule()
def padding_length(subject):
    """How far an item is padded does not change its real steps."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    out = fusion(x, mask)
    for b, n in enumerate(mask.sum(1).tolist()):
        alone = fusion({m: v[b : b + 1, :n] for m, v in x.items()}, mask[b : b + 1, :n])
        padded = out[b : b + 1, :n] if out.dim() == 3 else out[b : b + 1]
        fix = f"zeros in the padding count in a mean, a softmax or a recurrence: {_PAD}"
        close(padded, alone, f"with the length of the padding ({n} of 5 steps real)", fix)


@rule()
def mask_gap(subject):
    """Padding in the middle is padding: the mask decides, not the number of real steps."""
    mask = torch.tensor([[True, False, True, True, False]] * 3)
    poisoned = {m: torch.where(mask.unsqueeze(-1), v, torch.nan) for m, v in subject.streams().items()}
    out = subject.make()(poisoned, mask)
    fix = f"use the mask itself, not mask.sum(1) as a length; {_PAD}"
    finite(out, "the output with padding in the middle", fix)
    if out.dim() == 3 and bool((out[~mask] != 0).any()):
        fail("outputs at padded steps in the middle are not zero", fix)
    _, (x, _), _ = sent_back(subject, (poisoned, mask), loss=lambda f, given: f(*given).square().sum(), leaves=True)
    felt = [f.any(-1) for f in reached({m: v.grad for m, v in x.items()}).values() if f.dim()]
    read = torch.stack(felt).any(0) if felt else torch.zeros_like(mask)
    if not torch.equal(read, mask):
        fail(f"with the mask {mask[0].int().tolist()} the steps that are read are {read[0].int().tolist()}", fix)


@rule()
def full_mask(subject):
    """No mask and a mask that is True everywhere give the same."""
    fusion, x = subject.make(), subject.streams()
    full = torch.ones(3, 5, dtype=torch.bool)
    close(fusion(x, full), fusion(x), "between mask=None and a full mask", "treat None as True everywhere")


@rule()
def mask_mapping(subject):
    """One mask, and the same mask for every modality, give the same."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    close(fusion(x, dict.fromkeys(x, mask)), fusion(x, mask), "between one mask and a mapping of equal masks", _PAD)


@rule()
def fully_masked_row(subject):
    """An item without any real step gives zeros, never NaN."""
    mask = ragged()
    mask[1] = False
    fusion = subject.make()
    out = fusion(subject.streams(), mask)
    finite(out, "the output with a fully masked row", "use masked_softmax and masked_mean, which take an empty row")
    if out.dim() == 3 and bool((out[1] != 0).any()):
        fail("the output of a fully masked row is not zero", "leave forward to the base class")


@rule()
def fully_masked_gradient(subject):
    """An item without any real step sends no NaN back."""
    mask = ragged()
    mask[1] = False
    fusion = subject.make()
    x = {m: v.requires_grad_() for m, v in subject.streams().items()}
    subject.loss(fusion, (x, mask)).backward()
    fix = "use masked_softmax and masked_mean: where(mask, softmax(-inf), 0) is zero forward and NaN backward"
    for m, v in x.items():
        if v.grad is not None:
            finite(v.grad, f"the gradient of {m!r} with a fully masked row", fix)
    for name, g in gradients(fusion).items():
        if g is not None:
            finite(g, f"the gradient of {name} with a fully masked row", fix)


@rule()
def batch_independence(subject):
    """An item's output does not depend on the other items of the batch."""
    fusion, x = subject.make(), subject.streams()
    others = {m: torch.cat([v[:1], v[1:] * 3 + 1]) for m, v in x.items()}
    fix = "no mean, softmax or normalisation over dim 0; check which axis is the batch (T, B, d is not (B, T, d))"
    close(fusion(others)[:1], fusion(x)[:1], "with the other items of its batch", fix)


@rule()
def batch_size(subject):
    """An item's output does not depend on how many items the batch has."""
    fusion, x = subject.make(), subject.streams()
    fix = "do not divide by the batch size; no mean, softmax or normalisation over dim 0"
    close(fusion({m: v[1:2] for m, v in x.items()}), fusion(x)[1:2], "with the size of its batch", fix)


@rule()
def batch_order(subject):
    """Items in another order give the same outputs in that order."""
    fusion, x, order = subject.make(), subject.streams(), [2, 0, 1]
    fix = "let nothing depend on an item's position in the batch"
    close(fusion({m: v[order] for m, v in x.items()}), fusion(x)[order], "with the order of the items", fix)


@rule()
def batch_gradient(subject):
    """The gradient of one item's output with respect to the other items is zero."""
    _, (x,), _ = sent_back(subject, (subject.streams(),), loss=lambda f, given: f(*given)[0].sum(), leaves=True)
    felt = reached({m: v.grad for m, v in x.items()})
    leaks = [m for m, there in felt.items() if there.dim() and bool(there[1:].any())]
    if leaks:
        fail(f"item 0's output sends gradient into the {leaks[0]!r} of other items", "no operation across dim 0")


@rule()
def level_as_declared(subject):
    """A method whose card says level="utterance" does not look at other time steps."""
    if subject.spec is None or subject.spec.level != "utterance" or subject.pools:
        skip("the card does not say that the method acts within a time step")
    fusion, x = subject.make(), subject.streams()
    others = {m: torch.cat([v[:, :1], v[:, 1:] * 3 + 1], 1) for m, v in x.items()}
    fix = 'say level="dialogue" in the spec'
    close(fusion(others)[:, :1], fusion(x)[:, :1], "of a step with the steps around it", fix)
