"""Addresses, and the names of what a run writes."""

from __future__ import annotations

import os
import string
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.domain.paths import (
    NAME_BYTES,
    OutputNames,
    expand_words,
    has_words,
    is_earlier_run,
    parse_address,
    redact,
    redact_source,
    result_name,
    run_of_manifest,
    safe_relative,
    unknown_words,
)

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
HERE = os.getcwd()

# Addresses


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "path", "name"),
    [
        ("/data/in", "local", "", "/data/in", "in"),
        ("/data/in/", "local", "", "/data/in", "in"),
        ("/data/../x/./y//z", "local", "", "/x/y/z", "z"),
        ("in/1.jpg", "local", "", f"{HERE}/in/1.jpg", "1.jpg"),
        (".", "local", "", HERE, HERE.rpartition("/")[2]),
        ("/a%20b/c?d#e", "local", "", "/a%20b/c?d#e", "c?d#e"),
        ("/größe 日本/😀", "local", "", "/größe 日本/😀", "😀"),
        ("file:///data/in", "local", "", "/data/in", "in"),
        ("FILE:///data/a%20b", "local", "", "/data/a%20b", "a%20b"),
        ("s3://bucket/in/1.jpg", "s3", "bucket", "in/1.jpg", "1.jpg"),
        ("s3://bucket/in/", "s3", "bucket", "in/", "in"),
        ("s3://bucket", "s3", "bucket", "", ""),
        ("s3://bucket/", "s3", "bucket", "", ""),
        ("s3://bucket//a//b", "s3", "bucket", "/a//b", "b"),
        ("s3://bucket/../x", "s3", "bucket", "../x", "x"),
        ("s3://bucket/a%20b c+d", "s3", "bucket", "a%20b c+d", "a%20b c+d"),
        ("OBS://bucket/k", "obs", "bucket", "k", "k"),
        ("obs://bucket/größe 日本", "obs", "bucket", "größe 日本", "größe 日本"),
        ("https://host:443/b/1.jpg?Signature=a/b", "http", "", "https://host:443/b/1.jpg?Signature=a/b", "1.jpg"),
        ("http://host/a%20b.csv", "http", "", "http://host/a%20b.csv", "a b.csv"),
        ("https://host/x%2F..%2Fy.csv?q", "http", "", "https://host/x%2F..%2Fy.csv?q", "y.csv"),
        ("https://host/", "http", "", "https://host/", ""),
        ("https://host", "http", "", "https://host", ""),
    ],
)  # fmt: skip
def test_address__reads_every_kind_of_storage(text: str, scheme: str, bucket: str, path: str, name: str) -> None:
    address = parse_address(text)
    assert (address.scheme, address.bucket, address.path, address.name) == (scheme, bucket, path, name)


@pytest.mark.parametrize(
    "text",
    ["/data/in", "file:///data/in", "s3://bucket/in/1.jpg", "s3://bucket/", "obs://bucket/a%20b", "s3://b//x",
     "https://host/1.jpg?Signature=x%3D"],
)  # fmt: skip
def test_address__is_printed_as_it_was_given(text: str) -> None:
    assert str(parse_address(text)) == text


def test_address__a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_address("~/in").path == "/home/someone/in"


def test_address__a_relative_path_is_taken_below_its_base() -> None:
    assert parse_address("a/1.jpg", "/manifests").path == "/manifests/a/1.jpg"
    assert parse_address("../1.jpg", "/manifests").path == "/1.jpg"
    assert parse_address("/abs", "/manifests").path == "/abs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an address is needed"),
        ("  ", "an address is needed"),
        ("/a\0b", "NUL"),
        ("s3://", r"the bucket is missing: s3://bucket/object"),
        ("obs:///key", r"the bucket is missing: obs://bucket/object"),
        ("file://host/x", r"file:///folder/file"),
        ("file://x", r"file:///folder/file"),
        ("https://", "the host is missing"),
        ("https:///x", "the host is missing"),
        ("gs://b/k", r"the scheme gs:// is not known; use a local path, file://, s3://, obs://"),
        ("ftp://h/k", r"the scheme ftp:// is not known"),
    ],
)
def test_address__says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    ("folder", "relative", "child"),
    [
        ("/out", "a/1.txt", "/out/a/1.txt"),
        ("/", "a", "/a"),
        ("file:///out", "a", "file:///out/a"),
        ("s3://b", "a", "s3://b/a"),
        ("s3://b/", "a", "s3://b/a"),
        ("s3://b/x", "a", "s3://b/x/a"),
        ("s3://b/x/", "a", "s3://b/x/a"),
        ("obs://b/x", "a b/日本", "obs://b/x/a b/日本"),
    ],
)
def test_address__a_child_lies_below_its_folder(folder: str, relative: str, child: str) -> None:
    assert str(parse_address(folder).child(relative)) == child
    assert parse_address(folder).contains(parse_address(child))


