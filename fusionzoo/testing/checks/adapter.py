"""Checks of an adapter: patching its host adds the fusion and changes nothing else; removing leaves no trace."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.testing.comparisons import first_words, pickled, random_state_untouched, reached, without_gradient
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("adapter", theme="patching", needs=("host_given", "patches"))


#: A small model and the arguments of a call of it.
Example = Callable[[], tuple[nn.Module, Sequence[object], Mapping[str, object]]]


class AdapterSubject:
    """An adapter, a small host of its kind, and the function that patches."""

    kind = "adapter"

    def __init__(
        self,
        adapter: Any,
        *,
        example: Example | None = None,
        patch: Callable[..., Any] | None = None,
        fusion: str = "gated",
    ):
        if isinstance(adapter, str):
            self.name = adapter
            adapter = registry.get(adapter, "adapter")
        else:
            self.name = getattr(adapter, "__name__", type(adapter).__name__)
        self.cls = adapter
        self.adapter = adapter() if isinstance(adapter, type) else adapter
        self.example: Example | None = example or getattr(self.adapter, "test_host", None)
        if self.example is not None and not callable(self.example):
            raise OptionError(
                f"the example of the adapter {self.name} is called for (model, args, kwargs), and {self.example!r} cannot be"
            )
        self.patch_function = patch or _patch_function()
        self.fusion = fusion

    @property
    def label(self) -> str:
        """For the table's title."""
        return f"adapter {self.name}"

    def variants(self) -> list[AdapterSubject]:
        """An adapter has no options to vary."""
        return [self]

    def describe(self) -> str:
        """No options."""
        return ""

    def host(self) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """The model in eval mode, seeded, and the arguments of a call; skips the check where nobody gave one."""
        if self.example is None:
            skip(
                "there is no model to patch: the adapter has no test_host(), and none was given: "
                "check_adapter(name, example=function) or --example script.py:function, which returns (model, args, kwargs)"
            )
        torch.manual_seed(0)
        model, args, kwargs = self.example()
        return model.eval(), tuple(args), dict(kwargs)

    def patch(self, model: nn.Module) -> Any:
        """Patch a model."""
        return self.patch_function(model, self.fusion)

    def patched(self) -> tuple[nn.Module, Any, Callable[[], list[Tensor]]]:
        """A patched model, its patch, and a function that calls it."""
        model, args, kwargs = self.host()
        return model, self.patch(model), lambda: outputs(model, args, kwargs)


def _patch_function() -> Callable[..., Any]:
    import fusionzoo

    function = getattr(fusionzoo, "patch", None)
    if function is None:
        raise FusionZooError(
            f"this fusionzoo ({fusionzoo.__version__}) cannot patch models yet: there is no fusionzoo.patch; "
            "give check_adapter a patch=function, or update fusionzoo"
        )
    return function


def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Every tensor that a call returns, in order."""
    return list(_tensors(model(*args, **kwargs)))


def _tensors(value: Any):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))


def _identical(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))


def _train(patch: Any) -> None:
    """Move the fusion's parameters, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in patch.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.3)


