"""Compiling a function with some of its expressions replaced: same file and line numbers, same globals, same closure."""

from __future__ import annotations
import __future__

import ast
import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType
from typing import Any

from fusionzoo.patching.call_chain import Position
from fusionzoo.patching.source import OWNER, FunctionNode, Source, span, written_target

NODE, JOIN, CALL = "__fz_node__", "__fz_join__", "__fz_call__"
INPLACE, INDEX = "__fz_inplace__", "__fz_index__"
_FUTURE = functools.reduce(
    lambda a, b: a | b, (getattr(__future__, n).compiler_flag for n in __future__.all_feature_names)
)


@dataclass
class Edit:
    """What to do with the expression at a position: apply joins by name, or pass a rewritten function on."""

    position: Position
    joins: tuple[str, ...] = ()
    call: int | None = None
    inner: tuple[Position, ...] = ()  # operators inside that belong to the same sum or product


class _Rewriter(ast.NodeTransformer):
    def __init__(self, edits: Mapping[Position, Edit]):
        self.edits = edits
        self.done: set[Position] = set()

    def visit(self, node: ast.AST) -> Any:
        target = written_target(node)
        if target is None:
            target = node if isinstance(node, (ast.Call, ast.BinOp, ast.AugAssign)) else None
        edit = None if target is None else self.edits.get(span(target))
        if edit is None:
            return self.generic_visit(node)
        self.done.add(edit.position)
        if isinstance(node, ast.Assign):
            return _located(self._assigned(edit, node), node)
        if isinstance(node, ast.Call) and edit.inner:
            function, leaves = _operator(node, edit)
            new: ast.AST = self._call(edit, function, [self.visit(leaf) for leaf in leaves], [])
        elif isinstance(node, ast.Call):
            keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
            new = self._call(edit, self.visit(node.func), [self.visit(a) for a in node.args], keywords)
        elif isinstance(node, ast.BinOp):
            function, leaves = _operator(node, edit)
            new = self._call(edit, function, [self.visit(leaf) for leaf in leaves], [])
        else:
            assert isinstance(node, ast.AugAssign)
            load = copy.deepcopy(node.target)
            for n in ast.walk(load):
                if hasattr(n, "ctx"):
                    n.ctx = ast.Load()  # type: ignore[attr-defined]
            # x0 += x1 inside a function keeps the in-place meaning; the target is then bound to what comes back.
            function = ast.Call(_name(INPLACE), [ast.Constant(type(node.op).__name__)], [])
            new = ast.Assign([node.target], self._call(edit, function, [load, self.visit(node.value)], []))
        return _located(new, node)

    def _assigned(self, edit: Edit, node: ast.Assign) -> ast.AST:
        """`x[i] = y` as a call; y, x and i are evaluated in this order, as Python does."""
        target = node.targets[0]
        assert isinstance(target, ast.Subscript)
        function = ast.Call(_name(INPLACE), [ast.Constant("SetItem")], [])
        call = self._call(edit, function, [_name("x"), _name("i"), _name("y")], [])
        names = [ast.arg(n) for n in "yxi"]
        index = ast.Subscript(_name(INDEX), self.visit(target.slice), ast.Load())
        made = ast.Lambda(ast.arguments([], names, None, [], [], None, []), call)
        return ast.Expr(ast.Call(made, [self.visit(node.value), self.visit(target.value), index], []))

    def _call(self, edit: Edit, function: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> ast.Call:
        if edit.call is not None:
            args, function = [_name(OWNER), _name(NODE), ast.Constant(edit.call), function, *args], _name(CALL)
        if edit.joins:
            names = ast.Tuple([ast.Constant(j) for j in edit.joins], ast.Load())
            args, function = [_name(OWNER), names, function, *args], _name(JOIN)
        return ast.Call(function, args, keywords)


def _operator(node: ast.BinOp | ast.Call, edit: Edit) -> tuple[ast.expr, list[ast.expr]]:
    """A lambda that computes a sum or product in its own grouping, and the operands."""
    leaves: list[ast.expr] = []

    def grow(n: ast.expr) -> ast.expr:
        if isinstance(n, ast.Starred):
            return ast.copy_location(ast.Starred(grow(n.value), n.ctx), n)
        if n is node or span(n) in edit.inner:
            if isinstance(n, ast.BinOp):
                return ast.copy_location(ast.BinOp(grow(n.left), n.op, grow(n.right)), n)
            if isinstance(n, ast.Call):
                function = n.func
                if isinstance(function, ast.Attribute):
                    function = ast.copy_location(
                        ast.Attribute(grow(function.value), function.attr, function.ctx), function
                    )
                args, keywords = [grow(a) for a in n.args], [ast.keyword(k.arg, grow(k.value)) for k in n.keywords]
                return ast.copy_location(ast.Call(function, args, keywords), n)
        leaves.append(n)
        return ast.copy_location(ast.Name(f"x{len(leaves) - 1}", ast.Load()), n)

    body = grow(node)
    names = [ast.arg(f"x{i}") for i in range(len(leaves))]
    return ast.Lambda(ast.arguments([], names, None, [], [], None, []), body), leaves


def _located(new: ast.AST, old: ast.AST) -> ast.AST:
    """Place the new nodes at the old expression, so that tracebacks and a second trace find them there."""
    for n in ast.walk(new):
        if "lineno" in getattr(n, "_attributes", ()) and not hasattr(n, "lineno"):
            ast.copy_location(n, old)
    return new


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def rewrite(function: FunctionType, source: Source, edits: list[Edit], cells: Mapping[str, Any]) -> FunctionType | None:
    """The function with expressions replaced, taking the owner as a first, hidden argument; None where it cannot be done."""
    old = function.__code__
    # The tree is shared by everybody who reads the file: work on a fresh one.
    node = copy.deepcopy(source.node)
    rewriter = _Rewriter({e.position: e for e in edits})
    if isinstance(node, ast.Lambda):
        node.body = rewriter.visit(node.body)
    else:
        node.decorator_list, node.returns = [], None
        node.body = [rewriter.visit(s) for s in node.body]
        if hasattr(node, "type_params"):
            node.type_params = []  # type: ignore[attr-defined]
    if rewriter.done != {e.position for e in edits}:
        return None
    _strip(node.args)
    node.args.posonlyargs.insert(0, ast.copy_location(ast.arg(OWNER), node))
    code = _compile(node, old, [*old.co_freevars, *cells])
    if code is None:
        return None
    own = dict(zip(old.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(own[n] if n in own else CellType(cells[n]) for n in code.co_freevars)
    code = code.replace(co_firstlineno=old.co_firstlineno, co_qualname=old.co_qualname, co_name=old.co_name)
    new = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__qualname__, new.__module__, new.__doc__ = function.__qualname__, function.__module__, function.__doc__
    return new


def _strip(args: ast.arguments) -> None:
    for a in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if a is not None:
            a.annotation = None
    # Defaults are taken from the function as it is; these stand in so that the compiler sees as many.
    args.defaults = [ast.copy_location(ast.Constant(None), d) for d in args.defaults]
    args.kw_defaults = [None if d is None else ast.copy_location(ast.Constant(None), d) for d in args.kw_defaults]


def _compile(node: FunctionNode, old: CodeType, free: list[str]) -> CodeType | None:
    """Compile inside a function that has the free variables as parameters, and take the inner code out."""
    statement: ast.stmt = ast.Expr(node) if isinstance(node, ast.Lambda) else node
    ast.copy_location(statement, node)
    parts = old.co_qualname.split(".")
    owner = parts[-2] if len(parts) > 1 and parts[-2] != "<locals>" else None
    body: list[ast.stmt] = [statement]
    if owner is not None and owner not in free and _mangles(node):
        body = [ast.Global([owner]), ast.ClassDef(owner, [], [], body, [], **_no_type_params())]
    names = [ast.arg(n) for n in dict.fromkeys(free)]
    factory = ast.FunctionDef(
        "__fz_factory__", ast.arguments([], names, None, [], [], None, []), body, [], None, **_no_type_params()
    )
    tree = ast.Module([factory], [])
    for n in ast.walk(tree):
        if "lineno" in n._attributes and not hasattr(n, "lineno"):
            ast.copy_location(n, node)
    ast.fix_missing_locations(tree)
    compiled = compile(tree, old.co_filename, "exec", flags=old.co_flags & _FUTURE, dont_inherit=True)
    return _inner(compiled, old.co_name)


def _no_type_params() -> dict[str, Any]:
    return {"type_params": []} if "type_params" in ast.FunctionDef._fields else {}


def _mangles(node: ast.AST) -> bool:
    names = (getattr(n, "attr", None) or getattr(n, "id", None) or "" for n in ast.walk(node))
    return any(isinstance(n, str) and n.startswith("__") and not n.endswith("__") for n in names)


def _inner(code: CodeType, name: str) -> CodeType | None:
    for c in code.co_consts:
        if isinstance(c, CodeType):
            if c.co_name == name and c.co_varnames[:1] == (OWNER,):
                return c
            if (found := _inner(c, name)) is not None:
                return found
    return None
