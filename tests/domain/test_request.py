"""Request bodies, read back by a parser that is not ours."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import File, MultipartParser, parse_form

from tasks.domain.request import Body, FileForm, row_body


def parsed(body: Body) -> list[tuple[dict[str, bytes], bytes]]:
    """The parts of a multipart body: headers and data."""
    boundary = body.content_type.partition("boundary=")[2]
    parts: list[tuple[dict[str, bytes], bytes]] = []
    name = value = data = b""
    headers: dict[str, bytes] = {}
    ended = []

    def on_part_begin() -> None:
        nonlocal headers, data
        headers, data = {}, b""

    def on_header_field(raw: bytes, start: int, end: int) -> None:
        nonlocal name
        name += raw[start:end]

    def on_header_value(raw: bytes, start: int, end: int) -> None:
        nonlocal value
        value += raw[start:end]

    def on_header_end() -> None:
        nonlocal name, value
        headers[name.decode().lower()] = value
        name = value = b""

    def on_part_data(raw: bytes, start: int, end: int) -> None:
        nonlocal data
        data += raw[start:end]

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": on_part_begin, "on_header_field": on_header_field, "on_header_value": on_header_value,
            "on_header_end": on_header_end, "on_part_data": on_part_data,
            "on_part_end": lambda: parts.append((headers, data)), "on_end": lambda: ended.append(True),
        },
        max_header_size=16_384,
    )  # fmt: skip
    assert parser.write(body.data) == len(body.data)
    assert ended == [True]
    return parts


def names_of(disposition: bytes) -> tuple[str, str]:
    """Form key and file name, as the HTML standard has them written."""
    match = re.fullmatch(r'form-data; name="([^"]*)"; filename="([^"]*)"', disposition.decode())
    assert match is not None
    unescaped = [part.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n") for part in match.groups()]
    return unescaped[0], unescaped[1]


# What the standard's escaping can tell back: names that do not hold an escape themselves.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0%"), min_size=1, max_size=40)


@given(names, names, st.binary(max_size=300))
def test_file_form__a_parser_reads_back_the_same_bytes_and_names(field: str, file_name: str, data: bytes) -> None:
    body = FileForm(field).body(file_name, data)
    ((headers, content),) = parsed(body)
    assert content == data
    assert names_of(headers["content-disposition"]) == (field, file_name)
    assert sorted(headers) == ["content-disposition", "content-type"]


@pytest.mark.parametrize(
    ("file_name", "data"),
    [("1.jpg", b"\xff\xd8\xff\x00" * 100), ("größe 日本 😀.png", b"x"), ("a;b=c, d.jpg", b""),
     ("no extension", b"\r\n--\r\n"),
     ("a'b(c).csv", b"1,2\r\n")],
)  # fmt: skip
def test_file_form__a_whole_form_parser_reads_it_too(file_name: str, data: bytes) -> None:
    body = FileForm("images").body(file_name, data)
    files: list[File] = []
    headers = {"Content-Type": body.content_type.encode(), "Content-Length": str(len(body.data)).encode()}
    parse_form(headers, io.BytesIO(body.data), None, files.append)
    (file,) = files
    assert file.field_name == b"images"
    assert file.file_name == file_name.encode()
    file.file_object.seek(0)
    assert file.file_object.read() == data


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [("1.jpg", b"image/jpeg"), ("1.JPEG", b"image/jpeg"), ("1.png", b"image/png"), ("a/b.wav", b"audio/x-wav"),
     ("x.webp", b"image/webp"), ("x.JFIF", b"image/jpeg"), ("x.m4a", b"audio/mp4"), ("x.dcm", b"application/dicom"),
     ("x.csv", b"text/csv"), ("x", b"application/octet-stream"), ("x.", b"application/octet-stream"),
     ("x.unheard-of", b"application/octet-stream"), ("x.a\r\nb", b"application/octet-stream"),
     ("", b"application/octet-stream")],
)  # fmt: skip
def test_file_form__says_what_kind_of_file_it_is(file_name: str, kind: bytes) -> None:
    ((headers, _),) = parsed(FileForm("f").body(file_name, b"x"))
    assert headers["content-type"] in (kind, kind.replace(b"x-wav", b"wav"))


def test_file_form__quotes_and_line_breaks_in_names_are_escaped_as_browsers_do() -> None:
    ((headers, _),) = parsed(FileForm('a"b').body('c"d\r\ne.jpg', b""))
    assert headers["content-disposition"] == b'form-data; name="a%22b"; filename="c%22d%0D%0Ae.jpg"'


def test_file_form__a_file_cannot_hold_the_boundary_by_foresight() -> None:
    boundaries = {FileForm("f").content_type for _ in range(50)}
    assert len(boundaries) == 50
    form = FileForm("f")
    assert form.body("a", b"").content_type == form.body("b", b"").content_type == form.content_type


def test_file_form__a_boundary_is_short_enough_and_of_allowed_signs() -> None:
    boundary = FileForm("f").content_type.partition("boundary=")[2]
    assert re.fullmatch(r"[0-9A-Za-z'()+_,./:=?-]{1,70}", boundary)


def test_row_body__is_json_as_it_is() -> None:
    assert row_body(b'{"a":1}') == Body("application/json", (b'{"a":1}',))