class _Same:
    """Equal only to the same object, which it keeps alive so that no other one takes its address."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def _anatomy(model: nn.Module) -> dict[str, Any]:
    """What a model is made of, apart from values: classes, attributes, hooks, flags, by module path."""
    out: dict[str, Any] = {}
    for path, part in model.named_modules():
        where = path or "the model"
        out[f"{where}: class"] = type(part)
        out[f"{where}: training"] = part.training
        for key, value in vars(part).items():
            if isinstance(value, Mapping) and key.startswith("_"):
                out[f"{where}: {key}"] = [(k, _Same(v)) for k, v in value.items()]
            else:
                out[f"{where}: attribute {key}"] = value if isinstance(value, (bool, int, str)) else _Same(value)
    for name, p in model.named_parameters():
        out[f"{name}: requires_grad"] = p.requires_grad
    return out


def _surroundings(model: nn.Module) -> dict[str, _Same]:
    """What a patch must not replace: the globals of the model's modules, its classes, torch's functions."""
    out = {f"torch.{k}": _Same(getattr(torch, k)) for k in ("cat", "stack", "add", "mul", "matmul", "bmm", "einsum")}
    out |= {f"torch.Tensor.{k}": _Same(getattr(Tensor, k)) for k in ("__add__", "__mul__", "__matmul__")}
    out["torch.nn.Module.__call__"] = _Same(nn.Module.__call__)
    for part in model.modules():
        cls = type(part)
        module = sys.modules.get(cls.__module__)
        if module is not None and cls.__module__.partition(".")[0] != "torch":
            out |= {f"{cls.__module__}.{k}": _Same(v) for k, v in vars(module).items() if not k.startswith("__")}
            out |= {f"{cls.__qualname__}.{k}": _Same(v) for k, v in vars(cls).items() if not k.startswith("__")}
    return out


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [k for k in {**before, **after} if (k in before) != (k in after) or before[k] != after[k]]


def _members(subject: AdapterSubject) -> Any:
    """The adapter, if it is one that `fusionzoo.patch` finds by looking at a model; skips the check else."""
    if not callable(getattr(subject.adapter, "recognise", None)):
        skip("it has no recognise(), so that no model is ever taken for its own")
    return subject.adapter


@rule(needs=())
def foreign_models_passed_over(subject):
    """recognise() is False, and raises nothing, for models that are certainly not its own."""
    adapter = _members(subject)
    for model in (nn.Module(), nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.ReLU()), nn.LSTM(3, 2)):
        try:
            answer = adapter.recognise(model)
        except Exception as error:
            fail(
                f"recognise() of {type(model).__name__} raises {describe_error(error)}",
                "return False for what it does not know",
            )
        if answer:
            fail(f"it recognises {type(model).__name__}", "look for the class's name and the parts that are used")


@rule(needs=())
def site_named(subject):
    """It says where the streams meet: site, or an example to look for it with."""
    adapter = _members(subject)
    if not any(hasattr(adapter, member) for member in ("site", "example")):
        fail("it has neither site nor example", "give one of those that fusionzoo.patching.repositories lists")


@rule(needs=())
def own_model_recognised(subject):
    """recognise() is True for the example."""
    adapter = _members(subject)
    model, *_ = subject.host()
    if not adapter.recognise(model):
        fail(f"it does not recognise {type(model).__name__}, its own example", "look for what the model really has")


@rule(needs=())
def host_given(subject):
    """The example is a model and a call for it, the same each time under the same seed."""
    first, second = (outputs(*subject.host()) for _ in range(2))
    if not first:
        fail("the example's call returns no tensor", "return (model, args, kwargs) of a call that returns tensors")
    if not _identical(first, second):
        fail("two examples built under the same seed differ", "build model and arguments from torch's global generator")


@rule(needs=("host_given",))
def patches(subject):
    """The host can be patched, and what comes back has parameters() and remove()."""
    model, *_ = subject.host()
    try:
        patch = subject.patch(model)
    except Exception as error:
        fail(f"patching raises {describe_error(error)}", "supply site, layout and lengths")
    if not list(patch.parameters()):
        fail("the patch has no parameters", "patch.parameters() gives the fusion's")
    if not callable(getattr(patch, "remove", None)):
        fail("the patch has no remove()", "return a Patch")


@rule()
def step_zero_identical(subject):
    """A patched model's outputs are bit-identical to the original's before training."""
    expected = outputs(*subject.host())
    _, _, call = subject.patched()
    if not _identical(call(), expected):
        fail("patching changes the outputs", "add the fusion through a projection that starts at zero")


@rule()
def fusion_acts(subject):
    """Once its parameters move, the fusion changes the outputs."""
    _, patch, call = subject.patched()
    before = call()
    _train(patch)
    if _identical(call(), before):
        fail("the fusion's parameters do not change the outputs", "put its output back where the streams met")


@rule()
def fusion_learns(subject):
    """Gradient reaches the patch's parameters; once they have moved, all of them."""
    model, patch, call = subject.patched()
    _train(patch)
    loss = sum((x.square().sum() for x in call() if x.is_floating_point()), torch.zeros(()))
    if not loss.requires_grad:
        fail("the patched outputs have no graph", "do not compute the fusion under no_grad")
    loss.backward()
    own, constant = {id(p) for p in patch.parameters()}, without_gradient(model)
    learning = {n: p.grad for n, p in model.named_parameters() if id(p) in own and n not in constant}
    dead = [n for n, there in reached(learning).items() if not bool(there.any())]
    if dead:
        fail(f"the patch's parameters {first_words(dead)} receive no gradient", "do not detach the streams")


