"""YAML that people write, read without surprises: what a few bytes stand for is counted before anything is built.

Of YAML the part that JSON has too, with comments, block style, anchors and merge keys. Refused in words: a tag (`!!python`, `!!binary`), an
alias to what it stands in, aliases that multiply (ten in ten in ten ...), a key twice, a key that is no text, a number of a page's length, NaN
and infinity, nesting beyond `_schema.DEPTH`, and a second document. `1e-3` is a number, and a date stays the text that it is.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from fusionzoo._schema import DEPTH, ErrorClass, shown, text_of

LIMIT = 1 << 20
#: Values in a file, those of an alias counted wherever it stands.
NODES = 10_000
#: Characters of a number; `1_000_000` and `0.1e-30` are far below.
CHARACTERS = 40

_EXPONENT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_TAGS = {f"tag:yaml.org,2002:{t}" for t in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class _Loader(yaml.SafeLoader):
    """The safe loader, which counts nodes as it composes them."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.count = self.depth = 0
        self.sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self.sizes:
                raise _refused(event, f"the alias *{event.anchor} stands inside what it names")
            self.count += self.sizes.get(event.anchor, 0)
        if self.depth >= DEPTH:
            raise _refused(event, f"it is nested more than {DEPTH} deep")
        self.count += 1
        before = self.count
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if self.count > NODES:
            raise _refused(event, f"it stands for more than {NODES} values")
        anchor = getattr(event, "anchor", None)
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self.sizes[anchor] = self.count - before + 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if node.tag in _NUMBERS and len(node.value) > CHARACTERS:
            raise _refused(node, f"a number of {len(node.value)} characters")
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag not in _TAGS:
            raise _refused(node, f"the tag {shown(node.tag)} is not allowed; only plain values are")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        # Before keys are merged in from elsewhere, which those that stand here may well replace.
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                what = shown(getattr(key, "value", key.id))
                raise _refused(key, f"the key {what} is no text; write it in quotes")
            if key.value in seen:
                raise _refused(key, f"the key {shown(key.value)} stands there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise _refused(node, f"{shown(node.value)} is no finite number")
        return value


def _refused(node: Any, why: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=why, problem_mark=node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
# YAML 1.1 takes 1e-3 for a word, for want of a dot, and a date or a single = for something that JSON does not have.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str, where: str, error: ErrorClass) -> Any:
    """The plain values of one YAML document; `error`, naming `where`, for anything that is none."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as why:
        mark = why.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise error(f"{where} is not valid YAML: {why.problem}{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as why:
        raise error(
            f"{where} is not valid YAML: {str(why).splitlines()[0] if str(why) else 'nested too deeply'}"
        ) from None


def read_yaml_file(path: str | Path, what: str, error: ErrorClass) -> Any:
    """The same from a file."""
    return parse_yaml(text_of(path, error, LIMIT), f"{what} {str(path)!r}", error)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: a text that looks like a number is quoted, and nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def dump_yaml(values: Any) -> str:
    """YAML in block style, keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
