"""What every door to a storage raises, whatever library is behind it. The callers turn it into item or run errors."""

from __future__ import annotations


class ObjectError(Exception):
    """A storage said no. ``cause`` is for the user; ``missing`` tells that there is no such file or object,
    ``is_folder`` that it is a folder, where a file was wanted, ``unreachable`` that nothing was said at all."""

    def __init__(
        self, cause: str, *, missing: bool = False, is_folder: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.missing = missing
        self.is_folder = is_folder
        self.unreachable = unreachable


class TooLarge(Exception):
    """A file or object has more bytes than the caller takes. ``size`` in bytes, at least."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size
