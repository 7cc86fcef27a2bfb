"""What every door to a storage raises, whatever library is behind it. The callers turn it into item or run errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

_ERROR_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error(?:\s[^>]*)?>.{0,2000}?<Code>", re.DOTALL)
_PAGE = re.compile(rb"\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html)[\s>]", re.DOTALL | re.IGNORECASE)
_PAGE_NAMES = (".htm", ".html", ".xhtml", ".shtml")


class ObjectError(Exception):
    """A storage said no. ``cause`` is for the user; ``missing`` tells that there is no such file or object,
    ``is_folder`` that it is a folder, where a file was wanted, ``unreachable`` that nothing was said at all, ``full``
    that there was no room."""

    def __init__(
        self,
        cause: str,
        *,
        missing: bool = False,
        is_folder: bool = False,
        unreachable: bool = False,
        full: bool = False,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.missing = missing
        self.is_folder = is_folder
        self.unreachable = unreachable
        self.full = full


class TooLarge(Exception):
    """A file or object has more bytes than the caller takes. ``size`` in bytes, at least."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


def changed(what: str, listed: int, found: int) -> str:
    """The cause when a file or object has not the size (in bytes) that its listing told."""
    return f"The {what} has changed since it was listed: it had {listed} bytes, it has {found} now."


def unlike(listed: int, found: Sequence[int]) -> str:
    """The cause when an object was never read as it was listed: ``found`` are the sizes of the answers, -1 where an
    error stood in the place of the object."""
    if set(found) == {-1}:
        return "The storage answers with an error document in the place of the object."
    sizes = [size for size in found if size >= 0]
    if listed < 0 or len(set(found)) > 1:
        shown = ", ".join("an error document" if size < 0 else f"{size} bytes" for size in found)
        said = f"; the listing told {listed} bytes" if listed >= 0 else ""
        return f"The storage answers differently each time ({shown}){said}."
    if listed == sizes[0]:
        return "The object has changed since it was listed: it has the same size, but another ETag."
    return changed("object", listed, sizes[0])


def version_of(e_tag: str | None) -> int:
    """An ETag as a number that is kept for millions of objects; 0 if there is none."""
    tag = (e_tag or "").removeprefix("W/").strip('"')
    return 1 + crc32(tag.encode("utf-8", "surrogateescape")) if tag else 0


def is_error(data: bytes | bytearray) -> bool:
    """Whether a body is an error document of S3, which some servers (and what stands before them) send with 200."""
    return data[:64].lstrip()[:1] == b"<" and _ERROR_DOCUMENT.match(data) is not None


def is_page(data: bytes | bytearray, key: str) -> bool:
    """Whether a body is a page of the web in the place of an object of this key, as what stands before a storage sends
    it to let users sign in."""
    return not key.lower().endswith(_PAGE_NAMES) and _PAGE.match(data) is not None
