"""Servers that answer joined rows wrongly, sooner or later: no line of a result file is another row's answer."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine.row_models import Model, Rows, infer, serving, table
from engine.runs import ROWS, Shard, local_items, make_run


def sums(rows: Rows) -> list[Any]:
    """The right answers: nothing of a row stands in them."""
    return [round(row["a"] * 7 + row["b"], 3) for row in rows]


def named(rows: Rows) -> list[Any]:
    """The right answers: the row's number stands in them."""
    return [{"row": row["a"], "sum": round(row["a"] * 7 + row["b"], 3)} for row in rows]


def chunks_last_first(answers: list[Any]) -> list[Any]:
    """As of a server that works on 8 rows at a time, and is not careful."""
    return [one for at in reversed(range(0, len(answers), 8)) for one in answers[at : at + 8]]


def shifted(answers: list[Any]) -> list[Any]:
    """Each row has the answer to the next."""
    return [*answers[1:], answers[0]]


def from_request(
    first: int, wrong: Callable[[list[Any]], list[Any]], right: Callable[[Rows], list[Any]] = sums
) -> Model:
    """A server that is wrong from its nth request on."""
    counter = itertools.count(1)
    return lambda rows: wrong(right(rows)) if next(counter) >= first and len(rows) > 1 else right(rows)


def from_size(size: int, wrong: Callable[[list[Any]], list[Any]]) -> Model:
    """A server that is wrong in requests of at least so many rows."""
    return lambda rows: wrong(sums(rows)) if len(rows) >= size else sums(rows)


def sorted_by_text(rows: Rows) -> list[Any]:
    """A server that answers rows in the order of their lengths."""
    return sums(sorted(rows, key=lambda row: len(json.dumps(row))))


def without_doubles(rows: Rows) -> list[Any]:
    """A server that answers equal rows once, and fills up with the last answer."""
    answers = sums([json.loads(text) for text in dict.fromkeys(map(json.dumps, rows))])
    return answers + answers[-1:] * (len(rows) - len(answers))


def check(
    folder: Path, model: Model, files: dict[str, bytes], right: Callable[[Rows], list[Any]] = sums, **fields: Any
) -> tuple[Shard, list[int]]:
    """Infer; the rows' right lines are there. The shard, and the sizes of its requests."""
    with serving(model) as server:
        shard = infer(folder, server, files, **fields)
    assert shard.messages == dict.fromkeys(files, "")
    for name, data in files.items():
        rows = [dict(zip("ab", map(json.loads, line.split(",")), strict=True)) for line in data.decode().split()]
        assert [json.loads(line) for line in shard.result(name).splitlines()] == [[one] for one in right(rows)]
    return shard, server.sizes


@pytest.mark.parametrize("size", [16, "auto"])
@pytest.mark.parametrize("first", [1, 2, 18, 40, 62, 64, 66, 70])
def test_rows__of_a_server_that_is_wrong_from_some_request_on_are_right(
    tmp_path: Path, first: int, size: int | str
) -> None:
    files = {"1.csv": table(350), "2.csv": table(120, 1000), "3.csv": table(61, 2000), "4.csv": table(170, 3000)}
    shard, _ = check(tmp_path, from_request(first, shifted), files, rows_per_request=size)
    if shard.tally.notes:
        ((note, times),) = shard.tally.notes.items()
        assert note.startswith(f"rows_per_request = {size} was given up: row ")
        assert "csv had another answer" in note and times == 1


@pytest.mark.parametrize("size", [9, 100, "auto"])
@pytest.mark.parametrize(("from_rows", "wrong"), [(2, shifted), (9, chunks_last_first), (17, chunks_last_first)])
def test_rows__of_a_server_that_is_wrong_from_some_size_on_are_right(
    tmp_path: Path, from_rows: int, wrong: Callable[[list[Any]], list[Any]], size: int | str
) -> None:
    check(tmp_path, from_size(from_rows, wrong), {"1.csv": table(1000)}, rows_per_request=size)


@pytest.mark.parametrize("size", [16, "auto"])
def test_rows__of_a_server_that_sorts_them_are_right(tmp_path: Path, size: int | str) -> None:
    alike = b"".join(b"%d,5\n" % number for number in range(100, 300))
    draw = random.Random(4)
    different = b"".join(b"%d,%d\n" % (number, 10 ** draw.randrange(9)) for number in range(300, 500))
    shard, _ = check(tmp_path, sorted_by_text, {"1.csv": alike + different}, rows_per_request=size)
    assert shard.tally.notes


