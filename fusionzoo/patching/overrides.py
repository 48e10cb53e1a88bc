"""How an instance runs other code than its class: what is done to its methods, and the calls that are running.

The instance gets a class of its own, derived from the one that it had and of the same name, whose methods look up in the
instance what is to be done. A method is handed the module that it runs on, as always in Python: a replica of
`nn.DataParallel`, a copy and an unpickled model compute with their own parameters.

Where a library has replaced a method on the instance (`model.forward = wrapped(model.forward)`, as Accelerate does for half
precision), the function of the class is exchanged inside what stands there. Only where it is not inside, an `Entry` stands
in front.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from fusionzoo.errors import HostChangedError, SiteNotReachedError
from fusionzoo.patching.exchange import exchange, holds
from fusionzoo.patching.frames import Step, attributes, class_attributes, plain_class
from fusionzoo.patching.install import Node, Route, Swap, closed_over

STATE = "_fusionzoo_patches"  # of a patched instance
_running = threading.local()


def running_call(token: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any]] | None:
    """Model, arguments and scratch space of the innermost running forward that a patch watches."""
    for tokens, *call in reversed(getattr(_running, "calls", [])):
        if token in tokens:
            return tuple(call)  # type: ignore[return-value]
    return None


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
        calls = _running.__dict__.setdefault("calls", [])
        calls.append((self.tokens, owner, args, kwargs, {}))
        try:
            for path, argument in self.inputs:
                args, kwargs = fuse_argument(owner.get_submodule(path), argument, named, args, kwargs)
            with ExitStack() as stack:
                for watch in self.fallbacks:
                    stack.enter_context(watch.enter(owner))
                return function(*args, **kwargs)
        finally:
            calls.pop()


def fuse_argument(
    layer: nn.Module, path: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with the fusion added to the one that holds the joined features."""
    from fusionzoo.patching.arguments import get_argument, set_argument

    joined = get_argument(function, args, kwargs, path)
    return set_argument(function, args, kwargs, path, layer(joined, None, (joined,), {}))


# -- the class of a patched instance -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Of one instance.

    overrides : by the method's name.
    displaced : attribute -> what stood there, and what was put there with the function exchanged.
    """

    overrides: dict[str, Override] = field(default_factory=dict)
    displaced: dict[str, tuple[Any, Any]] = field(default_factory=dict)


class _Deaf:
    """A first base before hosts with an `__init_subclass__`, such as a register of classes, which does not hear of ours."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


def _reduce(self: Any, protocol: Any) -> Any:
    """How an instance is copied and pickled: as one of its plain class, which then gets a class like this one."""
    own = next(c for c in type(self).__mro__ if "__fz_class__" in vars(c))
    reduced = super(own, self).__reduce_ex__(protocol)
    if isinstance(reduced, str) or own is not type(self):
        return reduced
    function, args, *rest = reduced
    return _rebuild, (function, tuple(plain_class(own) if a is own else a for a in args), _names(own)), *rest


def _rebuild(function: Callable[..., Any], args: tuple[Any, ...], names: tuple[str, ...]) -> Any:
    """A copy or an unpickled instance, which is patched as its original was."""
    made = function(*args)
    made.__class__ = _class(type(made), names)
    return made


def _names(cls: type) -> tuple[str, ...]:
    return vars(cls).get("__fz_names__", ())


def _class(base: type, names: tuple[str, ...]) -> type:
    space = {
        "__slots__": (),
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__fz_class__": base,
        "__fz_names__": names,
        "__reduce_ex__": _reduce,
        **{name: _method(name, inspect.getattr_static(base, name)) for name in names},
    }
    hears = next((c for c in base.__mro__ if "__init_subclass__" in vars(c) and c.__module__ != "typing"), object) is not object
    return types.new_class(base.__name__, (_Deaf, base) if hears else (base,), {}, lambda ns: ns.update(space))


