"""The forms of a plugin beside its own: `variant="official"` builds a subclass, which the plugin's class names.

```python
class LMAM(Fusion):
    variants = {"official": "fusionzoo_plugins.official.lmam:OfficialLMAM"}

class OfficialLMAM(LMAM):           # imported when it is asked for
    variant = "official"
    preset = {"rank": None}         # options that are others than LMAM's unless they are given
    fixed = {"residual": True}      # options that this form does not have: whatever is given, these are its values
```
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
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
    """The class that is registered: `cls`, or the one that it is a form of.

    What several forms share stands in classes that are neither forms nor have a table of them.
    """
    if not is_variant(cls):
        return cls
    return next(c for c in cls.__mro__ if not is_variant(c) and "variants" in vars(c))


def signature_of(cls: Any) -> inspect.Signature:
    """A constructor's signature without `self`, with the defaults of this form of the plugin.

    Where a variant's own constructor ends in `**options`, what the class takes that it is a form of comes in their place.
    """
    defaults = _of_bases(cls, "preset") | _of_bases(cls, "fixed")
    signature = _constructor_of(cls)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters)


def _constructor_of(cls: Any) -> inspect.Signature:
    """The signature as it is written, without `self`."""
    forms = cls.__mro__[: cls.__mro__.index(plugin_class(cls))]
    return _filled_in([c for c in cls.__mro__ if "__init__" in vars(c)], forms)


def _filled_in(owners: Sequence[Any], forms: Sequence[Any]) -> inspect.Signature:
    """The first one's constructor; that of the next stands in the place of a form's `**options`."""
    signature = inspect.signature(owners[0].__init__)
    parameters = list(signature.parameters.values())[1:]
    if owners[0] not in forms or not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return signature.replace(parameters=parameters)
    own = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    above = _filled_in(owners[1:], forms)
    kept = [own.pop(name, p) for name, p in above.parameters.items()]
    return above.replace(parameters=[*kept, *own.values()])


def with_preset(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with which a class is built: those given, its preset for what is not, and what it has fixed.

    None given for an option that cannot be None means the default, and where the constructor's own default is None, the
    preset: so files say it that were written when such defaults were None. They also hold values of options that a form
    does not have, which `fixed` therefore overrules, and of options that only another form has, which say nothing where
    they are that one's default.
    """
    defaults = {n: p.default for n, p in signature_of(cls).parameters.items()}
    written = _constructor_of(cls).parameters
    takes_none = {n for n, p in written.items() if p.default is not None and "None" in str(p.annotation)}
    if not given.keys() <= defaults.keys():
        others = [p for c in variant_classes(plugin_class(cls)) for p in signature_of(c).parameters.values()]
        silent = {p.name for p in others if p.name not in defaults and given.get(p.name, p.empty) in (None, p.default)}
        given = {n: v for n, v in given.items() if n not in silent}
    left_open = {n for n, v in given.items() if v is None and defaults.get(n) is not None and n not in takes_none}
    chosen = {n: v for n, v in given.items() if n not in left_open}
    return {**_of_bases(cls, "preset"), **chosen, **_of_bases(cls, "fixed")}


def _of_bases(cls: Any, attribute: str) -> dict[str, Any]:
    """A mapping that every class of a line adds to, the most special last."""
    out: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        out |= vars(base).get(attribute, {})
    return out
