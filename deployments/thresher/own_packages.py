"""Thresher's own packages: a program's folder may hold others of the same names, which Python would take first."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_OWN = ("deployments", "flows", "tasks")


def check_own_packages() -> None:
    """Raises ImportError, naming the folder, if another package hides one of Thresher's."""
    for name in _OWN:
        found = find_spec(name)
        for folder in found.submodule_search_locations or () if found else ():
            if not Path(folder).with_name("tasks").joinpath("domain", "errors.py").exists():
                raise ImportError(
                    f"{folder} hides Thresher's package of the same name: rename it, or move this program elsewhere. "
                    "(The command `thresher` runs in any folder.)"
                )
