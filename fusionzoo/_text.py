"""How names and values that come from files are shown: one place for terminals, tables, pages and plots.

A name may hold anything: colours and cursor movements for a terminal, a line break, an override of the reading direction,
the `|` of a Markdown table, the `$` of mathematics in a plot. Each function here makes one of these places safe, and leaves
ordinary names as they are.
"""

from __future__ import annotations

import html
import json
import re
import reprlib
import unicodedata
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxset, _SHORT.maxfrozenset = 2, 2, 2, 2
_SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 4, 4, 80, 40, 80

# What a name may not do to the place where it is shown: control characters (C0, DEL, C1), lone surrogates, line and
# paragraph separators, and the marks that turn or hide text (category Cf, but for the joiners that scripts need).
_HARMLESS = frozenset("\u200c\u200d\u00ad")
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def brief(value: Any) -> str:
    """The `repr` of a value of a file, however large it is, in some eighty characters."""
    return _SHORT.repr(value)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _HARMLESS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode("ascii")


def _escaped_for_json(match: re.Match[str]) -> str:
    if match[0] == "\n" or _escaped(match) == match[0]:
        return match[0]
    return json.dumps(match[0])[1:-1]


def visible(text: Any, *, lines: bool = False) -> str:
    r"""Text with control characters, line breaks and marks of direction spelt out (`\x1b`); the rest as it is.

    lines : the text is of several lines, which stay; so do tabs.
    """
    if lines:
        return "\n".join("\t".join(visible(part) for part in line.split("\t")) for line in str(text).split("\n"))
    return _SUSPECT.sub(_escaped, str(text))


def markdown(text: Any) -> str:
    """A cell of a Markdown table."""
    return re.sub(r"([\\|`*\[\]<>])", r"\\\1", visible(text))


def markup(text: Any) -> str:
    """Text inside an HTML page, or inside an attribute in quotes."""
    return html.escape(visible(text, lines=True))


def json_text(value: Any) -> str:
    """Indented JSON that shows the letters of every script, and control characters and marks of direction spelt out."""
    return _SUSPECT.sub(_escaped_for_json, json.dumps(value, indent=2, ensure_ascii=False, default=str))


def unmathematical(text: Any) -> str:
    """A label of a plot, in which matplotlib would read `$...$` as mathematics."""
    return visible(text).replace("$", r"\$")
