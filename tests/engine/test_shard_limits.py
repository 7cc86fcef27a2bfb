"""Limits of a shard, its package, and what earlier tries left."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import FAKE_MODEL_SERVER, processes_with
from engine.runs import ROWS, TEXT, Shard, items_of, local_items, make_run
from fakes.model_server import FakeModelServer

from tasks.domain.errors import ModelServerError


def texts(count: int) -> dict[str, bytes]:
    return {f"{number:03d}.bin": b"item %d" % number for number in range(count)}


# --- rows


def rows_shard(folder: Path, url: str, files: dict[str, bytes], *, path: str = "/iris", **fields: object) -> Shard:
    run_ = make_run(url, str(folder / "out"), request=TEXT if path == "/echo" else ROWS, path=path, **fields)
    return Shard(run_, local_items(folder / "in", files)).infer()


# --- limits


def test_bytes__in_flight_are_bounded(tmp_path: Path) -> None:
    contents = {f"{number}.bin": bytes([number]) * 300_000 for number in range(24)}
    with FakeModelServer("--service-time", "30", "--parallelism", "100") as model:
        shard = Shard(
            make_run(model.url, str(tmp_path / "out")), local_items(tmp_path / "in", contents), bytes_in_flight=1 << 20
        )
        assert shard.infer().tally.successful == 24
        assert model.stats()["max_in_flight"] <= 3


def test_item__larger_than_all_bytes_in_flight_is_processed(tmp_path: Path, fake: FakeModelServer) -> None:
    contents = {"large": bytes(3 << 20), "small": b"x", "large too": bytes(2 << 20)}
    shard = Shard(
        make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", contents), bytes_in_flight=1 << 20
    )
    assert shard.infer().tally.successful == 3


@pytest.mark.parametrize("most", [1, 4])
def test_max_concurrency__holds_for_files_and_rows(tmp_path: Path, most: int) -> None:
    rows = b"".join(b"%d,2\n" % number for number in range(40))
    with FakeModelServer("--service-time", "3", "--parallelism", "50") as model:
        Shard(
            make_run(model.url, str(tmp_path / "out"), max_concurrency=most), local_items(tmp_path / "in", texts(40))
        ).infer()
        rows_shard(tmp_path / "rows", model.url, {"1.csv": rows, "2.csv": rows}, max_concurrency=most)
        assert model.stats()["max_in_flight"] <= most


# --- packages


def package(folder: Path, *options: str) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "run.sh").write_text(f"exec {sys.executable} {FAKE_MODEL_SERVER} {' '.join(options)}\n")
    return str(folder)


def test_package__is_started_once_for_all_shards_and_leaves_nothing(tmp_path: Path) -> None:
    home = package(tmp_path / "package", "--state", str(tmp_path / "state"))
    run_ = make_run("package", str(tmp_path / "out"), package=home)
    contents = texts(40)
    shard = Shard(run_, local_items(tmp_path / "in", contents), cache=tmp_path / "cache").infer()
    assert set(shard.messages.values()) == {""}
    assert json.loads((tmp_path / "state").read_text())["starts"] == 1
    assert processes_with(str(tmp_path)) == []


@pytest.mark.slow
def test_package__whose_server_dies_on_one_item_loses_no_other(tmp_path: Path) -> None:
    home = package(tmp_path / "package")
    contents = texts(40) | {"killer": b"FAIL:die"}
    shard = Shard(
        make_run("package", str(tmp_path / "out"), package=home), local_items(tmp_path / "in", contents),
        cache=tmp_path / "cache",
    ).infer()  # fmt: skip
    assert shard.messages.pop("killer") == "model server died 3 times on this item"
    assert shard.tally.successful == 40


def test_package__that_cannot_be_started_is_an_error_of_the_run(tmp_path: Path) -> None:
    home = package(tmp_path / "package", "--exit-at-start", "9")
    shard = Shard(
        make_run("package", str(tmp_path / "out"), package=home), local_items(tmp_path / "in", texts(3)),
        cache=tmp_path / "cache",
    )  # fmt: skip
    with pytest.raises(ModelServerError, match=r"(?s)status 9.*exits at start, as asked"):
        shard.infer()
    assert processes_with(str(tmp_path)) == []


def test_package__from_a_storage_is_copied_and_started(place: Place, tmp_path: Path) -> None:
    for name in ("config.json", "run.sh"):
        local = Path(package(tmp_path / name))
        place.put(f"model/{name}", (local / name).read_bytes())
    shard = Shard(
        make_run("package", str(tmp_path / "out"), package=f"{place.root}/model"),
        local_items(tmp_path / "in", texts(3)), cache=tmp_path / "cache",
    )  # fmt: skip
    shard.credentials = place.credentials
    assert set(shard.infer().messages.values()) == {""}


@pytest.mark.parametrize("number", [None, 1], ids=["alone", "beside other processes"])
def test_result__that_a_killed_try_left_of_an_item_that_fails_is_deleted_where_nobody_else_writes(
    tmp_path: Path, fake: FakeModelServer, number: int | None
) -> None:
    items = local_items(tmp_path / "in", {"good": b"1", "bad": b"FAIL:404"})
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items)
    shard.number = number
    results = tmp_path / "out" / shard.run.names.result_folder
    results.mkdir(parents=True)
    (results / "bad_result.txt").write_bytes(b"of an earlier try, or of another process")
    shard.infer()
    assert shard.has_result("good") and bool(shard.messages["bad"])
    assert shard.has_result("bad") is (number is not None)


def test_file__that_is_missing_is_told_with_the_signs_of_its_name_that_do_not_show(
    tmp_path: Path, fake: FakeModelServer
) -> None:
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), items_of(str(tmp_path), ["gone\u200b.jpg", "gone.jpg"]))
    shard.infer()
    assert shard.messages == {
        "gone\u200b.jpg": "Download file failed. There is no such file. (\\u200b is a zero width space)",
        "gone.jpg": "Download file failed. There is no such file.",
    }
