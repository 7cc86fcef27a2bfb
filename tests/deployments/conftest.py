"""The command in this process, which has imported Prefect already: for what it says, and not how its process ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deployments.cli import _call
from deployments.terminal.door import guarded

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """As `thresher`, but here: without a server and without a stack, unless ``env`` names them."""

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.delenv("PREFECT_API_URL", raising=False)
            patch.setenv("THRESHER_STACK", str(tmp_path / "no-stack"))
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            given = [str(one) for one in arguments]
            capsys.readouterr()
            code = guarded(lambda: _call(given), verbose=False)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(given, code, said.out, said.err)

    return run
