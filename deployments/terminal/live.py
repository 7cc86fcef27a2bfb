"""The progress of a run, on standard error: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from deployments.terminal.talk import say_on
from tasks.clients import clock
from tasks.engine import progress

_LINE_SECONDS = 5.0
_REFRESH_SECONDS = 0.2
_WORDS = {
    "validating": "validating",
    "planning": "planning",
    "preparing": "preparing the model",
    "inferring": "running",
    "publishing": "publishing",
    "done": "done",
}


def line(found: progress.Progress) -> str:
    """One line: phase, items done and in total, failed, items/s, time left."""
    word = _WORDS[found.phase]
    if not found.items:
        return word
    text = f"{word}  {found.done:,} of {found.items:,} items, {found.failed:,} failed"
    if found.outage_since is not None:
        seconds = max(0.0, clock.now() - found.outage_since)
        return f"{text}, waiting for the model server for {_duration(seconds)} ({found.outage})"
    if found.done and found.inferring_since is not None:
        text += f", {found.items_per_second:,.1f} items/s"
        left = found.seconds_left
        if found.phase == "inferring" and left is not None and found.done < found.items:
            text += f", {_duration(left)} left"
    return text


def _duration(seconds: float) -> str:
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class LiveProgress:
    """Shows the progress of this process's run inside the block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> LiveProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _current(self) -> str:
        found = list(progress.runs().values())
        return line(found[-1]) if found else "starting Prefect"

    def _show(self) -> None:
        if self._console.is_terminal:
            with Live(Text(self._current()), console=self._console, refresh_per_second=5, transient=False) as live:
                while not self._ended.wait(_REFRESH_SECONDS):
                    live.update(Text(self._current()))
                live.update(Text(self._current()))
            return
        detail, when = "", 0.0
        while not self._ended.wait(_REFRESH_SECONDS):
            now = self._current()
            changed = now.split("  ")[0] != detail.split("  ")[0]
            if changed or (now != detail and time.monotonic() - when >= _LINE_SECONDS):
                say_on(self._console, now)
                detail, when = now, time.monotonic()
        if (now := self._current()) != detail:
            say_on(self._console, now)
