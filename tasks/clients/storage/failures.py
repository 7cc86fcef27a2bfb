"""The errors that every storage client raises, whatever its library. Callers turn them into item or run errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

_ERROR_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error(?:\s[^>]*)?>.{0,2000}?<Code>", re.DOTALL)
_PAGE = re.compile(rb"\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html)[\s>]", re.DOTALL | re.IGNORECASE)
_PAGE_NAMES = (".htm", ".html", ".xhtml", ".shtml")


class ObjectError(Exception):
    """A storage operation failed. ``cause`` is for the user."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Missing(ObjectError):
    """The file, object or bucket does not exist."""


class IsFolder(ObjectError):
    """It is a folder where a file was wanted."""


class Unreachable(ObjectError):
    """The storage did not answer."""


class RequestRefused(ObjectError):
    """The storage refuses the request or its keys (HTTP 400, 401, 403)."""


class NoSpace(ObjectError):
    """No space is left."""


class TooLarge(ObjectError):
    """A file or object has more bytes than the caller accepts. ``size`` in bytes is a lower bound."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


def changed(what: str, listed: int, found: int) -> str:
    """The cause if the size of a file or object (in bytes) differs from its listing."""
    return f"The {what} has changed since it was listed: it had {listed} bytes, it has {found} now."


def unlike(listed: int, found: Sequence[int]) -> str:
    """The cause if no read of an object matched its listing: ``found`` are the sizes of the responses, -1 for an error
    document in place of the object."""
    if set(found) == {-1}:
        return "The storage answers with an error document in the place of the object."
    sizes = [size for size in found if size >= 0]
    if listed < 0 or len(set(found)) > 1:
        shown = ", ".join("an error document" if size < 0 else f"{size} bytes" for size in found)
        detail = f"; the listing shows {listed} bytes" if listed >= 0 else ""
        return f"The storage answers differently each time ({shown}){detail}."
    if listed == sizes[0]:
        return "The object has changed since it was listed: it has the same size, but another ETag."
    return changed("object", listed, sizes[0])


def version_of(e_tag: str | None) -> int:
    """An ETag as a number, small enough to be kept for millions of objects; 0 without an ETag."""
    tag = (e_tag or "").removeprefix("W/").strip('"')
    return 1 + crc32(tag.encode("utf-8", "surrogateescape")) if tag else 0


def is_error(data: bytes | bytearray) -> bool:
    """Whether a body is an S3 error document, which some servers (and proxies before them) send with status 200."""
    return data[:64].lstrip()[:1] == b"<" and _ERROR_DOCUMENT.match(data) is not None


def is_page(data: bytes | bytearray, key: str) -> bool:
    """Whether a body is a web page in place of the object with this key, such as the sign-in page of a proxy in front
    of a storage."""
    return not key.lower().endswith(_PAGE_NAMES) and _PAGE.match(data) is not None
