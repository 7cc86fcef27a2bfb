"""Whether a function has a loop that only other code can end, as far as its source shows."""

import ast
import inspect
import textwrap
from types import FrameType
from typing import Any, Optional


def loops_for_ever(frame: FrameType) -> bool:
    """Whether a function has a loop that only other code can end."""
    function = _source_of(frame.f_code)
    body = getattr(function, "body", None)
    return isinstance(body, list) and any(_is_endless(one, frame.f_locals.get("self")) for one in body)


def _source_of(function: Any) -> Optional[ast.AST]:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, TypeError, ValueError, IndexError):
        return None


def _is_endless(statement: ast.stmt, owner: object) -> bool:
    if isinstance(statement, (ast.Try, ast.With)):
        return any(_is_endless(one, owner) for one in statement.body)
    if not isinstance(statement, ast.While) or any(_leaves(one) for one in statement.body):
        return False
    try:
        return bool(ast.literal_eval(statement.test))
    except ValueError:
        flag = _flag(statement.test)
    if not flag or _sets(statement, flag):
        return False
    called = {
        node.func.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _name(node.func.value) == "self"
    }
    methods = (_source_of(getattr(type(owner), name, None)) for name in called)
    return not any(method is not None and _sets(method, flag) for method in methods)


def _flag(test: ast.expr) -> str:
    """The flag in a loop's condition, as in ``while self.running`` or ``while not stop.is_set()``; or empty."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test = test.operand
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) and test.func.attr in ("is_set", "wait"):
        test = test.func.value
    return _name(test)


def _name(node: ast.AST) -> str:
    return str(getattr(node, "attr", "") or getattr(node, "id", ""))


def _sets(tree: ast.AST, flag: str) -> bool:
    """Whether this code changes a flag."""
    for node in ast.walk(tree):
        if isinstance(getattr(node, "ctx", None), ast.Store) and _name(node) == flag:
            return True
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(method, ast.Attribute) and method.attr in ("set", "clear") and _name(method.value) == flag:
            return True
    return False


def _leaves(node: ast.AST, inner: bool = False) -> bool:
    """Whether a loop may end here: by its own break, a return, or an exception."""
    if isinstance(node, (ast.Return, ast.Raise, ast.Yield, ast.YieldFrom)) or (
        isinstance(node, ast.Break) and not inner
    ):
        return True
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
        return False
    inner = inner or isinstance(node, (ast.While, ast.For, ast.AsyncFor))
    return any(_leaves(child, inner) for child in ast.iter_child_nodes(node))
