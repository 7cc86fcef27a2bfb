"""One shard: every item gets its result file and its outcome, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import run
from engine.runs import ROWS, TEXT, Shard, items_of, local_items, make_run, partial_reports
from fakes.model_behaviour import iris, item_key
from fakes.model_server import FakeModelServer
from fakes.processes import closed_port

from tasks.domain.errors import StorageError
from tasks.domain.item import Item
from tasks.domain.rows_per_request import FIRST
from tasks.engine.shard import infer_shard


def texts(count: int) -> dict[str, bytes]:
    return {f"{number:03d}.bin": b"item %d" % number for number in range(count)}


# --- files


def test_files__get_the_answer_byte_for_byte(tmp_path: Path, fake: FakeModelServer) -> None:
    contents = {"1.jpg": bytes(range(256)), "sub/汉 字.png": b"\r\n--x\r\n", "empty.bin": b"", "%41 #?.gif": b"odd"}
    shard = Shard(
        make_run(fake.url, str(tmp_path / "out"), path="/echo"), local_items(tmp_path / "in", contents)
    ).infer()
    assert set(shard.messages.values()) == {""}
    for name, data in contents.items():
        head, _, rest = shard.result(name).partition(b"\r\n\r\n")  # the echo: the form as it was sent
        assert f'name="images"; filename="{Path(name).name}"'.encode() in head
        assert rest.startswith(data + b"\r\n--thresher-")
    assert shard.tally.successful == shard.tally.requests == 4
    assert shard.tally.bytes_read == sum(map(len, contents.values()))


def test_files__are_read_from_and_written_to_every_storage(place: Place, fake: FakeModelServer) -> None:
    names = ["1.jpg", "sub/2 %41.jpg", "汉/é.jpg"]
    for name in names:
        place.put(f"in/{name}", name.encode())
    run_ = make_run(fake.url, f"{place.root}/out")
    shard = Shard(run_, items_of(f"{place.root}/in", [*names, "missing.jpg"]))
    shard.credentials = place.credentials
    shard.infer()
    assert shard.messages.pop("missing.jpg").startswith("Download file failed. There is no such ")
    assert [outcome.message for outcome in shard.outcomes[:3]] == ["", "", ""]
    for name in names:
        assert json.loads(place.get(f"out/{run_.names.result_folder}/{name}_result.txt"))["ok"] is True


def test_files__that_are_too_large_are_neither_read_nor_sent(tmp_path: Path, fake: FakeModelServer) -> None:
    contents = {"at.jpg": b"x" * 100, "below.jpg": b"x" * 99, "at.txt": b"x" * 100, "above.txt": b"x" * 101}
    items = local_items(tmp_path / "in", contents)
    for listed in (items, [item._replace(size=-1) for item in items]):
        shard = Shard(make_run(fake.url, str(tmp_path / "out")), listed, max_item_bytes=100).infer()
        assert [bool(shard.messages[name]) for name in contents] == [True, False, False, True]
        assert shard.messages["at.jpg"].startswith("The file has 100 bytes; it should be smaller than 100 bytes")
        assert shard.messages["above.txt"].startswith("The file has 101 bytes; it should be not larger than 100 bytes")
    assert fake.stats()["requests"]["/"] == 4


def test_items__with_an_error_need_no_model_server(tmp_path: Path) -> None:
    items = [Item(0, "line 1", "", -1, "item-0_result.txt", "Line 1 cannot be read.")]
    with closed_port() as port:
        shard = Shard(make_run(f"http://127.0.0.1:{port}", str(tmp_path / "out")), items).infer()
    assert shard.messages == {"line 1": "Line 1 cannot be read."}


def test_failures__of_every_kind_end_one_item_only(tmp_path: Path, fake: FakeModelServer) -> None:
    contents = {
        "ok.bin": b"fine", "404.bin": b"FAIL:404", "503.bin": b"FAIL:503:1", "late.bin": b"FAIL:slow:0.1",
        "close.bin": b"FAIL:close:1", "hang.bin": b"FAIL:hang", "nonsense.bin": b"FAIL:badjson",
        "empty.bin": b"FAIL:empty", "folder": b"",
    }  # fmt: skip
    items = local_items(tmp_path / "in", contents)
    (tmp_path / "in" / "folder").unlink()
    (tmp_path / "in" / "folder").mkdir()
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items, request_timeout_seconds=1).infer()
    messages = shard.messages
    assert messages.pop("404.bin") == 'The model answered HTTP 404: {"error": "as asked"}'
    assert messages.pop("hang.bin").startswith("The model did not answer: no answer within 1 s (tried 2 times)")
    assert messages.pop("folder") == "Download file failed. It is a folder, not a file."
    assert set(messages.values()) == {""}
    assert shard.result("nonsense.bin") == b'{"ok": tr'  # of a file the body counts as it is
    assert shard.result("empty.bin") == b""
    assert not shard.has_result("404.bin")
    assert (shard.tally.successful, shard.tally.failed) == (6, 3)


def test_request_timeout__of_the_service_takes_the_place_of_the_administrators(
    tmp_path: Path, fake: FakeModelServer
) -> None:
    items = local_items(tmp_path / "in", {"hang.bin": b"FAIL:hang"})
    made = make_run(fake.url, str(tmp_path / "out"), request_timeout_seconds=0.3)
    shard = Shard(made, items, request_timeout_seconds=3600).infer()
    assert shard.messages["hang.bin"] == "The model did not answer: no answer within 0.3 s (tried 2 times)."


def test_output__that_cannot_be_written_fails_the_item(tmp_path: Path, fake: FakeModelServer) -> None:
    items = local_items(tmp_path / "in", {"a": b"1", "b": b"2"})
    run_ = make_run(fake.url, str(tmp_path / "out"))
    in_the_way = tmp_path / "out" / run_.names.result_folder / "a_result.txt"
    in_the_way.mkdir(parents=True)
    (in_the_way / "x").touch()
    shard = Shard(run_, items).infer()
    assert shard.messages == {"a": "Upload of the result file failed. Is a directory.", "b": ""}


# --- rows


def rows_shard(folder: Path, url: str, files: dict[str, bytes], *, path: str = "/iris", **fields: object) -> Shard:
    run_ = make_run(url, str(folder / "out"), request=TEXT if path == "/echo" else ROWS, path=path, **fields)
    return Shard(run_, local_items(folder / "in", files)).infer()


def test_rows__stand_in_order_and_a_failed_one_keeps_its_line(tmp_path: Path, fake: FakeModelServer) -> None:
    lines = [f"row {number},{number}" for number in range(60)]
    lines[7] = "row 7,not a number"
    lines[20] = "FAIL:404 please,20"
    lines[41] = "row 41"
    shard = rows_shard(tmp_path, fake.url, {"1.csv": "\n".join(lines).encode()}, path="/echo")
    result = shard.result("1.csv").decode().split("\n")
    assert result.pop() == ""
    expected = [f'{{"text":"row {number}","n":{number}}}' for number in range(60)]
    errors = {number: json.loads(result[number])["error"] for number in (7, 20, 41)}
    assert [line for number, line in enumerate(result) if number not in errors] == [
        line for number, line in enumerate(expected) if number not in errors
    ]
    assert errors[7] == 'line 8, column 1, field n: "not a number" is not a number'
    assert errors[20] == 'The model answered HTTP 404: {"error": "as asked"}'
    assert errors[41].startswith("line 42, column 1, field n: the row has 1 columns only")
    assert shard.messages["1.csv"] == f"3 of 60 rows failed, first: row 8: {errors[7]}"
    assert (shard.outcomes[0].rows, shard.outcomes[0].failed_rows, shard.outcomes[0].written) == (60, 3, True)
    assert fake.stats()["requests"]["/echo"] == 58  # what cannot be converted is not sent


def test_rows__answers_become_compact_lines(tmp_path: Path, fake: FakeModelServer) -> None:
    shard = rows_shard(tmp_path, fake.url, {"1.csv": b"1,2\n3,4.50\n"})
    expected = [{"data": {"resp_data": [iris({"a": a, "b": b})]}} for a, b in ((1, 2), (3, 4.5))]
    assert shard.result("1.csv").decode() == "".join(
        json.dumps(line, separators=(",", ":")) + "\n" for line in expected
    )


def test_rows__none_of_which_succeeds_leave_no_file(tmp_path: Path, fake: FakeModelServer) -> None:
    shard = rows_shard(tmp_path, fake.url, {"1.csv": b"a,b\nc,d\n", "2.csv": b"1,2\n"})
    assert shard.messages["1.csv"].startswith(
        "2 of 2 rows failed, first: row 1: line 1, column 0, field data.req_data[0].a"
    )
    assert not shard.has_result("1.csv")
    assert shard.messages["2.csv"] == ""
    assert shard.tally.rows == 3
    assert shard.tally.failed_rows == 2


def test_rows__whose_answer_is_empty_fail_and_one_that_is_not_json_is_kept_as_a_text(
    tmp_path: Path, fake: FakeModelServer
) -> None:
    shard = rows_shard(tmp_path, fake.url, {"1.csv": b"FAIL:badjson,1\nFAIL:empty,2\n"}, path="/echo")
    assert shard.messages["1.csv"] == "1 of 2 rows failed, first: row 2: The model's answer is empty; JSON was expected"
    assert shard.result("1.csv").splitlines()[0] == b'"{\\"ok\\": tr"'


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("1.txt", b"1,2\n", "A .csv file was expected"),
        ("1.csv", b"", "The CSV file has no rows."),
        ("1.csv", "1,汉\n".encode(), "line 1, column 3: the Chinese character"),
        ("1.csv", b"1,2\n\xff,3\n", "line 2, column 1: byte 0xFF is not UTF-8"),
        ("1.csv", b'1,"2\n', "broken CSV, a quoted cell is never closed"),
    ],
)
def test_tables__that_are_wrong_as_a_whole_are_not_sent(
    tmp_path: Path, fake: FakeModelServer, name: str, data: bytes, said: str
) -> None:
    shard = rows_shard(tmp_path, fake.url, {name: data})
    assert said in shard.messages[name]
    assert "/iris" not in fake.stats()["requests"]


@pytest.mark.parametrize(("chinese", "message"), [("allow", ""), ("refuse", "line 1, column 1: the Chinese character")])
def test_tables__with_chinese_characters_are_read_if_the_administrator_allows_them(
    tmp_path: Path, fake: FakeModelServer, chinese: str, message: str
) -> None:
    run = make_run(fake.url, str(tmp_path / "out"), request=TEXT, path="/echo")
    shard = Shard(run, local_items(tmp_path / "in", {"1.csv": "汉字,1\n".encode()}), chinese=chinese).infer()
    assert shard.messages["1.csv"].startswith(message)
    assert bool(shard.messages["1.csv"]) == bool(message)


def test_header__is_passed_over(tmp_path: Path, fake: FakeModelServer) -> None:
    shard = rows_shard(tmp_path, fake.url, {"1.csv": b"a,b\n1,2\n"}, csv_header="present")
    assert shard.messages["1.csv"] == ""
    assert shard.result("1.csv").count(b"\n") == 1


TABLES = {
    "1.csv": "".join(f"{number},{number / 7}\n" for number in range(97)).encode(),
    "2.csv": b"1,2\nbad,row\n3,4\n",
    "3.csv": b"5,6",
}


@pytest.mark.parametrize("size", [2, 10, 1000, "auto"])
def test_rows_per_request__gives_the_answers_of_single_rows(
    tmp_path: Path, fake: FakeModelServer, size: int | str
) -> None:
    single = rows_shard(tmp_path / "single", fake.url, TABLES)
    before = fake.stats()["requests"]["/iris"]
    joined = rows_shard(tmp_path / "joined", fake.url, TABLES, rows_per_request=size)
    for name in TABLES:
        assert joined.result(name) == single.result(name)
    assert joined.messages == single.messages
    requests = fake.stats()["requests"]["/iris"] - before
    rows = FIRST if size == "auto" else int(size)
    assert requests < (100 if rows == 2 else 97)
    assert before == 100


def test_rows_per_request__falls_back_where_answers_cannot_be_split(tmp_path: Path, fake: FakeModelServer) -> None:
    files = {"1.csv": b"".join(b"%d,2\n" % number for number in range(30))}
    shard = rows_shard(tmp_path, fake.url, files, path="/", rows_per_request=10)
    answers = shard.result("1.csv").splitlines()
    bodies = [f'{{"data":{{"req_data":[{{"a":{number},"b":2}}]}}}}' for number in range(30)]
    assert answers == [b'{"ok":true,"n":%d}' % len(body) for body in bodies]
    assert 30 < fake.stats()["requests"]["/"] <= 33  # not once more for every ten rows of every file to come


def test_rows_per_request__tries_rows_alone_when_the_joined_request_fails(
    tmp_path: Path, fake: FakeModelServer
) -> None:
    rows = b"".join(b"%d,2\n" % number for number in range(5))
    run_ = make_run(fake.url, str(tmp_path / "out"), request=ROWS, path="/iris", rows_per_request=5)
    # The model's server answers HTTP 400 to a request with a number that is none to it.
    rule = json.loads(json.dumps(run_.rule).replace('"a": {"type": "number"', '"a": {"type": "string"'))
    run_ = run_.model_copy(update={"rule": rule})
    shard = Shard(run_, local_items(tmp_path / "in", {"1.csv": rows + b"wrong,1\n"})).infer()
    assert shard.messages["1.csv"].startswith("1 of 6 rows failed, first: row 6: The model answered HTTP 400")
    assert shard.result("1.csv").count(b"resp_data") == 5


# --- stopping early, and going on


@pytest.mark.parametrize(("threshold", "bound"), [(5, 5), (0.1, 10), (0, 0)])
def test_error_threshold__stops_early_and_every_item_has_its_outcome(
    tmp_path: Path, fake: FakeModelServer, threshold: float, bound: int
) -> None:
    items = local_items(tmp_path / "in", {f"{number}": b"FAIL:404 %d" % number for number in range(100)})
    run_ = make_run(fake.url, str(tmp_path / "out"), error_threshold=threshold, max_concurrency=1)
    shard = Shard(run_, items).infer()
    not_sent = [
        message for message in shard.messages.values() if message.startswith("Not processed: the run was stopped")
    ]
    assert len(shard.outcomes) == 100
    assert shard.tally.failed == 100
    assert shard.stopped
    assert fake.stats()["requests"]["/"] <= bound + 1 + 40  # those that were read ahead are ended in order
    assert len(not_sent) >= 50


def test_error_threshold__that_is_not_passed_changes_nothing(tmp_path: Path, fake: FakeModelServer) -> None:
    items = local_items(tmp_path / "in", {f"{number}": b"FAIL:404" if number < 5 else b"x" for number in range(50)})
    shard = Shard(make_run(fake.url, str(tmp_path / "out"), error_threshold=5), items).infer()
    assert not shard.stopped
    assert shard.tally.successful == 45


def test_shard__that_is_done_is_not_done_again(tmp_path: Path, fake: FakeModelServer) -> None:
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", texts(20)))
    assert shard.infer().outcomes == shard.infer().outcomes
    assert fake.stats()["requests"]["/"] == 20


def test_shard__tried_again_uses_what_was_reported(place: Place, fake: FakeModelServer) -> None:
    contents = texts(30) | {f"slow-{number}": b"FAIL:slow:30 %d" % number for number in range(3)}
    for name, data in contents.items():
        place.put(f"in/{name}", data)
    run_ = make_run(fake.url, f"{place.root}/out")
    shard = Shard(run_, items_of(f"{place.root}/in", [*contents]), report_seconds=0.1)
    shard.credentials = place.credentials

    async def first() -> set[str]:
        session = shard.session()
        try:
            await shard.store_plan(session)
            work = asyncio.create_task(session.during(infer_shard(session, shard.ref)))
            while len(reported := await partial_reports(session)) < 30:
                assert not work.done(), work
                await asyncio.sleep(0.05)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return {outcome.source for outcome in reported}
        finally:
            await session.close()

    reported = run(first())
    assert len(reported) == 30
    for name in contents:  # whoever reads again reads something else
        place.put(f"in/{name}", b"second " + name.encode())
    shard.infer()
    assert set(shard.messages.values()) == {""}
    seen = fake.stats()["items"]
    assert [seen.get(item_key(data), 0) for data in contents.values()] == [1] * 33
    again = [name for name in contents if item_key(b"second " + name.encode()) in seen]
    assert again == ["slow-0", "slow-1", "slow-2"]
    assert shard.tally.successful == 33
    scratch = run_.names.scratch
    left = [name for name in place.names() if name.startswith(f"out/{scratch}/") and "/tmp/" not in name]
    assert left == [f"out/{scratch}/shards/00000/plan.parquet", f"out/{scratch}/{shard.report_name}"]


def test_plan__that_is_missing_is_an_error_of_the_run(tmp_path: Path, fake: FakeModelServer) -> None:
    (tmp_path / "out").mkdir()
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items_of("/in", ["x"]))

    async def work() -> None:
        session = shard.session()
        try:
            await infer_shard(session, shard.ref)
        finally:
            await session.close()

    with pytest.raises(StorageError, match=r"Plan or report of shard 0 .* There is no such file"):
        run(work())
