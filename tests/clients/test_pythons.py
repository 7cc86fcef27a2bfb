"""The Python that a model's runtime names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.support import run

from tasks.clients.packages.pythons import interpreter_for, own_interpreter
from tasks.domain.errors import ModelServerError
from tasks.domain.runtime import parse_runtime

OWN = "{}.{}".format(*sys.version_info[:2])


def fake_python(folder: Path, version: str, name: str | None = None) -> Path:
    """A program that says it is a Python of this version."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"python{version}")
    path.write_text(f"#!/bin/sh\necho {version}\necho '{version}.1 (fake)'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without other Pythons; returns the only folder of PATH."""
    from tasks.clients.packages import pythons

    pythons._find.cache_clear()  # what an earlier test has found is gone
    there = tmp_path / "path"
    there.mkdir()
    monkeypatch.setenv("PATH", str(there))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    yield there
    pythons._find.cache_clear()


@pytest.mark.parametrize("runtime", [None, "", f"python{OWN}", f"tf2.1-python{OWN}-cpu"])
def test_python__without_a_name_or_of_our_own_version_is_our_own(runtime: str | None) -> None:
    assert run(interpreter_for(parse_runtime(runtime), (), loosen=False)) == (own_interpreter(), [])


@pytest.mark.parametrize("place", ["path", "pyenv/versions/3.99.2/bin", "setting", "setting/bin", "setting/x/bin"])
def test_python__is_found_on_path_in_pyenv_and_in_the_setting(tmp_path: Path, place: str) -> None:
    path = fake_python(tmp_path / place, "3.99")
    found, warnings = run(interpreter_for(parse_runtime("python3.99"), (str(tmp_path / "setting"),), loosen=False))
    assert (found.path, found.version, found.build, warnings) == (str(path), (3, 99), "3.99.1 (fake)", [])


def test_python__may_be_named_by_its_file(tmp_path: Path) -> None:
    path = fake_python(tmp_path / "opt", "3.99", "snake")
    assert run(interpreter_for(parse_runtime("python3.99"), (str(path),), loosen=False))[0].path == str(path)


def test_python__that_does_not_run_or_is_another_version_is_passed_over(tmp_path: Path, nothing_else: Path) -> None:
    fake_python(nothing_else, "3.98", "python3.99")
    broken = fake_python(tmp_path / "setting", "3.99")
    broken.write_text("#!/no/such/shell\n")
    path = fake_python(tmp_path / "pyenv/versions/3.99.0/bin", "3.99")
    found, _ = run(interpreter_for(parse_runtime("python3.99"), (str(tmp_path / "setting"),), loosen=False))
    assert found.path == str(path)


def test_python__that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(ModelServerError) as raised:
        run(interpreter_for(parse_runtime("pytorch1.4-python3.7"), (), loosen=False))
    text = str(raised.value)
    assert "runtime pytorch1.4-python3.7 names Python 3.7, which this machine does not have" in text
    assert "loosen: true" in text and "\n" not in text


def test_python__becomes_the_nearest_later_one_if_loosened(nothing_else: Path) -> None:
    found, (warning,) = run(interpreter_for(parse_runtime("python3.7"), (), loosen=True))
    assert found == own_interpreter() and warning.endswith(f"names Python 3.7: Python {OWN} serves it.")
    path = fake_python(nothing_else, "3.8")
    found, (warning,) = run(interpreter_for(parse_runtime("python3.7"), ("another-key",), loosen=True))
    assert found.path == str(path) and warning.endswith("Python 3.8 serves it.")


def test_python__that_is_too_old_for_the_server_becomes_the_nearest_one(nothing_else: Path) -> None:
    path = fake_python(nothing_else, "3.6")
    found, (warning,) = run(interpreter_for(parse_runtime("python2.7"), (), loosen=False))
    assert found.path == str(path) and "names Python 2.7: Python 3.6 serves it" in warning
