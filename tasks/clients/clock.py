"""The wall-clock time of this process, which advances steadily even if the machine's clock is adjusted."""

from __future__ import annotations

import time

_STARTED_AT = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970: the machine's clock when this process started, advanced by the monotonic clock.

    The difference between two values is the time elapsed. Values of two processes may differ by adjustments to the
    clock between their starts, or by the offset between the clocks of two machines.
    """
    return _STARTED_AT + time.monotonic()
