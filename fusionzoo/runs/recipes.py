"""Recipes: how a published system was trained, as one YAML file that `fusionzoo train NAME` runs.

```yaml
summary: one line
system: MultiEMO
paper: authors, title, venue, link
code: owner/repository@commit
features: what the published features were, in words
published:
  scores: {weighted_f1: 72.84}      # percent, by metric; {} where the number could not be found
  protocol: how the number was made, in words
  flaw: what is wrong with that, in words
  source: where the number stands
data: {dev_fraction: 0.05}          # the five sections of a run's configuration
host: {name: multiemo, variant: official}
fusion: {name: multi-attn, layers: 6}
objective: {name: cross-entropy, weight: 0.2}
training: {epochs: 100, batch_size: 64}
folds: {by: session}                # optional: cross-validation, see fusionzoo.data.folds
protocols:                          # what each protocol changes in the sections above (and in folds)
  published: {training: {selection: test}}
  honest: {training: {selection: dev}}
variants:                           # optional: named changes, chosen by --variant; may bring `published` of their own
  text-only: {data: {modalities: [text]}}
```

A protocol is a way to choose and to score: `published` repeats the paper's, flaws included; `honest` chooses on dialogues
that are neither trained on nor tested, and is the default. A plugin of kind `recipe` gives a `Recipe`, a path of such a
file, or a mapping of the same shape. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fusionzoo._file_schemas import Published, RecipeFacts
from fusionzoo._schema import plain, shown
from fusionzoo._types import Options
from fusionzoo.data.folds import FoldPlan, FoldsLike
from fusionzoo.errors import ConfigError, OptionError, UnknownNameError, close_matches_hint
from fusionzoo.runs.config import RunConfig, merge_sections, read_yaml
from fusionzoo.scoring.metrics import METRICS
from fusionzoo.specs import Spec, normalise_name, plain_name

SECTIONS = ("data", "host", "fusion", "objective", "training")
PROTOCOLS = ("honest", "published")

_WORDS = ("summary", "system", "paper", "code", "features")
_PUBLISHED = ("scores", "protocol", "flaw", "source")
_KEYS = (*_WORDS, "published", *SECTIONS, "folds", "protocols", "variants")


@dataclass(frozen=True)
class Recipe:
    """A published system's recipe.

    Parameters
    ----------
    name : as `fusionzoo train` takes it.
    summary, system, paper, code, features : words about it.
    published : `scores` (metric -> percent), `protocol`, `flaw`, `source`.
    sections : the five of a `RunConfig`, partly.
    folds : see `fusionzoo.data.folds.FoldPlan`, None for the data's own split.
    protocols : `honest` and `published` -> what each changes.
    variants : name -> changes.
    origin : the file it came from, for messages.
    """

    name: str
    summary: str = ""
    system: str = ""
    paper: str = ""
    code: str = ""
    features: str = ""
    published: Published = field(default_factory=lambda: Published())
    sections: Mapping[str, Options] = field(default_factory=dict)
    folds: FoldsLike = None
    protocols: Mapping[str, Options] = field(default_factory=dict)
    variants: Mapping[str, Options] = field(default_factory=dict)
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", _describe(self))  # what `fusionzoo info` shows below the card

    @classmethod
    def from_mapping(cls, values: Options, name: str, origin: str = "") -> Recipe:
        """Check keys by name, here and in every protocol and variant; plugins' options wait for `check`.

        Parameters
        ----------
        values : what stands in the file.
        name : as `fusionzoo train` takes it.
        origin : the file, for messages.

        Raises
        ------
        ConfigError : with the key and its closest match.
        """
        origin = origin or name
        given: dict[str, Any] = plain(values, f"recipe {origin}", ConfigError)
        _known(given, _KEYS, origin, "")
        for key in _WORDS:
            if not isinstance(given.get(key) or "", str):
                raise ConfigError(f"recipe {origin}: {key!r} must be text, not {shown(given[key])}")
        for kind in ("protocols", "variants"):
            for label, changes in _mapping(given.get(kind), origin, kind).items():
                if kind == "protocols":
                    _known({label: None}, PROTOCOLS, origin, "protocols.")
                where = f"{kind}.{label}."
                own = (*SECTIONS, "folds", *(("published", "summary") if kind == "variants" else ()))
                _known(_mapping(changes, origin, f"{kind}.{label}"), own, origin, where)
                _check_published(_mapping(changes, origin, where).get("published"), origin, where)
        _check_published(given.get("published"), origin, "")
        words = {key: " ".join((given.get(key) or "").split()) for key in _WORDS}
        return cls(
            name=name,
            published=cast(Published, _mapping(given.get("published"), origin, "published")),
            sections={s: _mapping(given[s], origin, s) for s in SECTIONS if given.get(s) is not None},
            folds=given.get("folds"),
            protocols={k: _mapping(v, origin, k) for k, v in (given.get("protocols") or {}).items()},
            variants={str(k): _mapping(v, origin, str(k)) for k, v in (given.get("variants") or {}).items()},
            origin=origin,
            **words,
        )

    @classmethod
    def load(cls, path: str | Path, name: str | None = None) -> Recipe:
        """From a YAML file; a file of the five sections alone is a recipe too, without a published protocol."""
        return cls.from_mapping(read_yaml(path), name or Path(path).stem, str(path))

    def resolve(self, protocol: str | None = None, variant: str | None = None) -> dict[str, Options]:
        """The five sections with a protocol's and a variant's changes, for `RunConfig.from_sources(recipe=...)`.

        Parameters
        ----------
        protocol : `honest` (the default) or `published`.
        variant : a name in `variants`, None for none.
        """
        merged: dict[str, Any] = {}
        for part in self._parts(protocol, variant):
            merge_sections(merged, {s: part[s] for s in SECTIONS if s in part}, self.origin)
        return merged

    def resolve_folds(self, protocol: str | None = None, variant: str | None = None) -> FoldsLike:
        """What the recipe says about cross-validation, None for nothing."""
        found: Any = self.folds
        for part in self._parts(protocol, variant)[1:]:
            found = part.get("folds", found)
        return found

    def published_for(self, variant: str | None = None) -> Published:
        """The published scores and what is known about them; a variant has its own, or none."""
        if variant is None:
            return cast(Published, dict(self.published))
        own: Any = self.variants[self._variant(variant)].get("published")
        rest = {k: v for k, v in self.published.items() if k != "scores"}
        return cast(Published, rest | dict(own or {"scores": {}}))

    def facts(self, protocol: str | None = None, variant: str | None = None) -> RecipeFacts:
        """What a run made by this recipe says about it: name, protocol, variant and what was published."""
        self._parts(protocol, variant)
        return {
            "name": self.name,
            "protocol": protocol or "honest",
            "variant": None if variant is None else self._variant(variant),
            "system": self.system,
            "published": self.published_for(variant),
        }

    def _variant(self, variant: str) -> str:
        names = {normalise_name(v): v for v in self.variants}
        if normalise_name(variant) not in names:
            raise UnknownNameError(
                f"recipe {self.name!r} has no variant {variant!r}{close_matches_hint(variant, names) or '.'} "
                f"It has: {', '.join(self.variants) or 'none'}."
            )
        return names[normalise_name(variant)]

    def _parts(self, protocol: str | None, variant: str | None) -> list[Mapping[str, Any]]:
        chosen = protocol or "honest"
        if chosen not in PROTOCOLS:
            raise ConfigError(
                f"there is no protocol {chosen!r}{close_matches_hint(chosen, PROTOCOLS) or '.'} "
                f"Protocols: {', '.join(PROTOCOLS)}."
            )
        if chosen not in self.protocols and protocol is not None and chosen != "honest":
            raise ConfigError(f"recipe {self.name!r} says nothing about the protocol {chosen!r}; leave --protocol out")
        parts: list[Mapping[str, Any]] = [self.sections]
        if variant is not None:
            parts.append(self.variants[self._variant(variant)])
        return [*parts, self.protocols.get(chosen, {})]

    def check(self) -> None:
        """Check every key and option of every protocol and variant against the plugins, which are loaded.

        Raises
        ------
        ConfigError, UnknownNameError : with recipe, key and closest match.
        """
        for variant in (None, *self.variants):
            for protocol in PROTOCOLS if self.protocols else ("honest",):
                try:
                    RunConfig.from_sources(recipe=self.resolve(protocol, variant))
                    FoldPlan.read(self.resolve_folds(protocol, variant))
                except (ConfigError, UnknownNameError) as error:
                    where = protocol if variant is None else f"{protocol}, variant {variant}"
                    raise type(error)(f"recipe {self.origin} ({where}): {error}") from error

    def __str__(self) -> str:
        return f"{self.name} (recipe) - {self.summary}\n\n{_describe(self)}"


def load_recipe(name: str | Path | Options | Recipe) -> Recipe:
    """A recipe by the name of an installed one, by a YAML file, or from a mapping.

    Raises
    ------
    UnknownNameError : nothing that is installed has the name.
    ConfigError : the file is wrong.
    """
    if isinstance(name, Recipe):
        return name
    if isinstance(name, Mapping):
        return Recipe.from_mapping(name, "recipe")
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return Recipe.load(name)
    import fusionzoo

    found: Any = fusionzoo.get(str(name), kind="recipe")
    plain = plain_name(str(name))
    found = found() if callable(found) else found
    if isinstance(found, Recipe):
        return found
    return Recipe.from_mapping(found, plain) if isinstance(found, Mapping) else Recipe.load(found, plain)


def configuration_of(
    recipe: Recipe,
    file: str | Path | Options | None = None,
    sets: Iterable[str] = (),
    *,
    protocol: str | None = None,
    variant: str | None = None,
    check: bool = True,
    **arguments: object,
) -> RunConfig:
    """The configuration of a run by a recipe.

    Parameters
    ----------
    recipe : what is done.
    file, sets, check, arguments : what is changed in it, see `RunConfig.from_sources`.
    protocol : `honest` (the default) or `published`.
    variant : a name in its `variants`, None for none.

    Raises
    ------
    OptionError : it needs data, and none are named.
    ConfigError : a key or an option is wrong.
    """
    sections, sets = recipe.resolve(protocol, variant), list(sets)
    own = {} if file is None else file if isinstance(file, Mapping) else read_yaml(file)
    given: tuple[Any, Any] = (sections.get("data") or {}, own.get("data") or {})
    named = arguments.get("data") is not None or any(s.startswith("data.source=") for s in sets)
    if recipe.published and not named and not any("source" in g for g in given):
        raise OptionError(
            f"the recipe {recipe.name!r} needs data: give the features' file or folder with --data (published with: "
            f"{recipe.features or 'see its card'}); --data demo tries it on generated conversations"
        )
    return RunConfig.from_sources(file, sets=sets, recipe=sections, check=check, **arguments)


def register_folder(register: Callable[[Spec], None], module: str, folder: Path) -> None:
    """Register every YAML file of a folder; `module` must give a `Recipe` for the attribute of each file's stem.

    A package that holds recipes is this, with one entry point per file:

        FOLDER = Path(__file__).parent

        @hookimpl
        def fusionzoo_register(register):
            register_folder(register, __name__, FOLDER)

        def __getattr__(name):
            return recipe_of(FOLDER, name)
    """
    for path in sorted(folder.glob("*.yaml")):
        recipe = Recipe.load(path)
        register(
            Spec(
                name=path.stem,
                kind="recipe",
                target=f"{module}:{path.stem}",
                summary=recipe.summary,
                paper=recipe.paper,
                code=recipe.code,
            )
        )


def recipe_of(folder: Path, name: str) -> Recipe:
    """The recipe of a folder's file, for a module's `__getattr__`."""
    path = folder / f"{name}.yaml"
    if name.startswith("_") or not path.is_file():
        raise AttributeError(f"there is no recipe {name!r} in {folder.name}")
    return Recipe.load(path)


def _describe(recipe: Recipe) -> str:
    """The recipe as lines for people."""
    import json

    published = recipe.published
    scores = ", ".join(f"{m} {v}" for m, v in (published.get("scores") or {}).items()) or "not found"
    rows = [("system", recipe.system), ("published", f"{scores} (percent)" if recipe.published else "")]
    rows += [(k, " ".join(str(published.get(k) or "").split())) for k in ("protocol", "flaw", "source")]
    rows += [("features", recipe.features)]
    rows += [(s, json.dumps(dict(recipe.sections[s]), default=str)) for s in SECTIONS if s in recipe.sections]
    rows += [("folds", json.dumps(recipe.folds))] if recipe.folds else []
    rows += [(f"protocol {p}", json.dumps(dict(c), default=str)) for p, c in recipe.protocols.items()]
    for name, changes in recipe.variants.items():
        rows.append((f"variant {name}", json.dumps(dict(changes), default=str)))
    return "\n".join(f"  {k:<20} {v}" for k, v in rows if v)


def _mapping(value: Any, origin: str, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"recipe {origin}: {where!r} must be a mapping of keys to values, not {shown(value)}")
    return dict(value)


def _known(values: Mapping[str, Any], known: Iterable[str], origin: str, where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(
                f"recipe {origin}: unknown key '{where}{key}'{close_matches_hint(str(key), known) or '.'} "
                f"Here go: {', '.join(known)}."
            )


def _check_published(value: Any, origin: str, where: str) -> None:
    published = _mapping(value, origin, f"{where}published")
    _known(published, _PUBLISHED, origin, f"{where}published.")
    for key in ("protocol", "flaw", "source"):
        if not isinstance(published.get(key) or "", str):
            raise ConfigError(f"recipe {origin}: {where}published.{key} must be text, not {shown(published[key])}")
    scores = _mapping(published.get("scores"), origin, f"{where}published.scores")
    _known(scores, METRICS, origin, f"{where}published.scores.")
    for metric, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 1 < score <= 100:
            raise ConfigError(
                f"recipe {origin}: {where}published.scores.{metric} must be in percent, not {shown(score)}"
            )
