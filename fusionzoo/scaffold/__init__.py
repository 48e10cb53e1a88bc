"""`fusionzoo new`: a complete package for a plugin, which installs, is found and passes its own tests as generated.

The templates are the files under `templates/`: `common/` goes into every package, then the folder of the kind. Placeholders
are `@@name` or `@@{name}`, so that TeX, Python and workflow files keep their dollars and braces.
"""

from __future__ import annotations

import json
import keyword
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from fusionzoo.errors import FusionZooWarning, OptionError, close_matches_hint
from fusionzoo.specs import GROUPS, normalise_name

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LONGEST = 50
_SUFFIX = ".tmpl"


def kinds() -> tuple[str, ...]:
    """The kinds of plugin that there is a template for."""
    return tuple(k for k in GROUPS if (files(__name__) / "templates" / k).is_dir())


def read_words(words: Sequence[str]) -> tuple[str, str]:
    """Kind and name from what follows `fusionzoo new`: `KIND NAME`, or the `NAME` of a fusion.

    Raises `OptionError` for anything else.
    """
    if len(words) == 2:
        return check_kind(words[0]), words[1]
    if len(words) == 1 and words[0] in GROUPS:
        raise OptionError(f"fusionzoo new {words[0]} needs a name too, such as: fusionzoo new {words[0]} my-{words[0]}")
    if len(words) == 1:
        return "fusion", words[0]
    raise OptionError("fusionzoo new takes a kind and a name, such as: fusionzoo new fusion my-fusion")


def check_kind(kind: str) -> str:
    """`kind` if there is a template for it, else `OptionError`."""
    known = kinds()
    if kind not in known:
        raise OptionError(
            f"there is no template for a plugin of kind {kind!r}{close_matches_hint(kind, known) or '.'} Kinds: {', '.join(known)}."
        )
    return kind


def check_name(name: str, kind: str = "fusion") -> str:
    """`name` if it is a public name that a package can be made of, else `OptionError` with one that is."""
    if not _NAME.fullmatch(name):
        kebab = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", name.strip())
        kebab = re.sub(r"[^a-z0-9]+", "-", kebab.lower()).strip("-0123456789")
        hint = f"; did you mean {kebab!r}?" if _NAME.fullmatch(kebab) else ""
        raise OptionError(f"{name!r} is not a name in kebab-case (a-z, then a-z, 0-9 and single hyphens){hint}")
    if len(name) > _LONGEST:
        raise OptionError(
            f"the name {name!r} has {len(name)} characters; at most {_LONGEST} fit into folders and tables"
        )
    if name.startswith("fusionzoo"):
        short = name.removeprefix("fusionzoo").lstrip("-")
        hint = f"; use {short!r}" if short else ""
        raise OptionError(
            f"the distribution will be called fusionzoo-{name}, so leave 'fusionzoo' out of the name{hint}"
        )
    if name in GROUPS:
        raise OptionError(f"{name!r} is a kind of plugin; choose a name that says what this {kind} does")
    return name


def create(kind: str, name: str, folder: str | Path = ".", author: str | None = None) -> Path:
    """Write the package `fusionzoo-<name>` into `folder` and return its path.

    Parameters
    ----------
    kind : one of `kinds()`.
    name : public name, kebab-case.
    folder : where the package's folder is made.
    author : for the licence, the metadata and the citation; None for "the <name> authors".

    Raises
    ------
    OptionError : no such kind, a name that is not kebab-case, an author that spans lines, or a folder that exists. Nothing
        is written then.

    Warns when an installed plugin of that kind has the name already: both can be installed, and then have to be asked for
    as `distribution:name`.
    """
    check_kind(kind)
    check_name(name, kind)
    author = f"the {name} authors" if author is None else author.strip()
    if not author or not author.isprintable():
        raise OptionError(f"an author's name is one line of text, not {author!r}")
    target = Path(folder) / f"fusionzoo-{name}"
    if target.exists() or target.is_symlink():
        raise OptionError(f"{str(target)!r} exists already; choose another name or folder, or remove it first")
    _warn_if_taken(kind, name)
    values = _values(kind, name, author)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Built aside and renamed, so that an interruption leaves no half package.
    with tempfile.TemporaryDirectory(prefix=".fusionzoo-new-", dir=target.parent) as aside:
        package = Path(aside) / target.name
        for where, text in _rendered(kind, values):
            path = package / where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        shutil.move(package, target)
    return target


def next_steps(package: Path, kind: str, name: str) -> str:
    """What to type after `create`."""
    use = {
        "fusion": f"fusionzoo train --data demo --fusion {name}",
        "host": f"fusionzoo train --data demo --host {name}",
        "objective": f"fusionzoo train --data demo --objective {name}",
        "dataset": f"fusionzoo train --data {name}",
        "reader": "fusionzoo data inspect path/to/folder",
    }.get(kind, f"fusionzoo info {name} --kind {kind}")
    return f'wrote {package}\n\n  cd {package}\n  pip install -e ".[test]"\n  pytest\n  {use}'


def _warn_if_taken(kind: str, name: str) -> None:
    from fusionzoo._registry import registry

    offers = registry.index()[kind].get(normalise_name(name), [])
    if offers:
        warnings.warn(
            f"the {kind} {name!r} exists already, in {offers[0].distribution}; once both are installed, "
            f"yours is 'fusionzoo-{name}:{name}'",
            FusionZooWarning,
            stacklevel=3,
        )


def _values(kind: str, name: str, author: str) -> dict[str, str]:
    module = f"fusionzoo_{name.replace('-', '_')}"
    camel = "".join(part.capitalize() for part in name.split("-"))
    function = name.replace("-", "_")
    title = name.replace("-", " ")
    return {
        "kind": kind,
        "group": GROUPS[kind],
        "name": name,
        "title": title[:1].upper() + title[1:],
        "distribution": f"fusionzoo-{name}",
        "module": module,
        # The suffix keeps the class apart from the base classes and from keywords such as True.
        "cls": camel
        if camel.endswith(kind.capitalize()) and camel != kind.capitalize()
        else f"{camel}{kind.capitalize()}",
        "function": f"{function}_" if keyword.iskeyword(function) else function,
        "author": author,
        # TOML's basic strings are JSON's; BibTeX's braces have to be balanced.
        "author_toml": json.dumps(author, ensure_ascii=False),
        "author_bibtex": re.sub(r"[{}\\]", "", author),
        "bibtex_key": function,
    }


def _rendered(kind: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Path inside the package and contents of every file."""
    for part in ("common", kind):
        root = files(__name__) / "templates" / part
        for source in sorted(_walk(root), key=lambda s: s[0]):
            where, text = source
            yield _path(where, values), _AtTemplate(text).substitute(values)


def _path(where: str, values: dict[str, str]) -> str:
    """`dot-x/MODULE/y.tmpl` -> `.x/fusionzoo_my_fusion/y`: hidden template files would be left out of some wheels."""
    parts = where.removesuffix(_SUFFIX).replace("MODULE", values["module"]).split("/")
    return "/".join(f".{p.removeprefix('dot-')}" if p.startswith("dot-") else p for p in parts)


class _AtTemplate(Template):
    delimiter = "@@"


def _walk(folder, prefix: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")
