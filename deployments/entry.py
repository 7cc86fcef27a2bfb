"""The entry point of the command ``thresher``: Ctrl-C during its imports ends it without a traceback.

Python itself would print one. The process dies of the signal, as shells expect (they report 130).
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Import the command line and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the imported `main` installs its handlers
    try:
        from deployments.cli import main as run
    except (MemoryError, ImportError, OSError) as error:
        from tasks.domain.unexpected import in_one_line

        sys.stderr.write(f"{in_one_line(error)[0]}\n")
        sys.exit(2)
    run()