@pytest.mark.parametrize(
    ("folder", "other", "contained"),
    [
        ("/in", "/in", True), ("/in", "/in/", True), ("/in", "/in/out", True), ("/in", "file:///in/x", True),
        ("/", "/anything", True), ("/in", "/input", False), ("/in", "/", False), ("/in/a", "/in", False),
        ("/in", "/in/../out", False), ("/in", "s3://in/x", False),
        ("s3://b", "s3://b/x", True), ("s3://b/", "s3://b", True), ("s3://b/x", "s3://b/x/", True),
        ("s3://b/x/", "s3://b/x", True), ("s3://b/x", "s3://b/xy", False), ("s3://b", "s3://bc", False),
        ("s3://b/x", "s3://b", False), ("s3://b/x", "obs://b/x", False), ("obs://b/in/", "obs://b/in/out/", True),
    ],
)  # fmt: skip
def test_address__contains_what_lies_below_it(folder: str, other: str, contained: bool) -> None:
    assert parse_address(folder).contains(parse_address(other)) is contained


# Redaction


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h:443/b/1.jpg?AccessKeyId=A&Signature=B", "https://h:443/b/1.jpg?..."),
        ("https://user:pw@h/o", "https://h/o"),
        ("HTTPS://user:p%40w@h:80/o?x", "HTTPS://h:80/o?..."),
        ("GET https://h/o?Signature=B failed: 403", "GET https://h/o?... failed: 403"),
        ("'https://h/o?Signature=B' and (http://h/p?c=d).", "'https://h/o?...' and (http://h/p?...)."),
        ("https://h/it's.jpg?Signature=B", "https://h/it's.jpg?..."),
        ("https://h/o?name='a'&Signature=B", "https://h/o?..."),
        ('https://h/o?name="a"&Signature=B', "https://h/o?..."),
        ("https://us'er:pw@h/o", "https://h/o"),
        ("https://h/o#access_token=B", "https://h/o#..."),
        ("https://h/o#?Signature=B", "https://h/o#..."),
        ("http://proxy/http://user:pw@h/o", "http://proxy/http://h/o"),
        ("https://h/a@b", "https://h/a@b"),
        ("https://h/o", "https://h/o"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("/local/what?.jpg", "/local/what?.jpg"),
        ("no address? none", "no address? none"),
        ("", ""),
    ],
)
def test_redact__takes_queries_and_user_parts_out_of_web_addresses(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://u:p@host/my file.csv?Signature=a b", "https://host/my file.csv?..."),
        ("https://host/\n1.csv?Signature=a", "https://host/\n1.csv?..."),
        ("https://host/a\u00a0b#x", "https://host/a\u00a0b#..."),
        ("https://host/my file.csv", "https://host/my file.csv"),
        ('{"source": "https://host/1?Signature=a"', '{"source": "https://host/1?..."'),
        ("s3://bucket/a?b c", "s3://bucket/a?b c"), ("what? is.csv", "what? is.csv"),
    ],
)  # fmt: skip
def test_redact_source__takes_the_query_out_of_a_link_that_holds_blanks(source: str, shown: str) -> None:
    assert redact_source(source) == shown


url_part = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:%", max_size=12)
query_part = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/?%\"<>[]{}|\\^`#é日", max_size=12)


@given(
    url_part,
    url_part,
    query_part,
    query_part,
    st.sampled_from(["", "see ", "'", "(", '"']),
    st.sampled_from(["", " x", "'", "):", '".']),
)
def test_redact__no_secret_of_a_web_address_survives(
    user: str, path: str, before: str, end: str, left: str, right: str
) -> None:
    text = f"{left}https://{user}PASSWORD@host/{path}?{before}SIGNATURE{end}{right}"
    shown = redact(text)
    assert "PASSWORD" not in shown
    assert "SIGNATURE" not in shown
    assert shown.startswith(f"{left}https://host/{path}?...")


# Words in output paths


