"""The service that a customize_service.py defines, as far as its text shows it without running it."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import NamedTuple

_PLATFORM = ("model_service", "mms", "hiai_model_service")
"""Modules of the platform that hold base classes."""
_OWN = "model"
"""The package's own modules are also imported from here."""


class ServiceClass(NamedTuple):
    """A class that could be the service, and its line."""

    name: str
    line: int


def service_classes(source: bytes, modules: Collection[str] = ()) -> list[ServiceClass] | None:
    """The classes below a base class of the platform that have no sub-class in the same file.

    None if the text alone does not show it: a base class comes from one of the package's own ``modules``, or is made by
    code. Raises SyntaxError; ValueError and RecursionError for text that is no code at all.
    """
    tree = ast.parse(source)
    imported = _imported(tree)
    own = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    unclear = {_OWN, "", *modules}
    unnamed = {imported[name] for name in imported if name.endswith("*")}
    if not own and unclear.intersection(imported.values()):
        return None

    def is_service(name: str, above: tuple[str, ...]) -> bool | None:
        if name in own and name not in above:
            found = [is_base(base, (*above, name)) for base in own[name].bases]
            return True if True in found else None if None in found else False
        if name in imported:
            return True if imported[name] in _PLATFORM else None if imported[name] in unclear else False
        if name not in own and unnamed:
            return True if unnamed <= {*_PLATFORM} else None
        return False

    def is_base(base: ast.expr, above: tuple[str, ...]) -> bool | None:
        while isinstance(base, ast.Attribute):
            base = base.value
        return is_service(base.id, above) if isinstance(base, ast.Name) else None

    found = {name: is_service(name, ()) for name in own}
    if None in found.values():
        return None
    bases = {base.id for node in own.values() for base in node.bases if isinstance(base, ast.Name)}
    return [ServiceClass(name, own[name].lineno) for name, one in found.items() if one and name not in bases]


def _imported(tree: ast.Module) -> dict[str, str]:
    """Imported names, each with the top of its module's name; empty for a relative one. ``a.*`` for all names of a."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            top = "" if node.level else (node.module or "").partition(".")[0]
            found.update({f"{top}.*" if one.name == "*" else one.asname or one.name: top for one in node.names})
        elif isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                found[one.asname or top] = top
    return found
