"""Rows joined into one request: only while the model shows that each answer is that row's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from engine.row_models import Model, Rows, each_row, first_row_only, infer, rounding_otherwise, serving, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.domain.rows_per_request import FIRST


@pytest.mark.parametrize(
    ("size", "numbers", "rows"),
    [("auto", 3, [3, 3, 3]), ("auto", 3, [67]), (7, 7, [20]), (7, 3, [17, 3]), (3, 3, [20, 1]), ("auto", 64, [130])],
)
def test_rows__answered_for_the_first_row_only_are_sent_one_by_one(
    tmp_path: Path, size: int | str, numbers: int, rows: list[int]
) -> None:
    files = {f"{number}.csv": table(count, 100 * number) for number, count in enumerate(rows)}
    with serving(first_row_only(numbers)) as server:
        single = infer(tmp_path / "single", server, files)
        assert server.sizes == [1] * sum(rows)
        joined = infer(tmp_path / "joined", server, files, rows_per_request=size)
        assert [joined.result(name) for name in files] == [single.result(name) for name in files]
        assert set(joined.messages.values()) == {""}
        # One joined request tells that the model does not take several rows.
        assert server.sizes.count(1) == sum(rows)
        assert len(server.sizes) <= sum(rows) + 1


@pytest.mark.parametrize("size", [7, "auto"])
def test_rows__answered_one_each_are_joined(tmp_path: Path, size: int | str) -> None:
    files = {"1.csv": table(300), "2.csv": table(1, 500), "3.csv": table(129, 600)}
    with serving(each_row) as server:
        single = infer(tmp_path / "single", server, files)
        joined = infer(tmp_path / "joined", server, files, rows_per_request=size)
        for name in files:
            assert joined.result(name) == single.result(name)
        assert joined.messages == single.messages == dict.fromkeys(files, "")
        most = 7 if size == 7 else FIRST
        assert max(server.sizes) >= most
        # Every row once, those of the first request of a size once more, and one of a few others.
        joined_sizes = [size for size in server.sizes if size > 1]
        assert 430 < sum(server.sizes) <= 430 + sum({*joined_sizes}) + 20 + max(joined_sizes)
        assert sum(joined_sizes) > 0.95 * 430


@pytest.mark.parametrize("size", [7, "auto"])
def test_rows__whose_numbers_are_rounded_otherwise_are_still_joined(tmp_path: Path, size: int | str) -> None:
    files = {"1.csv": table(300)}
    with serving(rounding_otherwise) as server:
        single = infer(tmp_path / "single", server, files).result("1.csv")
        joined = infer(tmp_path / "joined", server, files, rows_per_request=size).result("1.csv")
        assert sum(size for size in server.sizes if size > 1) > 0.95 * 300
    assert joined != single  # else this would be no test
    for one, other in zip(joined.splitlines(), single.splitlines(), strict=True):
        assert json.loads(one)["sums"] == pytest.approx(json.loads(other)["sums"], rel=1e-6)
    same = [one == other for one, other in zip(joined.splitlines(), single.splitlines(), strict=True)]
    assert same[0] and sum(same) >= (7 if size == 7 else FIRST)  # answered one by one


@pytest.mark.parametrize("size", [3, 7, "auto"])
@pytest.mark.parametrize("model", [each_row, first_row_only(3), first_row_only(7)])
def test_rows__that_cannot_be_converted_in_between_keep_their_lines(
    tmp_path: Path, size: int | str, model: Model
) -> None:
    lines = table(100).splitlines()
    wrong = [0, 1, 2, 6, 13, 50, 51, 52, 53, 54, 55, 56, 99]
    for number in wrong:
        lines[number] = b"7" if number % 2 else b"1,wrong"
    files = {"1.csv": b"\n".join(lines), "2.csv": b"x,1\n1,2\ny,1\n3,4\nz,1\n"}
    with serving(model) as server:
        single = infer(tmp_path / "single", server, files)
        joined = infer(tmp_path / "joined", server, files, rows_per_request=size)
        assert sum(server.sizes) <= 89 + 64
    for name in files:
        assert joined.result(name) == single.result(name)
    assert joined.messages == single.messages
    assert joined.messages["1.csv"].startswith("13 of 100 rows failed, first: row 1: line 1, column 1")
    assert joined.messages["2.csv"].startswith("3 of 5 rows failed, first: row 1: line 1, column 0, field ")
    answers = [b"error" in line for line in joined.result("1.csv").splitlines()]
    assert [number for number, failed in enumerate(answers) if failed] == wrong


def test_rows__answered_in_another_order_are_sent_one_by_one(tmp_path: Path) -> None:
    def sorted_by_number(rows: Rows) -> Any:
        return [{"id": 1_000_000 + int(row["a"])} for row in reversed(rows)]

    files = {"1.csv": table(40)}
    with serving(sorted_by_number) as server:
        joined = infer(tmp_path, server, files, rows_per_request=8)
        assert sum(server.sizes) == 40 + 8
    expected = "".join(f'[{{"id":{1_000_000 + number}}}]\n' for number in range(40))
    assert joined.result("1.csv").decode() == expected


def test_rows__whose_server_fails_the_joined_request_keep_their_single_answers(tmp_path: Path) -> None:
    def one_at_a_time(rows: Rows) -> Any:
        return {"only": "one"} if len(rows) > 1 else {"sum": [rows[0]["a"] + rows[0]["b"]]}

    with serving(one_at_a_time) as server:
        single = infer(tmp_path / "single", server, {"1.csv": table(30)})
        joined = infer(tmp_path / "joined", server, {"1.csv": table(30)}, rows_per_request="auto")
        assert joined.result("1.csv") == single.result("1.csv")
        assert len(server.sizes) == 31


CELLS = st.sampled_from(["0", "1", "2.50", "-3e2", "12345678901234567890.5", " 7", "x", "", '"4"', '"a ""b"""', "NaN"])
LINES = st.lists(st.lists(CELLS, min_size=1, max_size=3).map(",".join) | st.just(""), min_size=1, max_size=40)


