"""The progress of a run, on standard error: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.text import Text

from deployments.terminal.output import error_console, say
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


@contextmanager
def live_progress() -> Iterator[None]:
    """Show the progress of this process's run inside the block."""
    ended = threading.Event()
    showing = threading.Thread(target=_show, args=(ended,), daemon=True)
    showing.start()
    try:
        yield
    finally:
        ended.set()
        showing.join()


def _current() -> str:
    found = list(progress.runs().values())
    return line(found[-1]) if found else "starting Prefect"


def _show(ended: threading.Event) -> None:
    console = error_console()
    if console.is_terminal:
        with Live(Text(_current()), console=console, refresh_per_second=5, transient=False) as live:
            while not ended.wait(_REFRESH_SECONDS):
                live.update(Text(_current()))
            live.update(Text(_current()))
        return
    detail, when = "", 0.0
    while not ended.wait(_REFRESH_SECONDS):
        now = _current()
        changed = now.split("  ")[0] != detail.split("  ")[0]
        if changed or (now != detail and time.monotonic() - when >= _LINE_SECONDS):
            say(now)
            detail, when = now, time.monotonic()
    if (now := _current()) != detail:
        say(now)
