"""Which exceptions of a package may pass, so that the same request can succeed a little later."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_SHORT_OF = {
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EINTR,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT,
}  # fmt: skip
"""The machine, its disk or the network gives nothing now, but may when other requests have ended."""
_KINDS = {
    "MemoryError", "OutOfMemoryError", "ResourceExhaustedError", "ConnectionError", "TimeoutError", "Timeout",
    "TransportError", "URLError",
}  # fmt: skip
"""Python's own, and by their names those of PyTorch, TensorFlow, requests, httpx and urllib, none of which is here."""
_SAID = ("out of memory", "can't start new thread", "CUDA error: unspecified launch failure", "Resource exhausted")
"""In the messages of a RuntimeError: PyTorch before 1.13, ONNX Runtime, CUDA and Python have no kind for it."""
_CAUSES = 10


def may_pass(error: BaseException) -> bool:
    """Whether the reason of an exception may be gone soon: too little memory, disk or network.

    All others would come again with the same request. What an exception was raised from counts, too.
    """
    return any(_may_pass(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _SHORT_OF:
        return True
    if any(kind.__name__ in _KINDS for kind in type(error).__mro__):
        return True
    if not isinstance(error, RuntimeError) and "Exception" not in type(error).__name__:
        return False
    try:
        return any(one in str(error) for one in _SAID)
    except Exception:  # its message cannot be shown
        return False
