"""What is wrong with an installation: versions, devices, plugins with their tracebacks, stale metadata, switches in force.

Everything is looked at, nothing is changed. Unlike `fusionzoo plugins`, every plugin is imported.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tomllib
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import fusionzoo
from fusionzoo._installed import described, identity, offers
from fusionzoo._providers import OWN, Provider
from fusionzoo._registry import Registry
from fusionzoo.errors import AmbiguousNameError, MissingDependency, close_matches_hint
from fusionzoo.specs import GROUPS, normalise_name

OK, WARN, FAIL = "ok", "warn", "fail"
#: Packages that are not required, and what they are for.
OPTIONAL = {
    "huggingface-hub": "push_to_hub and from_pretrained of repositories",
    "matplotlib": "plots",
    "tensorboard": "the tensorboard tracker",
    "transformers": "encoders",
}
_SWITCHES = ("DISABLE_PLUGINS", "LOAD_PLUGINS", "STRICT_PLUGINS", "PLUGINS")


@dataclass
class Check:
    """One finding. status: `ok`, `warn` or `fail`; text: one line; details: whole lines, tracebacks included."""

    name: str
    status: str
    text: str
    details: list[str] = field(default_factory=list)


@dataclass
class Diagnosis:
    """What `diagnose` found; `print` it, or `.to_json()`."""

    checks: list[Check]

    @property
    def exit_code(self) -> int:
        """1 when a check failed; warnings are not failures."""
        return int(any(c.status == FAIL for c in self.checks))

    def to_json(self) -> str:
        """The checks as a JSON document."""
        return json.dumps({"ok": self.exit_code == 0, "checks": [asdict(c) for c in self.checks]}, indent=2)

    def __str__(self) -> str:
        lines: list[str] = []
        for c in self.checks:
            lines.append(f"{c.status:<5} {c.name:<10} {c.text}")
            lines += [f"      {line}" for detail in c.details for line in detail.rstrip().splitlines()]
        counts = {s: sum(c.status == s for c in self.checks) for s in (FAIL, WARN)}
        return "\n".join([*lines, "", f"{counts[FAIL]} failed, {counts[WARN]} warnings, {len(self.checks)} checks"])


def diagnose() -> Diagnosis:
    """Look at everything. A check that itself goes wrong is reported as failed and does not stop the others."""
    sections: list[Callable[[], list[Check]]] = [_versions, _devices, _plugins, _editable, _switches]
    checks: list[Check] = []
    for section in sections:
        try:
            checks += section()
        except Exception as error:  # a doctor that dies of the illness helps nobody
            name = section.__name__.strip("_")
            checks.append(
                Check(
                    name, FAIL, f"could not be checked: {str(error) or type(error).__name__}", [traceback.format_exc()]
                )
            )
    return Diagnosis(checks)


# -- versions and devices ---------------------------------------------------------------------------------------------


def _versions() -> list[Check]:
    place = Path(fusionzoo.__file__).resolve().parent
    checks = [Check("python", OK, f"{platform.python_version()} on {platform.platform()}", [sys.executable])]
    try:
        own = metadata.distribution(OWN)
    except metadata.PackageNotFoundError:
        text = f"{fusionzoo.__version__} in {place} is not installed as a distribution, so it has no plugins"
        return [*checks, Check(OWN, FAIL, text, ["from its folder run: pip install -e ."])]
    if own.version != fusionzoo.__version__:
        text = f"the code is {fusionzoo.__version__}, the installed metadata say {own.version}"
        checks.append(Check(OWN, WARN, text, [f"imported from {place}; install it again"]))
    else:
        checks.append(Check(OWN, OK, fusionzoo.__version__, [str(place)]))
    found, troubles = [], []
    for name, specifier in _requirements(own):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            troubles.append(f"{name} is required and not installed; run: pip install {name}")
            continue
        found.append(f"{name} {version}")
        if not _satisfies(version, specifier):
            troubles.append(f'{name} is {version}, needed is {specifier}; run: pip install "{name}{specifier}"')
    text = ", ".join(found) if not troubles else f"{len(troubles)} of the required packages are wrong"
    checks.append(Check("packages", FAIL if troubles else OK, text, troubles))
    optional = []
    for name, purpose in OPTIONAL.items():
        try:
            optional.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            optional.append(f"{name} not installed (for {purpose})")
    checks.append(Check("optional", OK, ", ".join(optional)))
    return checks


def _requirements(own: metadata.Distribution) -> list[tuple[str, str]]:
    """Name and version specifier of what fusionzoo needs, extras left out."""
    out = []
    for line in own.requires or ():
        requirement, _, marker = line.partition(";")
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^)]*)\)?", requirement.strip())
        if match and "extra" not in marker:
            out.append((match[1], match[2].strip()))
    return sorted(out)


def _satisfies(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # accelerate brings it; without it the versions are shown and not judged
        return True
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _devices() -> list[Check]:
    try:
        import torch
    except Exception as error:  # a broken build raises OSError or whatever its libraries raise
        return [Check("devices", FAIL, f"torch cannot be imported: {error}", [traceback.format_exc()])]
    from fusionzoo._machine import processor

    found = [f"cpu, {processor()}, {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            found.append(f"cuda:{i} ({p.name}, {p.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    notes = []
    if torch.version.cuda and not torch.cuda.is_available():  # the build that pip brings to a machine without a GPU
        notes.append(
            f"torch is built for CUDA {torch.version.cuda} and sees no device of it, as on a machine without a GPU; "
            "with one, check the driver and CUDA_VISIBLE_DEVICES"
        )
    return [Check("devices", OK, ", ".join(found), notes)]


# -- plugins ----------------------------------------------------------------------------------------------------------


def _plugins() -> list[Check]:
    registry, checks = Registry(), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index = registry.index()
    checks += [Check("plugins", FAIL, str(w.message)) for w in caught if "FUSIONZOO_PLUGINS" in str(w.message)]
    checks += [Check("plugins", WARN, f"{p.distribution}: {p.trouble}") for p in registry.unreadable]
    providers = [p for names in index.values() for found in names.values() for p in found]
    if not providers:
        return [
            *checks,
            Check("plugins", FAIL, "nothing is installed", ["from fusionzoo's folder run: pip install -e ."]),
        ]
    usable, disabled = 0, 0
    for p in providers:
        if p.disabled:
            disabled += 1
            continue
        trouble = _load(registry, p)
        usable += trouble is None
        if trouble is not None:
            checks.append(trouble)
    for kind, names in index.items():
        checks += [c for name, found in names.items() if (c := _collision(registry, kind, name, found)) is not None]
    text = f"{usable} of {len(providers)} can be used" + (f", {disabled} disabled" if disabled else "")
    return [Check("plugins", OK, text), *checks]


def _load(registry: Registry, p: Provider) -> Check | None:
    label = f"{p.kind} {p.name} of {p.distribution} {p.version} ({p.value})".replace("  ", " ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            registry.card(p.qualified, p.kind)
    except MissingDependency as error:
        return Check("plugin", WARN, f"{label} is unavailable: {error}")
    except Exception as error:
        failure, cause = registry.failures.get((p.kind, p.qualified)), error.__cause__ or error
        text = f"{label} is broken: {described(cause)}"
        return Check("plugin", FAIL, text, [failure.traceback] if failure else [])
    return None


def _collision(registry: Registry, kind: str, name: str, providers: list[Provider]) -> Check | None:
    enabled = [p.qualified for p in providers if not p.disabled and not p.trouble]
    if len(enabled) < 2:
        return None
    say = "say which one: " + " or ".join(f"get({q!r}, kind={kind!r})" for q in enabled)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            winner = registry.provider(name, kind)
    except AmbiguousNameError:
        return Check("plugin", WARN, f"{kind} {name} is provided by {len(enabled)} distributions and none wins", [say])
    others = ", ".join(q for q in enabled if q != winner.qualified)
    return Check("plugin", WARN, f"{kind} {name} of {winner.distribution} shadows {others}", [say])


# -- installed metadata -----------------------------------------------------------------------------------------------


def _editable() -> list[Check]:
    """Editable installs freeze entry points: compare each one's pyproject.toml with what is installed."""
    checks, agreeing = [], []
    seen: dict[str, str] = {}
    for dist in metadata.distributions():
        try:
            name, installed = identity(dist)[0], _installed_points(dist)
        except Exception as error:  # its entry points cannot be read: `_plugins` says so
            del error
            continue
        where = str(getattr(dist, "_path", ""))
        if installed and normalise_name(name) in seen and seen[normalise_name(name)] != where:
            details = [
                f"used: {seen[normalise_name(name)]}",
                f"ignored: {where}",
                f"run: pip install --force-reinstall {name}",
            ]
            checks.append(Check("metadata", WARN, f"{name} is installed twice", details))
            continue
        if installed:
            seen[normalise_name(name)] = where
        source = _editable_source(dist)
        found = None if source is None else _against_its_source(name, installed, source)
        if found is True:
            agreeing.append(name)
        elif found:
            checks.append(found)
    if agreeing:
        checks.insert(
            0, Check("metadata", OK, f"editable installs that agree with their pyproject.toml: {', '.join(agreeing)}")
        )
    return checks


