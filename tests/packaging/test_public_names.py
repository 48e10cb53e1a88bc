"""The packages use public names of their dependencies only, but for an allow-list in which every entry has its reason.

Four forms are looked for, in the syntax tree: private modules and names that are imported, private attributes of what an
import names, private attributes that no class or module of ours defines, so that they are somebody else's, and the same
in strings (`getattr`, `vars(x)["_modules"]`, `import_module`). What our classes define may not be a private name of a
tensor, module, optimizer or loader either: it would override theirs, and hide uses of theirs here.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

ROOMS = ("fusionzoo", "plugins/fusionzoo_plugins", "adapters/fusionzoo_adapters")
OURS = {Path(room).name for room in ROOMS}

#: (file, name) -> why there is no public twin.
ALLOWED = {
    ("fusionzoo/encoders/audio.py", "_requires_grad"): "HuBERT's bare model has no freeze_feature_encoder, and without "
    "this its frozen convolutions keep every activation for the gradient of the sound",
    (
        "fusionzoo/patching/fuse/own_randomness.py",
        "torch._C._current_graph_task_id",
    ): "whether a backward pass is running, which tells the second run of a checkpointed segment from a new call",
    (
        "fusionzoo/patching/trace/tracer.py",
        "_base",
    ): "what a tensor is a view of, so that writing into the view is seen",
    (
        "fusionzoo/patching/trace/tracer.py",
        "torch._C.DisableTorchFunction",
    ): "hooks of the tracer look at tensors without being traced; torch's own page on extending it names this class",
    (
        "fusionzoo/_processes.py",
        "accelerate.state.AcceleratorState._reset_state",
    ): "Accelerate keeps device and precision for the process's lifetime and has no public way to begin anew",
    (
        "fusionzoo/wild/removed.py",
        "torch._six",
    ): "a module that torch has removed and that old scripts import: it is put back",
}

#: Documented, underscore or not: of named tuples, and of the syntax tree's nodes.
DOCUMENTED = {"_asdict", "_field_defaults", "_fields", "_make", "_replace", "_attributes"}
#: Of the standard library, by string.
STANDARD = {"_path": "where a distribution's metadata lie, of importlib.metadata"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def theirs() -> set[str]:
    """Private attributes of what our classes inherit from or handle."""
    kinds = (torch.Tensor, nn.Module(), torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    return {name for kind in (*kinds, torch.utils.data.DataLoader) for name in dir(kind) if is_private(name)}


def of_a_namespace(node: ast.expr) -> bool:
    """`vars(x)` or `x.__dict__`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "vars"
    return isinstance(node, ast.Attribute) and node.attr == "__dict__"


