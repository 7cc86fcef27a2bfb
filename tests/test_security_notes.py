"""SECURITY.md: the tests that it names exist, each row names one, and so do the settings that open something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tasks.domain.settings import Settings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[str]:
    return [line for line in section(title).splitlines() if line.startswith("|")][2:]


def missing(text: str) -> list[str]:
    found = []
    for file, name in NAMED.findall(text):
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        if not any(isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name == name for one in tree.body):
            found.append(f"{file}::{name}")
    return found


def test_security_notes__name_tests_that_exist() -> None:
    assert missing(TEXT) == []
    assert missing("`tests/test_security_notes.py::test_that_is_nowhere`") != []


def test_security_notes__name_a_test_for_each_asset() -> None:
    assert len(rows("What is kept from whom")) >= 10
    assert [line for line in rows("What is kept from whom") if not NAMED.search(line)] == []


def test_security_notes__name_settings_that_exist() -> None:
    known = {f"THRESHER_{name}".upper() for name in Settings.model_fields}
    known |= set(re.findall(r"^([A-Z_]+)=", (ROOT / "infra/compose.env.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bTHRESHER_[A-Z_]+", TEXT)) <= known


def test_security_notes__say_how_to_report_without_an_address_of_their_own() -> None:
    assert "private vulnerability reporting" in section("Reporting a vulnerability") and "@" not in TEXT
