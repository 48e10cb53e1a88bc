"""How an instance runs other code than its class: what is done to its methods, and the calls that are running.

An `Entry` stands in the instance's `__dict__` for a method: the instance keeps its class, and neither the class nor another
instance changes. What an entry does is said in plain values, an `Override`, which copies share; whose method it is, is each
copy's own: deep copies and unpickled models run their own parameters, and so do the replicas of `nn.DataParallel`.

Where a library has replaced a method on the instance (`model.forward = wrapped(model.forward)`, as Accelerate does for half
precision), the class's function is exchanged for the entry inside what stands there. Only where it is not inside, a `Front`
stands before it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from fusionzoo.errors import HostChangedError, SiteNotReachedError
from fusionzoo.patching.arguments import get_argument, set_argument
from fusionzoo.patching.call_chain import Step, asked, attributes, class_attributes
from fusionzoo.patching.holders import layer_in
from fusionzoo.patching.rewrite.routes import STATE, Node, Route, Swap, closed_over
from fusionzoo.patching.rewrite.twins import exchange, holds
from fusionzoo.patching.running import running_calls, set_running_calls
from fusionzoo.patching.signatures import forward_of


@dataclass(frozen=True)
class Override:
    """What is done to one method: plain values, which the instance's copies share.

    routes : joins to be rewritten, with the way to them.
    tokens : patches that want to know the arguments of the running call.
    inputs : `(submodule, argument)`: layers that act on an argument.
    fallbacks : what watches torch's calls while the method runs.
    """

    routes: tuple[Route, ...] = ()
    tokens: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    fallbacks: tuple[Any, ...] = ()
    _built: dict[int, tuple[Any, Callable[..., Any]]] = field(default_factory=dict, compare=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.routes or self.tokens or self.inputs or self.fallbacks)

    def changed(self, parts: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]) -> Override:
        """The same with some parts mapped."""
        return replace(self, **{k: tuple(f(getattr(self, k))) for k, f in parts.items()}, _built={})

    def __reduce__(self) -> Any:
        return Override, (self.routes, self.tokens, self.inputs, self.fallbacks)

    def __deepcopy__(self, memo: dict[int, Any]) -> Override:
        return self

    def method(self, base: Callable[..., Any]) -> Callable[..., Any]:
        """What runs instead of a function whose first argument is the module; built once."""
        built = self._built.get(id(base))
        if built is None:
            built = self._built[id(base)] = base, self._rewritten(base) if self.routes else base
        return built[1]

    def _rewritten(self, base: Callable[..., Any]) -> Callable[..., Any]:
        node = self.node()
        assert node.step is not None
        if isinstance(base, FunctionType):
            probe = Swap(None, node.step, node)
            for inner in (base, *closed_over(base)):
                if probe.runs(inner) is not None and (new := probe.inside(base, inner)) is not None:
                    return new
        raise HostChangedError(
            f"{getattr(base, '__qualname__', base)} is not {node.step.qualname} of {node.step.file} any more, in which the site is"
        )

    def node(self) -> Node:
        """The rewrites of all routes together."""
        node = Node()
        for route in self.routes:
            node.add(route)
        return node

    def run(self, owner: nn.Module, function: Callable[..., Any], named: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of a module, watched as this says; `named` gives the arguments' names."""
        calls = running_calls()
        outer = [o for o, module, *_ in calls if module is owner]  # a front's, which does the same already
        set_running_calls((*calls, (self, owner, args, kwargs, {})))
        try:
            for path, argument in self.inputs:
                if not any((path, argument) in o.inputs for o in outer):
                    args, kwargs = fuse_argument(owner.get_submodule(path), argument, named, args, kwargs)
            with ExitStack() as stack:
                for watch in self.fallbacks:
                    if not any(watch in o.fallbacks for o in outer):
                        stack.enter_context(watch.enter(owner))
                return function(*args, **kwargs)
        finally:
            set_running_calls(calls)


