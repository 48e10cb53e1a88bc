"""Checks of a fusion: every modality is read, and gradients are right."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import differs, finite, ragged, reached, run, sent_back
from fusionzoo.testing.runner import fail, rules

rule = rules("fusion", theme="gradients")


@rule()
def modalities_used(subject):
    """Every modality's values change the output."""
    x = subject.streams()
    out = run(subject, (x,))
    for m in x:
        if not differs(run(subject, ({**x, m: subject.streams(seed=1)[m]},)), out):
            fail(f"the output does not depend on {m!r}", "use every modality, or declare fewer in modalities")


@rule()
def gradient_to_modalities(subject):
    """Gradient reaches every modality at every real step, through values and not only through weights that cancel."""
    mask = ragged()
    felt = {m: torch.zeros(3, 5, dtype=torch.bool) for m in subject.dims}
    for seed in range(3):
        _, (x, _), _ = sent_back(subject, (subject.streams(seed=seed), mask), seed, leaves=True)
        grads = {m: v.grad for m, v in x.items()}
        if all(g is None for g in grads.values()):
            fail("the output is cut off from the inputs", "do not detach it or compute it under no_grad")
        for m, there in reached(grads).items():
            if there.dim():
                felt[m] |= there.any(-1)
    for m, steps in felt.items():
        blind = int((mask & ~steps).sum())
        if blind:
            fail(
                f"{blind} of {int(mask.sum())} real steps of {m!r} receive no gradient",
                "do not detach, round or argmax",
            )


@rule()
def gradcheck(subject):
    """In float64 the gradient agrees with finite differences."""
    fusion = subject.make().double()
    names = list(subject.dims)
    x = [v.double().requires_grad_() for v in subject.streams(batch=2, steps=2).values()]
    mask = torch.tensor([[True, True], [True, False]])

    def call(*values):
        return fusion(dict(zip(names, values, strict=True)), mask)

    try:
        torch.autograd.gradcheck(call, x, fast_mode=True, atol=1e-4, rtol=1e-3)
    except RuntimeError as error:
        fail(
            f"the gradient is not that of the output: {' '.join(str(error).split())[:300]}",
            "look for .detach(), .data, no_grad, a custom backward, or float32 constants",
        )


@rule()
def zero_input(subject):
    """Input of zeros gives finite output and finite gradients."""
    fusion = subject.make()
    x = {m: torch.zeros_like(v).requires_grad_() for m, v in subject.streams().items()}
    out = fusion(x, ragged())
    fix = "norm and sqrt have infinite slope at zero, x / x.norm() is NaN: use F.normalize or add eps inside the root"
    finite(out, "the output for zeros", fix)
    out.sum().backward()
    for m, v in x.items():
        if v.grad is not None:
            finite(v.grad, f"the gradient of {m!r} for zeros", fix)


@rule()
def large_input(subject):
    """Input of size 1e4, as some published features have, gives finite output."""
    x = {m: v * 1e4 for m, v in subject.streams().items()}
    finite(
        subject.make()(x, ragged()), "the output for values around 1e4", "use softmax and logsumexp, not exp and a sum"
    )
