"""Transient exceptions of a package: the same request may succeed a little later."""

import errno
from typing import Iterator, Optional

_SHORT_OF = {
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EINTR,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT,
}  # fmt: skip
"""The machine, its disk or the network has nothing available now, but may once other requests have ended."""
_KINDS = {
    "MemoryError", "OutOfMemoryError", "ResourceExhaustedError", "ConnectionError", "TimeoutError", "Timeout",
    "TransportError", "URLError",
}  # fmt: skip
"""Python's own, and by name, since they are not imported, those of PyTorch, TensorFlow, requests, httpx and urllib."""
_SAID = ("out of memory", "can't start new thread", "CUDA error: unspecified launch failure", "Resource exhausted")
"""In a RuntimeError's message: PyTorch before 1.13, ONNX Runtime, CUDA and Python have no separate exception type."""
_CAUSES = 10


def may_pass(error: BaseException) -> bool:
    """Whether the reason of an exception may be gone soon: too little memory, disk or network.

    All others would recur with the same request. The exceptions that caused it also count.
    """
    return any(_may_pass(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: Optional[BaseException] = error
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