def fuse_argument(
    layer: nn.Module, path: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with the fusion added to the one that holds the joined features."""
    joined = get_argument(function, args, kwargs, path)
    return set_argument(function, args, kwargs, path, layer(joined, None, (joined,), {}))


# -- what stands in an instance's `__dict__` ---------------------------------------------------------------------------


class Entry:
    """Stands for a method of an instance; one whose override is empty runs the method as it is."""

    def __init__(self, owner: nn.Module, name: str, override: Override):
        self.owner, self.name = owner, name
        self.change(override)

    def change(self, override: Override) -> None:
        """Do this from now on, wherever the entry is held."""
        self.override = override
        self._function: Callable[..., Any] | None = None
        self._layers = tuple(r.name for r in override.routes)

    @property
    def __fz_base__(self) -> Any:
        """What the instance would call without the patch."""
        return _function_of(type(self.owner), self.name)

    @property
    def __func__(self) -> Callable[..., Any]:
        """What somebody binds who rebinds a method (Accelerate, for half precision), so that copies of the instance run theirs."""
        base = self.__fz_base__
        if base is None or not isinstance(self.bound(base), MethodType):
            raise AttributeError("__func__")
        return _unbound(self.name, base)

    @property
    def __name__(self) -> str:
        return getattr(self.__fz_base__, "__name__", self.name)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(self.__fz_base__, "__doc__", None)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.bound(self.__fz_base__))

    @property
    def __code__(self) -> CodeType:
        return self.__fz_base__.__code__

    def bound(self, function: Any) -> Any:
        """A function of the class as the instance gives it to a caller."""
        raw = inspect.getattr_static(type(self.owner), self.name, None)
        return function if isinstance(raw, staticmethod) else MethodType(function, self.owner)

    def build(self) -> Callable[..., Any]:
        """What runs instead of the method."""
        function = self._function
        if function is None:
            base = self.__fz_base__
            if base is None:
                raise HostChangedError(
                    f"{type(self.owner).__name__} has no method {self.name} any more, which is patched"
                )
            self._named = self.bound(base)
            function = self._function = self.bound(self.override.method(base))
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method with what the patches do to it."""
        function = self._function
        if function is None:
            function = self.build()
        if args and type(args[0]) is type(self.owner) and type(function) is MethodType:
            return self._bound_again(*args, **kwargs)
        self.look_up()
        override = self.override
        if not (override.tokens or override.inputs or override.fallbacks):
            return function(*args, **kwargs)
        return override.run(self.owner, function, self._named, args, kwargs)

    def _bound_again(self, owner: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run as a method of a module, as Accelerate's unwrap_model makes one of what it finds; a copy of it runs its own."""
        return (_entry_again(owner, self.name, self) or self)(*args, **kwargs)

    def look_up(self) -> None:
        """Find the patches that wait in the method, once for all its joins; a wrapper may have exchanged them since."""
        state = vars(self.owner).get(STATE)
        if state is not None:
            for name in self._layers:
                layer = layer_in(self.owner, name)
                state.layers[name] = layer
                if hasattr(type(layer), "begin"):
                    layer.begin()

    def of(self, owner: nn.Module) -> Entry:
        """The same for a copy of the instance."""
        return Entry(owner, self.name, self.override)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k in _KEPT} | {"_function": None}


_KEPT = ("owner", "name", "override", "original", "seen", "_layers")


class Front(Entry):
    """Stands before something in an instance's `__dict__` that does not run the class's function as far as can be seen."""

    def __init__(self, owner: nn.Module, name: str, override: Override, original: Any, seen: bool = True):
        self.original = original
        self.seen = seen  # whether it is sure that a call reaches the sites
        super().__init__(owner, name, override)

    @property
    def __fz_base__(self) -> Any:
        """What stood there before."""
        return self.original

    def bound(self, function: Any) -> Any:
        """The function as it is: what stands in an instance is not bound to it."""
        return function

    def build(self) -> Callable[..., Any]:
        """What runs instead: what stood there with the function exchanged inside it, or watched where that cannot be done."""
        function = self._function
        if function is None:
            node = self.override.node()
            swapped = None if node.step is None else Swap(self.owner, node.step, node).value(self.original)
            watches = node.fallbacks() if swapped is None and node.step is not None else []
            self._watching = replace(self.override, fallbacks=(*self.override.fallbacks, *watches), _built={})
            self._named = forward_of(self.owner, self.original) if self.name == "forward" else self.original
            function = self._function = self.original if swapped is None else swapped
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run what stood there; an error where it does not come by the patched sites."""
        function = self.build()
        if args and args[0] is self.owner:
            args = args[1:]
        self.look_up()
        before = self._calls()
        out = self._watching.run(self.owner, function, self._named, args, kwargs)
        if not self.seen:
            if self._calls() == before:
                raise SiteNotReachedError(
                    f"{type(self.owner).__name__}.{self.name} was replaced on this instance by "
                    f"{getattr(self.original, '__qualname__', None) or type(self.original).__name__}, which does not come by the "
                    "site where the fusion was put: the fusion would have no effect. Patch the model before it is wrapped "
                    "(before accelerator.prepare, a graphed or scripted forward, ...)"
                )
            self.seen = True
        return out

    def _calls(self) -> int:
        layers = [layer_in(self.owner, r.name) for r in self.override.routes]
        return sum(getattr(layer, "calls", 0) for layer in layers)

    def of(self, owner: nn.Module) -> Front:
        """The same for a copy of the instance."""
        return Front(owner, self.name, self.override, self.original, self.seen)


@dataclass
class State:
    """Of one instance.

    entries : by the method's name.
    displaced : attribute -> what stood there, and what was put there with the function exchanged.
    layers : the patches by name, as the latest call found them.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    displaced: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)


