"""Request bodies, without a process."""

from __future__ import annotations

import io
from typing import Any

import pytest

from infra.serving.builtin_server.decoding import decode_request
from infra.serving.builtin_server.multipart import MAX_HEADER_BYTES, MultipartError, names_of_part, parse_multipart

BODY = b'{"data": {"req_data": [{"input_1": 5.1}]}}'
DATA = {"data": {"req_data": [{"input_1": 5.1}]}}


def form(*parts: tuple[str, bytes], boundary: bytes = b"xx") -> bytes:
    """A multipart body of (Content-Disposition, content)."""
    written = b"".join(
        b"--%s\r\nContent-Disposition: %s\r\n\r\n%s\r\n" % (boundary, disposition.encode(), content)
        for disposition, content in parts
    )
    return written + b"--%s--\r\n" % boundary


def contents(data: Any) -> Any:
    """The parsed form with the bytes of its files in place of the file objects."""
    return {
        key: value if isinstance(value, str) else {name: file.read() for name, file in value.items()}
        for key, value in data.items()
    }


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "applicaton/json", "multipart/form-data", "text/plain", ""],
)
def test_json__is_read_whatever_the_content_type_calls_it(content_type: str) -> None:
    assert decode_request(BODY, content_type, "") == DATA


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_json__that_is_malformed_is_refused_naming_the_content_type(body: bytes) -> None:
    with pytest.raises(ValueError, match="application/json"):
        decode_request(body, "application/json", "")


def test_request_without_body__hands_over_the_parameters_of_its_query() -> None:
    assert decode_request(b"", "", "city=K%C3%B6ln&days=") == {"city": "Köln", "days": ""}


def test_multipart__hands_over_files_by_key_and_name_and_texts_by_key() -> None:
    picture = bytes(range(256)) * 40 + b"\r\n--x\r\n--xy\r\n"
    body = form(
        ('form-data; name="images"; filename="a.png"', picture),
        ('form-data; name="images"; filename="b.png"', b""),
        ('form-data; name="threshold"', "½".encode()),
    )
    data = decode_request(body, "multipart/form-data; boundary=xx", "")
    assert isinstance(data["images"]["a.png"], io.BytesIO)
    assert contents(data) == {"images": {"a.png": picture, "b.png": b""}, "threshold": "½"}


def test_multipart__reads_a_quoted_boundary_and_any_case_of_the_type() -> None:
    body = form(('form-data; name="a"', b"1"), boundary=b"x y")
    assert decode_request(body, 'Multipart/Form-Data; boundary="x y"', "") == {"a": "1"}


@pytest.mark.parametrize(
    ("disposition", "names"),
    [
        ('form-data; name="images"; filename="图片.jpg"', ("images", "图片.jpg")),
        ('form-data; name="images"; filename="🐈‍⬛.jpg"', ("images", "🐈‍⬛.jpg")),
        ('form-data; name="images"; filename="a%22b%22.jpg"', ("images", 'a"b".jpg')),
        ('form-data; name="images"; filename="a%0D%0Ab.jpg"', ("images", "a\r\nb.jpg")),
        ('form-data; name="images"; filename="100%25.jpg"', ("images", "100%25.jpg")),
        ('form-data; name="images"; filename="a; name=b.jpg"', ("images", "a; name=b.jpg")),
        ('form-data; name="images"; filename="C:\\temp\\\\a.jpg"', ("images", "C:\\temp\\\\a.jpg")),
        ('form-data; name="images"; filename="ends with \\"', ("images", "ends with \\")),
        ('form-data; name="images"; filename="ends with \\"; x="y"', ("images", "ends with \\")),
        ('form-data; name="images"; filename="a\\"b.jpg"', ("images", 'a"b.jpg')),
        ('form-data; filename="a.jpg"; name="images"', ("images", "a.jpg")),
        ("form-data; name=images; filename=a.jpg", ("images", "a.jpg")),
        ('FORM-DATA;NAME="images";FILENAME="a.jpg"', ("images", "a.jpg")),
        ('form-data; name="键%22"', ('键"', None)),
        ('form-data; name="images"; filename=""', ("images", "")),
    ],
)
def test_names_of_part__are_read_as_clients_write_them(disposition: str, names: tuple[str, str | None]) -> None:
    assert names_of_part(disposition.encode()) == names


def test_names_of_part__that_are_not_utf_8_are_latin_1() -> None:
    assert names_of_part(b'form-data; name="a"; filename="K\xf6ln.jpg"') == ("a", "Köln.jpg")


def test_multipart__takes_the_longest_object_name_there_is() -> None:
    name = '"' * 1024
    body = form((f'form-data; name="a"; filename="{name.replace(chr(34), "%22")}"', b"1"))
    assert len(body) < MAX_HEADER_BYTES
    assert contents(parse_multipart(body, b"xx")) == {"a": {name: b"1"}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "does not begin with its boundary"),
        (b'{"a": 1}', "broken"),
        (form(('form-data; name="a"', b"1"))[:-8], "closing boundary"),
        (form(("form-data", b"1")), "no name"),
        (form(('form-data; name="a"', b"1"), ('form-data; name="a"', b"2")), "'a' comes twice"),
        (form(*[('form-data; name="a"; filename="x"', b"1")] * 2), "'x' comes twice under 'a'"),
        (form(('form-data; name="a"', b"1"), ('form-data; name="a"; filename="x"', b"2")), "as text and as a file"),
        (form(('form-data; name="a"; filename="x"', b"1"), ('form-data; name="a"', b"2")), "'a' comes twice"),
        (form(('form-data; name="a"', b"\xff")), "not UTF-8"),
        (form((f'form-data; name="{"a" * MAX_HEADER_BYTES}"', b"1")), "header of a part is longer"),
    ],
)
def test_multipart__that_is_broken_or_ambiguous_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(MultipartError, match=reason):
        parse_multipart(body, b"xx")


def test_multipart__with_an_overlong_boundary_is_refused() -> None:
    with pytest.raises(ValueError, match="boundary is longer than 256 bytes"):
        decode_request(b"--", f"multipart/form-data; boundary={'x' * 300}", "")
