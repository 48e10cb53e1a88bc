"""What installed distributions offer, read so that one with broken metadata hides neither the others nor itself.

`importlib.metadata.entry_points` reads the files of all distributions at once and raises at the first one that is broken: a METADATA without
Name (an install that was interrupted), an `entry_points.txt` that is not UTF-8. Here each distribution is read by itself, and what is wrong
with one is an `Offer` with `trouble`. torch calls that function when it is imported, to find backends outside its tree: see `spare_torch`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, distributions
from typing import Any

POINTS = "entry_points.txt"
UNNAMED = "(unnamed)"
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\s*:\s*[^\W\d]\w*(\.[^\W\d]\w*)*)?\s*(\[[^\]]*\])?")


@dataclass(frozen=True)
class Offer:
    """One line of a distribution's entry points.

    trouble : what is wrong with the line or its distribution, in words; empty where nothing is. A distribution that cannot
        be read at all is one offer without group and name.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str
    trouble: str = ""

    def load(self) -> Any:
        """Import what the line names."""
        return EntryPoint(self.name, self.value, self.group).load()


def offers(prefix: str) -> Iterator[Offer]:
    """Every entry point of a group that begins with `prefix`, and every distribution whose entry points are unreadable."""
    for dist in _distributions():
        try:
            text = dist.read_text(POINTS) or ""
        except Exception as error:  # not UTF-8, a folder in its place, a finder's own trouble
            yield Offer("", "", "", _label(dist), "", f"its {POINTS} cannot be read: {described(error)}")
            continue
        if prefix in text:
            yield from _of(dist, text, prefix)
        elif wrong := next((line for section, line in _lines(text) if section and "=" not in line), ""):
            yield Offer(
                "", "", "", _label(dist), "", f"its {POINTS} has the line {wrong[:60]!r}, which is not 'name = module'"
            )


def spare_torch() -> None:
    """Let torch be imported although a distribution's entry points are broken: it then looks for no backends of others."""
    if "torch" not in sys.modules:
        os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


def _of(dist: Distribution, text: str, prefix: str) -> Iterator[Offer]:
    name, version, trouble = identity(dist)
    if not trouble and _shadowed(dist, name):
        return
    for group, line in _lines(text):
        if not group.startswith(prefix):
            continue
        label, equals, value = (part.strip() for part in line.partition("="))
        wrong = trouble
        if not equals or not label:
            wrong = wrong or f"its {POINTS} has the line {line[:60]!r}, which is not 'name = module'"
        elif not _OBJECT.fullmatch(value):
            wrong = wrong or f"its {POINTS} says {line[:60]!r}, and {value[:40]!r} names no module"
        yield Offer(group, label or line[:40], value, name, version, wrong)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Section and line of everything in a file of sections that is neither empty nor a comment."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line and not line.startswith(("#", ";")):
            yield section, line


def identity(dist: Distribution) -> tuple[str, str, str]:
    """Name and version of a distribution, and what is wrong with its metadata."""
    try:
        metadata = dist.metadata
        name, version = metadata.get("Name"), metadata.get("Version")  # type: ignore[attr-defined]
    except Exception as error:  # no METADATA, not UTF-8, ...
        return _label(dist), "", f"the METADATA of a distribution in {_where(dist)} cannot be read: {described(error)}"
    for field, found in (("Name", name), ("Version", version)):
        if not isinstance(found, str) or not found.strip():
            label = name.strip() if isinstance(name, str) and name.strip() else _label(dist)
            return label, "", f"the METADATA of {label} in {_where(dist)} lacks {field}; install it again"
    return name.strip(), version.strip(), ""


def versions(names: set[str]) -> dict[str, str]:
    """Versions of the distributions of these names that are installed and can be read."""
    found = {}
    for name in names:
        try:
            found[name] = identity(distribution(name))
        except (PackageNotFoundError, ValueError):
            continue
    return {name: version for name, version, trouble in found.values() if not trouble}


def described(error: BaseException) -> str:
    """Type and message of somebody else's exception, whose message may itself raise."""
    return f"{type(error).__name__}: {safe_text(lambda: str(error)) or 'no message'}"


def safe_text(ask: Callable[[], str]) -> str:
    """What somebody else's `__str__`, `__repr__` or docstring says; empty where that raises."""
    try:
        return ask()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def _distributions() -> Iterator[Distribution]:
    found = iter(distributions())
    while True:
        try:
            yield next(found)
        except StopIteration:
            return
        except Exception:  # a finder of somebody's; those before it are known
            return


def _shadowed(dist: Distribution, name: str) -> bool:
    """Whether Python takes another distribution of this name, from earlier on its path. Ours hides nothing of ours."""
    if name == "fusionzoo":
        return False
    try:
        first = distribution(name)
        other = first.locate_file("") != dist.locate_file("") or first.read_text(POINTS) != dist.read_text(POINTS)
        return other and not identity(first)[2]
    except Exception:  # the other one is broken; this one is not
        return False


def _label(dist: Distribution) -> str:
    """A name from the folder's, which is there even when what lies in it is broken."""
    folder = getattr(dist, "_path", None)  # where the metadata lie is not public
    return re.split(r"-\d", getattr(folder, "name", ""), maxsplit=1)[0].removesuffix(".dist-info") or UNNAMED


def _where(dist: Distribution) -> str:
    return safe_text(lambda: str(dist.locate_file(""))) or "an unknown place"
