"""What the command line imports before it knows what is asked of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from tasks.domain.prefect_settings import TABLES

ROOT = Path(__file__).parents[2]
HEAVY = {
    "prefect", "prefect_dask", "pyarrow", "aiohttp", "obstore", "uvloop", "requests", "httpx", "s3fs", "fsspec", "yaml",
    "pydantic", "pydantic_settings", "sqlalchemy", "fastapi", "distributed", "dask", "orjson", "asyncio", "email",
}  # fmt: skip
SCRIPT = """
import sys
from deployments.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@cache
def imported(*arguments: str) -> tuple[str, frozenset[str]]:
    """What the command prints, and the packages that its process has imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, frozenset(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["pools", "list", "--help"], ["logs", "--help"]])
def test_help__imports_nothing_that_only_the_work_needs(arguments: list[str]) -> None:
    text, packages = imported(*arguments)
    assert text.startswith("Usage: thresher")
    assert "cyclopts" in packages
    assert not packages & HEAVY


def test_help__of_all_commands_imports_no_reader_of_markdown() -> None:
    text, packages = imported("--help")
    assert "Run one service now, in this process." in text
    assert "markdown_it" not in packages


def test_help__of_a_command_joins_the_lines_of_a_paragraph_and_shows_words_of_code() -> None:
    text, _ = imported("retry-failed", "--help")
    assert "The earlier run's id; thresher show NAME --runs shows it." in text


def _tables(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[str]:
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield ".".join((*above, name))
                yield from _tables(kind, (*above, name))
                break


def test_tables__of_prefects_files_are_those_of_its_settings() -> None:
    """They are listed in the domain, since a wrong file is to be named before Prefect is imported."""
    from prefect.settings.models.root import Settings

    assert set(_tables(Settings)) == TABLES
