"""How long a run took to start: since its command, or since this try of its flow run began."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.engine.progress import Progress
from tasks.prefect_side import own_run


def test_start__is_counted_from_the_command_for_its_first_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time() - 5
    state: Any = SimpleNamespace(timestamp=SimpleNamespace(timestamp=lambda: began))
    monkeypatch.setattr(own_run, "own_flow_run", lambda: SimpleNamespace(state=state))
    own_run.begin_command(time.time() - 100)
    first, again = Progress(), Progress()
    own_run.note_start(first)
    own_run.note_start(again)
    assert 100 <= first.start_seconds < 200
    assert 5 <= again.start_seconds < 100
    assert first.flow_began_at <= again.flow_began_at


def test_start__takes_no_negative_time_when_clocks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    state: Any = SimpleNamespace(timestamp=SimpleNamespace(timestamp=lambda: time.time() + 60))
    monkeypatch.setattr(own_run, "own_flow_run", lambda: SimpleNamespace(state=state))
    progress = Progress()
    own_run.note_start(progress)
    assert progress.start_seconds == 0
