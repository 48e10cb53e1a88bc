"""Checks of every kind: what is learnt is registered and learns."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import first_words, gradients, reached, sent_back, unregistered, without_gradient
from fusionzoo.testing.runner import fail, rules

rule = rules("fusion", "host", "objective", theme="gradients")


@rule(needs=("constructs",))
def registered_parameters(subject):
    """Every learnt tensor is a registered parameter: none hides in a plain list, dict or attribute."""
    hidden = [
        f"{path} {tuple(t.shape)}"
        for path, t in unregistered(subject.make())
        if isinstance(t, torch.nn.Parameter) or t.requires_grad
    ]
    if hidden:
        fail(
            f"learnt tensors outside parameters(): {first_words(hidden)}; no optimiser will ever move them, and they are "
            "missing from checkpoints",
            "keep them in nn.Parameter attributes, nn.ParameterList, nn.ModuleList or nn.ModuleDict",
        )


@rule(needs=("constructs",))
def registered_buffers(subject):
    """Every constant tensor is a registered buffer, so that it follows .to() and .half()."""
    hidden = [
        f"{path} {tuple(t.shape)}"
        for path, t in unregistered(subject.make())
        if not (isinstance(t, torch.nn.Parameter) or t.requires_grad)
    ]
    if hidden:
        fail(
            f"tensors that are no buffers: {first_words(hidden)}; they stay behind when the module moves to another device",
            "use self.register_buffer(name, tensor, persistent=False)",
        )


@rule()
def gradient_to_parameters(subject):
    """Every parameter receives a gradient, but for those that `without_gradient` of their module names, which receive none."""
    moved: set[str] = set()
    names: list[str] = []
    declared: dict[str, str] = {}
    # Several weights and inputs: a unit that one of them leaves dead (ReLU) is not a dead parameter.
    for seed in range(3):
        module, _, _ = sent_back(subject, subject.inputs(seed), seed)
        names, declared = [n for n, _ in module.named_parameters()], without_gradient(module)
        if names and all(g is None for g in gradients(module).values()):
            fail("the output does not depend on any parameter", "do not detach it or compute it under no_grad")
        moved |= {n for n, g in reached(gradients(module), dtype=subject.precision).items() if bool(g.any())}
    unknown = [n for n in declared if n not in names]
    if unknown:
        fail(f"without_gradient names {first_words(unknown)}, which is no parameter", "correct the name")
    wrong = [n for n in declared if n in moved]
    if wrong:
        fail(
            f"{first_words(wrong)} is declared to have no gradient ({declared[wrong[0]]}) and receives one",
            "take it out of without_gradient",
        )
    dead = [n for n in names if n not in moved and n not in declared]
    if dead:
        fail(
            f"parameters without gradient: {first_words(dead)}",
            "remove what is not used, or use it; a dead parameter is counted, saved and never trained. Where mathematics has "
            "it so (the bias of keys under a softmax), let its module say so: without_gradient = {name: why}",
        )


@rule()
def gradient_finite(subject):
    """No parameter receives NaN or infinity as gradient from padded input."""
    module = subject.make()
    loss = subject.loss(module, subject.inputs())
    if loss.requires_grad:
        loss.backward()
    bad = [n for n, g in gradients(module).items() if g is not None and not bool(g.isfinite().all())]
    if bad:
        fail(
            f"the gradient of {first_words(bad)} is not finite",
            "mask before exp, log, sqrt and division: where(mask, f(x), 0) still sends NaN back through f",
        )