@pytest.mark.parametrize(
    ("template", "expanded"),
    [
        ("/out", "/out"),
        ("/out/{task_id}", f"/out/{TASK}"),
        ("s3://b/{name}/{task_id}/", f"s3://b/iris/{TASK}/"),
        ("/out/{scheduled_time:%Y-%m-%d}", "/out/2026-02-03"),
        ("/out/{scheduled_time:%Y/%m/%d}/{scheduled_time:%H%M}", "/out/2026/02/03/0405"),
        ("/out/{scheduled_time}", "/out/2026-02-03T04-05-06"),
        ("/out/{scheduled_time:}", "/out/2026-02-03T04-05-06"),
        ("/out/{other}/{}", "/out/{other}/{}"),
        ("/out/{", "/out/{"),
    ],
)
def test_words__are_replaced(template: str, expanded: str) -> None:
    time = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert expand_words(template, task_id=TASK, name="iris", scheduled_time=time) == expanded


@pytest.mark.parametrize(
    ("template", "unknown"),
    [
        ("/out", []), ("/out/{task_id}/{name}/{scheduled_time}/{scheduled_time:%Y}", []),
        ("/out/{taskid}", ["taskid"]), ("/{a}/{name}/{b}", ["a", "b"]), ("/{}", [""]), ("/{ name }", [" name "]),
        ("/{scheduled_times}", ["scheduled_times"]), ("/{date:%Y}", ["date:%Y"]),
    ],
)  # fmt: skip
def test_words__that_are_not_known_are_found(template: str, unknown: list[str]) -> None:
    assert unknown_words(template) == unknown


@pytest.mark.parametrize(
    ("template", "differs"),
    [("/out", False), ("/out/{name}", False), ("/out/{task_id}", True), ("/{scheduled_time:%Y}", True),
     ("/{scheduled_time}", True), ("/task_id", False)],
)  # fmt: skip
def test_words__tell_whether_a_path_differs_from_run_to_run(template: str, differs: bool) -> None:
    assert has_words(template) is differs


# Names in the output folder


def test_output_names__are_those_of_the_contract() -> None:
    names = OutputNames(TASK)
    assert names.result_folder == f"infer-result-{TASK}"
    assert names.summary == f"infer-result-{TASK}.summary.json"
    assert [names.manifest(part) for part in (0, 1, 12)] == [
        f"infer-result-{TASK}.manifest", f"infer-result-{TASK}_1.manifest", f"infer-result-{TASK}_12.manifest",
    ]  # fmt: skip
    assert names.scratch.startswith(".")
    assert OutputNames(TASK, "infer-result").result_folder == "infer-result"


def test_earlier_run__knows_every_name_that_a_run_writes() -> None:
    names = OutputNames(TASK)
    for name in (names.result_folder, names.summary, names.manifest(0), names.manifest(3), names.scratch):
        assert is_earlier_run(name)
        assert is_earlier_run(f"{name}/")


@pytest.mark.parametrize(
    "name",
    ["infer-result", "infer-result/", "infer-result-0.manifest", "infer-result-.manifest", f"my-infer-result-{TASK}",
     f"infer-result-{TASK}.txt", f"infer-result-{TASK}_x.manifest", f"infer-result-{TASK}x", f"infer-result-{TASK}\n",
     f"infer-result-{TASK[:-1]}", TASK, "", "data.csv", f"infer-result-{TASK}.manifest.bak"],
)  # fmt: skip
def test_earlier_run__nothing_else_is_one(name: str) -> None:
    assert not is_earlier_run(name)


# Result names


@pytest.mark.parametrize(
    ("relative", "result"),
    [
        ("1.jpg", "1.jpg_result.txt"),
        ("IMG_20180919_115016.jpg", "IMG_20180919_115016.jpg_result.txt"),
        ("train.csv", "train.csv_result.txt"),
        ("sub/deeper/1.jpg", "sub/deeper/1.jpg_result.txt"),
        ("no extension", "no extension_result.txt"),
        ("1.jpg_result.txt", "1.jpg_result.txt_result.txt"),
        ("...", "..._result.txt"),
        (".hidden", ".hidden_result.txt"),
        ("a..b/..c", "a..b/..c_result.txt"),
        ("图片/照片.jpg", "图片/照片.jpg_result.txt"),
        ("😀👩‍👩‍👧.png", "😀👩‍👩‍👧.png_result.txt"),
        ("a%2Fb?c*d:e", "a%2Fb?c*d:e_result.txt"),
        ("x" * 244, "x" * 244 + "_result.txt"),
    ],
)
def test_result_name__is_the_items_name_and_a_suffix(relative: str, result: str) -> None:
    assert result_name(relative) == result


def test_result_name__a_number_tells_items_of_the_same_name_apart() -> None:
    assert result_name("1.jpg", 17) == "1.jpg~17_result.txt"
    assert result_name("a/1.jpg", 17) == "a/1.jpg~17_result.txt"
    assert len(result_name("x" * 250, 10**12).encode()) <= NAME_BYTES
    assert "~1000000000000_" in result_name("x" * 250, 10**12)