def each_row_as_it_is(rows: Rows) -> Any:
    """Answers with what it was sent, and two arrays beside the rows' own; `data.resp_data` is theirs."""
    named = [{"row": row, "scores": [row["a"], [row["b"]]], "text": 'say "[1, 2]", {}'} for row in rows]
    return {"model": {"shape": [2, 3]}, "data": {"resp_data": named}, "classes": ["x, y", "z"]}


def takes_no_more_than_three(rows: Rows) -> Any:
    """The same, but of more rows it answers the first three only."""
    return each_row_as_it_is(rows[:3])


RESPONSE = {
    "data": {
        "type": "object",
        "properties": {"data": {"type": "object", "properties": {"resp_data": {"type": "array", "items": {}}}}},
    }
}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.lists(LINES, min_size=1, max_size=3),
    size=st.sampled_from([2, 3, 4, 17, "auto"]),
    model=st.sampled_from([each_row, each_row_as_it_is, takes_no_more_than_three]),
    header=st.sampled_from(["absent", "present"]),
    tells=st.booleans(),
)
def test_rows__whatever_they_are_have_the_result_file_of_one_row_per_request(
    tmp_path_factory: pytest.TempPathFactory, tables: list[list[str]], size: int | str, model: Model, header: str,
    tells: bool,
) -> None:  # fmt: skip
    files = {f"{number}.csv": "\n".join(lines).encode() for number, lines in enumerate(tables)}
    folder = tmp_path_factory.mktemp("rows")
    response = RESPONSE if tells else None
    with serving(model) as server:
        single = infer(folder / "single", server, files, csv_header=header, response=response)
        joined = infer(folder / "joined", server, files, csv_header=header, response=response, rows_per_request=size)
    assert joined.messages == single.messages
    assert [(one.rows, one.failed_rows) for one in joined.outcomes] == [
        (one.rows, one.failed_rows) for one in single.outcomes
    ]
    for name in files:
        assert joined.has_result(name) == single.has_result(name)
        if single.has_result(name):
            assert joined.result(name) == single.result(name)


def test_rows__are_joined_where_the_response_schema_says_which_array_is_theirs(tmp_path: Path) -> None:
    files = {"1.csv": table(64)}
    with serving(each_row_as_it_is) as server:
        infer(tmp_path / "told", server, files, response=RESPONSE, rows_per_request=16)
        assert sorted(server.sizes) == [1] * (16 + 3) + [16] * 4
        infer(tmp_path / "untold", server, files, rows_per_request=16)  # three arrays: whose is which is not known
        assert len(server.sizes) == 1 + 64


