"""The registry: what is installed, loaded lazily by name, isolated and loud.

Looking is free: the index is read from the installed distributions' entry points, and neither torch nor a plugin is
imported until a name is asked for. Built-in plugins come in through the same entry points as anybody else's.

Environment
-----------
FUSIONZOO_DISABLE_PLUGINS   `lmam,fz-foo:*`: names, or `distribution:name`, or whole distributions, switched off.
FUSIONZOO_LOAD_PLUGINS      `fz-foo,fz-bar`: only these distributions besides fusionzoo's own; empty: built-ins only.
FUSIONZOO_STRICT_PLUGINS    `1`: a plugin that fails to load raises where it would otherwise be reported.
FUSIONZOO_PLUGINS           `my_module,other`: importable modules with a hook that are not installed as entry points.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import inspect
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import pluggy

from fusionzoo import hookspecs
from fusionzoo._providers import LOCAL, OWN, Failure, Provider, disabled_by, environment_list, strict
from fusionzoo._variants import variant_docs
from fusionzoo.errors import (
    AmbiguousNameError,
    FusionZooError,
    FusionZooWarning,
    MissingDependency,
    OptionError,
    PluginDisabledError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
    close_matches_hint,
)
from fusionzoo.specs import API_CURRENT, API_MIN, GROUPS, Card, Spec, check_kind, is_name, normalise_name


class Registry:
    """Index of entry points and the plugins loaded so far. One instance per process, `registry` below."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.unreadable: list[Provider] = []  # distributions that nobody can tell the plugins of
        self._index: dict[str, dict[str, list[Provider]]] | None = None
        self._local: list[Provider] = []
        self._specs: dict[tuple[str, str], Spec] = {}
        self.failures: dict[tuple[str, str], Failure] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._collected: list[Spec] = []
        self._manager.hook.fusionzoo_register.call_historic(kwargs={"register": self._collect})
        self._module_specs: dict[str, list[Spec]] = {}
        self._warned: set[str] = set()

    # -- the index ------------------------------------------------------------------------------------------------

    def index(self) -> dict[str, dict[str, list[Provider]]]:
        """Kind -> name -> providers, built once; nothing is imported."""
        with self._lock:
            if self._index is None:
                self._index = self._build_index()
            return self._index

    def refresh(self) -> None:
        """Forget the index, so that distributions installed meanwhile, or changed switches, are seen."""
        with self._lock:
            self._index = None

    def _build_index(self) -> dict[str, dict[str, list[Provider]]]:
        index: dict[str, dict[str, list[Provider]]] = {kind: {} for kind in GROUPS}
        for provider in (*self._entry_points(), *self._local, *self._environment_modules()):
            provider.disabled = disabled_by(provider)
            if provider.trouble and not provider.disabled:
                what = f"{provider.kind} {provider.name!r} from {provider.distribution}"
                self._warn(f"{what} cannot be used: {provider.trouble}; other plugins are unaffected")
            known = index[provider.kind].setdefault(provider.name, [])
            if provider.trouble or all(p.trouble or p.qualified != provider.qualified for p in known):
                known.append(provider)
        return index

    def _entry_points(self) -> Iterator[Provider]:
        # One scan for all groups: that is nearly all that looking costs.
        from fusionzoo._installed import offers, spare_torch

        kinds = {group: kind for kind, group in GROUPS.items()}
        self.unreadable = []
        for offer in offers(f"{OWN}."):
            kind, name, trouble = kinds.get(offer.group), normalise_name(offer.name), offer.trouble
            if offer.group and kind is None:
                trouble = trouble or (
                    f"there is no group of entry points {offer.group!r}{close_matches_hint(offer.group, kinds) or '.'} "
                    f"The groups are: {', '.join(kinds)}"
                )
            elif kind is not None and not is_name(name):
                trouble = trouble or f"the name {offer.name[:60]!r} is not kebab-case (a-z, 0-9 and single hyphens)"
            if trouble:
                spare_torch()
            who = (offer.distribution, offer.version, offer.value)
            provider = Provider(kind or "?", name or "?", *who, offer.load, trouble=trouble)
            if kind is None:
                self.unreadable.append(provider)
            else:
                yield provider

    def _environment_modules(self) -> Iterator[Provider]:
        for name in environment_list("FUSIONZOO_PLUGINS"):
            try:
                with _foreign_code():
                    found = self._providers_of(importlib.import_module(name))
                yield from found
            except BaseException as error:  # an import may raise anything; the others must still be seen
                if strict() or _is_the_users(error):
                    raise
                self._warn(f"FUSIONZOO_PLUGINS names {name!r}, which failed to load: {_describe(error)}")

    def _providers_of(self, plugin: object) -> list[Provider]:
        return [
            Provider(s.kind, s.name, LOCAL, "", s.target, load=lambda: plugin)  # type: ignore[arg-type, return-value]
            for s in self._specs_of(plugin, _plugin_name(plugin))
        ]

    # -- loading --------------------------------------------------------------------------------------------------

    def _collect(self, spec: Spec) -> None:
        if not isinstance(spec, Spec):
            raise PluginError(f"register() takes a fusionzoo.Spec, not {type(spec).__name__}")
        self._collected.append(spec)

    def _specs_of(self, plugin: object, name: str) -> list[Spec]:
        """Register a module or object with pluggy and return what its hook declares; all or nothing."""
        if name in self._module_specs:
            return self._module_specs[name]
        self._collected.clear()
        try:
            # Registering calls the historic hook at once, so that _collected fills here.
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
        except BaseException as error:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            if isinstance(error, pluggy.PluginValidationError):
                raise PluginError(
                    f"the hook of {name} does not fit this fusionzoo (is the plugin newer?): {error}"
                ) from error
            raise
        specs = list(self._collected)
        self._collected.clear()
        if not specs:
            self._manager.unregister(plugin)
            raise PluginError(
                f"{name} has no fusionzoo_register hook that registers anything; "
                "write fusionzoo_register = fusionzoo.plugin(YourClass, summary=...) at the top of the module"
            )
        self._module_specs[name] = specs
        return specs

    def spec(self, name: str, kind: str = "fusion") -> tuple[Spec, Provider]:
        """Load the plugin behind a name, if need be, and return its spec and provider."""
        with self._lock:
            provider = self.provider(name, kind)
            key = (kind, provider.qualified)
            if key not in self._specs:
                try:
                    with _foreign_code():
                        self._specs[key] = self._load(provider)
                    self.failures.pop(key, None)
                except BaseException as error:
                    self._fail(provider, error)
            return self._specs[key], provider

    def _load(self, provider: Provider) -> Spec:
        if provider.trouble:
            raise PluginError(provider.trouble)
        module = provider.load()
        specs = [s.under(provider.name) for s in self._specs_of(module, _plugin_name(module))]
        found = [s for s in specs if s.kind == provider.kind and s.name == provider.name]
        if not found:
            listed = ", ".join(f"{s.kind} {s.name!r}" for s in specs)
            raise PluginError(
                f"the entry point promises the {provider.kind} {provider.name!r}, but its module registers {listed}"
            )
        spec = found[0]
        if not isinstance(spec.api, int) or not API_MIN <= spec.api <= API_CURRENT:
            newer = isinstance(spec.api, int) and spec.api > API_CURRENT
            raise PluginError(
                f"it is written for plugin API {spec.api!r}, this fusionzoo speaks {API_MIN} to {API_CURRENT}; "
                + ("update fusionzoo" if newer else f"update {provider.distribution}")
            )
        return spec

    def _fail(self, provider: Provider, error: BaseException) -> None:
        if _is_the_users(error):
            raise error
        failure = Failure(provider, error, _traceback())
        self.failures[provider.kind, provider.qualified] = failure
        if isinstance(error, MissingDependency):
            raise error
        raise PluginLoadError(
            f"{provider.kind} {provider.name!r} from {provider.distribution} {provider.version} ({provider.value}) failed "
            f"to load: {_describe(error)}; other plugins are unaffected; "
            f"see it whole with: fusionzoo plugins --long --debug"
        ) from error

    def resolve(self, name: str, kind: str | None = None) -> tuple[str, str]:
        """Kind and name of what a user means; what `fusionzoo info` and `fusionzoo check` ask.

        A kind is given beside the name, or before it (`host:lmam`, where a distribution of that name gives way), or is the
        first of `KINDS` with a plugin of that name: a bare name is the fusion where there is one. An unknown name is
        taken for a fusion's, so that `get` refuses it with what is installed.
        """
        before, colon, rest = name.partition(":")
        named = normalise_name(before) if colon and normalise_name(before) in GROUPS else None
        if named is not None:
            name = rest
        if kind is not None:
            if named not in (None, check_kind(kind)):
                raise OptionError(f"{before}:{rest} is a {named}, and the kind asked for is {kind}; give one of them")
            return kind, name
        if named is not None:
            return named, name
        offered = {k: self._offers(name, k) for k in GROUPS}
        enabled = [k for k, offers in offered.items() if any(not p.disabled for p in offers)]
        return next(iter(enabled or [k for k, offers in offered.items() if offers]), "fusion"), name

    def _offers(self, name: str, kind: str) -> list[Provider]:
        """Every provider of `name` or `distribution:name`, those that are switched off included."""
        wanted, _, plain = name.rpartition(":")
        offers = self.index()[kind].get(normalise_name(plain), [])
        return [p for p in offers if not wanted or normalise_name(p.distribution) == normalise_name(wanted)]

    def provider(self, name: str, kind: str = "fusion") -> Provider:
        """Which distribution answers to a name; nothing is imported."""
        kind = check_kind(kind)
        if not isinstance(name, str):
            raise UnknownNameError(f"a plugin's name is a string such as 'lmam', not {type(name).__name__}")
        plain = normalise_name(name.rpartition(":")[2])
        offers = self._offers(name, kind)
        enabled = [p for p in offers if not p.disabled]
        enabled = [p for p in enabled if not p.trouble] or enabled[:1]
        if offers and not enabled:
            raise PluginDisabledError(
                f"{kind} {name!r} is installed ({offers[0].distribution}) but {offers[0].disabled}; unset it to use it"
            )
        if not enabled:
            raise self._unknown(name, plain, kind)
        if len(enabled) == 1:
            return enabled[0]
        own = [p for p in enabled if p.distribution == OWN]
        choices = " or ".join(f"get({p.qualified!r})" for p in enabled)
        if not own:
            raise AmbiguousNameError(
                f"{kind} {plain!r} is provided by {len(enabled)} distributions; say which one: {choices}"
            )
        others = ", ".join(p.qualified for p in enabled if p is not own[0])
        self._warn(f"{kind} {plain!r} is fusionzoo's own; also installed and shadowed by it: {others}")
        return own[0]

    def _unknown(self, name: str, plain: str, kind: str) -> UnknownNameError:
        entries = self.names(kind)
        if not any(self.index().values()):
            return UnknownNameError(
                f"there is no {kind} {name!r}: no plugin at all is installed. fusionzoo itself is not installed as a "
                "distribution; from its folder run: pip install -e ."
            )
        if not entries:
            return UnknownNameError(f"there is no {kind} {name!r}: nothing of that kind is installed")
        elsewhere = [k for k in GROUPS if plain in self.index()[k]]
        also = f" (there is a {elsewhere[0]} of that name: use kind={elsewhere[0]!r})" if elsewhere else ""
        return UnknownNameError(
            f"there is no {kind} {name!r}{close_matches_hint(plain, entries) or '.'}{also} Installed: {', '.join(entries)}"
        )

    # -- what the public functions do ------------------------------------------------------------------------------

    def names(self, kind: str = "fusion", pattern: str | None = None) -> list[str]:
        """Sorted names that can be asked for, optionally those matching a wildcard such as `*attention*`."""
        entries = self.index()[check_kind(kind)]
        found = sorted(
            n for n, providers in entries.items() if any(not p.disabled and not p.trouble for p in providers)
        )
        return found if pattern is None else fnmatch.filter(found, normalise_name(pattern))

    def usable(self, kind: str = "fusion") -> list[str]:
        """The names whose plugins load, for what takes all of a kind; a warning tells of each of the others."""
        found = []
        for name in self.names(kind):
            try:
                self.get(name, kind)
                found.append(name)
            except FusionZooError as error:
                self._warn(f"{kind} {name!r} is left out: {error}")
        return found

    def names_that(self, kind: str, *, handles: str | None = None, modalities: int | None = None) -> list[str]:
        """The names of a kind whose cards say so; what a message lists in place of names from memory.

        Parameters
        ----------
        kind : of the plugins, which are loaded; a warning tells of each that fails to.
        handles : a capability that they have.
        modalities : a number of modalities that they take.
        """
        specs = [(name, self.spec(name, kind)[0]) for name in self.usable(kind)]
        if handles is not None:
            specs = [(name, spec) for name, spec in specs if handles in spec.handles]
        if modalities is not None:
            specs = [(name, spec) for name, spec in specs if spec.takes(modalities)]
        return [name for name, _ in specs]

    def get(self, name: str, kind: str = "fusion") -> Any:
        """The class (or callable) behind a name."""
        spec, provider = self.spec(name, kind)
        module_name, _, attribute = spec.target.partition(":")
        target: Any = None
        try:
            with _foreign_code():
                target = importlib.import_module(module_name)
                for part in attribute.split("."):
                    target = getattr(target, part)
        except BaseException as error:
            self._fail(provider, error)
        return target

    def card(self, name: str, kind: str = "fusion") -> Card:
        """Everything that is known about a plugin; imports it."""
        spec, provider = self.spec(name, kind)
        target = self.get(name, kind)
        doc = signature = ""
        try:
            with _foreign_code():
                told = (f'variant="{v}": {doc}' for v, doc in variant_docs(target).items())
                doc = "\n\n".join((str(inspect.getdoc(target) or ""), *told))
                with contextlib.suppress(TypeError, ValueError):  # of what has none
                    signature = str(inspect.signature(target))
        except BaseException as error:
            self._fail(provider, error)
        who: dict[str, Any] = {
            "distribution": provider.distribution,
            "version": provider.version,
            "module": provider.value,
        }
        return Card(**vars(spec), **who, signature=signature, doc=doc)

    def register(self, plugin: object) -> list[str]:
        """Add a plugin that is not installed (a module, class or object with a `fusionzoo_register` hook).

        For notebooks and work in progress. Returns the names that it registered.
        """
        with self._lock:
            providers = self._providers_of(plugin)
            index = self.index()
            for p in providers:
                taken = index[p.kind].get(p.name, [])
                if taken and all(q.distribution != LOCAL for q in taken):
                    self._manager.unregister(plugin)
                    self._module_specs.pop(_plugin_name(plugin), None)
                    raise PluginError(
                        f"{p.kind} {p.name!r} is already provided by {taken[0].distribution}; register yours under another name"
                    )
            replaced = {(p.kind, p.name) for p in providers}
            self._local = [p for p in self._local if (p.kind, p.name) not in replaced] + providers
            for p in providers:
                self._specs.pop((p.kind, p.qualified), None)
            self.refresh()
            return [p.name for p in providers]

    def rows(self, kinds: tuple[str, ...] = tuple(GROUPS), long: bool = False) -> list[dict[str, Any]]:
        """One row a provider for `fusionzoo plugins`. `long` imports each plugin; failures are warned of, not raised."""
        rows: list[dict[str, Any]] = []
        for kind in kinds:
            for _, providers in sorted(self.index()[check_kind(kind)].items()):
                enabled = [p for p in providers if not p.disabled and not p.trouble]
                own = [p for p in enabled if p.distribution == OWN]
                for p in providers:
                    rows.append(
                        self._row(p, shadowed=bool(own) and p not in own, ambiguous=len(enabled) > 1 and not own)
                    )
                    if long and not p.disabled and not p.trouble:
                        self._describe_row(rows[-1], p)
        self.index()
        return rows + [self._row(p, shadowed=False, ambiguous=False) for p in self.unreadable]

    def _row(self, p: Provider, shadowed: bool, ambiguous: bool) -> dict[str, Any]:
        key = (p.kind, p.qualified)
        if p.disabled:
            status = "disabled"
        elif p.trouble:
            status = "broken"
        elif key in self.failures:
            status = self.failures[key].status
        elif shadowed or ambiguous:
            status = "shadowed" if shadowed else "ambiguous"
        else:
            status = "loaded" if key in self._specs else "available"
        row = {"kind": p.kind, "name": p.name, "distribution": p.distribution, "version": p.version}
        return row | {"module": p.value, "status": status, "reason": p.disabled or p.trouble}

    def _describe_row(self, row: dict[str, Any], p: Provider) -> None:
        try:
            spec = self.card(p.qualified, p.kind).spec
        except FusionZooError as error:
            if strict():
                raise
            failure = self.failures.get((p.kind, p.qualified))
            row["status"] = failure.status if failure else "broken"
            row["reason"] = str(error)
            row["traceback"] = failure.traceback if failure else ""
            self._warn(str(error))
        else:
            if row["status"] == "available":
                row["status"] = "loaded"
            row |= {"summary": spec.summary, "paper": spec.paper, "handles": sorted(spec.handles)}

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, FusionZooWarning, stacklevel=4)


@contextlib.contextmanager
def _foreign_code() -> Iterator[None]:
    """Around a plugin's own code: what it prints must not stand in the output that a command's reader parses."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _is_the_users(error: BaseException) -> bool:
    """Whether an exception is Ctrl-C, which ends what the user started and says nothing about a plugin."""
    return isinstance(error, KeyboardInterrupt)


def _plugin_name(plugin: object) -> str:
    name = getattr(plugin, "__name__", None) or f"{type(plugin).__qualname__}@{id(plugin):x}"
    return f"{getattr(plugin, '__module__', '')}.{name}" if inspect.isclass(plugin) else str(name)


def _describe(error: BaseException) -> str:
    from fusionzoo._installed import described

    return described(error)


def _traceback() -> str:
    from fusionzoo._installed import safe_text

    return safe_text(traceback.format_exc)


registry = Registry()
