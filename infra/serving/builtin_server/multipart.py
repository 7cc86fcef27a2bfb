"""``multipart/form-data`` bodies, as browsers and other clients write them in practice."""

import io
import re
from typing import Dict, Iterator, Optional, Tuple, Union

Form = Dict[str, Union[str, Dict[str, io.BytesIO]]]
"""Form key -> its text, or file name -> file object."""

MAX_HEADER_BYTES = 16 * 1024
"""Per header line of a part: room for the longest object names (1,024 bytes), however they are escaped."""
MAX_HEADERS = 32
"""Header lines of a part."""
MAX_BOUNDARY_BYTES = 256

_PARAMETER = re.compile(
    r"""\s*;\s*([\w*-]+)\s*=\s*(?:
        "([^"]*)"(?=\s*(?:;|$))     # as browsers write it: no escapes but %22, and a backslash is a backslash
      | "((?:[^"\\]|\\.)*)"         # as RFC 2616 has it: a backslash before each quote
      | ([^;]*)                     # a bare word
    )""",
    re.VERBOSE,
)
_BROWSER_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_BROWSER_ESCAPE = re.compile("|".join(_BROWSER_ESCAPES))


class MultipartError(ValueError):
    """The body does not match its Content-Type; the message names the part."""


def boundary_of(content_type: str) -> Optional[bytes]:
    """The boundary in a Content-Type header; None without one."""
    return parameters_of(content_type).get("boundary", "").encode("latin-1", "replace") or None


def parse_multipart(body: bytes, boundary: bytes) -> Form:
    """Read a whole body. Raises MultipartError for broken bodies and for conflicting parts."""
    if len(boundary) > MAX_BOUNDARY_BYTES:
        raise MultipartError("the boundary is longer than %d bytes" % MAX_BOUNDARY_BYTES)
    form: Form = {}
    for headers, content in _parts(body, b"--" + boundary):
        _add(form, headers, content)
    return form


def _parts(body: bytes, delimiter: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Headers and content of each part."""
    if body.startswith(delimiter):
        boundary = 0
    else:  # there may be a text before the first part
        boundary = body.find(b"\r\n" + delimiter) + 2
        if boundary < 2:
            raise MultipartError("the multipart body is broken: it does not begin with its boundary")
    while not body.startswith(b"--", boundary + len(delimiter)):
        line_end = body.find(b"\r\n", boundary + len(delimiter))
        if line_end < 0 or body[boundary + len(delimiter) : line_end].strip(b" \t"):
            raise MultipartError("the multipart body is broken: its boundary %r has no line of its own" % delimiter)
        blank = body.find(b"\r\n\r\n", line_end)
        if blank < 0:
            raise MultipartError("the multipart body ends before its closing boundary")
        end = _end_of(body, b"\r\n" + delimiter, blank + 2)
        yield body[line_end + 2 : max(blank, line_end + 2)], body[blank + 4 : end]
        boundary = end + 2


def _end_of(body: bytes, separator: bytes, start: int) -> int:
    """Where a part ends: at the next boundary that is followed by two dashes, a blank or a line end."""
    while True:
        end = body.find(separator, start)
        if end < 0:
            raise MultipartError("the multipart body ends before its closing boundary")
        after = body[end + len(separator) : end + len(separator) + 2]
        if after in (b"--", b"\r\n") or after[:1] in (b" ", b"\t"):
            return end
        start = end + 1


def _add(form: Form, headers: bytes, content: bytes) -> None:
    key, file_name = names_of_part(_disposition(headers))
    if file_name is None:
        if key in form:
            raise MultipartError("the form key %r comes twice" % key)
        try:
            form[key] = content.decode("utf-8")
        except UnicodeDecodeError:
            raise MultipartError("the text under %r is not UTF-8; bytes need a file name" % key) from None
        return
    files = form.setdefault(key, {})
    if isinstance(files, str):
        raise MultipartError("the form key %r comes as text and as a file" % key)
    if file_name in files:
        raise MultipartError("the file %r comes twice under %r" % (file_name, key))
    files[file_name] = io.BytesIO(content)


def _disposition(headers: bytes) -> bytes:
    lines = headers.split(b"\r\n")
    if len(lines) > MAX_HEADERS:
        raise MultipartError("the multipart body is broken: a part has more than %d headers" % MAX_HEADERS)
    found = b""
    for line in lines:
        if len(line) > MAX_HEADER_BYTES:
            raise MultipartError(
                "the multipart body is broken: a header of a part is longer than %d bytes" % MAX_HEADER_BYTES
            )
        name, colon, value = line.partition(b":")
        if line and not colon:
            raise MultipartError("the multipart body is broken: %r is not a header" % line[:80])
        if name.strip().lower() == b"content-disposition":
            found = value.strip()
    return found


def names_of_part(disposition: bytes) -> Tuple[str, Optional[str]]:
    """Form key and file name (None: a text) from a Content-Disposition value. Raises MultipartError without a key."""
    parameters = parameters_of(_decode(disposition))
    if "name" not in parameters:
        raise MultipartError("a part of the multipart body has no name in its Content-Disposition")
    return parameters["name"], parameters.get("filename")


def parameters_of(header: str) -> Dict[str, str]:
    """The parameters of a header value, by lower-case name."""
    parameters: Dict[str, str] = {}
    position = len(header.partition(";")[0])
    while True:
        match = _PARAMETER.match(header, position)
        if match is None:
            return parameters
        name, browser, escaped, word = match.groups()
        if browser is not None:
            value = _BROWSER_ESCAPE.sub(lambda found: _BROWSER_ESCAPES[found.group()], browser)
        else:
            value = re.sub(r"\\(.)", r"\1", escaped) if escaped is not None else word.strip()
        parameters.setdefault(name.lower(), value)
        position = match.end()


def _decode(header: bytes) -> str:
    """Decode a header: UTF-8 as usual today, else Latin-1 as in the past, which accepts any byte."""
    try:
        return header.decode("utf-8")
    except UnicodeDecodeError:
        return header.decode("latin-1")