def test_rows__that_are_equal_show_a_server_that_drops_doubles(tmp_path: Path) -> None:
    rows = [*range(330), *(at // 2 for at in range(1000, 1200))]
    data = b"".join(b"%d,1\n" % number for number in rows)
    shard, _ = check(tmp_path, without_doubles, {"1.csv": data}, rows_per_request=16)
    assert shard.tally.notes


def test_rows__whose_answers_name_them_are_right_if_one_in_a_hundred_is_another_ones(tmp_path: Path) -> None:
    draw = random.Random(11)

    def model(rows: Rows) -> list[Any]:
        answers = named(rows)
        for at in range(1, len(answers)):
            if draw.random() < 0.01:
                answers[at], answers[at - 1] = answers[at - 1], answers[at]
        return answers

    files = {f"{number}.csv": table(300, 300 * number) for number in range(6)}
    shard, _ = check(tmp_path, model, files, named, rows_per_request=16)
    assert len(shard.tally.notes) == 1


def test_rows__that_occur_again_show_another_answer(tmp_path: Path) -> None:
    counter = itertools.count(1)

    def model(rows: Rows) -> list[Any]:
        answers = sums(rows)
        if len(rows) > 1 and next(counter) == 45:
            answers[2], answers[3] = answers[3], answers[2]
        return answers

    data = b"".join(b"%d,1\n" % (number % 16) for number in range(16 * 60))
    shard, _ = check(tmp_path, model, {"1.csv": data}, rows_per_request=16)
    assert shard.tally.notes


def test_rows__whose_answers_are_never_the_same_are_sent_alone(tmp_path: Path) -> None:
    counter = itertools.count(1)
    lock = threading.Lock()

    def model(rows: Rows) -> list[Any]:
        with lock:
            return [{"sum": row["a"], "at": next(counter)} for row in rows]

    with serving(model) as server:
        shard = infer(tmp_path, server, {"1.csv": table(100)}, rows_per_request=10)
    assert sorted(server.sizes) == [1] * 100 + [10]
    assert [json.loads(line)[0]["sum"] for line in shard.result("1.csv").splitlines()] == [*range(100)]
    ((note, _),) = shard.tally.notes.items()
    assert "1.csv had another answer among 10 rows than alone" in note


def test_rows__answered_by_a_server_that_is_wrong_are_sent_again_alone(tmp_path: Path) -> None:
    with serving(from_request(120, shifted)) as server:
        shard = infer(tmp_path, server, {"1.csv": table(3000)}, rows_per_request=10)
    assert [json.loads(line) for line in shard.result("1.csv").splitlines()] == [
        [one] for one in sums([{"a": n, "b": n * 3 + 0.5} for n in range(3000)])
    ]
    # Also those that an earlier check covered; hardly any after it had shown.
    assert server.sizes.count(1) >= 3000
    assert server.sizes.count(10) < 240


@pytest.mark.parametrize(("size", "rows", "files"), [(5, 15_000, 1), (8, 12_000, 3), ("auto", 160_000, 2)])
def test_checks__are_at_most_3_in_100_requests(tmp_path: Path, size: int | str, rows: int, files: int) -> None:
    tables = {f"{number}.csv": table(rows // files, rows * number) for number in range(files)}
    shard, sizes = check(tmp_path, sums, tables, rows_per_request=size)
    assert not shard.tally.notes
    joined = [size for size in sizes if size > 1]
    row_by_row = sum({*joined})
    checks = len(sizes) - len(joined) - row_by_row
    assert 0.015 * len(sizes) <= checks <= 0.03 * len(sizes)
    assert sum(sizes) <= 1.05 * rows


def test_instances__say_that_each_decides_for_itself(tmp_path: Path) -> None:
    with serving(lambda rows: shifted(sums(rows)) if len(rows) > 1 else sums(rows)) as server:
        run = make_run(server.url, str(tmp_path / "out"), request=ROWS, rows_per_request=10)
        shard = Shard(run, local_items(tmp_path / "in", {"1.csv": table(50)}))
        shard.number = 3
        shard.infer()
    ((note, _),) = shard.tally.notes.items()
    assert "was given up by instance 3 (each instance decides for itself): row" in note


def test_checks__of_many_small_files_are_few(tmp_path: Path) -> None:
    files = {f"{number:03}.csv": table(16, 16 * number) for number in range(400)}
    _, sizes = check(tmp_path, sums, files, rows_per_request=16)
    assert sizes.count(1) <= 16 + 40  # files wait for each other's checks, instead of having one each
    assert sizes.count(16) <= 400 + 10