def _method(name: str, raw: Any) -> Any:
    base = raw.__func__ if isinstance(raw, staticmethod) else raw

    def method(self: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        state = self.__dict__.get(STATE)
        override = None if state is None else state.overrides.get(name)
        if override is None:
            return base(self, *args, **kwargs)
        function = override.method(base)
        if not (override.tokens or override.inputs or override.fallbacks):
            return function(self, *args, **kwargs)
        return override.run(self, MethodType(function, self), MethodType(base, self), args, kwargs)

    # No __wrapped__: what follows it (Accelerate's unwrap_model) would come to the function without the patch.
    for key in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(method, key, getattr(base, key, None))
    method.__annotations__ = dict(getattr(base, "__annotations__", {}))
    method.__signature__ = inspect.signature(base)  # type: ignore[attr-defined]
    method.__fz_base__ = base  # type: ignore[attr-defined]
    return staticmethod(method) if isinstance(raw, staticmethod) else method


def _function_of(cls: type, name: str) -> FunctionType | None:
    """A class's own function of this name, or what a static method holds."""
    raw = inspect.getattr_static(plain_class(cls), name, None)
    raw = raw.__func__ if isinstance(raw, staticmethod) else raw
    return raw if isinstance(raw, FunctionType) else None


# -- where the instance has something of its own in a method's place ---------------------------------------------------


class Entry:
    """Stands in an instance's `__dict__` before something that does not run the class's function as far as can be seen."""

    def __init__(self, owner: nn.Module, name: str, original: Any, override: Override, seen: bool = True):
        self.owner, self.name, self.original, self.override = owner, name, original, override
        self.seen = seen  # whether it is sure that a call comes by the sites
        self._function: Callable[..., Any] | None = None

    @property
    def __fz_base__(self) -> Any:
        """What the instance would call without the patch."""
        return self.original

    @property
    def __name__(self) -> str:
        return getattr(self.original, "__name__", self.name)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(self.original, "__doc__", None)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.original)

    @property
    def __code__(self) -> CodeType:
        return self.original.__code__

    def build(self) -> Callable[..., Any]:
        """What runs in the original's place."""
        function = self._function
        if function is None:
            node = self.override.node()
            swapped = None if node.step is None else Swap(self.owner, node.step, node).value(self.original)
            function = self._function = self.original if swapped is None else swapped
            watches = node.fallbacks() if swapped is None and node.step is not None else []
            self._watching = replace(self.override, fallbacks=(*self.override.fallbacks, *watches), _built={})
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] is self.owner:  # bound once more, as Accelerate's unwrap_model does with what it finds
            args = args[1:]
        function = self.build()
        before = self._calls()
        out = self._watching.run(self.owner, function, self.original, args, kwargs)
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
        layers = [getattr(self.owner, r.name, None) for r in self.override.routes]
        return sum(getattr(layer, "calls", 0) for layer in layers)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_function", "_watching")} | {"_function": None}


# -- changing it -------------------------------------------------------------------------------------------------------

Parts = Callable[[tuple[Any, ...]], tuple[Any, ...]]


def change(owner: nn.Module, name: str, **parts: Parts) -> None:
    """Change what is done to a method of an instance, whatever stands in its place now."""
    current = vars(owner).get(name)
    base = _function_of(type(owner), name)
    if isinstance(current, Entry):
        _enter(owner, name, parts)
    elif base is not None and (current is None or holds(current, base)):
        _override(owner, name, parts)
    else:
        _enter(owner, name, parts)


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
            _enter(owner, name, {"routes": lambda old: (*old, route)}, seen=_runs(value, step))
    return [*names, *own]


def methods(owner: nn.Module, step: Step) -> list[str]:
    """Attributes of a module that run the function of a step when called."""
    return list(dict.fromkeys(n for n, v in attributes(owner) if not isinstance(v, nn.Module) and _runs(_under(v), step)))


def _under(value: Any) -> Any:
    return value.original if isinstance(value, Entry) else value


