"""The time of a process, while the machine's clock is changed."""

from __future__ import annotations

import time

import pytest

from tasks.clients import clock


def test_now__is_the_time_of_day() -> None:
    assert abs(clock.now() - time.time()) < 3600


@pytest.mark.parametrize("jump", [86_400, -86_400])
def test_now__goes_on_evenly_when_the_clock_of_the_machine_jumps(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    before, even = clock.now(), time.monotonic()
    time_of_day = time.time
    monkeypatch.setattr(time, "time", lambda: time_of_day() + jump)
    passed = clock.now() - before
    assert 0 <= passed <= time.monotonic() - even + 1e-3
