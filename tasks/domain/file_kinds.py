"""What a file is that should be text in UTF-8: told by its first bytes, and by the bytes that are no UTF-8."""

from __future__ import annotations

import re
from collections.abc import Collection

LOOKED_AT = 1 << 20
"""Bytes of a file by which its encoding is told."""
_KINDS = {
    b"\x1f\x8b": "packed by gzip",
    b"BZh": "packed by bzip2",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"\xfd7zXZ\0": "packed by xz",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"\xff\x06\0\0sNaPpY": "packed by snappy",
    b"PK\x03\x04": "a zip archive, or an Excel file",
    b"PK\x05\x06": "an empty zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF-": "a PDF file",
    b"{\\rtf": "an RTF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\xff\xfe\0\0": "text in UTF-32",
    b"\0\0\xfe\xff": "text in UTF-32",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16 (big-endian)",
    b"\x84\x31\x95\x33": "text in GB18030",
    b"+/v8": "text in UTF-7",
}
_BINARY = (b"ORC", b"BZh", b"GIF8", b"ARROW1")
"""Beginnings that a text may have, too."""
_TAR = slice(257, 262)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<!--.{0,500}?-->\s{0,64})?<(?:!doctype\s+html|html[\s>]|head[\s>])",
                   re.IGNORECASE | re.DOTALL)  # fmt: skip
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}<(?:\?xml\s|Error>)")
_SAMPLE = 4096
"""Bytes by which text in UTF-16 or UTF-32 is known that has no byte order mark."""
_ENOUGH = 8
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_FEW = 0.1
"""Of the characters of a text in Latin-1, or of runs of bytes of a text in GBK, that may be odd."""


def other_kind(data: bytes) -> str:
    """What a file is that is no text in UTF-8, by its first bytes; empty if they tell nothing."""
    for magic, kind in _KINDS.items():
        if data.startswith(magic) and (magic not in _BINARY or _NO_TEXT.search(data, 0, _SAMPLE)):
            return kind
    if data[_TAR] == b"ustar":
        return "a tar archive"
    if _PAGE.match(data):
        return "an HTML page, perhaps one to sign in"
    if _XML.match(data):
        return "an XML document, perhaps a storage's refusal"
    return _wide(data[:_SAMPLE])


def _wide(sample: bytes) -> str:
    """UTF-16 or UTF-32 without a byte order mark: most characters of a table or a manifest are ASCII's."""
    if len(sample) < _ENOUGH or b"\0" not in sample:
        return ""
    quarters = [sample[at::4] for at in range(4)]
    zeros = [one.count(0) / len(one) for one in quarters]
    if min(zeros[2:]) > 0.9 and zeros[0] < _FEW:
        return "text in UTF-32"
    if min(zeros[:2]) > 0.9 and zeros[3] < _FEW:
        return "text in UTF-32 (big-endian)"
    first, second = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    for few, many, name, codec in ((first, second, "UTF-16", "utf-16-le"),
                                   (second, first, "UTF-16 (big-endian)", "utf-16-be")):  # fmt: skip
        if few < _FEW / 10 and many > 0.3 and _decodes(sample[: len(sample) // 2 * 2], codec):
            return f"text in {name}"
    return ""


def _decodes(data: bytes, codec: str) -> bool:
    """Whether bytes, which may be cut within a character, are text in an encoding."""
    try:
        data.decode(codec)
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 4
    return True


def is_utf8(data: bytes) -> bool:
    """Whether the beginning of a file, which may be cut within a character, is UTF-8."""
    return _decodes(data, "utf-8")


def encoding_of(data: bytes) -> str:
    """The encoding that a text is probably in that is not UTF-8; empty if its bytes tell nothing.

    GBK (and GB18030, which holds it) writes a character beyond ASCII as two bytes, most of them with both from 0x80
    on; Latin-1 (and Windows-1252) as one, next to letters of ASCII. A text in UTF-8 of which a few bytes are broken is
    in neither.
    """
    runs = _HIGH.findall(data, 0, LOOKED_AT)
    if not runs or any(_is_utf8_run(run) for run in runs):
        return ""
    even = [run for run in runs if len(run) % 2 == 0]
    if len(even) >= (1 - _FEW) * len(runs) and _has_chinese(even):
        return "GBK or GB18030"
    singles = [run for run in runs if len(run) == 1 and run >= b"\xa0" and run != b"\xff"]
    if len(singles) >= (1 - _FEW) * len(runs):
        return "Latin-1 or Windows-1252"
    if _decodes(data[:LOOKED_AT], "gb18030") and len(even) >= len(runs) / 2:
        return "GBK or GB18030"
    return ""


def _is_utf8_run(run: bytes) -> bool:
    try:
        run.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_chinese(runs: Collection[bytes]) -> bool:
    """Whether runs of bytes beyond ASCII are text in GBK, most of it Chinese."""
    try:
        text = b"".join(runs).decode("gb18030")
    except UnicodeDecodeError:
        return False
    chinese = sum("\u3000" <= sign <= "\u303f" or "\u4e00" <= sign <= "\u9fff" or "\uff00" <= sign <= "\uffef"
                  for sign in text)  # fmt: skip
    return chinese >= (1 - 2 * _FEW) * len(text)


def not_utf8(data: bytes) -> str:
    """What a text is that should be UTF-8 and is not: its probable encoding; empty if its bytes tell nothing."""
    encoding = encoding_of(data)
    return f"text in {encoding}" if encoding else ""
