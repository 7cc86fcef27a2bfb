"""Being told to stop: by Ctrl-C, or by SIGTERM."""

from __future__ import annotations

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> None:
    """From now on the first Ctrl-C or SIGTERM raises KeyboardInterrupt in the main thread; later ones are not heard.

    What is ignored already stays so, such as Ctrl-C for a command in the background of a script.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Once is enough: stopping in order takes a moment."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(*_: object) -> None:
    ignore_signals()
    raise KeyboardInterrupt
