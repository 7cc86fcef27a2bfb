"""The kind of a file that should be text in UTF-8, from its first bytes and from bytes that are not UTF-8."""

from __future__ import annotations

import re

LOOKED_AT = 1 << 20
"""Bytes of a file from which its encoding is determined."""
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
"""Beginnings that a text may also have."""
_TAR = slice(257, 262)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<!--.{0,500}?-->\s{0,64})?<(?:!doctype\s+html|html[\s>]|head[\s>])",
                   re.IGNORECASE | re.DOTALL)  # fmt: skip
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}<(?:\?xml\s|Error>)")
_SAMPLE = 4096
"""Bytes from which UTF-16 or UTF-32 without a byte order mark is recognized."""
_ENOUGH = 8
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_LETTERS = 3
"""Most consecutive letters beyond ASCII in words of Latin letters."""
_FEW = 0.1
"""Share of the bytes of a text, or of runs of bytes, that may be exceptions."""


def other_kind(data: bytes) -> str:
    """The kind of a file that is not text in UTF-8, from its first bytes; empty if unknown."""
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
    """UTF-16 or UTF-32 without a byte order mark: most characters of a table or a manifest are ASCII."""
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
        mostly_ascii = many > 0.3 or (many > 0.05 and not is_utf8(sample, cut=True))
        if few * 3 < many and mostly_ascii and _decodes(sample[: len(sample) // 2 * 2], codec):
            return f"text in {name}"
    return ""


def _decodes(data: bytes, codec: str, *, cut: bool = True) -> bool:
    """Whether bytes, which may be ``cut`` within a character, are text in an encoding."""
    try:
        data.decode(codec)
    except UnicodeDecodeError as error:
        return cut and error.start >= len(data) - 4
    return True


def is_utf8(data: bytes, *, cut: bool = False) -> bool:
    """Whether bytes, which may be ``cut`` within a character, are text in UTF-8."""
    return _decodes(data, "utf-8", cut=cut)


def encoding_of(data: bytes) -> str:
    """The probable encoding of a text that is not UTF-8; empty if unknown.

    GBK (and GB18030, which includes it) encodes a character beyond ASCII in two bytes, for common characters the first
    below 0xD8; Latin-1 (and Windows-1252) in one, for small letters above it. A text in UTF-8 with a few broken bytes
    counts as neither.
    """
    runs = _HIGH.findall(data, 0, LOOKED_AT)
    if not runs or 2 * sum(map(is_utf8, runs)) > len(runs):
        return ""
    even = [run for run in runs if len(run) % 2 == 0]
    leads = [byte for run in even for byte in run[::2]]
    common = sum(0xA1 <= byte <= 0xA3 or 0xB0 <= byte <= 0xD7 for byte in leads)
    if len(even) >= (1 - _FEW) * len(runs) and common > len(leads) / 2 and _decodes(b"".join(even), "gbk"):
        return "GBK or GB18030"
    letters = sum(len(run) <= _LETTERS and min(run) >= 0xA0 and max(run) < 0xFF for run in runs)
    if letters >= (1 - _FEW) * len(runs):
        return "Latin-1 or Windows-1252"
    return "GBK or GB18030" if common > len(leads) / 2 and _decodes(data[:LOOKED_AT], "gb18030") else ""
