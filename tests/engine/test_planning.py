"""Items of manifests and folders, without processes."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest
from fakes.odd_s3_server import OddS3Server

from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.item import Item
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings
from tasks.engine.planning import Planner


def items_of(source: Path) -> list[Item]:
    async def work() -> list[Item]:
        storage = Storage(Settings())
        try:
            return [item async for item in Planner(storage, parse_address(str(source))).items()]
        finally:
            await storage.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("source", "taken", "refused"),
    [
        ("s3://data/in", ["s3://data/in"], ["s3://data/in/a", "s3://data/in/", "s3://data/inside", "obs://data/in"]),
        (
            "s3://data/dir/",
            ["s3://data/dir/a"],
            ["s3://data/dir", "s3://data/secret", "s3://other/dir/a", "/etc/passwd"],
        ),
        ("s3://data", ["s3://data/secret", "s3://data/dir/a"], ["s3://other/secret", "file:///etc/passwd"]),
        ("s3://data//", ["s3://data//lead"], ["s3://data/secret", "s3://data/lead"]),
        ("s3://data/x.manifest", ["s3://data/dir/a"], ["s3://data/secret", "/no/json", "s3://data/dir/./a"]),
    ],
)
def test_failed_items__are_read_again_only_if_they_are_in_the_input(
    source: str, taken: list[str], refused: list[str]
) -> None:
    lines = [{"source": one, "result": "FAILED", "error_message": "x"} for one in (*taken, *refused)]
    content = dict.fromkeys(["in", "in/a", "inside", "dir", "dir/a", "secret", "/lead", "lead"], b"x")
    content["x.manifest"] = b'{"source": "s3://data/dir/a"}\n/no/json\n'
    earlier = f"infer-result-{uuid.uuid4()}.manifest"
    out = {earlier: "".join(json.dumps(line) + "\n" for line in lines).encode()}

    async def work(endpoint: str) -> list[Item]:
        names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        storage = Storage(Settings(), {"s3": Credentials.model_validate({"endpoint_url": endpoint, **names})})
        try:
            planner = Planner(storage, parse_address(source), parse_address(f"s3://out/{earlier}"))
            return [item async for item in planner.items()]
        finally:
            await storage.close()

    with OddS3Server({"data": content, "out": out}) as server:
        found = asyncio.run(work(server.endpoint))
    assert [item.source for item in found] == [*taken, *refused]
    assert [item.source for item in found if not item.error] == taken


def manifest(folder: Path, *sources: str) -> Path:
    path = folder / "input.manifest"
    path.write_text("".join(json.dumps({"source": source}) + "\n" for source in sources), encoding="utf-8")
    return path


def test_planning__gives_every_item_a_result_name_of_its_own(tmp_path: Path) -> None:
    found = items_of(manifest(tmp_path, "x/1.jpg", "y/1.jpg~2", "z/1.jpg", "x/1.jpg", "w/1.jpg"))
    names = [item.result_name for item in found]
    assert names[0] == "1.jpg_result.txt"
    assert len(set(names)) == 5


def test_planning__says_what_is_wrong_with_a_source_in_its_own_words(tmp_path: Path) -> None:
    found = items_of(manifest(tmp_path, "ftp://host/a", "folder/", "s3://", "https://[x/1.jpg?Signature=abc"))
    errors = [item.error for item in found]
    assert all(error.startswith("Download file failed. ") for error in errors)
    assert "ftp://" in errors[0]
    assert "folder" in errors[1]
    assert "bucket" in errors[2]
    assert "abc" not in errors[3]
    assert [item.number for item in found] == [0, 1, 2, 3]


def test_planning__keeps_the_name_order_of_the_whole_path(tmp_path: Path) -> None:
    for name in ("a/b", "a.b", "a-b", "b", "a/.hidden", ".h/x", "_SUCCESS", "a/_SUCCESS", "c.manifest", "A_SUCCESS"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = items_of(tmp_path)
    assert [Path(item.source).relative_to(tmp_path).as_posix() for item in found] == [
        "A_SUCCESS",
        "a-b",
        "a.b",
        "a/b",
        "b",
    ]


def test_planning__takes_share_links_whose_signature_ends_in_a_slash(tmp_path: Path) -> None:
    link = "https://example.com/1.jpg?Signature=abc&x-obs-security-token=gQpz/"
    found = items_of(manifest(tmp_path, link, "https://example.com/folder/?Signature=abc"))
    assert (found[0].error, found[0].address, found[0].result_name) == ("", link, "1.jpg_result.txt")
    assert "It is a folder" in found[1].error


def test_planning__keeps_result_files_and_folders_apart(tmp_path: Path) -> None:
    (tmp_path / "a_result.txt").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a_result.txt" / "b").write_bytes(b"two")
    assert [item.result_name for item in items_of(tmp_path)] == ["a_result.txt", "a_result.txt~/b_result.txt"]


MARKED = [
    "_SUCCESS",
    "_temporary/0/part.csv",
    "in/_committed_7",
    "in/_started_7",
    "sub_$folder$",
    "a/_b/c.csv",
    "_$folder$",
]


def test_folder__of_another_program_has_no_item_for_its_marks(tmp_path: Path) -> None:
    for name in (*MARKED, "part-0.csv", "in/part_1.csv", "in/a_$folder$.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    async def work() -> tuple[list[str], list[str]]:
        planner = Planner(Storage(Settings()), parse_address(str(tmp_path)))
        return [item.result_name async for item in planner.items()], planner.warnings

    names, warnings = asyncio.run(work())
    assert names == ["in/a_$folder$.csv_result.txt", "in/part_1.csv_result.txt", "part-0.csv_result.txt"]
    assert warnings == [
        f"{len(MARKED)} files passed over: names and folders that begin with _, and placeholders of folders"
    ]


@pytest.mark.parametrize("odd", ["", "//odd"], ids=["obstore", "s3fs"])
@pytest.mark.parametrize("source", ["s3://b/data", "s3://b/data/"])
def test_empty_object__with_others_below_it_stands_for_their_folder(source: str, odd: str) -> None:
    keys = {"data": b"", "data/1.csv": b"1", "data/sub": b"", "data/sub/2.csv": b"2", "data/sub-": b"", "data/z": b""}
    if odd:
        keys[f"data{odd}"] = b"3"

    async def work(endpoint: str) -> tuple[list[str], list[str]]:
        names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        storage = Storage(Settings(), {"s3": Credentials.model_validate({"endpoint_url": endpoint, **names})})
        try:
            planner = Planner(storage, parse_address(source))
            return [item.address async for item in planner.items()], planner.warnings
        finally:
            await storage.close()

    with OddS3Server({"b": keys}) as server:
        found, warnings = asyncio.run(work(server.endpoint))
    expected = ["s3://b/data/1.csv", "s3://b/data/sub-", "s3://b/data/sub/2.csv", "s3://b/data/z"]
    assert sorted(found) == sorted(expected + ([f"s3://b/data{odd}"] if odd else []))
    assert len(warnings) == (1 if source.endswith("/") else 2)


def test_empty_object__alone_is_an_item() -> None:
    async def work(endpoint: str) -> list[str]:
        names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        storage = Storage(Settings(), {"s3": Credentials.model_validate({"endpoint_url": endpoint, **names})})
        try:
            return [item.address async for item in Planner(storage, parse_address("s3://b/data")).items()]
        finally:
            await storage.close()

    with OddS3Server({"b": {"data": b"", "data-1/x": b""}}) as server:
        assert asyncio.run(work(server.endpoint)) == ["s3://b/data"]
