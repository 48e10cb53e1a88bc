"""What a plugin says about itself: one light dataclass, no torch.

A plugin's module hands `Spec` objects to `register` in its hook; the registry reads them without resolving the target.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from fusionzoo._schema import check, shown
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
    handles : capabilities among `masks`, `missing`, `unaligned`, `attention`, `losses`, `pools`.
    placements : for hosts, where a fusion can sit; the first is the default.
    variants : names that `variant=` accepts.
    defaults : options worth showing on the card.
    diagram : how the data flows, as statements of a left-to-right Mermaid flowchart, one a line; for the gallery.
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
    defaults: dict[str, Any] = field(default_factory=dict)
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


@dataclass(frozen=True)
class Card:
    """A plugin's spec together with who provides it, as `fusionzoo.card` and `fusionzoo info` show it."""

    spec: Spec
    distribution: str
    version: str
    module: str
    doc: str = ""
    signature: str = ""

    def __getattr__(self, item: str) -> Any:
        # The spec's fields read as the card's own: card.summary, card.paper, ...
        if not item.startswith("_") and item in {f.name for f in fields(Spec)}:
            return getattr(self.spec, item)
        raise AttributeError(item)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        out: dict[str, Any] = {f.name: getattr(self.spec, f.name) for f in fields(Spec)}
        out["handles"] = sorted(self.spec.handles)
        out |= {k: getattr(self, k) for k in ("distribution", "version", "module", "signature", "doc")}
        return out

    def __str__(self) -> str:
        s = self.spec
        low, high = s.modalities
        lines = [f"{s.name} ({s.kind}) - {s.summary}"]
        if s.kind == "fusion":
            count = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
            lines += [f"  modalities   {count}", f"  level        {s.level}"]
        rows = {
            "handles": ", ".join(sorted(s.handles)),
            "placements": ", ".join(s.placements),
            "variants": ", ".join(s.variants),
            "signature": self.signature,
            "paper": s.paper,
            "code": s.code,
            "provided by": f"{self.distribution} {self.version} ({self.module})",
        }
        lines += [f"  {k:<12} {v}" for k, v in rows.items() if v]
        return "\n".join(lines) + (f"\n\n{self.doc}" if self.doc else "")