def _against_its_source(name: str, installed: dict[tuple[str, str], str], source: Path) -> Check | bool:
    """What is wrong between an editable install and its pyproject.toml; True where they agree, False where nothing is said."""
    file = source / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        dynamic = "entry-points" in project.get("dynamic", [])
        points = {} if dynamic else project.get("entry-points", {})
        declared = {(g, n): v for g in GROUPS.values() for n, v in points.get(g, {}).items()}
    except FileNotFoundError:
        text = f"{name} is installed from {source}, which holds no pyproject.toml any more"
        return Check("metadata", WARN, text, [f"run: pip uninstall {name}"]) if installed else False
    except (OSError, ValueError, RecursionError) as error:
        return Check("metadata", WARN, f"{file} cannot be read: {error}")
    except (AttributeError, TypeError):
        return Check("metadata", WARN, f"{file} does not hold what the standard of such files says")
    if dynamic or not (declared or installed):
        return False
    if declared == installed:
        return True
    details = [*_differences(declared, installed), f"run: pip install -e {source}"]
    return Check("metadata", FAIL, f"the editable install of {name} is older than its pyproject.toml", details)


def _installed_points(dist: metadata.Distribution) -> dict[tuple[str, str], str]:
    groups = set(GROUPS.values())
    return {(e.group, e.name): e.value for e in dist.entry_points if e.group in groups}


