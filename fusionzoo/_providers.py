"""Who offers a plugin, and which offers the environment switches off."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fusionzoo.errors import MissingDependency
from fusionzoo.specs import normalise_name

OWN = "fusionzoo"
LOCAL = "(local)"


@dataclass
class Provider:
    """One distribution's offer of one name.

    trouble : what is wrong with the distribution's metadata, which keeps the plugin from being loaded.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    load: Callable[[], Any] = field(repr=False)
    disabled: str = ""
    trouble: str = ""

    @property
    def qualified(self) -> str:
        return f"{self.distribution}:{self.name}"


@dataclass
class Failure:
    """Why a plugin could not be loaded."""

    provider: Provider
    error: BaseException
    traceback: str

    @property
    def status(self) -> str:
        return "unavailable" if isinstance(self.error, MissingDependency) else "broken"


def environment_list(variable: str) -> list[str]:
    """The parts of a variable, separated by commas."""
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]


def strict() -> bool:
    """Whether a plugin that fails to load raises where it would otherwise be reported."""
    return os.environ.get("FUSIONZOO_STRICT_PLUGINS", "") not in ("", "0")


def disabled_by(p: Provider) -> str:
    """What switches an offer off, empty where nothing does."""
    distribution = normalise_name(p.distribution)
    for entry in environment_list("FUSIONZOO_DISABLE_PLUGINS"):
        where, _, name = entry.rpartition(":")
        if where and normalise_name(where) != distribution:
            continue
        if name == "*" or normalise_name(name) == p.name or (not where and normalise_name(name) == distribution):
            return f"disabled by FUSIONZOO_DISABLE_PLUGINS={entry}"
    if (
        "FUSIONZOO_LOAD_PLUGINS" in os.environ
        and p.distribution not in (OWN, LOCAL)
        and distribution not in map(normalise_name, environment_list("FUSIONZOO_LOAD_PLUGINS"))
    ):
        return "disabled because FUSIONZOO_LOAD_PLUGINS does not list its distribution"
    return ""
