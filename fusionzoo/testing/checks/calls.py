"""Checks of every kind: nothing that an earlier call left behind, on the module or anywhere else, acts in a later one."""

from __future__ import annotations

import copy

import torch

from fusionzoo._options import accepted_options
from fusionzoo.testing.checks.options import without_effect
from fusionzoo.testing.comparisons import close, differs, pickled, same, step_after_step
from fusionzoo.testing.runner import DEFAULT_NEEDS, describe_error, fail, rules, skip, torch_settings

rule = rules("fusion", "host", "objective", theme="calls before")
_CACHE = (
    "keep nothing of a call on self or in a module's global; a table that depends on sizes alone is a detached buffer"
)
#: Steps that no other check uses, so that whatever is cached by size is new at the first call here.
_UNUSED = 11


@rule(needs=(*DEFAULT_NEEDS, "construction_follows_seed"))
def calls_of_one_shape(subject):
    """A call reads its own values, mask and labels, not those of an earlier call of the same shape."""
    module = subject.make()
    subject.run(module, subject.inputs(3))
    for made in (subject.inputs(4), subject.other_lengths(5)):
        what = "after a call of the same shape with other values or another mask"
        same(subject.run(module, made), subject.run(subject.make(), made), what, _CACHE)


@rule(needs=(*DEFAULT_NEEDS, "registered_parameters", "state_dict_round_trip"))
def weights_followed(subject):
    """Weights that were loaded or changed after a call act in the next one, in eval mode with and without gradients."""
    other = subject.make(1)
    for context in (torch.no_grad, torch.enable_grad):
        module, inputs = subject.make(), subject.inputs()
        with context():
            subject.run(module, inputs)
        module.load_state_dict(copy.deepcopy(other.state_dict()))
        with context():
            what = "when the same weights were loaded after a call and before the first"
            same(
                subject.run(module, inputs), subject.run(other, inputs), what, "fold or cache no weights between calls"
            )


@rule(needs=(*DEFAULT_NEEDS, "deepcopy_equal", "pickle_round_trip"))
def copies_after_a_call(subject):
    """After a call in training, with gradients on, the module can be copied and pickled, and the copies do the same."""
    module, inputs = subject.make().train(), subject.inputs()
    subject.loss(module, inputs)
    module.eval()
    expected = subject.run(module, inputs)
    try:
        other = copy.deepcopy(module)
    except Exception as error:
        fail(f"copy.deepcopy after a call raises {describe_error(error)}", f"{_CACHE}, and no tensor of the graph")
    for what, made in (("a deep copy", other), ("a pickle", pickled(module))):
        same(subject.run(made, inputs), expected, f"in {what} made after a call", _CACHE)


@rule(needs=(*DEFAULT_NEEDS, "inference_mode"))
def trains_after_inference(subject):
    """A length first met under torch.inference_mode() can be trained on afterwards, and gives the same."""
    module, inputs = subject.make(), subject.inputs(steps=_UNUSED)
    with torch.inference_mode():
        first = subject.run(module, inputs).clone()
    try:
        out = subject.run(module, inputs)
        loss = subject.loss(module.train(), inputs)
        if loss.requires_grad:
            loss.backward()
    except Exception as error:
        fail(f"training after a call under torch.inference_mode() raises {describe_error(error)}", _CACHE)
    close(out, first, "after a call of that length under torch.inference_mode()", _CACHE)


@rule()
def trains_step_after_step(subject):
    """Several training steps in a row can be sent backward: no step holds the graph of an earlier one."""
    module = subject.make().train()
    step_after_step(lambda step: subject.loss(module, subject.inputs(step)))


# -- what is everybody's ------------------------------------------------------------------------------------------------


@rule(needs=("constructs", "runs"))
def global_state_kept(subject):
    """Building, calling and training leave torch's global settings as they were."""
    before = torch_settings()
    module = subject.make()
    subject.run(module, subject.inputs())
    subject.loss(module.train(), subject.inputs())
    changed = [what for what, value in torch_settings().items() if value != before[what]]
    if changed:
        fail(
            f"building or calling it changes {changed[0]}",
            "leave torch's settings to the user, or set them inside a with",
        )


@rule(needs=("constructs", "runs"))
def random_state_drawn_from(subject):
    """Building and training draw from torch's random state and never set it: the next number differs under another seed."""

    def next_number(seed: int, training: bool) -> torch.Tensor:
        torch.manual_seed(seed)
        module = subject.build()
        if training:
            torch.manual_seed(seed)
            subject.loss(module.train(), subject.inputs())
        return torch.rand(4)

    for training, what in ((False, "building it"), (True, "a call in training mode")):
        if torch.equal(next_number(1, training), next_number(2, training)):
            fail(
                f"after {what} torch's random numbers are the same under every seed",
                "never call torch.manual_seed; a constant draw takes torch.Generator().manual_seed(...) of its own",
            )


@rule(needs=("constructs", "runs"))
def dropout_drops(subject):
    """With a dropout of one half, calls in training mode differ from each other and under another seed."""
    rates = _rates(subject)
    if not rates:
        skip("no option is a rate of dropout")
    module, inputs = subject.make(**dict.fromkeys(rates, 0.5)).train(), subject.inputs()
    first, second = subject.run(module, inputs), subject.run(module, inputs)
    if not differs(first, second):
        fail(
            f"with {', '.join(f'{n}=0.5' for n in rates)} two calls in training mode are equal: nothing is dropped, or "
            "always the same",
            "apply dropout where self.training is True, and set no seed",
        )


def _rates(subject) -> list[str]:
    """Options that say how much is dropped, unless the set of options under check says so itself."""
    own = [n for n in accepted_options(subject.cls) if n == "dropout" or n.endswith("_dropout")]
    excused = without_effect(subject)
    return [n for n in own if n not in subject.options and n not in excused]
