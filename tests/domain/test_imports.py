"""Imports run one way: nouns import no I/O library, doors and engine no Prefect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
        ("tasks.clients,tasks.engine", "prefect,prefect_dask,dask,distributed,cyclopts,fastapi"),
    ],
)
def test_imports__of_every_module_bring_nothing_that_the_layer_may_not_use(packages: str, forbidden: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, packages, forbidden], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
