"""`fusionzoo.plugin`: the hook of a plugin, from its class and the few facts that a class cannot tell.

`fusionzoo.plugin` is the function, whether this module has been imported by its name or not; torch is not needed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fusionzoo.errors import PluginError

if TYPE_CHECKING:
    from fusionzoo.specs import Spec

Register = Callable[["Spec"], None]


def plugin(
    target: Callable[..., object],
    *,
    summary: str,
    paper: str = "",
    code: str = "",
    bibtex: str = "",
    diagram: str = "",
    level: str = "utterance",
    handles: Iterable[str] = (),
    modalities: tuple[int, int | None] | None = None,
    kind: str | None = None,
    name: str | None = None,
    api: int | None = None,
) -> Callable[[Register], None]:
    """The hook with which a module says that `target` is its plugin: `fusionzoo_register = fusionzoo.plugin(MyFusion, ...)`.

    Everything else is read off the class: its kind from the base class, `modalities`, `unaligned`, `placements` and
    `variants` from the class attributes of these names, options and defaults from the constructor's signature.

    Parameters
    ----------
    target : a class derived from `Fusion`, `Host`, `Objective`, one of `fusionzoo.data`'s readers or
        `fusionzoo.encoders.Encoder`; with `kind=`, the class of an adapter or the function that makes a data set.
    summary : one line.
    paper : where the method or the data come from: authors, title, venue and year, link.
    code : the authors' repository at a commit.
    bibtex : the citation.
    diagram : how the data flows, as statements of a left-to-right Mermaid flowchart, one per line.
    level : `"utterance"` (acts within a time step), `"dialogue"` (looks across utterances) or `"sequence"` (frames, tokens).
    handles : what it does besides what its base class promises: `"attention"`, `"losses"`, `"pools"`.
    modalities : smallest and largest number of them, `None` for no limit; where the class's attribute does not say it.
    kind : where `target` has no base class of fusionzoo: `"adapter"`, `"dataset"` or `"encoder"`.
    name : None takes the entry point's, and in a notebook the class's in kebab-case.
    api : version of the plugin interface that the plugin was written for; None for the one that is spoken.

    Raises
    ------
    PluginError : the target cannot be found by a name, or its kind is not known.

    >>> from fusionzoo.plugin import kebab_case
    >>> kebab_case("LowRankFusion"), kebab_case("MMGCN")
    ('low-rank-fusion', 'mmgcn')
    """
    where = f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"
    if where.startswith(":") or where.endswith(":") or "<" in where:
        raise PluginError(
            f"fusionzoo.plugin takes a class or function that its module holds under a name, not {target!r}; "
            "define it at the top of a module"
        )
    from fusionzoo import hookspecs, specs

    kind = specs.kind_of(target, kind)

    @hookspecs.hookimpl
    def fusionzoo_register(register: Register) -> None:
        spec = specs.Spec(
            kebab_case(target.__name__) if name is None else name,
            kind,
            where,
            summary,
            specs.API_CURRENT if api is None else api,
            paper,
            code,
            bibtex,
            level=level,
            diagram=diagram,
            **specs.read_off(target, handles, modalities),
        )
        register(spec if name is not None else specs.Unnamed(**vars(spec)))

    # In a notebook the hook itself is something to register: `fusionzoo.register(fusionzoo.plugin(Mine, summary="..."))`.
    vars(fusionzoo_register)["fusionzoo_register"] = fusionzoo_register
    fusionzoo_register.__name__ = f"{where}@{id(fusionzoo_register):x}"
    return fusionzoo_register


def kebab_case(name: str) -> str:
    """`LowRankFusion` as a public name: `low-rank-fusion`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+", "-", name).strip("-").lower()
