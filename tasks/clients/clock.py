"""The time of this process, which goes on evenly whatever is done to the machine's clock."""

from __future__ import annotations

import time

_STARTED_AT = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970 as the machine's clock counted them when this process began, and evenly since then.

    Two of its values differ by what has passed between them. Those of two processes may differ by what was done to the
    clock in between, or by how far the clocks of two machines are apart.
    """
    return _STARTED_AT + time.monotonic()