def _editable_source(dist: metadata.Distribution) -> Path | None:
    """The folder of an editable install, from the record that installers leave (PEP 610)."""
    try:
        text = dist.read_text("direct_url.json")
        record: Any = json.loads(text) if text else {}
        if not record.get("dir_info", {}).get("editable"):
            return None
        url = urlparse(record["url"])
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def _differences(declared: dict[tuple[str, str], str], installed: dict[tuple[str, str], str]) -> list[str]:
    lines = []
    for key in sorted(declared.keys() | installed.keys()):
        group, name = key
        if key not in installed:
            lines.append(f"{group}: {name} is declared and not installed")
        elif key not in declared:
            lines.append(f"{group}: {name} is installed and no longer declared")
        elif declared[key] != installed[key]:
            lines.append(f"{group}: {name} is {declared[key]} now, installed is {installed[key]}")
    return lines


# -- switches ---------------------------------------------------------------------------------------------------------


def _switches() -> list[Check]:
    checks = []
    for switch in _SWITCHES:
        variable = f"FUSIONZOO_{switch}"
        if variable not in os.environ:
            continue
        value = os.environ[variable]
        unknown = _unknown_entries(switch, value)
        text = f"{variable}={value!r} is in force" + (f", and {unknown[0]}" if unknown else "")
        checks.append(Check("switch", WARN if unknown else OK, text, unknown[1:]))
    return checks or [Check("switch", OK, "no FUSIONZOO_* variable changes which plugins are seen")]


def _unknown_entries(switch: str, value: str) -> list[str]:
    """What a switch names that is not installed: most often a typing error."""
    entries = [normalise_name(e) for e in value.split(",") if e.strip()]
    points = [offer for offer in offers(f"{OWN}.") if offer.group in GROUPS.values()]
    distributions = {normalise_name(p.distribution) for p in points}
    names = {normalise_name(p.name) for p in points}
    if switch == "LOAD_PLUGINS":
        return [
            f"{e!r} is no installed distribution{close_matches_hint(e, distributions)}"
            for e in entries
            if e not in distributions
        ]
    if switch != "DISABLE_PLUGINS":
        return []
    out = []
    for entry in entries:
        where, _, name = entry.rpartition(":")
        known = distributions | names if not where else names | {"*"}
        if where and where not in distributions:
            out.append(f"{where!r} is no installed distribution{close_matches_hint(where, distributions)}")
        elif name not in known:
            out.append(f"{name!r} is nothing that is installed{close_matches_hint(name, known)}")
    return out
