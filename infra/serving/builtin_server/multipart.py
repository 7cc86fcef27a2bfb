"""``multipart/form-data`` bodies, as browsers and other clients write them in practice."""

from __future__ import annotations

import io
import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

Form = dict[str, "str | dict[str, io.BytesIO]"]
"""Form key -> its text, or file name -> file object."""

MAX_HEADER_BYTES = 16 * 1024
"""Per header line of a part: room for the longest object names (1,024 bytes), however they are escaped."""

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


def boundary_of(content_type: str) -> bytes | None:
    """The boundary in a Content-Type header; None without one."""
    return parse_options_header(content_type)[1].get(b"boundary") or None


def parse_multipart(body: bytes, boundary: bytes) -> Form:
    """Read a whole body. Raises MultipartError for broken bodies and for conflicting parts."""
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_end": reader.on_end,
            },
            max_header_count=32,
            max_header_size=MAX_HEADER_BYTES,
        )
        parser.write(body)
    except FormParserError as error:
        raise MultipartError(f"the multipart body is broken: {error}") from None
    if not reader.complete:
        raise MultipartError("the multipart body ends before its closing boundary")
    return reader.form


class _Reader:
    """Collects the parts that the parser delivers piece by piece."""

    def __init__(self) -> None:
        self.form: Form = {}
        self.complete = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._pieces: list[bytes] = []

    def on_part_begin(self) -> None:
        self._disposition = b""
        self._pieces = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def on_part_end(self) -> None:
        key, file_name = names_of_part(self._disposition)
        content = b"".join(self._pieces)
        if file_name is None:
            if key in self.form:
                raise MultipartError(f"the form key {key!r} comes twice")
            try:
                self.form[key] = content.decode("utf-8")
            except UnicodeDecodeError:
                raise MultipartError(f"the text under {key!r} is not UTF-8; bytes need a file name") from None
            return
        files = self.form.setdefault(key, {})
        if isinstance(files, str):
            raise MultipartError(f"the form key {key!r} comes as text and as a file")
        if file_name in files:
            raise MultipartError(f"the file {file_name!r} comes twice under {key!r}")
        files[file_name] = io.BytesIO(content)

    def on_end(self) -> None:
        self.complete = True


def names_of_part(disposition: bytes) -> tuple[str, str | None]:
    """Form key and file name (None: a text) from a Content-Disposition value. Raises MultipartError without a key."""
    text = _decode(disposition)
    parameters: dict[str, str] = {}
    position = len(text.partition(";")[0])
    while match := _PARAMETER.match(text, position):
        name, browser, escaped, word = match.groups()
        if browser is not None:
            value = _BROWSER_ESCAPE.sub(lambda found: _BROWSER_ESCAPES[found[0]], browser)
        else:
            value = re.sub(r"\\(.)", r"\1", escaped) if escaped is not None else word.strip()
        parameters.setdefault(name.lower(), value)
        position = match.end()
    if "name" not in parameters:
        raise MultipartError("a part of the multipart body has no name in its Content-Disposition")
    return parameters["name"], parameters.get("filename")


def _decode(header: bytes) -> str:
    """Decode a header: UTF-8 as usual today, else Latin-1 as in the past, which accepts any byte."""
    try:
        return header.decode("utf-8")
    except UnicodeDecodeError:
        return header.decode("latin-1")
