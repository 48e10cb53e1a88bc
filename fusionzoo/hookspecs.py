"""The hooks through which a plugin joins, and the marker that plugins use."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from fusionzoo.specs import Spec

PROJECT = "fusionzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def fusionzoo_register(register: Callable[[Spec], None]) -> None:
    """Call `register(Spec(...))` for every plugin that this module provides.

    `fusionzoo.plugin(MyFusion, summary="...")` returns such a function; written by hand, it is marked with `hookimpl`.

    The hook is historic: it is called for a module at the moment the module is loaded, which is the first time one of
    its names is asked for.
    """
