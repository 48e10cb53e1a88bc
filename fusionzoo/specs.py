"""What a plugin says about itself: one light dataclass, no torch.

A plugin's module hands `Spec` objects to `register` in its hook; the registry reads them without resolving the target.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fusionzoo._options import is_plain
from fusionzoo._schema import check, shown
from fusionzoo._types import JSON, ReadOff
from fusionzoo._variants import variants_of
from fusionzoo.errors import PluginError, UnknownNameError, close_matches_hint

API_MIN = 1
API_CURRENT = 1

#: Kind of plugin -> entry-point group.
GROUPS: dict[str, str] = {
    "fusion": "fusionzoo.fusions",
    "objective": "fusionzoo.objectives",
    "host": "fusionzoo.hosts",
    "dataset": "fusionzoo.datasets",
    "adapter": "fusionzoo.adapters",
    "recipe": "fusionzoo.recipes",
    "reader": "fusionzoo.readers",
    "encoder": "fusionzoo.encoders",
}
KINDS = tuple(GROUPS)

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# What the fields of a Spec hold, besides name, kind and target, which have rules of their own.
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("summary", "paper", "code", "bibtex", "level", "diagram"), str),
    **dict.fromkeys(("placements", "variants", "handles"), list[str]),
    "modalities": tuple[int, int | None],
    "defaults": dict[str, Any],
}


def normalise_name(name: str) -> str:
    """Public names are kebab-case; look-up ignores case and takes `_` for `-`."""
    return name.strip().lower().replace("_", "-")


def plain_name(name: str) -> str:
    """The public name in what a user writes or a file says: `fusionzoo:LMAM` and `lmam` are `lmam`."""
    return normalise_name(name.rpartition(":")[2])


def is_name(name: str) -> bool:
    """Whether a name is kebab-case, as public names are."""
    return _NAME.fullmatch(name) is not None


def check_kind(kind: str) -> str:
    """Return `kind` if it exists, else raise `UnknownNameError`."""
    if kind not in GROUPS:
        raise UnknownNameError(
            f"there is no kind of plugin called {kind!r}{close_matches_hint(str(kind), KINDS) or '.'} "
            f"The kinds are: {', '.join(KINDS)}."
        )
    return kind


@dataclass(frozen=True)
class Spec:
    """The registration of one plugin.

    Parameters
    ----------
    name : public name, kebab-case, equal to the entry point's name.
    kind : one of `KINDS`.
    target : `"module:attribute"`; resolved on `fusionzoo.get`, not before.
    summary : one line.
    api : version of the plugin interface that the plugin was written for.
    paper, code, bibtex : where it comes from: title and link, official repository at a commit, citation.
    modalities : smallest and largest number of modalities; `None` for no upper limit.
    level : `"utterance"` (acts within a time step), `"dialogue"` (looks across utterances) or `"sequence"` (frames,
        tokens); what the time axis means to a fusion.
    handles : capabilities: `masks`, `missing`, `unaligned`, `attention`, `losses`, `pools` of fusions, `clips` of hosts,
        `recordings`, `features` or `pickles` of readers, `pretrained` of encoders.
    placements : for hosts, where a fusion can sit; the first is the default.
    variants : names that `variant=` accepts.
    defaults : options worth showing on the card.
    diagram : how the data flows, as statements of a left-to-right Mermaid flowchart, one per line; for the gallery.
    """

    name: str
    kind: str
    target: str
    summary: str = ""
    api: int = API_CURRENT
    paper: str = ""
    code: str = ""
    bibtex: str = ""
    modalities: tuple[int, int | None] = (2, None)
    level: str = "utterance"
    handles: frozenset[str] = frozenset()
    placements: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    defaults: dict[str, JSON] = field(default_factory=dict)
    diagram: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_name(self.name):
            raise PluginError(f"plugin name {shown(self.name)} is not kebab-case (a-z, 0-9 and single hyphens)")
        if not isinstance(self.kind, str) or self.kind not in GROUPS:
            raise PluginError(
                f"plugin {self.name!r} has the unknown kind {shown(self.kind)}; kinds: {', '.join(KINDS)}"
            )
        if not isinstance(self.target, str) or ":" not in self.target:
            raise PluginError(f"plugin {self.name!r}: target must be 'module:attribute', not {shown(self.target)}")
        for name, kind in _FIELDS.items():
            value = getattr(self, name)
            if isinstance(value, (set, frozenset)):
                value = list(value)
            check(kind, value, f"plugin {self.name!r}: {name}", PluginError)
        object.__setattr__(self, "handles", frozenset(self.handles))
        object.__setattr__(self, "diagram", inspect.cleandoc(self.diagram))

    def takes(self, count: int) -> bool:
        """Whether it takes so many modalities."""
        low, high = self.modalities
        return low <= count and (high is None or count <= high)

    def under(self, name: str) -> Spec:
        """The registration as an entry point of that name has it: itself, since a spec says its own name."""
        return self


class Unnamed(Spec):
    """A spec without a name of its own: it takes the entry point's, and the one it was given where there is none."""

    def under(self, name: str) -> Spec:
        """The same with the entry point's name."""
        return replace(self, name=name)


