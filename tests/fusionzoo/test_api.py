"""The public names and their signatures are those of `api.txt`, so that none changes or goes unnoticed.

Where a change is meant, write the file anew and commit it with the change (and tell users in CHANGELOG.md):

    python tests/fusionzoo/test_api.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

os.environ["FUSIONZOO_LOAD_PLUGINS"] = ""  # other people's plugins are not ours to list

import fusionzoo
from fusionzoo.specs import KINDS

API = Path(__file__).with_name("api.txt")
COMMAND = "python tests/fusionzoo/test_api.py"


def surface() -> list[str]:
    """A line for every public name: of the package, of its public modules, and of the built-in plugins."""
    lines = facade()
    for name in sorted(fusionzoo._MODULES):
        module = importlib.import_module(f"fusionzoo.{name}")
        for public in sorted(getattr(module, "__all__", None) or _assigned_in(module)):
            where, value = f"{module.__name__}.{public}", getattr(module, public)
            again = public in fusionzoo.__all__ and value is getattr(fusionzoo, public)
            lines += [f"{where} is fusionzoo.{public}"] if again else _member(where, value)
    for kind in KINDS:
        for name in fusionzoo.names(kind):
            plugin: Any = fusionzoo.get(name, kind)
            lines.append(f"{kind} {name}" + (_signature(plugin) if callable(plugin) else ""))
    return lines


def facade() -> list[str]:
    """The lines of what stands in the package itself."""
    return [
        line for name in sorted(fusionzoo.__all__) for line in _member(f"fusionzoo.{name}", getattr(fusionzoo, name))
    ]


def _assigned_in(module: ModuleType) -> set[str]:
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return {n for n in names if n[0] != "_"}


def _member(where: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        yield where + (_signature(value) if inspect.isfunction(value) else "")
        return
    yield where + (_signature(value) if _has_constructor(value) else "")
    ours = [c for c in value.__mro__ if c.__module__.split(".")[0] == "fusionzoo"]
    for name in sorted({n for c in ours for n in (*vars(c), *vars(c).get("__annotations__", {})) if n[0] != "_"}):
        own = inspect.getattr_static(value, name, None)
        plain = own.__func__ if isinstance(own, (classmethod, staticmethod)) else own
        if isinstance(plain, property) and plain.fget is not None:
            yield f"{where}.{name}: {_type(inspect.signature(plain.fget).return_annotation)}"
        else:
            yield f"{where}.{name}" + (_signature(plain) if inspect.isfunction(plain) else "")


def _has_constructor(cls: type) -> bool:
    found = next((c for c in cls.__mro__ if {"__init__", "__new__"} & set(vars(c))), object)
    return found.__module__.split(".")[0] == "fusionzoo" and Protocol not in cls.__bases__


def _signature(function: Callable[..., object]) -> str:
    # Spelt here, because Python's own spelling of a signature is not the same in every version.
    shown, star = [], False
    signature = inspect.signature(function)
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            shown.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        annotation = "" if p.annotation is p.empty else f": {_type(p.annotation)}"
        default = (
            "" if p.default is p.empty else f" = {_default(p.default)}" if annotation else f"={_default(p.default)}"
        )
        shown.append(f"{stars}{p.name}{annotation}{default}")
    result = signature.return_annotation
    gives = "" if result is signature.empty else f" -> {_type(result)}"
    return f"({', '.join(shown)}){gives}"


def _type(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: object) -> str:
    return getattr(value, "__name__", None) or (repr(value) if not repr(value).startswith("<") else "...")


def test_public_names_and_signatures_are_those_that_are_written_down():
    written, found = API.read_text(encoding="utf-8").splitlines(), surface()
    gone = [f"- {line}" for line in written if line not in found]
    new = [f"+ {line}" for line in found if line not in written]
    assert written == found, "\n".join(
        [
            "the public names are not those of tests/fusionzoo/api.txt:",
            *(gone + new or ["their order"]),
            f"If that is meant, run `{COMMAND}`, and tell users what is gone or different in CHANGELOG.md.",
        ]
    )


def test_what_is_public_has_types_that_a_checker_can_use():
    """`Any` switches a checker off wherever the value goes."""
    assert [line for line in surface() if re.search(r"\bAny\b", line)] == []


def test_the_attributes_of_what_is_public_have_such_types_too():
    classes = {
        value
        for module in map(importlib.import_module, (f"fusionzoo.{name}" for name in fusionzoo._MODULES))
        for value in (getattr(module, n) for n in getattr(module, "__all__", None) or _assigned_in(module))
        if inspect.isclass(value)
    }
    ours = {c for public in classes for c in public.__mro__ if c.__module__.split(".")[0] == "fusionzoo"}
    told = [(c, name, _type(a)) for c in ours for name, a in vars(c).get("__annotations__", {}).items()]
    assert len(told) > 100
    assert [f"{c.__qualname__}.{name}: {a}" for c, name, a in told if name[0] != "_" and re.search(r"\bAny\b", a)] == []


def test_the_file_names_what_is_documented():
    lines = API.read_text(encoding="utf-8").splitlines()
    assert "fusionzoo.names(kind: str = 'fusion', pattern: str | None = None) -> list[str]" in lines
    assert any(
        line.startswith("fusionzoo.Fusion.fuse(self, streams: StreamsLike, mask: MaskLike = None, *, ")
        for line in lines
    )
    assert any(
        line.startswith("fusion lmam(dims: Dims, out_dim: int | None = None, *, rank: int | None = None, ")
        for line in lines
    )


if __name__ == "__main__":
    API.write_text("\n".join(surface()) + "\n", encoding="utf-8")
    print(f"wrote {API}")
