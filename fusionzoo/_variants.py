"""The forms of a plugin beside its own: `variant="official"` builds a subclass, which the plugin's class names.

```python
class LMAM(Fusion):
    variants = {"official": "fusionzoo_plugins.official.lmam:OfficialLMAM"}

class OfficialLMAM(LMAM):           # imported when it is asked for
    variant = "official"
    preset = {"rank": None}         # options that are others than LMAM's unless they are given
```
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from fusionzoo.errors import OptionError, close_matches_hint

DEFAULT = "default"


def variants_of(cls: Any) -> tuple[str, ...]:
    """What `variant=` accepts, the default first; nothing where there is one form only."""
    said = getattr(cls, "variants", ())
    return (DEFAULT, *said) if isinstance(said, Mapping) else tuple(said)


def variant_class(cls: Any, variant: str) -> Any:
    """The class that is built for a variant: `cls` itself for the default, or the subclass that its table names.

    Raises `OptionError` for a variant that the table does not have.
    """
    if variant == DEFAULT:
        return cls
    table = vars(cls).get("variants")
    if table is None:
        raise OptionError(
            f"{cls.__name__} has no variant {variant!r}: it is a class of its own, and only that which it derives from has it"
        )
    if variant not in table:
        raise OptionError(
            f"{cls.__name__}: variant={variant!r} is not one of {', '.join(map(repr, variants_of(cls)))}"
            f"{close_matches_hint(str(variant), variants_of(cls))}"
        )
    module, _, name = table[variant].partition(":")
    return getattr(importlib.import_module(module), name)


def variant_classes(cls: Any) -> list[Any]:
    """Every class that `variant=` can choose, `cls` first."""
    table = vars(cls).get("variants")
    return [cls, *(variant_class(cls, v) for v in table)] if isinstance(table, Mapping) else [cls]


def variant_docs(cls: Any) -> dict[str, str]:
    """What the variants of a class do differently, by name: the docstrings of their classes."""
    return {c.variant: inspect.getdoc(c) or "" for c in variant_classes(cls)[1:]} if isinstance(cls, type) else {}


def is_variant(cls: Any) -> bool:
    """Whether a class is a form of another."""
    return vars(cls).get("variant", DEFAULT) != DEFAULT


def plugin_class(cls: Any) -> Any:
    """The class that is registered: `cls`, or the one that it is a form of."""
    return next((c for c in cls.__mro__ if not is_variant(c)), cls)


def signature_of(cls: Any) -> inspect.Signature:
    """A constructor's signature without `self`.

    Where a variant's own constructor ends in `**options`, what the class takes that it is a form of comes in their place.
    """
    constructor = cls.__init__
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    if not (is_variant(cls) and "__init__" in vars(cls) and any(p.kind is p.VAR_KEYWORD for p in parameters)):
        return inspect.signature(constructor).replace(parameters=parameters)
    own = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    above = signature_of(next(c for c in cls.__mro__[1:] if "__init__" in vars(c)))
    kept = [own.pop(name, p) for name, p in above.parameters.items()]
    return above.replace(parameters=[*kept, *own.values()])


def with_preset(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with which a class is built: those given, and its preset for what is not.

    None given for an option whose default is another value means the default: so files say it that were written when
    such defaults were None.
    """
    parameters = signature_of(cls).parameters
    presets: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        presets |= vars(base).get("preset", {})
    defaults = {n: presets.get(n, p.default) for n, p in parameters.items()}
    left_open = {n for n, v in given.items() if v is None and n in defaults and defaults[n] is not None}
    return {**presets, **{n: v for n, v in given.items() if n not in left_open}}
