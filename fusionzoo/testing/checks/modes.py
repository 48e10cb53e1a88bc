"""Checks of every kind: eval mode, random numbers, and state between calls."""

from __future__ import annotations

import copy

import torch

from fusionzoo.testing.comparisons import close, random_state_untouched, same, tensor_state
from fusionzoo.testing.runner import describe_error, fail, rules

rule = rules("fusion", "host", "objective", theme="modes")


@rule(needs=("constructs", "runs"))
def eval_deterministic(subject):
    """In eval mode the same input gives bit-identical output, call after call."""
    module, inputs = subject.make(), subject.inputs()
    first = subject.run(module, inputs)
    for _ in range(3):
        same(
            subject.run(module, inputs),
            first,
            "from call to call in eval mode",
            "switch noise off unless self.training",
        )


@rule(needs=("constructs", "runs"))
def eval_leaves_rng(subject):
    """In eval mode no global random numbers are drawn, from torch, numpy or Python."""
    import numpy  # noqa: F401  (its global state is watched only where it is loaded)

    module, inputs = subject.make(), subject.inputs()
    with random_state_untouched("a call in eval mode"):
        subject.run(module, inputs)


@rule()
def calls_independent(subject):
    """A call leaves nothing behind that a later call, of another length too, would notice."""
    module, first = subject.make(), subject.inputs(0)
    before = subject.run(module, first)
    subject.run(module, subject.inputs(1, steps=7))
    subject.run(module, subject.inputs(2, steps=2))
    fix = "keep no hidden state or cache on self; whatever depends on the input is computed in the call"
    same(subject.run(module, first), before, "because of the calls before it", fix)


@rule()
def eval_keeps_state(subject):
    """A call in eval mode changes neither parameters nor buffers."""
    module = subject.make()
    before = {k: v.clone() for k, v in tensor_state(module).items()}
    subject.run(module, subject.inputs())
    after = tensor_state(module)
    changed = [k for k in {*before, *after} if k not in before or k not in after or not _equal(before[k], after[k])]
    if changed:
        fail(f"a call in eval mode changes {sorted(changed)[0]!r}", "update statistics in training mode only")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))


@rule()
def mode_propagates(subject):
    """train() and eval() reach every part, and a call changes neither."""
    module = subject.make()
    for training in (True, False):
        returned = module.train(training)
        subject.run(module, subject.inputs())
        wrong = [n or "the module itself" for n, part in module.named_modules() if part.training is not training]
        if wrong:
            fail(
                f"after {'train()' if training else 'eval()'} and a call, {wrong[0]} is in the other mode",
                "do not override train(), and do not set .training or call .train()/.eval() in forward",
            )
        if returned is not module:
            fail(
                f"train({training}) returns {type(returned).__name__} instead of the module", "do not override train()"
            )


@rule()
def training_follows_seed(subject):
    """In training mode torch's seed decides everything: the same seed, the same output."""
    module, inputs = subject.make().train(), subject.inputs()
    state = copy.deepcopy(module.state_dict())
    outputs = []
    for _ in range(2):
        module.load_state_dict(state)
        torch.manual_seed(3)
        outputs.append(subject.run(module, inputs))
    same(
        outputs[1], outputs[0], "in training mode under the same seed", "draw random numbers from torch only, unseeded"
    )


@rule()
def inference_mode(subject):
    """Under torch.inference_mode() the output is the same."""
    module, inputs = subject.make(), subject.inputs()
    expected = subject.run(module, inputs)
    with torch.inference_mode():
        try:
            out = subject.run(module, inputs)
        except Exception as error:
            fail(
                f"a call under torch.inference_mode() raises {describe_error(error)}", "do not call autograd in forward"
            )
    # Without gradients torch may choose other kernels, which round otherwise.
    close(out.clone(), expected, "under torch.inference_mode()", "do not branch on torch.is_grad_enabled()")


@rule(needs=("constructs",))
def construction_follows_seed(subject):
    """Construction under the same seed gives the same weights."""
    first, second = tensor_state(subject.make(5)), tensor_state(subject.make(5))
    for name, value in first.items():
        if name not in second or not _equal(value, second[name]):
            fail(
                f"{name!r} differs between two instances built under torch.manual_seed(5)",
                "initialise from torch's global generator only",
            )


@rule(needs=("constructs",))
def instances_share_nothing(subject):
    """Two instances share no parameter or buffer."""
    a, b = subject.make(0), subject.make(1)
    theirs = {t.data_ptr() for t in (*b.parameters(), *b.buffers()) if t.numel()}
    shared = [n for n, t in (*a.named_parameters(), *a.named_buffers()) if t.numel() and t.data_ptr() in theirs]
    # Class counts are given to an objective by the caller, who may give the same to several.
    shared = [n for n in shared if n != "class_counts"]
    if shared:
        fail(
            f"two instances share {shared[0]!r}",
            "build tensors in __init__, not in the class body or as a default argument",
        )
