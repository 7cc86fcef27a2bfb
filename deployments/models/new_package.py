"""``thresher models init``: writes a package that runs as it is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.settings import ROOT
from tasks.domain.unexpected import cause_of_library

Kind = Literal["table", "file", "run.sh"]

_TEMPLATES = ROOT / "infra" / "new_packages"
_FOLDERS: dict[Kind, str] = {"table": "table", "file": "file", "run.sh": "image"}
_FIRST: dict[Kind, tuple[str, str]] = {
    "table": ("--row", "5.1,3.5,1.4,0.2"),
    "file": ("--file", "example/picture.png"),
    "run.sh": ("--row", "2,3"),
}
"""What `thresher models try` sends to the package of a kind."""
SPECIFICATION = "service.yaml"
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class NewPackage:
    """A package that was written, and the commands to call next."""

    folder: Path
    files: tuple[str, ...]
    next: tuple[str, ...]


def init_package(folder: Path, *, kind: Kind | None = None) -> NewPackage:
    """Write a package into a new or empty folder. Raises SpecificationError, and then leaves the folder as it was."""
    kind = kind or "table"
    name = service_name(folder)
    _check(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as made:
            whole = Path(made, "package")
            shutil.copytree(_TEMPLATES / _FOLDERS[kind], whole, ignore=shutil.ignore_patterns("__pycache__"))
            (whole / SPECIFICATION).write_text(specification_text(name, kind), encoding="utf-8")
            files = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
            if folder.exists():  # empty: it is kept, since it may be the working directory
                for path in whole.iterdir():
                    os.rename(path, folder / path.name)
            else:
                os.rename(whole, folder)
    except OSError as error:
        raise SpecificationError([Problem("FOLDER", str(folder), cause_of_library(error))]) from None
    option, value = _FIRST[kind]
    sent = value if option == "--row" else str(folder / value)
    return NewPackage(folder, tuple(files), next_commands(folder, (option, sent)))


def next_commands(folder: Path, sent: tuple[str, str]) -> tuple[str, ...]:
    """The commands that try a package with a row or a file, and run its service."""
    return (
        shlex.join(["thresher", "models", "try", _argument(folder), *sent]),
        shlex.join(["thresher", "run", str(folder / SPECIFICATION)]),
    )


def run_command(package: str) -> str:
    """The command that runs the service of a package, if it has one; else empty."""
    path = Path(package) / SPECIFICATION
    return shlex.join(["thresher", "run", str(path)]) if "://" not in package and path.is_file() else ""


def _argument(folder: Path) -> str:
    """A folder as an argument: never an option."""
    return f"./{folder}" if str(folder).startswith("-") else str(folder)


def _check(folder: Path) -> None:
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise SpecificationError(
                [Problem("FOLDER", str(folder), "should be a new or an empty folder; it has files")]
            )
        if not folder.is_dir() and os.path.lexists(folder):
            raise SpecificationError([Problem("FOLDER", str(folder), "is a file; should be a new or an empty folder")])
    except OSError as error:
        raise SpecificationError([Problem("FOLDER", str(folder), cause_of_library(error))]) from None


def specification_text(name: str, kind: Kind = "table") -> str:
    """The specification of a service that runs the package next to it on its example. Raises OSError."""
    return (_TEMPLATES / _FOLDERS[kind] / SPECIFICATION).read_text(encoding="utf-8").replace("NAME", name)


def service_name(folder: Path) -> str:
    """A service's name from the folder's."""
    return _OTHERS.sub("-", folder.resolve().name).strip("-")[:57] or "model"