def kind_of(target: Callable[..., object], kind: str | None = None) -> str:
    """The kind of plugin that a class is by its base class, or the one that is given for what has none.

    Raises `PluginError` where neither says it, or they disagree.
    """
    base = _base(target)
    name = getattr(target, "__qualname__", repr(target))
    if base is None:
        if kind not in GROUPS:
            raise PluginError(
                f"{name} derives from none of Fusion, Host, Objective, Reader and Encoder, so that its kind has to be said: "
                f"kind={' or kind='.join(map(repr, KINDS))}, not {kind!r}"
            )
        return kind
    if kind not in (None, base.kind):
        raise PluginError(f"{name} is a {base.kind} by its base class, not of kind {kind!r}; leave kind out")
    return base.kind


def read_off(
    target: Callable[..., object], handles: Iterable[str], modalities: tuple[int, int | None] | None
) -> ReadOff:
    """Those fields of a `Spec` that class attributes and signature tell.

    Parameters
    ----------
    target : the class, or the function of a data set.
    handles : capabilities besides those that the class has from its base.
    modalities : None for the class's, or any number from two.
    """
    base = _base(target)
    common = inspect.signature(base).parameters if base else {}
    parameters = inspect.signature(target).parameters.values()
    own = {p.name: p.default for p in parameters if p.name not in common and p.default is not p.empty}
    said: Any = (
        target if base else None
    )  # what has no base class of ours may mean anything by attributes of these names
    unaligned = {"unaligned"} if getattr(said, "unaligned", False) else set()
    return {
        "modalities": modalities or getattr(said, "modalities", (2, None)),
        "handles": frozenset({*getattr(said, "handles", ()), *unaligned, *handles}),
        "placements": getattr(said, "placements", ()),
        "variants": variants_of(said) if "variant" in own else (),
        "defaults": {k: v for k, v in own.items() if k != "variant" and is_plain(v)},
    }


def _base(target: object) -> Any:
    """The base class that says of which kind its subclasses are."""
    ours = (c for c in reversed(getattr(target, "__mro__", ())) if c.__module__.partition(".")[0] == "fusionzoo")
    return next((c for c in ours if isinstance(vars(c).get("kind"), str)), None)


@dataclass(frozen=True)
class Card(Spec):
    """A plugin's spec and who provides it, as `fusionzoo.card` and `fusionzoo info` show it."""

    distribution: str = ""
    version: str = ""
    module: str = ""
    signature: str = ""
    doc: str = ""

    @property
    def spec(self) -> Spec:
        """The registration alone."""
        return Spec(**{f.name: getattr(self, f.name) for f in fields(Spec)})

    def to_dict(self) -> dict[str, JSON]:
        """Plain values only, ready for JSON."""
        out: dict[str, JSON] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**out, "handles": sorted(self.handles)}

    def __str__(self) -> str:
        low, high = self.modalities
        lines = [f"{self.name} ({self.kind}) - {self.summary}"]
        if self.kind == "fusion":
            count = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
            lines += [f"  modalities   {count}", f"  level        {self.level}"]
        rows = {
            "handles": ", ".join(sorted(self.handles)),
            "placements": ", ".join(self.placements),
            "variants": ", ".join(self.variants),
            "signature": self.signature,
            "paper": self.paper,
            "code": self.code,
            "provided by": f"{self.distribution} {self.version} ({self.module})",
        }
        lines += [f"  {k:<12} {v}" for k, v in rows.items() if v]
        return "\n".join(lines) + (f"\n\n{self.doc}" if self.doc else "")
