"""Checks of a fusion: what holds in eval mode holds in training mode."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import close, ragged, run
from fusionzoo.testing.runner import DEFAULT_NEEDS, describe_error, fail, rules

rule = rules("fusion", theme="training")
_PAD = "mask in training as in eval; take statistics over real steps (no BatchNorm over padding)"


def _trained(subject, x, mask):
    """The output in training mode of a new instance under one seed."""
    fusion = subject.make().train()
    torch.manual_seed(5)
    return fusion(x, mask)


_UNREAD = ("training_follows_seed", "construction_follows_seed", "padding_poison", "padding_content")


@rule(needs=(*DEFAULT_NEEDS, *_UNREAD))
def training_skips_padding(subject):
    """In training mode neither NaN nor large values at padded steps change a real step's output."""
    x, mask = subject.streams(), ragged()
    expected = _trained(subject, x, mask)
    for value in (torch.nan, 1e3):
        filled = {m: torch.where(mask.unsqueeze(-1), v, value) for m, v in x.items()}
        out = _trained(subject, filled, mask)
        real = (out[mask], expected[mask]) if out.dim() == 3 else (out, expected)
        close(*real, f"in training mode with {value} at padded steps", _PAD)


@rule()
def training_keeps_inputs(subject):
    """A training step changes neither the caller's streams nor masks."""
    fusion, x, mask = subject.make().train(), subject.streams(), ragged()
    before, masks = {m: v.clone() for m, v in x.items()}, {m: mask.clone() for m in x}
    leaves = {m: v.clone().requires_grad_() for m, v in x.items()}
    try:
        fusion(x, masks)
        fusion(leaves, mask).sum().backward()
    except Exception as error:
        fail(f"a step in training mode raises {describe_error(error)}", "change no input in place")
    changed = [m for m in x if not torch.equal(x[m], before[m]) or not torch.equal(masks[m], ragged())]
    if changed or not torch.equal(mask, ragged()):
        fail(f"training changes the stream or mask {(changed or ['mask'])[0]!r} in place", "work on copies")


@rule(needs=(*DEFAULT_NEEDS, "padding_output_zero"))
def training_zero_at_padding(subject):
    """In training mode, too, the output at padded steps is exactly zero."""
    out, mask = _trained(subject, subject.streams(), ragged()), ragged()
    if out.dim() == 3 and bool((out[~mask] != 0).any()):
        fail("in training mode outputs at padded steps are not zero", "leave forward to the base class")


@rule(needs=(*DEFAULT_NEEDS, "large_input", "padding_length", "calls_independent", "full_mask"))
def large_values_masked(subject):
    """However large the values, a padded step is not read: no finite fill stands for minus infinity."""
    mask = ragged()
    fix = "a fill such as -1e4 is less than real scores can be: use masked_softmax, or torch.finfo(dtype).min"
    for seed in range(4):
        x = {m: v * 1e4 for m, v in subject.streams(seed=seed).items()}
        out = run(subject, (x, mask), seed)  # in float64: so large, float32 rounds differently at other lengths
        for b, n in enumerate(mask.sum(1).tolist()):
            alone = run(subject, ({m: v[b : b + 1, :n] for m, v in x.items()},), seed)
            padded = out[b : b + 1, :n] if out.dim() == 3 else out[b : b + 1]
            close(padded, alone, "with the padding of values around 1e4", fix)


@rule()
def zeros_are_values(subject):
    """A real step whose values are all zero is there: it acts as one that is nearly zero, not as a missing one."""
    x = subject.streams()
    for m in x:

        def at(values, m=m):
            step = x[m].clone()
            step[:, 1] = values
            return run(subject, ({**x, m: step},))

        one, other = x[m][:, 1], subject.streams(seed=1)[m][:, 1]
        zero, near = at(torch.zeros_like(one)), at(1e-7 * one)
        # A method that takes the direction of a step (x / |x|) jumps there too, but to another value for each direction.
        jump, spread = float((near - zero).abs().max()), float((near - at(1e-7 * other)).abs().max())
        if jump > 1e-4 * float(near.abs().max()) and spread < 0.01 * jump:
            fail(
                f"a step of {m!r} that is all zero is taken for a missing one",
                "take absence from streams.present or streams.presence(), never from the values",
            )
