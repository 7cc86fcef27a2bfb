"""Input and output manifests, line by line."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.manifest import (
    LONGEST_LINE,
    LONGEST_OUTPUT_LINE,
    SHOWN,
    Entry,
    OutputLine,
    failed_line,
    foreign,
    read_line,
    read_output_line,
    successful_line,
)

# The input manifest of the original's document, as printed there.
SHARE_LINK = (
    "https://infers-data.obs.cn-north-1.myhuaweicloud.com:443/xgboosterdata/data.csv?AccessKeyId=2Q0V0TQ461N26DDL18RB"
    "&Expires=1550611914&Signature=wZBttZj5QZrReDhz1uDzwve8GpY%3D&x-obs-security-token=gQpzb3V0aGNoaW5hixvY8V9a1SnsxmGo"
    "HYmB1SArYMyqnQT-ZaMSxHvl68kKLAy5feYvLDM..."
)
INPUT_SOURCES = ["obs://test/data/1.jpg", "s3://test/data/2.jpg", SHARE_LINK]
INPUT_LINES = [
    '{"source": "obs://test/data/1.jpg"}',
    '{"source": "s3://test/data/2.jpg"}',
    f'{{"source": "{SHARE_LINK}"}}',
]
# Its output manifest (the share link shortened): note the blank in "source ".
OUTPUT_LINK = (
    "https://infers-data.obs.example.com:443/xgboosterdata/2.jpg?AccessKeyId=2Q0V0TQ461N26DDL18RB&Expires=1&x=%3D%3D"
)
OUTPUT_LINES = [
    '{"source": "obs://obs-data-bucket/test/data/1.jpg","result":"SUCCESSFUL",'
    '"inference-loc": "obs://test-bucket/test/infer-result/1.jpg_result.txt"}',
    '{"source": "s3://obs-data-bucket/test/data/2.jpg","result":"FAILED","error_message": "Download file failed."}',
    f'{{"source ": "{OUTPUT_LINK}","result":"SUCCESSFUL",'
    '"inference-loc": "obs://test-bucket/test/infer-result/2.jpg_result.txt"}',
]
OUTPUT_SOURCES = ["obs://obs-data-bucket/test/data/1.jpg", "s3://obs-data-bucket/test/data/2.jpg", OUTPUT_LINK]


def sources(*lines: str | bytes) -> list[str]:
    entries = []
    for number, line in enumerate(lines, 1):
        entries += read_line(line if isinstance(line, bytes) else line.encode(), number)
    assert [entry.error for entry in entries] == [""] * len(entries)
    return [entry.source for entry in entries]


# Reading


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(INPUT_LINES, INPUT_SOURCES), ([" ".join(INPUT_LINES)], INPUT_SOURCES), (OUTPUT_LINES, OUTPUT_SOURCES),
     ([" ".join(OUTPUT_LINES)], OUTPUT_SOURCES)],
    ids=["input", "input on one line", "output", "output on one line"],
)  # fmt: skip
def test_manifest__reads_the_documents_own_manifests(lines: list[str], expected: list[str]) -> None:
    assert sources(*lines) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"source": "s3://b/k"}', ["s3://b/k"]),
        ('{"source":"s3://b/k"}\r', ["s3://b/k"]),
        ('  \t{"source":"s3://b/k"}  ', ["s3://b/k"]),
        ('{"source ":"s3://b/k"}', ["s3://b/k"]),
        ('{" source":"s3://b/k"}', ["s3://b/k"]),
        ('{"source":"s3://b/1"}{"source":"s3://b/2"}', ["s3://b/1", "s3://b/2"]),
        ('{"source":"s3://b/1"} \t {"source":"s3://b/2"}', ["s3://b/1", "s3://b/2"]),
        ('{"source":"s3://b/1","source ":"s3://b/2"}', ["s3://b/1"]),
        ('{"result":"FAILED","source":"s3://b/k","error_message":"x","n":[1,{"source":"no"}]}', ["s3://b/k"]),
        ('{"source":"s3://b/größe 日本 😀.jpg"}', ["s3://b/größe 日本 😀.jpg"]),
        ('{"source":"s3://b/\\u00e9\\ud83d\\ude00"}', ["s3://b/é😀"]),
        ('{"source":"s3://b/a%20b+c"}', ["s3://b/a%20b+c"]),
        ('{"source":"s3://b/k","n":' + "9" * 10_000 + "}", ["s3://b/k"]),
        ('{"source":"s3://b/k","n":1e999,"m":NaN}', ["s3://b/k"]),
        ("", []), ("   ", []), ("\r", []), ("\t \r", []),
        ('{"source":"s3://b/k"},', ["s3://b/k"]),
        ('{"source":"s3://b/1"} , {"source":"s3://b/2"} , \r', ["s3://b/1", "s3://b/2"]),
        ("[", []), (" ] \r", []), (",", []), ("],", []),
        ('[{"source":"s3://b/1"},', ["s3://b/1"]),
        ('[ {"source":"s3://b/1"}, {"source":"s3://b/2"}', ["s3://b/1", "s3://b/2"]),
        ('{"source":"s3://b/k"}]', ["s3://b/k"]),
        ('[{"source":"s3://b/1"},{"source":"s3://b/2"}]', ["s3://b/1", "s3://b/2"]),
        ('[{"prefix":"s3://b/in/"},"1.jpg","a/2.jpg"]', ["s3://b/in/1.jpg", "s3://b/in/a/2.jpg"]),
    ],
)  # fmt: skip
def test_manifest__is_tolerant_in_what_it_reads(line: str, expected: list[str]) -> None:
    assert sources(line) == expected


def test_manifest__passes_over_a_byte_order_mark_at_the_beginning_of_each_line() -> None:
    marked = b'\xef\xbb\xbf{"source":"s3://b/k"}'
    for number in (1, 2):
        assert read_line(marked, number) == [Entry("s3://b/k", "")]
        assert read_line(b"\xef\xbb\xbf", number) == []


@pytest.mark.parametrize(
    ("line", "source", "reason"),
    [
        (b"obs://bucket/1.jpg", "obs://bucket/1.jpg", "not JSON at character 1"),
        (b'{"source": "s3://b/k"', '{"source": "s3://b/k"', "not JSON at character"),
        (b"{source: 1}", "{source: 1}", "not JSON"),
        (b"{'source': 's3://b/k'}", "{'source': 's3://b/k'}", "not JSON"),
        (b'"s3://b/k"', '"s3://b/k"', "not a JSON object"),
        (b'["s3://b/k"]', '["s3://b/k"]', "not a JSON object"),
        (b"12", "12", "not a JSON object"),
        (b"null", "null", "not a JSON object"),
        (b"{}", "{}", "no source"),
        (b'{"sources": "s3://b/k"}', '{"sources": "s3://b/k"}', "no source"),
        (b'{"source": null}', '{"source": null}', "no source"),
        (b'{"source": 3}', '{"source": 3}', "no source"),
        (b'{"source": ["s3://b/k"]}', '{"source": ["s3://b/k"]}', "no source"),
        (b'{"source": ""}', '{"source": ""}', "no source"),
        (b'{"source": "  "}', '{"source": "  "}', "no source"),
        (b'{"source": "\\ud800"}', '{"source": "\\ud800"}', "surrogate"),
        (b'{"source": "caf\xe9"}', '{"source": "caf\\xe9"}', "byte 16 is not UTF-8, it looks like text in Latin"),
        (b"\x00", "\x00", "not JSON"),
    ],
)  # fmt: skip
def test_manifest__a_line_that_cannot_be_read_is_not_lost(line: bytes, source: str, reason: str) -> None:
    (entry,) = read_line(line, 7)
    assert entry.source == source
    assert entry.error.startswith("Line 7 of the input manifest cannot be read: ")
    assert reason in entry.error


def test_manifest__what_stands_before_a_broken_part_of_a_line_is_read() -> None:
    first, second, broken = read_line(b'{"source":"s3://b/1"} {"source":"s3://b/2"} {"sour', 3)
    assert [first, second] == [Entry("s3://b/1", ""), Entry("s3://b/2", "")]
    assert broken.source == '{"sour'
    assert "Line 3" in broken.error


def test_manifest__very_many_objects_on_one_line_take_no_longer_than_on_lines_of_their_own() -> None:
    began = time.process_time()
    assert len(read_line(b'{"source":"s3://b/k"},' * 200_000, 1)) == 200_000
    assert time.process_time() - began < 5  # 0.5 s; 10 s if each were cut off the rest of its line


def test_manifest__what_stands_behind_an_object_without_a_source_is_read() -> None:
    nothing, good = read_line(b'{"x":1} {"source":"s3://b/2"}', 3)
    assert "no source" in nothing.error
    assert good == Entry("s3://b/2", "")


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"a":' * 200_000, b'{"source":"s3://b/k","x":' + b"[" * 200_000])
def test_manifest__a_deeply_nested_line_is_one_unreadable_line(line: bytes) -> None:
    (entry,) = read_line(line, 1)
    assert "cannot be read" in entry.error
    assert len(entry.source) == SHOWN + 3


LINES = "".join(f'{{"source": "s3://b/ordner größe/{number}.jpg"}}\n' for number in range(5))
CHINESE = "".join(f'{{"source": "obs://b/数据/图片{number}.jpg"}}\n' for number in range(5))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (LINES.encode("utf-16"), "text in UTF-16"),
        (LINES.encode("utf-16-le"), "text in UTF-16"),
        (LINES.encode("utf-16-be"), "text in UTF-16 (big-endian)"),
        (CHINESE.encode("utf-16-le"), "text in UTF-16"),
        (CHINESE.encode("utf-16-be"), "text in UTF-16 (big-endian)"),
        (LINES.encode("utf-32"), "text in UTF-32"),
        (LINES.encode("utf-32-be"), "text in UTF-32 (big-endian)"),
        (CHINESE.encode("gbk"), "text in GBK or GB18030"),
        (CHINESE.encode("gb18030"), "text in GBK or GB18030"),
        (LINES.encode("latin-1"), "text in Latin-1 or Windows-1252"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "packed by gzip"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page, perhaps one to sign in"),
        (
            b'[\n  {\n    "source": "1.jpg"\n  },\n',
            "JSON of which one object, or one array of texts, goes over several lines",
        ),
        (b'{\n"source": "1.jpg"}\n', "JSON of which one object, or one array of texts, goes over several lines"),
        (b'[{"prefix": "d/"},\n"1.jpg"]', "JSON of which one object, or one array of texts, goes over several lines"),
        (
            b"<?xml version='1.0'?><Error><Code>NoKey</Code></Error>",
            "an XML document, perhaps a storage's refusal",
        ),
    ],
)
def test_manifest__of_another_kind_or_encoding_is_told_as_a_whole(head: bytes, said: str) -> None:
    assert foreign(head) == f"the input manifest is {said}; it should be text in UTF-8, one JSON object a line"


@pytest.mark.parametrize(
    "head",
    [
        LINES.encode(), CHINESE.encode(), ("\ufeff" + CHINESE).encode(), CHINESE.encode()[:50], b"", b"{}", b"\n\n",
        LINES.replace("ö", "o").replace("ß", "s").encode() + '{"source": "s3://b/größe.jpg"}\n'.encode("latin-1"),
        CHINESE.encode() + CHINESE.encode("gbk"), b'{"source": "a\xff"}\n' * 3,
        b'[\n{"source": "a"},\n{"source": "b"}\n]',
        b'[{"prefix": "d/"}, "1.jpg"]', b'{"prefix": "d/"}\n{"source": "a"}\n',
    ],
)  # fmt: skip
def test_manifest__with_a_few_broken_lines_is_read_line_by_line(head: bytes) -> None:
    assert foreign(head) == ""


@pytest.mark.parametrize("blank", ["\ufeff", "\u00a0", "\u200b", "\u3000"])
def test_manifest__marks_and_blanks_that_do_not_show_are_passed_over_around_objects(blank: str) -> None:
    assert sources(f'{blank}{{"source": "a"}}{blank}', f'{{"source": "b"}} {blank}{{"source": "c"}},{blank}') == [
        *"abc"
    ]
    assert sources(blank, f"{blank}[", f"]{blank}") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{\u00a0"source": "a"}', "not JSON at character 2: a no-break space stands there, which does not show"),
        ('{"source":\u200b"a"}', "not JSON at character 11: a zero width space stands there, which does not show"),
        ('{"source": "a"\ufeff}', "not JSON at character 15: a byte order mark stands there, which does not show"),
    ],
)
def test_manifest__blanks_that_do_not_show_are_named_inside_objects(line: str, said: str) -> None:
    (entry,) = read_line(line.encode(), 3)
    assert entry.error == f"Line 3 of the input manifest cannot be read: {said}."


def test_manifest__a_failed_line_says_where_the_answers_are_of_rows_that_did_not_fail() -> None:
    line = failed_line("s3://b/1.csv", "1 of 3 rows failed", "s3://o/r/1.csv_result.txt")
    assert json.loads(line) == {
        "source": "s3://b/1.csv", "result": "FAILED", "error_message": "1 of 3 rows failed",
        "inference-loc": "s3://o/r/1.csv_result.txt",
    }  # fmt: skip
    assert read_output_line(line.encode()) == OutputLine(
        "s3://b/1.csv", "1 of 3 rows failed", "s3://o/r/1.csv_result.txt"
    )
    assert sources(line) == ["s3://b/1.csv"]


def test_manifest__a_huge_line_is_read_and_a_huge_broken_one_is_cut_in_its_failed_line() -> None:
    name = "s3://b/" + "x" * 5_000_000
    assert read_line(json.dumps({"source": name}).encode(), 1) == [Entry(name, "")]
    (entry,) = read_line(b"y" * 5_000_000, 1)
    assert entry.source == "y" * SHOWN + "..."


# Writing


@pytest.mark.parametrize("byte", [b"\0", b"[", b"x", b"\xff", b" "])
def test_manifest__a_line_beyond_the_bound_is_one_failed_line(byte: bytes) -> None:
    (entry,) = read_line(byte * (LONGEST_LINE + 1), 7)
    assert entry.error == "Line 7 of the input manifest cannot be read: it has more than 8388608 bytes."
    assert len(entry.source) < 5 * SHOWN


def test_output_manifest__a_line_beyond_the_bound_is_none() -> None:
    with pytest.raises(ValueError, match="it has more than 33554432 bytes"):
        read_output_line(b" " * (LONGEST_OUTPUT_LINE + 1))


def test_manifest__writes_the_documents_own_lines_to_the_letter() -> None:
    assert (
        successful_line(OUTPUT_SOURCES[0], "obs://test-bucket/test/infer-result/1.jpg_result.txt")
        == OUTPUT_LINES[0] + "\n"
    )
    assert failed_line(OUTPUT_SOURCES[1], "Download file failed.") == OUTPUT_LINES[1] + "\n"
    # The document's third line has the slip of a blank inside the key; it is read, not written.
    assert (
        successful_line(OUTPUT_LINK, "obs://test-bucket/test/infer-result/2.jpg_result.txt")
        == OUTPUT_LINES[2].replace('"source "', '"source"') + "\n"
    )


@given(st.text(), st.text())
def test_manifest__writes_text_as_json_does(source: str, other: str) -> None:
    first, second = (json.dumps(text, ensure_ascii=False) for text in (source, other))
    assert successful_line(source, other) == f'{{"source": {first},"result":"SUCCESSFUL","inference-loc": {second}}}\n'
    assert failed_line(source, other) == f'{{"source": {first},"result":"FAILED","error_message": {second}}}\n'


def test_manifest__writes_text_of_any_script_as_it_is_and_escapes_what_json_must() -> None:
    assert failed_line("s3://b/größe 日本.jpg", 'say "no"\nagain') == (
        '{"source": "s3://b/größe 日本.jpg","result":"FAILED","error_message": "say \\"no\\"\\nagain"}\n'
    )


@given(st.text(), st.text())
def test_manifest__every_line_written_is_one_physical_line_of_json_with_its_keys_in_order(
    source: str, text: str
) -> None:
    for line, result, key in (
        (successful_line(source, text), "SUCCESSFUL", "inference-loc"),
        (failed_line(source, text), "FAILED", "error_message"),
    ):
        assert line.endswith("}\n")
        assert line.count("\n") == 1 and "\r" not in line
        assert json.loads(line.encode().decode(), object_pairs_hook=list) == [
            ("source", source), ("result", result), (key, text),
        ]  # fmt: skip


@given(st.lists(st.tuples(st.text().filter(str.strip), st.text(), st.booleans()), max_size=8))
def test_manifest__an_output_manifest_is_an_input_manifest_with_the_same_sources(
    items: list[tuple[str, str, bool]],
) -> None:
    written = "".join(
        successful_line(source, text) if good else failed_line(source, text) for source, text, good in items
    )
    lines = written.encode().split(b"\n")[:-1]
    assert len(lines) == len(items)
    assert sources(*lines) == [source for source, _, _ in items]


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)), st.integers(1, 3))
def test_manifest__reading_never_raises_and_never_loses_a_line_that_is_not_blank(raw: bytes, number: int) -> None:
    entries = read_line(raw, number)
    blank = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
    assert bool(entries) == bool(blank.strip(b" \t\r\n"))
    for entry in entries:
        entry.source.encode()
        entry.error.encode()
        assert entry.error == "" or f"Line {number} " in entry.error


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def is_array_of_objects(value: object) -> bool:
    return isinstance(value, list) and value != [] and isinstance(value[0], dict)


@given(
    st.lists(json_values.filter(lambda one: not is_array_of_objects(one)), min_size=1, max_size=4),
    st.sampled_from([" ", "\t", " \r "]),
)
def test_manifest__any_json_values_on_a_line_give_one_entry_each(values: list[object], gap: str) -> None:
    entries = read_line(gap.join(json.dumps(value) for value in values).encode(), 1)
    assert len(entries) == len(values)
    for entry, value in zip(entries, values, strict=True):
        if not isinstance(value, dict):
            assert "not a JSON object" in entry.error


@given(st.text(), st.text(min_size=1), st.booleans())
def test_output_line__is_read_as_it_was_written(source: str, text: str, good: bool) -> None:
    line = successful_line(source, text) if good else failed_line(source, text)
    assert read_output_line(line.rstrip("\n").encode()) == OutputLine(source, *("", text) if good else (text,))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"no JSON", b"[]", b'"text"', b"{}", b'{"source": 5,"result":"SUCCESSFUL","inference-loc": "x"}',
        b'{"source": "a"}', b'{"source": "a","result":"SUCCESSFUL"}', b'{"source": "a","result":"FAILED"}',
        b'{"source": "a","result":"FAILED","error_message": ""}', b'{"source": "a","result":"MAYBE"}',
        b'{"source": "\xff","result":"FAILED","error_message": "x"}', b'{"source": "a","result":"FAILED","err',
        b'{"source": "\\ud800","result":"FAILED","error_message": "x"}', b"[" * 100_000,
        '{"source": "a","result":"FAILED","error_message": "x"}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_output_line__that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it(s source)? (has|is) "):
        read_output_line(raw)


@given(st.binary(max_size=200), st.integers(1, 10**6))
def test_output_line__of_what_could_not_be_read_has_no_source(raw: bytes, number: int) -> None:
    for entry in read_line(raw, number):
        if entry.error:
            assert not OutputLine(entry.source, entry.error).has_source
    assert OutputLine("/in/1.jpg", "Download file failed. There is no such file.").has_source
    assert not OutputLine("/in/\\xff", "Download file failed. The file's name is not UTF-8.").has_source