@pytest.mark.parametrize("size", [5, "auto"])
def test_rows__are_not_trusted_for_equal_answers(tmp_path: Path, size: int | str) -> None:
    def first_for_all(rows: Rows) -> Any:
        return [{"a": rows[0]["a"]} for _ in rows]

    same, other = b"1,1\n", b"2,2\n"
    spots = [3, 8, 13, 18]  # between the rows that are tried
    files = {"1.csv": b"".join(other if number in spots else same for number in range(40))}
    with serving(first_for_all) as server:
        single = infer(tmp_path / "single", server, files)
        joined = infer(tmp_path / "joined", server, files, rows_per_request=size)
        assert joined.result("1.csv") == single.result("1.csv")
        assert sum(server.sizes) < 40 * 2


def test_rows__of_a_model_that_always_says_the_same_are_joined_in_the_end(tmp_path: Path) -> None:
    files = {"1.csv": table(400)}
    with serving(lambda rows: [{"class": "setosa"} for _ in rows]) as server:
        joined = infer(tmp_path, server, files, rows_per_request=10)
        assert joined.result("1.csv") == b'[{"class":"setosa"}]\n' * 400
        assert server.sizes.count(10) > 20


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_rows__answered_in_another_encoding_than_json_has_are_failed(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"a": "é \u010a\u0120 x"}, ensure_ascii=False)
    with serving(lambda rows: text.encode(encoding)) as server:
        shard = infer(tmp_path, server, {"1.csv": table(2)})
    assert "The model's answer is not JSON" in shard.messages["1.csv"]
    assert not shard.has_result("1.csv")


@pytest.mark.parametrize("rows_per_request", [1, 5])
def test_rows__answered_with_a_byte_order_mark_have_none_in_the_result(tmp_path: Path, rows_per_request: int) -> None:
    def model(rows: Rows) -> bytes:
        return b"\xef\xbb\xbf" + json.dumps({"sums": [row["a"] for row in rows]}).encode()

    with serving(model) as server:
        shard = infer(tmp_path, server, {"1.csv": table(12)}, rows_per_request=rows_per_request)
    assert shard.messages == {"1.csv": ""}
    assert [json.loads(line) for line in shard.result("1.csv").splitlines()] == [{"sums": [n]} for n in range(12)]


@pytest.mark.parametrize("rows_per_request", [1, 7, "auto"])
def test_rows__of_files_with_columns_in_other_orders_and_empty_cells_are_sent_by_their_names(
    tmp_path: Path, rows_per_request: int | str
) -> None:
    def cell(number: int) -> str:
        return "" if number % 3 == 0 else str(number)

    files = {
        "1.csv": "id,b,a\n" + "".join(f"{n},{cell(n)},{n}\n" for n in range(1, 40)),
        "2.csv": '\ufeff"a","b"\r\n' + "".join(f"{n},{cell(n)}\r\n" for n in range(1, 40)),
        "3.csv": "b,a,b\n1,2,3\n",
        "4.csv": "x,y\n" + "".join(f"{n},{cell(n)}\n" for n in range(1, 40)),
    }
    expected = [{"rows": [{"a": n} if n % 3 == 0 else {"a": n, "b": n}]} for n in range(1, 40)]
    with serving(lambda rows: {"rows": rows}) as server:
        shard = infer(
            tmp_path, server, {name: text.encode() for name, text in files.items()}, csv_header="present",
            empty_cells="omit", rows_per_request=rows_per_request,
        )  # fmt: skip
    for name in ("1.csv", "2.csv", "4.csv"):
        assert [json.loads(line) for line in shard.result(name).splitlines()] == expected
    assert shard.messages["3.csv"].startswith('the header has the name "b" more than once')
    assert [*shard.tally.notes] == [
        'CSV header: no column of the header ("x", "y") has the name of a field: columns are taken by their places'
    ]


@pytest.mark.parametrize("rows_per_request", [1, 7])
def test_rows__answered_with_texts_or_what_is_no_number_keep_them(tmp_path: Path, rows_per_request: int) -> None:
    def model(rows: Rows) -> bytes:
        if len(rows) == 1 and rows[0]["a"] == 3:
            return b"setosa\n"
        return json.dumps([math.nan if row["a"] == 5 else row["a"] for row in rows]).encode()

    with serving(model) as server:
        shard = infer(tmp_path, server, {"1.csv": table(20)}, rows_per_request=rows_per_request)
    assert shard.messages == {"1.csv": ""}
    lines = shard.result("1.csv").decode().splitlines()
    assert (lines[3], lines[5], lines[7]) == ('"setosa"', "[NaN]", "[7]")