def text_of(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def string_names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Attributes that are named by a string, and whether they are written."""
    if isinstance(node, ast.Subscript) and of_a_namespace(node.value):
        yield text_of(node.slice), not isinstance(node.ctx, ast.Load)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ("getattr", "hasattr", "setattr", "delattr", "getattr_static", "__setattr__") and len(node.args) > 1:
            yield text_of(node.args[1]), name.endswith("setattr") or name == "__setattr__"
        elif isinstance(node.func, ast.Attribute) and of_a_namespace(node.func.value) and node.args:
            yield text_of(node.args[0]), name == "setdefault"


def bound(lines: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Names that the lines of a module or class bind."""
    for line in lines:
        if isinstance(line, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield line.name, line.lineno
        for target in getattr(line, "targets", [getattr(line, "target", None)]):
            for part in ast.walk(target) if target is not None else ():
                if isinstance(part, ast.Name):
                    yield part.id, part.lineno


def attributes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What our classes define: in their bodies, on `self`, and by strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from bound(node.body)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield from [(node.attr, node.lineno)] * (getattr(node.value, "id", "") in ("self", "cls", "new"))
        if isinstance(node, (ast.Subscript, ast.Call)):
            yield from ((name, node.lineno) for name, stored in string_names(node) if stored)


class Uses(ast.NodeVisitor):
    """Collects `(name, line)` of every private name of others in one file."""

    def __init__(self, ours: set[str]):
        self.ours, self.origin, self.found = ours, dict[str, str](), list[tuple[str, int]]()

    def imported(self, name: str, dotted: str, line: int) -> None:
        top = dotted.partition(".")[0]
        if top in sys.stdlib_module_names:
            self.origin[name] = ""
        elif top not in OURS:
            self.origin[name] = dotted
            if any(map(is_private, dotted.split("."))):
                self.found.append((dotted, line))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.imported(alias.asname or top, alias.name, node.lineno)
            if not alias.asname and self.origin.get(top):
                self.origin[top] = top

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names if not node.level else ():
            self.imported(alias.asname or alias.name, f"{node.module}.{alias.name}", node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A chain of attributes, calls and indices, from its end to its root."""
        names: list[str] = []
        root: ast.expr = node
        while isinstance(root, (ast.Attribute, ast.Call, ast.Subscript)):
            if isinstance(root, ast.Attribute):
                names.insert(0, root.attr)
                root = root.value
            elif isinstance(root, ast.Call):
                for part in (*root.args, *root.keywords):
                    self.visit(part)
                self.in_strings(root)
                root = root.func
            else:
                self.visit(root.slice)
                self.in_strings(root)
                root = root.value
        self.visit(root)
        origin = self.origin.get(root.id) if isinstance(root, ast.Name) else None
        if origin == "":
            return
        if origin is not None and any(map(is_private, names)):
            self.found.append((".".join((origin, *names)), node.lineno))
            return
        self.found += [(name, node.lineno) for name in names if self.foreign(name)]

    def foreign(self, name: str) -> bool:
        return is_private(name) and name not in self.ours and name not in DOCUMENTED

    def in_strings(self, node: ast.AST) -> None:
        self.found += [(n, getattr(node, "lineno", 0)) for n, _ in string_names(node) if self.foreign(n)]

    def visit_Call(self, node: ast.Call) -> None:
        self.in_strings(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.in_strings(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A module's path in a string, as `import_module` takes it."""
        if isinstance(node.value, str) and re.fullmatch(
            r"(torch\w*|accelerate|transformers)(\.\w+)*\._(?!_)\w+", node.value
        ):
            self.found.append((node.value, node.lineno))


def private_uses(sources: dict[str, str]) -> set[tuple[str, str, int]]:
    """`(file, name, line)` of all private names of others, and of names of ours that are theirs."""
    trees = {path: ast.parse(source) for path, source in sources.items()}
    reserved = theirs()
    ours: set[str] = set()
    found: set[tuple[str, str, int]] = set()
    for path, tree in trees.items():
        own = [(name, line) for name, line in attributes(tree) if is_private(name)]
        found |= {(path, name, line) for name, line in own if name in reserved}
        ours |= {name for name, _ in (*own, *bound(tree.body))} - reserved
    for path, tree in trees.items():
        uses = Uses(ours)
        uses.visit(tree)
        found |= {(path, name, line) for name, line in uses.found if name not in STANDARD}
    return found


def packages() -> dict[str, str]:
    """The files of the packages where they are installed, by their place in the repository."""
    sources = {}
    for room in ROOMS:
        spec = importlib.util.find_spec(Path(room).name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            sources[f"{room}/{path.relative_to(folder).as_posix()}"] = path.read_text(encoding="utf-8")
    assert len(sources) > len(ROOMS)
    return sources


def test_no_private_name_of_a_dependency_is_used_but_those_with_a_reason():
    found = private_uses(packages())
    unexplained = sorted(f"{p}:{line} uses {name}" for p, name, line in found if (p, name) not in ALLOWED)
    assert not unexplained, (
        "\n".join(unexplained) + "\nuse a public twin, or give the reason why there is none in ALLOWED"
    )
    stale = sorted(set(ALLOWED) - {(path, name) for path, name, _ in found})
    assert not stale, f"ALLOWED holds what nothing uses: {stale}"


PLANTED = {
    "a private module": ("import torch._dynamo", "torch._dynamo"),
    "a private module by another name": ("import torch._dynamo as d", "torch._dynamo"),
    "a name of a private module": ("from torch._C import Node", "torch._C.Node"),
    "a private name": ("from torch.nn.functional import _verify_batch_size", "torch.nn.functional._verify_batch_size"),
    "an import within a function": ("def f():\n    from accelerate import _x\n", "accelerate._x"),
    "a chain": ("import torch\ntorch._foreach_add_([], [])", "torch._foreach_add_"),
    "a chain from another name": ("import torch as t\nt._C.x()", "torch._C.x"),
    "a chain from an imported name": ("from torch import nn\nnn.Module._y", "torch.nn.Module._y"),
    "a chain through a call": ("import torch\ntorch.zeros(2)._base", "torch.zeros._base"),
    "a chain in a type": ("import transformers\nx: transformers._A", "transformers._A"),
    "a decorator": ("import torch\n@torch._jit_internal.f\ndef g(): ...", "torch._jit_internal.f"),
    "an attribute of a tensor": ("def f(x): return x._version", "_version"),
    "an attribute of our own class's base": ("class A:\n    def f(self): return self._modules", "_modules"),
    "an attribute of an indexed value": ("def f(xs): return xs[0]._parameters", "_parameters"),
    "an attribute that is written": ("def f(m): m._requires_grad = False", "_requires_grad"),
    "an attribute that is deleted": ("def f(m): del m._forward_hooks", "_forward_hooks"),
    "an argument in the middle of a chain": ("def f(a, b): a.g(b._base).h()", "_base"),
    "a string": ("def f(x): return getattr(x, '_buffers', None)", "_buffers"),
    "a string in a namespace": ("def f(x): return vars(x)['_parameters']", "_parameters"),
    "a string asked of a namespace": ("def f(x): return x.__dict__.get('_modules')", "_modules"),
    "a module in a string": ("import importlib\nimportlib.import_module('torch._inductor')", "torch._inductor"),
    "a method that overrides a private one": (
        "class A:\n    def _load_from_state_dict(self): ...",
        "_load_from_state_dict",
    ),
    "an attribute that hides a private one": ("class A:\n    def __init__(self): self._buffers = 1", "_buffers"),
}


@pytest.mark.parametrize("form", PLANTED)
def test_a_private_use_is_found(form: str):
    source, name = PLANTED[form]
    assert {(p, n) for p, n, _ in private_uses({"planted.py": source})} == {("planted.py", name)}


def test_what_is_ours_public_documented_or_of_the_standard_library_is_not_found():
    source = """
import sys
import torch
from fusionzoo._files import x
from . import _neighbour
_TABLE = {}
def _version(): ...
class A(tuple):
    __slots__ = ()
    _kinds = 1
    def __init__(self):
        self._own = torch.zeros(2).__len__()
        object.__setattr__(self, "_maps", {})
    def _method(self, other):
        _version()
        _, _unused = other._replace(a=1), sys._getframe(1)
        return other._own, other._method(self), self._maps, getattr(other, "_kinds")
"""
    assert private_uses({"ours.py": source}) == set()