@pytest.mark.parametrize(
    ("relative", "safe"),
    [
        ("../x", "%2E%2E/x"), ("..", "%2E%2E"), (".", "%2E"), ("", "%00"), ("/x", "%00/x"), ("x/", "x/%00"),
        ("a//b", "a/%00/b"), ("a/./b", "a/%2E/b"), ("a/../../b", "a/%2E%2E/%2E%2E/b"), ("a\nb", "a%0Ab"),
        ("a\x00b\x7f", "a%00b%7F"), ("a/...", "a/..."), ("a..", "a.."), ("..a/b.", "..a/b."),
    ],
)  # fmt: skip
def test_safe_relative__turns_what_could_lead_outside_into_a_name(relative: str, safe: str) -> None:
    assert safe_relative(relative) == safe


@pytest.mark.parametrize(
    "relative",
    ["../../etc/passwd", "..", ".", "", "/", "//", "/etc/passwd", "a/../../b", "a//b", "a/", "a\nb", "a\x00b", "a\r\n",
     "x" * 256, "x" * 245, "日" * 100, "😀" * 80, "d" * 300 + "/" + "f" * 300, "../" * 50 + "x" * 300,
     "a" * 253 + "日", "é" * 122 + ".jpg"],
)  # fmt: skip
def test_result_name__never_leads_outside_the_result_folder(relative: str) -> None:
    check_name(result_name(relative))
    check_name(result_name(relative, 5))


def check_name(name: str) -> None:
    assert name.endswith("_result.txt")
    for part in name.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode("utf-8", "surrogateescape")) <= NAME_BYTES
        assert not any(ord(sign) < 32 or ord(sign) == 127 for sign in part)
    assert os.path.normpath(f"/out/{name}") == f"/out/{name}"


part = st.one_of(
    st.sampled_from(["", ".", "..", "...", "a", "%2E%2E", "%00", "\x00", "\n", "x" * 244, "x" * 245, "日" * 90]),
    st.text(max_size=8),
    st.text("aé日😀", min_size=60, max_size=300),
)
relatives = st.lists(part, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("names", [["a", "a_result.txt/b"], ["a", "a_result.txt/b", "a_result.txt~/b", "a~/b"]])
def test_result_name__of_no_item_is_a_folder_for_another(names: list[str]) -> None:
    results = [result_name(name) for name in names]
    assert len(set(results)) == len(names)
    for name in results:
        assert not any(other.startswith(f"{name}/") for other in results)


def test_result_name__keeps_folders_that_no_result_file_can_want() -> None:
    assert result_name("a_result.txt.d/b") == "a_result.txt.d/b_result.txt"
    assert result_name("a/b_result.txt") == "a/b_result.txt_result.txt"
    assert result_name("a_result.txt/b") == "a_result.txt~/b_result.txt"


@given(relatives, st.none() | st.integers(0, 10**9))
def test_result_name__of_anything_is_a_name_below_the_folder(relative: str, number: int | None) -> None:
    check_name(result_name(relative, number))


@given(st.lists(relatives, unique=True, min_size=2, max_size=12))
@example(["a\nb", "a%0Ab"])
@example(["..", "%2E%2E", "%2e%2e"])
@example(["", "%00", "\x00", "/"])
@example(["x" * 300, "x" * 301, "x" * 244])
@example(["x" * 300 + "/a", "x" * 301 + "/a"])
@example(["a_result.txt/b", "a_result.txt~/b", "a_result.txt~~/b", "a~"])
@example(["x" * 244 + "_result.txt/b", "x" * 244 + "_result.txt~/b"])
@example(["a/./b", "a//b", "a/b", "a/../b"])
def test_result_name__different_items_of_a_folder_have_different_results(names: list[str]) -> None:
    assert len({result_name(name) for name in names}) == len(names)


def test_result_name__of_a_name_that_is_not_utf8_does_not_fail() -> None:
    check_name(result_name(os.fsdecode(b"caf\xe9.jpg")))
    check_name(result_name(os.fsdecode(b"\xe9" * 255)))


def test_output_names__the_first_part_of_a_manifest_tells_its_run() -> None:
    names = OutputNames("0b1e4ab0-6f0c-4a1c-9a53-3a2b5c7d9e11")
    for folder in ("", "/out/", "s3://bucket/", "file:///a b/"):
        assert run_of_manifest(folder + names.manifest(0)) == names.task_id
    for other in (names.manifest(1), names.summary, names.result_folder, f"{names.manifest(0)}/", "input.manifest", ""):
        assert run_of_manifest(other) is None
