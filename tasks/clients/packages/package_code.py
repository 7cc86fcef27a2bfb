"""The code of a package for the built-in model server: its imports, what provides them, and what does not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.clients.packages.environments import SERVING
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.base_packages import BaseLists, default_modules, from_base_list, parse_base_lists
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.package import CUSTOM_SERVICE, REQUIREMENTS, PackageConfig
from tasks.domain.package_imports import import_lines, imported, missing, modules_of
from tasks.domain.paths import Address
from tasks.domain.runtime import Runtime, parse_runtime
from tasks.domain.unexpected import cause_of_library

MAX_CODE_BYTES = 4 << 20
_MAX_MODULES = 200


def read_base_lists(path: Path) -> BaseLists:
    """The administrator's base lists. Raises SpecificationError naming the file."""
    try:
        return parse_base_lists(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = str(error) if type(error) is ValueError else cause_of_library(error)
        raise SpecificationError([Problem("THRESHER_BASE_PACKAGES", str(path), cause)]) from None


async def code_warnings(
    storage: Storage, folder: Address, config: PackageConfig, files: AbstractSet[str], lists: BaseLists
) -> list[str]:
    """Warnings about a package's customize_service.py before it is started; ``files`` are those next to it."""
    twice = [f"dependencies of the model: {sentence}" for sentence in config.named_twice]
    try:
        source = await storage.read(folder.child(CUSTOM_SERVICE), MAX_CODE_BYTES)
        required = await storage.read(folder.child(REQUIREMENTS), MAX_CODE_BYTES) if REQUIREMENTS in files else b""
    except ObjectError:
        return twice  # starting it will show why
    try:
        names = imported(source)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        return [*twice, f"{CUSTOM_SERVICE} of the model{line}: {error.msg}"]
    except (ValueError, RecursionError, MemoryError):
        return twice
    lines = required.decode("utf-8", "replace").splitlines()
    found = from_base_list(_unprovided(names, config, lines, files), lists, config.model_type, _runtime(config))[1]
    if not found:
        return twice
    return [
        *twice,
        f"{CUSTOM_SERVICE} of the model imports {', '.join(found)}: not in the package, its dependencies, the base "
        f"list of {config.model_type} or the built-in model server. The model will not start, unless one of the "
        "dependencies brings what is missing",
    ]


class CodeNeeds(NamedTuple):
    """What a package's code imports and neither the package nor its dependencies provide."""

    base: list[str]
    """Requirements of the base list, which are installed for it."""
    unprovided: dict[str, tuple[str, int]]
    """Modules that nothing provides, each with the file and the line that imports it first."""


def code_needs(folder: Path, config: PackageConfig, lists: BaseLists) -> CodeNeeds:
    """What the code in ``folder`` needs beyond the package's dependencies; code that cannot be parsed is left out."""
    files = {path.name for path in folder.iterdir()}
    source = (folder / CUSTOM_SERVICE).read_bytes()
    lines = (folder / REQUIREMENTS).read_text("utf-8", "replace").splitlines() if REQUIREMENTS in files else []
    places = dict.fromkeys(default_modules(config.model_type, source), (CUSTOM_SERVICE, 1))
    for path, found in _reached(folder, source):
        for name, line in found.items():
            places.setdefault(name, (path.relative_to(folder).as_posix(), line))
    lacking = _unprovided(places, config, lines, files)
    base, unprovided = from_base_list(lacking, lists, config.model_type, _runtime(config))
    return CodeNeeds(base, {name: _place(name, places) for name in unprovided})


def _place(name: str, places: Mapping[str, tuple[str, int]]) -> tuple[str, int]:
    """Where a module, or else one of its submodules, is imported."""
    return next(place for one, place in places.items() if one == name or one.startswith(f"{name}."))


def _runtime(config: PackageConfig) -> Runtime:
    return parse_runtime(config.runtime)


def _unprovided(
    names: Collection[str], config: PackageConfig, lines: Sequence[str], files: Collection[str]
) -> list[str]:
    installed = [*(one for step in config.requirements for one in step), *_served_with()[1], *lines]
    return missing(names, installed, modules_of(files) | _served_with()[0])


def _reached(folder: Path, source: bytes) -> Iterator[tuple[Path, dict[str, int]]]:
    """customize_service.py and the package's own modules that it imports, directly or not, each with its imports."""
    left = [(folder / CUSTOM_SERVICE, source)]
    seen: set[Path] = set()
    while left and len(seen) < _MAX_MODULES:
        file, code = left.pop()
        try:
            names = import_lines(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # importing it will show why
        yield file, names
        for path in (path for name in sorted(names) for path in _files_of(folder, name)):
            if path not in seen and path.stat().st_size <= MAX_CODE_BYTES:
                seen.add(path)
                left.append((path, path.read_bytes()))


def _files_of(folder: Path, name: str) -> list[Path]:
    """The files of a module of the package; of a package in it, all next to its ``__init__``."""
    path = folder.joinpath(*name.removeprefix("model.").split("."))
    module = path.with_suffix(".py")
    if module.is_file():
        return [module, *(path.parent.glob("*.py") if path.parent != folder else ())]
    return sorted(path.glob("*.py")) if path.is_dir() and path != folder else []


@cache
def _served_with() -> tuple[frozenset[str], tuple[str, ...]]:
    """The modules of the built-in model server and of the platform, and the packages installed for it."""
    roots = (SERVING, SERVING / "platform_modules")
    there = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for root in roots
        for path in root.glob("**/*.py")
    }
    return frozenset({*there, "model"}), tuple((SERVING / "requirements.txt").read_text().splitlines())
