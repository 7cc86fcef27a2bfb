"""A request to the model: its body, exactly as it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tasks.domain.media_types import media_type

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one request and its Content-Type.

    The body is the concatenation of ``parts``: large data, such as an item's bytes, is never copied.
    """

    content_type: str
    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Its number of bytes."""
        return sum(map(len, self.parts))

    @property
    def data(self) -> bytes:
        """The whole body in one piece, a copy."""
        return b"".join(self.parts)


def body_text(body: Body) -> str:
    """A body for people: as it is if it is text, else with the number of bytes in place of the file."""
    data = body.data
    try:
        return data.decode()
    except UnicodeDecodeError:
        head, blank, rest = data.partition(b"\r\n\r\n")
        content, _, tail = rest.rpartition(b"\r\n--")
        if not blank or not body.content_type.startswith("multipart/"):
            return f"<{len(data)} bytes>"
        return f"{head.decode(errors='replace')}\r\n\r\n<{len(content)} bytes>\r\n--{tail.decode(errors='replace')}"


NO_BODY = Body("", ())
"""For requests without a body."""


class FileForm:
    """Builds ``multipart/form-data`` bodies (RFC 7578) with one file part, and the same texts in every one.

    The file name is in UTF-8, with quotes and line breaks percent-encoded as in browsers (HTML standard,
    "multipart/form-data encoding algorithm").
    """

    def __init__(self, field: str, texts: Mapping[str, str] = MappingProxyType({})) -> None:
        self._boundary = f"thresher-{secrets.token_hex(16)}"
        part = f"--{self._boundary}\r\nContent-Disposition: form-data; name="
        before = "".join(f'{part}"{_quoted(name)}"\r\n\r\n{text}\r\n' for name, text in texts.items())
        self._start = f'{before}{part}"{_quoted(field)}"; filename="'.encode("utf-8", "surrogateescape")
        self._end = f"\r\n--{self._boundary}--\r\n".encode()
        self._types: dict[str, bytes] = {}
        self.content_type = f"multipart/form-data; boundary={self._boundary}"

    def body(self, file_name: str, data: bytes) -> Body:
        """The body that carries ``data`` as the file ``file_name``."""
        extension = file_name.rpartition(".")[2].lower() if "." in file_name else ""
        kind = self._types.get(extension)
        if kind is None:
            kind = f'"\r\nContent-Type: {media_type(extension)}\r\n\r\n'.encode()
            if len(self._types) < 1000:  # names may have any extension
                self._types[extension] = kind
        name = _quoted(file_name).encode("utf-8", "surrogateescape")
        return Body(self.content_type, (b"".join((self._start, name, kind)), data, self._end))


def _quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def row_body(data: bytes) -> Body:
    """The body of a JSON request."""
    return Body(JSON, (data,))