def _runs(value: Any, step: Step) -> bool:
    """Whether a raw attribute is the function of a step, or a decorator's wrapper around it."""
    probe = Swap(None, step, Node())
    function = getattr(value, "__func__", value)
    if not isinstance(function, (FunctionType, functools.partial)) or hasattr(function, "__fz_base__"):
        return False
    return probe.runs(function) is not None or (
        isinstance(function, FunctionType) and any(probe.runs(f) is not None for f in closed_over(function))
    )


def _override(owner: nn.Module, name: str, parts: dict[str, Parts]) -> None:
    state = vars(owner).get(STATE, State())
    override = state.overrides.get(name, Override()).changed(parts)
    overrides = {k: v for k, v in {**state.overrides, name: override}.items() if v}
    base = _function_of(type(owner), name)
    if override and base is not None:
        override.method(base)  # what cannot be rewritten is refused now
    _set_class(owner, tuple(sorted(overrides)))
    if not overrides:
        vars(owner).pop(STATE, None)
        _put_back(owner, state)
        return
    displaced = dict(state.displaced)
    if base is not None:
        method = getattr(vars(type(owner)).get(name), "__func__", vars(type(owner)).get(name))
        for key, value in list(vars(owner).items()):
            if method is None or not _exchangeable(value):
                continue
            new = exchange(value, lambda v, b=base, m=method: m if v is b else None)
            if new is not None:
                vars(owner)[key] = new
                displaced[key] = displaced.get(key, (value, None))[0], new
    vars(owner)[STATE] = State(overrides, displaced)


def _set_class(owner: nn.Module, names: tuple[str, ...]) -> None:
    """Give the instance the class that has these methods; one that somebody has derived from ours keeps what it has."""
    cls = type(owner)
    known = _names(cls)
    if "__fz_class__" in vars(cls) or not any("__fz_class__" in vars(c) for c in cls.__mro__):
        if names != known:
            owner.__class__ = _class(plain_class(cls), names) if names else plain_class(cls)
    elif not set(names) <= {n for c in cls.__mro__ for n in _names(c)}:
        owner.__class__ = _class(cls, names)


def _put_back(owner: nn.Module, state: State) -> None:
    """The instance's own attributes with the class's functions in them again."""
    for key, value in list(vars(owner).items()):
        before, put = state.displaced.get(key, (None, None))
        if put is not None and value is put:
            vars(owner)[key] = before
        elif _exchangeable(value):
            new = exchange(value, lambda v: getattr(v, "__fz_base__", None) if isinstance(v, FunctionType) else None)
            if new is not None:
                vars(owner)[key] = new


def _exchangeable(value: Any) -> bool:
    """What a host keeps of its own methods: wrapped ones, and lists and tables of them."""
    if isinstance(value, (nn.Module, Entry)):
        return False
    return callable(value) or type(value) in (list, tuple, dict)


def _enter(owner: nn.Module, name: str, parts: dict[str, Parts], seen: bool = True) -> None:
    current = vars(owner).get(name)
    if not isinstance(current, Entry):
        current = Entry(owner, name, current if name in vars(owner) else getattr(owner, name), Override())
    override = current.override.changed(parts)
    if not override:
        vars(owner)[name] = current.original
        return
    entry = Entry(owner, name, current.original, override, current.seen and seen)
    entry.build()
    vars(owner)[name] = entry


def entries(owner: nn.Module) -> list[tuple[str, Override]]:
    """Names and overrides of everything that is done to an instance."""
    state = vars(owner).get(STATE)
    out = [] if state is None else list(state.overrides.items())
    return out + [(n, v.override) for n, v in vars(owner).items() if isinstance(v, Entry)]


def drop(owner: nn.Module, **parts: Parts) -> None:
    """Map parts of everything that is done to an instance; what then does nothing goes."""
    state = vars(owner).get(STATE)
    for name in [] if state is None else list(state.overrides):
        _override(owner, name, parts)
    for name in [n for n, v in vars(owner).items() if isinstance(v, Entry)]:
        _enter(owner, name, parts)