class Replicate:
    """Stands for the method by which `nn.DataParallel` copies a module: with the `__dict__`, it would copy the entries."""

    def __init__(self, owner: nn.Module):
        self.owner = owner

    def __call__(self) -> nn.Module:
        """A replica, whose entries are its own."""
        replica = getattr(type(self.owner), REPLICATE)(self.owner)
        members = vars(replica)
        twins = {id(v): v.of(replica) for v in members.values() if isinstance(v, Entry)}
        for key, value in list(members.items()):
            members[key] = twins.get(id(value), value)
        state = members.get(STATE, State())
        members[STATE] = State(
            {n: twins.get(id(e)) or e.of(replica) for n, e in state.entries.items()}, state.displaced
        )
        members[REPLICATE] = Replicate(replica)
        return replica


REPLICATE = "_replicate_for_data_parallel"  # private, and the only notice that torch gives of a replica


def _function_of(cls: type, name: str) -> FunctionType | None:
    """A class's own function of this name, or what a static method holds."""
    raw = inspect.getattr_static(cls, name, None)
    raw = raw.__func__ if isinstance(raw, staticmethod) else raw
    return raw if isinstance(raw, FunctionType) and raw is not nn.Module.forward else None


def _unbound(name: str, base: FunctionType) -> Callable[..., Any]:
    """The class's function for whoever calls it with the module: runs what is done to that module's method."""

    @functools.wraps(base)
    def method(module: Any, /, *args: Any, **kwargs: Any) -> Any:
        entry = _entry_again(module, name, method) if isinstance(module, nn.Module) else None
        return base(module, *args, **kwargs) if entry is None else entry(*args, **kwargs)

    del method.__wrapped__  # who follows it (Accelerate's unwrap_model) would come to the function without the patch
    method.__fz_base__ = base  # type: ignore[attr-defined]
    return method


def _entry_again(owner: nn.Module, name: str, function: Any) -> Entry | None:
    """The entry of a module for a method, back in its place where nothing but a binding of the function stands there.

    A pickle would leave the fusion out else, because it looks a bound method up by its name.
    """
    state = vars(owner).get(STATE)
    entry = None if state is None else state.entries.get(name)
    standing = vars(owner).get(name)
    if entry is not None and isinstance(standing, MethodType) and standing.__func__ is function:
        vars(owner)[name] = entry
    return entry


# -- changing it -------------------------------------------------------------------------------------------------------

Parts = Callable[[tuple[Any, ...]], tuple[Any, ...]]


def change(owner: nn.Module, name: str, **parts: Parts) -> None:
    """Change what is done to a method of an instance, whatever stands in its place now."""
    base = _function_of(type(owner), name)
    if base is not None:
        _override(owner, name, parts)
    if isinstance(vars(owner).get(name), Front) or base is None or not holds(vars(owner).get(name, base), base):
        _front(
            owner, name, parts
        )  # as long as it stands there; by whatever way it leads to the method, nothing is done twice


def add_route(owner: nn.Module, route: Route) -> list[str]:
    """Rewrite the method that leads to a join, under every name that the instance has for it; those names."""
    step = route.steps[0]
    own = [n for n, v in vars(owner).items() if not isinstance(v, nn.Module) and _runs(_under(v), step)]
    names = [n for n, v in class_attributes(type(owner)) if _runs(v, step) and _function_of(type(owner), n) is not None]
    for name in names:
        _override(owner, name, {"routes": lambda old: (*old, route)})
    for name in names:
        value, base = vars(owner).get(name), _function_of(type(owner), name)
        if value is not None and not holds(value, base):
            own.append(name)
    bases = [_function_of(type(owner), n) for n in names]
    for name in dict.fromkeys(own):
        value = _under(vars(owner)[name])
        if not any(holds(value, base) for base in bases):
            _front(owner, name, {"routes": lambda old: (*old, route)}, seen=_runs(value, step))
    return [*names, *own]


