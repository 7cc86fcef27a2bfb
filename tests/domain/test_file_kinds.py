"""What a file is that should be text in UTF-8."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest

from tasks.domain.csv_rows import csv_text
from tasks.domain.errors import ContentError
from tasks.domain.file_kinds import encoding_of, other_kind

CHINESE = "名称,数量\n苹果,3\n一共有多少个,7\n"
LATIN = "name,größe\nÄpfel,3\ncafé à la crème,1\nnaïve façade,2\nmaïs soufflé,2\n"
UPPER = "CITY,N\nÅLESUND,1\nÑUÑOA,2\nMÜNCHEN,3\n"


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("1.csv", "1,2\n")
    return packed.getvalue()


def tarred() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.addfile(tarfile.TarInfo("1.csv"))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(b"1,2\n"), "packed by gzip"), (zipped(), "a zip archive, or an Excel file"),
        (tarred(), "a tar archive"), (b"PAR1\x15\0", "a Parquet file"), (b"Obj\x01\x04", "an Avro file"),
        (b"ORC\x0a\x03\0", "an ORC file"), (b"ARROW1\0\0", "an Arrow file"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\r\n<html lang='en'>", "an HTML page, perhaps one to sign in"),
        (b"<!-- a comment -->\n<!doctype html>", "an HTML page, perhaps one to sign in"),
        (b"<?xml version='1.0'?>\n<Error>", "an XML document, perhaps a storage's refusal"),
        (b"<Error><Code>x</Code>", "an XML document, perhaps a storage's refusal"),
        (CHINESE.encode("utf-16-le"), "text in UTF-16"), (CHINESE.encode("utf-16-be"), "text in UTF-16 (big-endian)"),
        (LATIN.encode("utf-16-le"), "text in UTF-16"), (LATIN.encode("utf-16-be"), "text in UTF-16 (big-endian)"),
        (LATIN.encode("utf-16"), "text in UTF-16"), (LATIN.encode("utf-32-le"), "text in UTF-32"),
        (LATIN.encode("utf-32"), "text in UTF-32"), ("\ufeff1,2\n".encode("gb18030"), "text in GB18030"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_file__of_another_kind_is_known_by_its_beginning(data: bytes, kind: str) -> None:
    assert other_kind(data) == kind
    with pytest.raises(ContentError) as refused:
        csv_text(data)
    assert str(refused.value) == f"The file is {kind}; a CSV file should be plain text in UTF-8."


@pytest.mark.parametrize(
    "data",
    [
        b"", b"1", b"1,2\n", b"ORC,1\n", b"BZh,2\n", b"GIF8,1\n", b"PK,1\n", b"a<html>,1\n", b"1,a\0b\n",
        b"\0,1\n2,3\n", "1,汉\n".encode(), "\ufeff1,é\n".encode(), b"<a>,<b>\n", b"Obj,1\n", b"{\"a\": 1}\n",
    ],
)  # fmt: skip
def test_file__of_text_is_no_other_kind(data: bytes) -> None:
    assert other_kind(data) == ""


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (CHINESE.encode("gbk"), "GBK or GB18030"), (CHINESE.encode("gb18030"), "GBK or GB18030"),
        ("1,汉\n".encode("gbk"), "GBK or GB18030"), ("价格：3，数量：4\n".encode("gbk"), "GBK or GB18030"),
        (LATIN.encode("latin-1"), "Latin-1 or Windows-1252"), (UPPER.encode("latin-1"), "Latin-1 or Windows-1252"),
        ("größe\n".encode("latin-1"), "Latin-1 or Windows-1252"), ("é".encode("latin-1"), "Latin-1 or Windows-1252"),
        (LATIN.encode(), ""), (CHINESE.encode(), ""), (CHINESE.encode() + b"\xe9", ""), (b"\xff", ""),
        (b"1,\x80\n", ""), (b"", ""), (b"1,2\n", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_encoding__is_told_by_the_bytes_that_are_not_utf_8(data: bytes, encoding: str) -> None:
    assert encoding_of(data) == encoding


def test_csv__in_another_encoding_is_told_once_with_its_name_line_and_column() -> None:
    with pytest.raises(ContentError) as refused:
        csv_text(LATIN.encode("latin-1"))
    assert str(refused.value) == (
        "line 1, column 8: byte 0xF6 is not UTF-8; a CSV file should be UTF-8. It looks like text in Latin-1 or "
        "Windows-1252: save it as UTF-8."
    )


def test_csv__with_chinese_characters_is_read_if_they_are_allowed() -> None:
    with pytest.raises(ContentError, match=r"line 1, column 1: the Chinese character '名'.*THRESHER_CHINESE=allow"):
        csv_text(CHINESE.encode())
    assert csv_text(CHINESE.encode(), chinese=True) == CHINESE
    assert csv_text(("\ufeff" + CHINESE).encode(), chinese=True) == CHINESE
    with pytest.raises(ContentError, match=r"is not UTF-8.*GBK or GB18030"):
        csv_text(CHINESE.encode("gbk"), chinese=True)
