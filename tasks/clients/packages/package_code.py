"""The code of a package for the built-in model server: its imports that nothing provides."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import cache

from tasks.clients.packages.environments import SERVING
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.package import CUSTOM_SERVICE, REQUIREMENTS, PackageConfig
from tasks.domain.package_imports import imported, missing, modules_of
from tasks.domain.paths import Address

MAX_CODE_BYTES = 4 << 20


async def code_warnings(storage: Storage, folder: Address, config: PackageConfig, files: AbstractSet[str]) -> list[str]:
    """Warnings about a package's customize_service.py before it is started; ``files`` are those next to it."""
    try:
        source = await storage.read(folder.child(CUSTOM_SERVICE), MAX_CODE_BYTES)
        required = await storage.read(folder.child(REQUIREMENTS), MAX_CODE_BYTES) if REQUIREMENTS in files else b""
    except ObjectError:
        return []  # starting it will show why
    try:
        names = imported(source)
    except SyntaxError as error:
        return [f"{CUSTOM_SERVICE} of the model, line {error.lineno}: {error.msg}"]
    except (ValueError, RecursionError, MemoryError):
        return []
    lines = required.decode("utf-8", "replace").splitlines()
    installed = [*(one for step in config.requirements for one in step), *_served_with()[1], *lines]
    found = missing(names, installed, modules_of(files) | _served_with()[0])
    if not found:
        return []
    return [
        f"{CUSTOM_SERVICE} of the model imports {', '.join(found)}: not in the package, its dependencies or the "
        "built-in model server. The model will not start, unless one of the dependencies brings what is missing"
    ]


@cache
def _served_with() -> tuple[frozenset[str], tuple[str, ...]]:
    """The modules of the built-in model server, and the packages installed for it."""
    there = {
        ".".join(path.relative_to(SERVING).with_suffix("").parts).removesuffix(".__init__")
        for path in SERVING.glob("**/*.py")
    }
    return frozenset(there), tuple((SERVING / "requirements.txt").read_text().splitlines())
