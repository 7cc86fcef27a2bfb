"""What is told of an input before it is run: counts of what will be refused, a first request, or why there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from clients.places import Place, make_place
from clients.support import run
from engine.runs import FILE, ROWS, TEXT, make_run
from fakes.s3_server import S3Server
from fakes.share_server import ShareServer

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import Address
from tasks.domain.refused_items import FIRST
from tasks.domain.settings import Settings
from tasks.engine import looking, sampling
from tasks.engine.looking import LINKS_READ
from tasks.engine.sampling import ITEMS_LOOKED_AT, Preview, look_at_input

Files = Mapping[str, str | bytes]


def preview_of(
    source: Path | str, *, request: Mapping[str, Any] = FILE, settings: Mapping[str, Any] | None = None,
    credentials: Mapping[str, Credentials] | None = None, asked: list[str] | None = None, **fields: Any,
) -> Preview:  # fmt: skip
    """What is found of an input; ``asked`` takes what the storage was asked for."""
    made = make_run("http://127.0.0.1:1/", "/out", request=request, **fields)
    made = made.model_copy(update={"service": made.service.model_copy(update={"input_path": str(source)})})

    class Counted(Storage):
        async def size(self, address: Address) -> int:
            (asked if asked is not None else []).append(address.path)
            return await super().size(address)

        async def read(self, address: Address, *rest: Any, **named: Any) -> bytes:
            (asked if asked is not None else []).append(address.path)
            return await super().read(address, *rest, **named)

    async def look() -> Preview:
        used = Settings(**(settings or {}))
        storage = Counted(used, credentials or {})
        try:
            return await look_at_input(made, used, storage)
        finally:
            await storage.close()

    return run(look())


@pytest.fixture
def files(tmp_path: Path) -> Any:
    def write(contents: Files, folder: str = "in") -> Path:
        for name, data in contents.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return tmp_path / folder

    return write


def manifest(folder: Path, *sources: str) -> Path:
    path = folder / "in.manifest"
    path.write_text("".join(one if one.startswith("!") else json.dumps({"source": one}) + "\n" for one in sources))
    return path


def counted(preview: Preview) -> dict[str, tuple[int, int]]:
    """How many of how many, by reason."""
    return {one.reason: (one.items, one.of) for one in preview.refused}


def told(preview: Preview) -> str:
    """The one problem."""
    (problem,) = preview.problems
    assert preview.example is None and preview.no_example
    return str(problem)


# -- files ----------------------------------------------------------------------------------------------------------


def test_folder__of_files_shows_the_first_and_reads_no_other(files: Any) -> None:
    asked: list[str] = []
    preview = preview_of(files({f"{number:03}.jpg": f"image {number}" for number in range(200)}), asked=asked)
    assert (preview.items, preview.problems, preview.refused, preview.warnings) == (200, [], [], [])
    assert preview.example is not None and preview.example.item.source.endswith("/000.jpg")
    assert b"image 0" in preview.example.body.data
    assert len(asked) == 1


def test_files__that_are_too_large_are_counted_and_the_others_go_on(files: Any) -> None:
    source = files({"a.png": b"x" * 20, "b.bin": b"x" * 20, "c.bin": b"x" * 21, "d.png": b"x" * 19})
    preview = preview_of(source, settings={"max_item_bytes": 20})
    assert counted(preview) == {"size": (2, 4)}
    assert preview.problems == []
    assert preview.example is not None and preview.example.item.source.endswith("b.bin")
    (warning,) = preview.warnings
    assert warning.startswith("2 of 4 items will be FAILED: The file has 20 bytes; it should be smaller than 20 bytes")


def test_files__that_are_all_too_large_are_a_problem(files: Any) -> None:
    preview = preview_of(files({"a.png": b"x" * 20}), settings={"max_item_bytes": 20})
    assert "input_path" in told(preview) and "The file has 20 bytes" in told(preview)


# -- manifests ------------------------------------------------------------------------------------------------------


def test_manifest__counts_each_kind_of_item_that_no_run_could_read(files: Any, tmp_path: Path) -> None:
    folder = files({"good.jpg": "x", "folder/inside.jpg": "x"})
    host = "https://h.example"
    path = manifest(
        tmp_path, str(folder / "good.jpg"), str(folder / "folder"), "in/", "in/no.jpg", "s3://bucket/folder/",
        "!no line\n", "![1]\n", f"{host}/a.jpg?Expires=1550611914&Signature=x",
        f"{host}/b.jpg?X-Amz-Date=20200101T000000Z&X-Amz-Expires=60",
    )  # fmt: skip
    preview = preview_of(path)
    assert counted(preview) == {"line": (2, 9), "folder": (3, 9), "missing": (1, 9), "period": (2, 9)}
    assert preview.problems == [] and preview.example is not None
    assert len(preview.warnings) == 4
    period = next(one for one in preview.refused if one.reason == "period")
    assert "valid until 2019-02-19" in period.message and "Signature" not in str(preview.warnings)


def test_manifest__whose_local_files_are_all_missing_is_a_problem_without_a_look(tmp_path: Path) -> None:
    asked: list[str] = []
    preview = preview_of(manifest(tmp_path, *(f"/no/such/{number}.jpg" for number in range(1_000))), asked=asked)
    said = told(preview)
    assert "1,000 of 1,000 items: Download file failed. There is no such file (/no/such/0.jpg)" in said
    assert asked == [] and "1,000 of 1,000 items" in preview.no_example


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> Place:
    """An empty folder in a bucket."""
    return make_place("s3", tmp_path, s3_server, "sampling")


def test_manifest__of_missing_objects_asks_for_a_bounded_sample(bucket: Place, tmp_path: Path) -> None:
    asked: list[str] = []
    path = manifest(tmp_path, *(f"{bucket.root}/no/{number:05}.jpg" for number in range(20_000)))
    preview = preview_of(path, asked=asked, credentials=bucket.credentials)
    assert len(asked) == ITEMS_LOOKED_AT == preview.looked_at
    numbers = sorted(int(one[-9:-4]) for one in asked)
    assert numbers[:FIRST] == [*range(FIRST)] and numbers[-1] > 10_000
    said = told(preview)
    assert f"{ITEMS_LOOKED_AT} of {ITEMS_LOOKED_AT} items looked at: Download file failed. There is no such" in said
    assert said.endswith(f", as far as known: {ITEMS_LOOKED_AT} of 20,000 items were looked at")


def test_manifest__of_objects_some_of_which_are_missing_is_warned_of(bucket: Place, tmp_path: Path) -> None:
    bucket.put("there.jpg", b"image")
    path = manifest(tmp_path, *(f"{bucket.root}/{name}.jpg" for name in ("no", "there", "nor")))
    preview = preview_of(path, credentials=bucket.credentials)
    assert counted(preview) == {"missing": (2, 3)} and preview.problems == []
    assert preview.example is not None and preview.example.item.source.endswith("/there.jpg")
    (warning,) = preview.warnings
    assert warning.startswith("2 of 3 items looked at will be FAILED: Download file failed. There is no such object")


def test_manifest__of_share_links_fetches_few_but_for_those_that_fail(tmp_path: Path) -> None:
    with ShareServer({f"{number}.jpg": b"image" for number in range(30)}) as share:
        links = [f"{share.url}/missing/{number}.jpg" for number in range(20)]
        links += [share.link(f"{number}.jpg") for number in range(30)]
        host = share.url.removeprefix("http://")
        preview = preview_of(manifest(tmp_path, *links), settings={"share_link_hosts": (host,)})
        fetched = [path for path in share.requests if path.startswith("/object/")]
    assert counted(preview) == {"reading": (20, 20 + len(fetched))} and preview.problems == []
    assert preview.example is not None and LINKS_READ <= len(fetched) < 2 * LINKS_READ
    assert preview.warnings[-1] == f"{20 + len(fetched)} of 50 items were looked at"


def test_input__that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Any:
        raise ObjectError("The storage cannot be reached.")
        yield

    monkeypatch.setattr(Storage, "list", broken)
    (tmp_path / "in").mkdir()
    assert "cannot be listed to its end: The storage cannot be reached." in told(preview_of(tmp_path / "in"))


def test_items__that_do_not_come_in_time_leave_a_line_why_there_is_no_request(
    files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    for module in (looking, sampling):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
        monkeypatch.setattr(module, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(Storage, "read", never)
    source = files({"1.jpg": "x"})
    preview = preview_of(source)
    assert preview.problems == [] and preview.example is None
    assert preview.no_example == "no item could be read within 0.1 s"


# -- tables ---------------------------------------------------------------------------------------------------------


def test_tables__of_another_kind_are_a_problem_that_says_what_was_expected(files: Any) -> None:
    preview = preview_of(files({"1.jpg": "x", "2.jpg": "y"}), request=TEXT)
    assert counted(preview) == {"kind": (2, 2)}
    assert "no item of it could be sent: 2 of 2 items: A .csv file was expected" in told(preview)


def test_tables__beside_other_files_are_read_and_the_others_counted(files: Any) -> None:
    preview = preview_of(files({"a.txt": "x", "b.csv": "t,1\nu,2\n", "c.csv": "v,3\n"}), request=TEXT)
    assert (counted(preview), preview.rows, preview.problems) == ({"kind": (1, 3)}, 3, [])
    assert preview.example is not None and preview.example.body.data == b'{"text":"t","n":1}'


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        ("text,n\nt,1\n", {}, "csv_header = 'absent': the first line looks like names (text, n); csv_header: present"),
        ("A Text,Its n\nt,1\nu,2\n", {}, "the first line looks like names (A Text, Its n); csv_header: present"),
        ("text,n\n", {}, "the first line looks like names (text, n); csv_header: present"),
        ("t,x\nu,y\n", {}, 'rows cannot become a request, first: line 1, column 1, field n: "x" '),
        ("t\nu\n", {}, "2 of its rows cannot become a request, first: line 1, column 1, field n: the row has"),
        ("text,n\n", {"csv_header": "present"}, "The CSV file has no rows"),
        ("", {}, "The CSV file has no rows"),
        (b"\x1f\x8b\x08\0", {}, "The file is packed by gzip"),
        ("a;1\nb;2\n", {}, "2 of its rows cannot become a request"),
        ('t,"1\n', {}, "a quoted cell is never closed"),
        ("汉,1\n", {}, "the Chinese character"),
    ],
)  # fmt: skip
def test_tables__none_of_whose_rows_could_be_sent_are_a_problem(
    files: Any, content: str | bytes, fields: dict[str, Any], said: str
) -> None:
    assert said in told(preview_of(files({"a.csv": content, "b.csv": content}), request=TEXT, **fields))


@pytest.mark.parametrize(
    ("content", "fields", "warning"),
    [
        ("t,1\nu,x\nv,3\n", {}, '1 of its rows cannot become a request, first: line 2, column 1, field n: "x"'),
        ("t,-\nu,2\n", {}, '1 of its rows cannot become a request, first: line 1, column 1, field n: "-"'),
        ("t,1\nu,2\n", {"csv_header": "present"}, "the first line could be a row, but is passed over"),
        ("text,n\nt,x\nu,2\n", {"csv_header": "present"}, 'first: line 2, column 1, field n: "x" is not a number'),
    ],
)  # fmt: skip
def test_tables__some_of_whose_rows_could_be_sent_are_warned_of(
    files: Any, content: str, fields: dict[str, Any], warning: str
) -> None:
    preview = preview_of(
        files({"a.csv": content, "b.csv": "w,9\nx,8\n"}), request=TEXT, **{"csv_header": "absent", **fields}
    )
    assert preview.problems == [] and preview.example is not None
    assert any(warning in one and one.startswith(("1 of 2 tables", "2 of 2 tables")) for one in preview.warnings)


def test_tables__with_a_header_that_is_declared_are_not_warned_of(files: Any) -> None:
    preview = preview_of(files({"a.csv": "text,n\nt,1\n"}), request=TEXT, csv_header="present")
    assert (preview.problems, preview.warnings, preview.rows) == ([], [], 1)


def test_tables__of_which_there_are_very_many_are_sampled(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "TABLES_READ", 100)
    preview = preview_of(files({f"{number:03}.csv": "t,1\n" for number in range(150)}), request=TEXT)
    assert (preview.open, preview.looked_at, preview.rows) == (150, ITEMS_LOOKED_AT, None)
    assert preview.warnings == [f"{ITEMS_LOOKED_AT} of 150 items were looked at"]


def test_request__of_several_rows_has_as_many_as_a_run_would_send(files: Any) -> None:
    preview = preview_of(files({"a.csv": "1,2\n3,4\nx,5\n6,7\n"}), request=ROWS, rows_per_request=3)
    assert preview.example is not None
    assert preview.example.body.data == b'{"data":{"req_data":[{"a":1,"b":2},{"a":3,"b":4},{"a":6,"b":7}]}}'
