"""Imports run one way: nouns import no I/O library, doors and engine no Prefect."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("tasks.domain",),
    ("tasks.clients",),
    ("tasks.clients.model_http", "tasks.clients.processes", "tasks.clients.surroundings"),
    ("tasks.clients.cluster", "tasks.clients.storage"),
    ("tasks.clients.logs", "tasks.clients.packages"),
    ("tasks.clients.instances",),
    ("tasks.engine",),
    ("tasks.prefect_side",),
    ("tasks.distribution",),
    ("tasks",),
    ("flows",),
    ("deployments.templates", "deployments.terminal"),
    ("deployments.models", "deployments.services"),
    ("deployments.one_run", "deployments.set_up"),
    ("deployments.local_stack",),
    ("deployments.commands",),
    ("deployments",),
    ("deployments.thresher",),
)
"""The rooms of the product, from the lowest floor up. A room may import from lower floors only."""
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


PUBLIC = ROOT / "deployments" / "thresher" / "__init__.py"
"""`import thresher`: the one `__init__.py` that is not empty, so that a name of the public API is a short one."""
PRODUCT = [path for room in ("deployments", "flows", "tasks") for path in sorted((ROOT / room).glob("**/*.py"))]


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def imported(path: Path) -> set[Path]:
    """All modules of this project that a file imports, also inside its functions and for its annotations only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
    names |= {f"deployments.{name}" for name in names if name.split(".")[0] == "thresher"}
    parts = [name.split(".") for name in names if name.split(".")[0] in ("tasks", "flows", "deployments")]
    modules = [ROOT.joinpath(*one[:end]).with_suffix(".py") for one in parts for end in range(1, len(one) + 1)]
    return {module for module in modules if module.exists()}


def test_imports__of_this_project_run_one_way() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upwards = {}
    for path in PRODUCT:
        room = room_of(path)
        if path.stem == "__init__" and path != PUBLIC:
            assert path.read_text() == ""
            continue
        if found := {other for other in map(room_of, imported(path)) if other != room and floor[other] >= floor[room]}:
            upwards[str(path.relative_to(ROOT))] = found
    assert upwards == {}
    assert {room_of(path) for path in PRODUCT} == set(floor)


def test_imports__of_modules_make_no_circle() -> None:
    # A CycleError names the circle.
    TopologicalSorter({path: imported(path) - {path} for path in PRODUCT}).prepare()


def test_drawing__shows_every_room_from_the_top() -> None:
    text = (ROOT / "flows" / "README.md").read_text()
    drawing = text.partition("## The rooms\n")[2].partition("## ")[0].split("```")[1]
    lines = [re.findall(r"[a-z_]+", line[:41]) for line in drawing.splitlines()]
    place = {word: number for number, line in enumerate(lines) for word in line}
    rooms = [[room.rpartition(".")[2] for room in rooms] for rooms in reversed(FLOORS)]
    assert {room for floor in rooms for room in floor} <= set(place)
    inside = [floor for floor in rooms if floor not in (["deployments"], ["tasks"], ["clients"])]
    assert sorted(inside, key=lambda floor: min(place[room] for room in floor)) == inside


def test_tasks__at_the_top_are_the_four_boxes_of_the_graph() -> None:
    assert {path.stem for path in (ROOT / "tasks").glob("*.py")} == {"__init__", "infer", "plan", "publish", "validate"}


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
        if path.stem != "__init__" and (not plate.exists() or f"`{path.stem}`" not in plate.read_text()):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []
