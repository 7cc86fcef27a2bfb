"""Handling of requests to stop: Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> None:
    """Make the first Ctrl-C or SIGTERM raise KeyboardInterrupt in the main thread; later ones are ignored.

    A signal that is already ignored stays ignored, such as Ctrl-C for a background command of a script.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    for number in _SIGNALS:  # a graceful shutdown takes a moment
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