@rule()
def parameters_belong_to_model(subject):
    """The model's parameters are its own, the same objects as before, and the patch's: nothing else."""
    model, *_ = subject.host()
    before = {id(p) for p in model.parameters()}
    patch = subject.patch(model)
    after, own = {id(p) for p in model.parameters()}, {id(p) for p in patch.parameters()}
    if own - after:
        fail(f"{len(own - after)} of the patch's parameters are not in model.parameters()", "register it in the model")
    if before - after or own & before or after - before - own:
        fail(
            "model.parameters() is not the original's and the patch's together",
            "keep the host's parameters as they are",
        )


@rule()
def names_kept(subject):
    """Names and values in the original's state dict are unchanged; the patch only adds."""
    model, *_ = subject.host()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    subject.patch(model)
    after = model.state_dict()
    changed = [k for k in before if k not in after or not torch.equal(before[k], after[k])]
    if changed:
        fail(f"patching renames or changes {first_words(changed)}", "do not wrap or rename modules of the host")


@rule()
def flags_kept(subject):
    """Patching changes neither requires_grad nor training flags of the original's parts."""
    for training in (True, False):
        model, *_ = subject.host()
        model.train(training)
        for i, p in enumerate(model.parameters()):
            p.requires_grad_(i % 2 == 0)
        before = {k: v for k, v in _anatomy(model).items() if k.endswith((": training", ": requires_grad"))}
        subject.patch(model)
        after = _anatomy(model)
        changed = [k for k in before if k in after and after[k] != before[k]]
        if changed:
            fail(
                f"patching changes {changed[0]}", "leave the host's flags alone; the fusion takes over the host's mode"
            )


@rule()
def mode_followed(subject):
    """train() and eval() of the model reach the fusion."""
    model, patch, _ = subject.patched()
    own = {id(p) for p in patch.parameters()}
    parts = [m for m in model.modules() if any(id(p) in own for p in m.parameters(recurse=False))]
    for training in (True, False):
        model.train(training)
        if any(part.training is not training for part in parts):
            fail(f"model.train({training}) does not reach the fusion", "register it as a submodule of the model")


@rule()
def random_state_kept(subject):
    """Patching and removing leave the global random state as it was."""
    model, *_ = subject.host()
    with random_state_untouched("patching"):
        subject.patch(model).remove()


@rule()
def class_kept(subject):
    """The model stays an instance of its class, under its own name."""
    model, *_ = subject.host()
    before = type(model)
    subject.patch(model)
    if not isinstance(model, before) or type(model).__name__ != before.__name__:
        fail(f"the model is a {type(model).__name__} now, no {before.__name__}", "do not replace the class")


@rule()
def other_instances_kept(subject):
    """Another instance of the same class is not patched, while the first one runs either."""
    other, args, kwargs = subject.host()
    expected = outputs(other, args, kwargs)
    anatomy = _anatomy(other)
    _, patch, call = subject.patched()
    _train(patch)
    call()
    if not _identical(outputs(other, args, kwargs), expected) or _difference(anatomy, _anatomy(other)):
        fail("patching one model changes another instance of its class", "patch the instance, not the class")


