"""Checks of every kind: state dicts, copies, pickles."""

from __future__ import annotations

import copy
import io

import torch

from fusionzoo.errors import FusionZooError
from fusionzoo.testing.comparisons import pickled, refuses, same, tensor_state
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", "host", "objective", theme="persistence")


def _moved(subject):
    """An instance that has been trained, in effect: every parameter and float buffer is elsewhere."""
    module = subject.make(0)
    torch.manual_seed(11)
    with torch.no_grad():
        for t in module.parameters():
            t.add_(torch.randn_like(t) * 0.1)
    return module


@rule()
def state_dict_round_trip(subject):
    """A strictly loaded state dict gives bit-identical output in a new instance."""
    module, inputs = _moved(subject), subject.inputs()
    fresh = subject.make(1)
    try:
        fresh.load_state_dict(copy.deepcopy(module.state_dict()), strict=True)
    except Exception as error:
        fail(
            f"load_state_dict(strict=True) raises {describe_error(error)}", "register the same names in every instance"
        )
    fix = "register everything that the output depends on as a parameter or persistent buffer"
    same(subject.run(fresh, inputs), subject.run(module, inputs), "when the weights are saved and loaded", fix)


@rule()
def state_dict_stable(subject):
    """The state dict has the same names and shapes before and after calls."""
    module = subject.make()
    before = {k: tuple(v.shape) for k, v in tensor_state(module).items()}
    subject.run(module, subject.inputs())
    subject.run(module, subject.inputs(steps=7))
    after = {k: tuple(v.shape) for k, v in tensor_state(module).items()}
    changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    if changed:
        fail(f"a call changes the entry {changed[0]!r} of the state dict", "build all weights in __init__, from dims")


@rule(needs=("constructs",))
def state_dict_tensors(subject):
    """The state dict holds tensors only and torch.load(weights_only=True) reads it."""
    state = subject.make().state_dict()
    other = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if other:
        fail(f"the state dict's entry {other[0]!r} is a {type(state[other[0]]).__name__}", "keep options out of it")
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=True)


@rule()
def deepcopy_equal(subject):
    """A deep copy gives bit-identical output."""
    module, inputs = _moved(subject), subject.inputs()
    try:
        other = copy.deepcopy(module)
    except Exception as error:
        fail(f"copy.deepcopy raises {describe_error(error)}", "keep only leaf tensors and plain values on self")
    same(subject.run(other, inputs), subject.run(module, inputs), "in a deep copy", "do not override __deepcopy__")


@rule()
def deepcopy_independent(subject):
    """Changing a deep copy does not change the original, nor the other way round."""
    fix = "keep no lambda, bound method or closure on self that holds the original's tensors"
    for which in ("a deep copy", "the original of a deep copy"):
        module, inputs = subject.make(), subject.inputs()
        other = copy.deepcopy(module)
        changed, kept = (other, module) if which == "a deep copy" else (module, other)
        expected = subject.run(kept, inputs).clone()
        with torch.no_grad():
            for t in (*changed.parameters(), *changed.buffers()):
                if t.is_floating_point():
                    t.add_(1.0)
        same(subject.run(kept, inputs), expected, f"when the weights of {which} change", fix)


@rule()
def pickle_round_trip(subject):
    """A pickle round trip gives bit-identical output."""
    module, inputs = _moved(subject), subject.inputs()
    same(
        subject.run(pickled(module), inputs),
        subject.run(module, inputs),
        "after a pickle round trip",
        "pickle all state",
    )


@rule(needs=("constructs",))
def reference_refuses_other_weights(subject):
    """load_reference refuses a state dict that is not the official implementation's."""
    module = subject.make()
    refuses(
        lambda: module.load_reference({"no.such.weight": torch.zeros(1)}),
        FusionZooError,
        "load_reference of other weights",
    )


@rule(needs=("constructs", "reference_refuses_other_weights"))
def reference_refuses_parts(subject):
    """load_reference takes weights that fit as a whole, or refuses: none is left out in silence."""
    own = subject.make().state_dict()
    names = [k for k, v in own.items() if isinstance(v, torch.Tensor)]
    if len(names) < 2:
        skip("it has no two tensors")
    module = subject.make()
    before = {k: v.clone() for k, v in tensor_state(module).items()}
    for what, weights in (
        ("one of its own weights and one of another name", {names[0]: own[names[0]], "no.such.weight": torch.zeros(1)}),
        ("all of its own weights but one", {k: own[k] for k in names[:-1]}),
    ):
        refuses(lambda w=weights: module.load_reference(w), FusionZooError, f"load_reference of {what}")
    changed = [k for k, v in tensor_state(module).items() if not torch.equal(v.nan_to_num(), before[k].nan_to_num())]
    if changed:
        fail(
            f"weights that were refused have changed {changed[0]!r}", "look at all names and shapes before loading any"
        )