def methods(owner: nn.Module, step: Step) -> list[str]:
    """Attributes of a module that run the function of a step when called."""
    return list(
        dict.fromkeys(n for n, v in attributes(owner) if not isinstance(v, nn.Module) and _runs(_under(v), step))
    )


def _under(value: Any) -> Any:
    return value.original if isinstance(value, Front) else value


def _runs(value: Any, step: Step) -> bool:
    """Whether a raw attribute is the function of a step, or a decorator's wrapper around it."""
    probe = Swap(None, step, Node())
    function = asked(value, "__func__", value)
    if not isinstance(function, (FunctionType, functools.partial)) or hasattr(function, "__fz_base__"):
        return False
    return probe.runs(function) is not None or (
        isinstance(function, FunctionType) and any(probe.runs(f) is not None for f in closed_over(function))
    )


def _override(owner: nn.Module, name: str, parts: dict[str, Parts]) -> None:
    state = vars(owner).get(STATE) or State()
    entry = state.entries.get(name) or Entry(owner, name, Override())
    override = entry.override.changed(parts)
    state.layers.clear()
    if override.routes and (base := entry.__fz_base__) is not None:
        override.method(base)  # what cannot be rewritten is refused now
    entry.change(override)
    if override:
        state.entries[name] = entry
        _put(owner, state, entry)
        vars(owner).update({STATE: state, REPLICATE: Replicate(owner)})
        return
    state.entries.pop(name, None)
    if not state.entries:
        for key in (STATE, REPLICATE):
            vars(owner).pop(key, None)
    _put_back(owner, state, entry)


def _put(owner: nn.Module, state: State, entry: Entry) -> None:
    """The entry in the method's place, and inside whatever the instance holds of it."""
    base, own = entry.__fz_base__, vars(owner)
    unbound = _unbound(entry.name, base) if isinstance(entry.bound(base), MethodType) else entry

    def match(value: Any) -> Any:
        if isinstance(value, MethodType):
            return entry if value.__func__ is base and value.__self__ is owner else None
        return unbound if value is base else None

    for key, value in list(own.items()):
        if _exchangeable(value) and (new := exchange(value, match)) is not None:
            own[key] = new
            state.displaced[key] = state.displaced.get(key, (value, None))[0], new
    own.setdefault(entry.name, entry)


def _put_back(owner: nn.Module, state: State, entry: Entry) -> None:
    """The instance's own attributes with the class's function in them again."""
    base, own = entry.__fz_base__, vars(owner)

    def match(value: Any) -> Any:
        if value is entry:
            return entry.bound(base)
        return base if isinstance(value, FunctionType) and getattr(value, "__fz_base__", None) is base else None

    if own.get(entry.name) is entry:
        del own[entry.name]
    for key, value in list(own.items()):
        before, put = state.displaced.get(key, (None, None))
        if put is not None and value is put and not state.entries:
            own[key] = before
        elif _exchangeable(value) and (new := exchange(value, match)) is not None:
            own[key] = new
            if put is value:
                state.displaced[key] = before, new


def _exchangeable(value: Any) -> bool:
    """What a host keeps of its own methods: wrapped ones, and lists and tables of them."""
    if isinstance(value, (nn.Module, Entry, Replicate)):
        return False
    return callable(value) or type(value) in (list, tuple, dict)


def _front(owner: nn.Module, name: str, parts: dict[str, Parts], seen: bool = True) -> None:
    current = vars(owner).get(name)
    if not isinstance(current, Front):
        current = Front(owner, name, Override(), current if name in vars(owner) else getattr(owner, name))
    override = current.override.changed(parts)
    if not override:
        original = current.original
        bare = type(original) is Entry and not original.override  # of a patch that was removed before
        vars(owner)[name] = original.bound(original.__fz_base__) if bare else original
        return
    front = Front(owner, name, override, current.original, current.seen and seen)
    front.build()
    vars(owner)[name] = front


def entries(owner: nn.Module) -> list[Entry]:
    """Everything that stands for a method of an instance."""
    state = vars(owner).get(STATE)
    fronts: list[Entry] = [v for v in vars(owner).values() if isinstance(v, Front)]
    return fronts if state is None else [*fronts, *state.entries.values()]


def drop(owner: nn.Module, **parts: Parts) -> None:
    """Map parts of everything that is done to an instance; what then does nothing goes."""
    for entry in entries(owner):
        (_front if isinstance(entry, Front) else _override)(owner, entry.name, parts)