@rule()
def surroundings_kept(subject):
    """Neither the globals of the host's module, nor its classes, nor torch's functions stay replaced after a call."""
    model, *_ = subject.host()
    before = _surroundings(model)
    _, patch, call = subject.patched()
    call()
    patch.remove()
    changed = _difference(before, _surroundings(model))
    if changed:
        fail(f"patching replaces {first_words(changed)}", "intercept within the patched model's call only, and restore")


@rule()
def remove_restores_outputs(subject):
    """After remove() the outputs are bit-identical to the original's, whatever the fusion learnt."""
    expected = outputs(*subject.host())
    _, patch, call = subject.patched()
    _train(patch)
    call()
    patch.remove()
    if not _identical(call(), expected):
        fail("after remove() the outputs are not the original's", "undo everything that patch did")


@rule()
def remove_restores_state_dict(subject):
    """After remove() the state dict has the original's names and values."""
    model, *_ = subject.host()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    subject.patch(model).remove()
    after = model.state_dict()
    if list(before) != list(after) or any(not torch.equal(before[k], after[k]) for k in before):
        fail(
            f"after remove() the state dict has {first_words(sorted({*after} ^ {*before})) or 'other values'}",
            "take it out",
        )


@rule()
def remove_leaves_no_trace(subject):
    """After remove() classes, attributes, hooks and flags of every part are as before."""
    model, args, kwargs = subject.host()
    outputs(model, args, kwargs)  # what the host itself keeps from a call is no trace of the patch
    before = _anatomy(model)
    patch = subject.patch(model)
    patch.remove()
    changed = _difference(before, _anatomy(model))
    if changed:
        fail(f"remove() leaves {first_words(changed)}", "take out hooks, attributes and submodules that patch added")


@rule()
def deepcopy_works(subject):
    """A deep copy of a patched model is patched by its own fusion."""
    model, args, kwargs = subject.host()
    patch = subject.patch(model)
    _train(patch)
    expected = outputs(model, args, kwargs)
    other = copy.deepcopy(model)
    if not _identical(outputs(other, args, kwargs), expected):
        fail("a deep copy's outputs are not the patched model's", "keep all of the patch in the model")
    _train(patch)
    if not _identical(outputs(other, args, kwargs), expected):
        fail("training the original's fusion changes a deep copy", "bind no module in a closure")


@rule()
def pickle_works(subject):
    """A patched model survives a pickle round trip where its host does."""
    host, args, kwargs = subject.host()
    try:
        pickled(host)
    except FusionZooError:
        skip("the host itself cannot be pickled")
    model, patch, call = subject.patched()
    _train(patch)
    if not _identical(outputs(pickled(model), args, kwargs), call()):
        fail("after a pickle round trip the outputs are not the patched model's", "keep all of the patch in the model")


@rule()
def state_dict_round_trip(subject):
    """A patched model's state dict loads strictly into another patched model."""
    model, patch, call = subject.patched()
    _train(patch)
    expected = call()
    other, _, call_other = subject.patched()
    other.load_state_dict(model.state_dict(), strict=True)
    if not _identical(call_other(), expected):
        fail("loaded weights give other outputs", "register all of the patch's weights")


@rule()
def patch_again(subject):
    """A model can be patched, restored and patched again."""
    expected = outputs(*subject.host())
    model, args, kwargs = subject.host()
    subject.patch(model).remove()
    patch = subject.patch(model)
    if not _identical(outputs(model, args, kwargs), expected):
        fail("patched a second time the outputs are not the original's", "remove() must undo everything")
    _train(patch)
    if _identical(outputs(model, args, kwargs), expected):
        fail("patched a second time the fusion does nothing", "remove() must undo everything")
