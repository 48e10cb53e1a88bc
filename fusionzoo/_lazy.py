"""Public names of a package that are imported at first use (PEP 562), each written down once beside its module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def attach(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Parameters
    ----------
    package : its `__name__`.
    modules : for each public name the module that defines it.

    >>> getter, _, names = attach("fusionzoo.data", {"Corpus": "fusionzoo.data.corpus"})
    >>> names, getter("Corpus").__name__
    (['Corpus'], 'Corpus')
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names, sorted(modules)
