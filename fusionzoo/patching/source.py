"""Reading a function's source, and finding the expression that Python was evaluating."""

from __future__ import annotations

import ast
import functools
import hashlib
import linecache
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from fusionzoo.patching.call_chain import Position, Step

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
#: The hidden first argument of a function that was rewritten.
OWNER = "__fz_owner__"


@dataclass(frozen=True)
class Source:
    """A function as it stands in its file."""

    node: FunctionNode
    text: str

    @property
    def digest(self) -> str:
        """Of the function's text without its indentation, so that moving it does not count as a change."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def lines_of(file: str, module_globals: Mapping[str, Any] | None = None) -> list[str]:
    """A file's lines as Python's tracebacks find them; empty where there are none."""
    linecache.checkcache(file)
    return linecache.getlines(file, dict(module_globals) if module_globals else None)


@functools.lru_cache(maxsize=64)
def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def read_function(
    file: str, qualname: str, line: int, module_globals: Mapping[str, Any] | None = None
) -> Source | None:
    """The function of this name that begins on this line (of its first decorator, as Python counts)."""
    lines = lines_of(file, module_globals)
    tree = _tree("".join(lines)) if lines else None
    if tree is None:
        return None
    name = qualname.rpartition(".")[2]
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            hit = name == "<lambda>" and node.lineno == line
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            hit = name == node.name and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == line
        else:
            continue
        if hit:
            assert node.end_lineno is not None
            return Source(node, "".join(lines[line - 1 : node.end_lineno]))
    return None


def span(node: ast.AST) -> Position:
    """A node's position as code objects give it."""
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset  # type: ignore[attr-defined,return-value]


def expression_at(source: Source, position: Position) -> ast.AST | None:
    """The call, operator or assignment at a position; `x[i] = y` stands where its target does."""
    for node in ast.walk(source.node):
        if (target := written_target(node)) is not None and span(target) == position:
            return node
        if isinstance(node, (ast.Call, ast.BinOp, ast.AugAssign)) and span(node) == position:
            twice = ast.walk(node.target) if isinstance(node, ast.AugAssign) else ()
            return None if any(isinstance(n, (ast.Call, ast.NamedExpr)) for n in twice) else node
    return None


def written_target(node: ast.AST) -> ast.Subscript | None:
    """The target of `x[i] = y`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
        return node.targets[0]
    return None


def step_source(step: Step) -> Source | None:
    """The function of a step."""
    return read_function(step.file, step.qualname, step.line)


def operands_of(node: ast.AST | None) -> list[ast.expr]:
    """What an operator or a call computes with, in the order of evaluation."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Call):
        receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return [*receiver, *node.args, *(k.value for k in node.keywords)]
    return []


def is_rewritten(code: CodeType) -> bool:
    """Whether code is what `rewrite` made of a function, or written inside it."""
    return OWNER in (*code.co_varnames[:1], *code.co_freevars)
