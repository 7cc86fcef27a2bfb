"""Imports run one way: nouns import no I/O library, doors and engine no Prefect."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABOVE = {
    "tasks/domain": ("tasks.clients", "tasks.engine", "tasks.settings", "tasks.verbs", "flows", "deployments"),
    "tasks/clients": ("tasks.engine", "tasks.verbs", "flows", "deployments"),
    "tasks/engine": ("tasks.verbs", "flows", "deployments"),
    "tasks": ("flows", "deployments"),
    "flows": ("deployments",),
}
"""What each room may not import; ``tasks.verbs`` stands for the modules directly in ``tasks``, but for its settings."""
SCRIPT = """
import importlib, pkgutil, sys
for package in sys.argv[1].split(","):
    found = importlib.import_module(package)
    modules = [module.name for module in pkgutil.walk_packages(found.__path__, f"{package}.")]
    assert modules, package
    for name in modules:
        importlib.import_module(name)
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2].split(","))))
"""


@pytest.mark.parametrize(
    ("packages", "forbidden"),
    [
        ("tasks.domain", "prefect,aiohttp,pyarrow,obstore,requests,s3fs,fsspec,urllib3,uvloop,dask,yaml,httpx,orjson"),
        ("tasks.clients,tasks.engine", "prefect,prefect_dask,cyclopts,fastapi"),
    ],
)
def test_imports__of_every_module_bring_nothing_that_the_layer_may_not_use(packages: str, forbidden: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, packages, forbidden], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def imported_by(module: Path) -> set[str]:
    """Every module of this project that a file imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    verbs = {f"tasks.{path.stem}" for path in (ROOT / "tasks").glob("*.py")} - {"tasks.settings", "tasks.__init__"}
    return {f"tasks.verbs.{name}" if name in verbs else name for name in found}


@pytest.mark.parametrize("room", ABOVE)
def test_imports__of_this_project_run_one_way(room: str) -> None:
    modules = sorted((ROOT / room).glob("*.py"))
    assert len(modules) > 2
    for module in modules:
        above = tuple(f"{one}." for one in ABOVE[room])
        upwards = {name for name in imported_by(module) if f"{name}.".startswith(above)}
        assert not upwards, f"{module.relative_to(ROOT)} imports {upwards}"


PRODUCT = [path for room in ("deployments", "flows", "tasks") for path in sorted((ROOT / room).glob("**/*.py"))]


def test_classes__have_each_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = {}
    for path in PRODUCT:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_rooms__name_each_of_their_modules_in_their_readme() -> None:
    missing = []
    for path in PRODUCT:
        plate = path.parent / "README.md"
        if path.stem != "__init__" and plate.exists() and f"`{path.stem}" not in plate.read_text():
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []
