"""Content-Encoding of a response: gzip and deflate are decoded, anything else is refused."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator

from tasks.domain.errors import AnswerError

PIECE_BYTES = 1 << 20
"""Most bytes decoded at once: other work can run in between, and memory is bounded."""
READ_BYTES = 16 << 10
MOST_MEMBERS = 100_000
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def is_encoded(encoding: str) -> bool:
    """Whether a Content-Encoding needs decoding."""
    return encoding.strip().lower() not in ("", "identity")


def decoded(encoding: str, data: bytes, most_bytes: int) -> Iterator[bytes]:
    """The pieces of a decoded response (gzip with any number of members; deflate with or without a header).

    Raises AnswerError for an unknown encoding, a damaged or truncated stream, or more than ``most_bytes``.
    """
    name = _NAMES.get(encoding.strip().lower())
    if name is None:
        raise AnswerError(
            f"The model's answer has the Content-Encoding {encoding.strip()[:40]!r}; "
            "it should be none (as the request says), gzip or deflate."
        )
    size = 0
    try:
        for piece in _members(data) if name == "gzip" else _stream(data, _deflate_window(data)):
            size += len(piece)
            if size > most_bytes:
                raise AnswerError(
                    f"The model's answer has more than {most_bytes} bytes ({most_bytes / (1 << 20):g} MiB) "
                    f"when its {name} encoding is undone."
                )
            yield piece
    except zlib.error as error:
        raise AnswerError(f"The model's answer is damaged: it cannot be decoded as {name} ({error}).") from None


def _members(data: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(MOST_MEMBERS):
        at = yield from _stream_at(data, at, _GZIP)
        while at < len(data) and not data[at]:  # padding
            at += 1
        if at == len(data):
            return
        yield b""
    raise zlib.error(f"it has more than {MOST_MEMBERS} members")


def _stream(data: bytes, window: int) -> Iterator[bytes]:
    if (yield from _stream_at(data, 0, window)) < len(data):
        raise zlib.error("bytes follow its end")


def _stream_at(data: bytes, at: int, window: int) -> Generator[bytes, None, int]:
    """The pieces of the stream that begins at ``at``; returns where it ends."""
    stream = zlib.decompressobj(window)
    view = memoryview(data)
    while not stream.eof:
        given = view[at : at + READ_BYTES]
        piece = stream.decompress(given, PIECE_BYTES)
        at += len(given) - len(stream.unconsumed_tail) - len(stream.unused_data)
        if piece:
            yield piece
        elif not given and not stream.eof:
            raise zlib.error("it is cut")
    return at


def _deflate_window(data: bytes) -> int:
    """The zlib window for data with a zlib header, as in the standard, or without one, as some servers send it."""
    if len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0:
        try:
            zlib.decompressobj(_ZLIB).decompress(data, 1)
        except zlib.error:  # looked like a zlib header by chance
            return _RAW
        return _ZLIB
    return _RAW
