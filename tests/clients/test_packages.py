"""Model packages on every storage: their config.json, and a copy of their files on this machine."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.processes import closed_port

from tasks.clients.packages.packages import check_wheels, files_of, local_copy, read_config
from tasks.clients.storage import object_store
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.credentials import Credentials
from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.settings import Settings

CONFIG = json.dumps({"model_type": "Image", "apis": [{"url": "/"}]}).encode()


def copy(place: Place, folder: str, cache: Path) -> Path:
    return copied(f"{place.root}/{folder}", cache, place.credentials)


def copied(folder: str, cache: Path, credentials: dict[str, Credentials]) -> Path:
    async def work() -> Path:
        async with open_storage(Settings(), credentials, 0.2) as storage:
            return await local_copy(storage, folder, cache)

    return run(work())


def keys_of(server: OddS3Server) -> Credentials:
    return Credentials(endpoint_url=server.endpoint, access_key_id="a", secret_access_key="b", region="us-east-1")


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name != ".thresher-complete"
    }  # fmt: skip


@pytest.mark.parametrize("below", ["", "model/"])
def test_read_config__finds_it_in_the_package_or_its_model_folder(place: Place, below: str) -> None:
    place.put(f"package/{below}config.json", CONFIG)

    async def work(storage: Storage) -> tuple[str, str]:
        config, folder = await read_config(storage, place.root.child("package"))
        return config.model_type, str(folder)

    assert place.do(work) == ("Image", f"{place.root}/package{'/model' if below else ''}")


def test_check_wheels__names_each_that_the_package_does_not_have(place: Place) -> None:
    packages = [{"package_name": f"/home/mind/model/{name}"} for name in ("wheels/a.whl", "b.whl", "wheels/c.whl")]
    config = {"model_type": "PyTorch", "dependencies": [{"packages": [{"package_name": "six"}, *packages]}]}
    place.put("package/config.json", json.dumps(config).encode())
    place.put("package/wheels/a.whl", b"x")

    async def work(storage: Storage) -> list[str]:
        read, folder = await read_config(storage, place.root.child("package"))
        with pytest.raises(SpecificationError) as refused:
            await check_wheels(storage, folder, read)
        return [str(problem) for problem in refused.value.problems]

    said = f"package_name of the model's config.json = '{{}}': there is no such file in {place.root}/package"
    assert place.do(work) == [
        f"dependencies[0].packages[2].{said.format('b.whl')}",
        f"dependencies[0].packages[3].{said.format('wheels/c.whl')}",
    ]


def test_read_config__says_what_is_missing(place: Place) -> None:
    place.put("package/readme", b"x")

    async def work(storage: Storage) -> None:
        await read_config(storage, place.root.child("package"))

    with pytest.raises(SpecificationError, match=r"config\.json or model/config\.json; neither is there"):
        place.do(work)


def test_read_config__says_what_is_wrong(place: Place) -> None:
    place.put("package/config.json", b'{"apis": [{"url": "/", "method": 7}]}')

    async def work(storage: Storage) -> None:
        await read_config(storage, place.root.child("package"))

    with pytest.raises(SpecificationError) as raised:
        place.do(work)
    assert {problem.field.rpartition(": ")[2] for problem in raised.value.problems} == {"model_type", "apis[0].method"}


def test_files_of__has_the_names_directly_below(place: Place) -> None:
    for name in ("config.json", "run.sh", "sub/file"):
        place.put(f"package/{name}", b"x")

    async def work(storage: Storage) -> set[str]:
        return await files_of(storage, place.root.child("package"))

    assert place.do(work) == {"config.json", "run.sh", "sub"}


def test_local_copy__has_every_file(place: Place, tmp_path: Path) -> None:
    files = {"config.json": CONFIG, "a/b/c.bin": bytes(range(256)), "汉 字 %41.txt": b"odd", "empty": b""}
    for name, data in files.items():
        place.put(f"package/{name}", data)
    found = copy(place, "package", tmp_path / "cache")
    assert content(found) == files
    assert (found == Path(place.root.path) / "package") == (place.kind == "local")


def test_local_copy__is_made_once_and_anew_when_the_content_changes(place: Place, tmp_path: Path) -> None:
    if place.kind == "local":
        pytest.skip("a local package is used as it is")
    place.put("package/config.json", CONFIG)
    first = copy(place, "package", tmp_path / "cache")
    made = (first / "config.json").stat().st_mtime_ns
    assert copy(place, "package", tmp_path / "cache") == first
    assert (first / "config.json").stat().st_mtime_ns == made
    place.put("package/config.json", CONFIG + b"\n")
    second = copy(place, "package", tmp_path / "cache")
    assert second != first
    assert content(second) == {"config.json": CONFIG + b"\n"}
    assert len([*(tmp_path / "cache" / "packages").iterdir()]) == 2


def test_local_copy__by_several_at_once_is_whole(place: Place, tmp_path: Path) -> None:
    if place.kind == "local":
        pytest.skip("a local package is used as it is")
    for number in range(20):
        place.put(f"package/{number}", b"x" * 1000)
    copies: list[Path] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            copies.append(copy(place, "package", tmp_path / "cache"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(copies)) == 1
    assert len(content(copies[0])) == 20
    assert [path.name for path in (tmp_path / "cache" / "packages").iterdir()] == [copies[0].name]


@pytest.mark.parametrize("name", ["../../../outside", "a/../../out", "a/b/.."])
def test_local_copy__of_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    with (
        OddS3Server({"odd": {"package/config.json": CONFIG, f"package/{name}": b"bad"}}) as server,
        pytest.raises(StorageError, match=f"the name '{name}' leads outside of the package"),
    ):
        copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_local_copy__that_was_changed_is_made_again(tmp_path: Path) -> None:
    with OddS3Server({"odd": {"package/config.json": CONFIG}}) as server:
        found = copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
        assert found.stat().st_mode & 0o777 == 0o700
        (found / "written by the model.log").touch()
        assert copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)}) == found
        assert (found / "written by the model.log").exists()
        (found / "config.json").write_bytes(b"{}")
        again = copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
    assert again == found and content(again) == {"config.json": CONFIG}
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_local_copy__that_breaks_off_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    with OddS3Server({"odd": {f"package/{number}": b"x" for number in range(3)}}) as server:
        listing = server.listing

        def denied_afterwards(bucket: str, query: dict[str, str]) -> str:
            server.fail_next(403, times=50)
            return listing(bucket, query)

        server.listing = denied_afterwards  # type: ignore[method-assign, assignment]
        with pytest.raises(
            StorageError, match=r"package s3://odd/package cannot be copied: 0: No permission \(HTTP 403"
        ):
            copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
    assert [*(tmp_path / "cache" / "packages").iterdir()] == []


def test_local_copy__from_a_storage_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    with closed_port() as port:
        credentials = Credentials(
            endpoint_url=f"http://127.0.0.1:{port}",
            access_key_id="a",
            secret_access_key="hidden",
            region="us-east-1",
        )
        with pytest.raises(StorageError) as raised:
            copied("s3://odd/package", tmp_path / "cache", {"s3": credentials})
    assert str(raised.value) == (
        "The model package s3://odd/package cannot be read: "
        f"The storage http://127.0.0.1:{port} cannot be reached: connection refused."
    )


def test_local_copy__of_a_storage_that_answers_short_is_refused(tmp_path: Path) -> None:
    class Short(OddS3Server):
        def object_body(self, key: str, data: bytes) -> tuple[bytes, bool]:
            return (data[:5] if key.endswith("weights.bin") else data), True

    with (
        Short({"odd": {"package/config.json": CONFIG, "package/weights.bin": bytes(100)}}) as server,
        pytest.raises(StorageError, match=r"weights\.bin: The object has changed .* it had 100 bytes, it has 5 now"),
    ):
        copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False], ids=["in ranges", "whole"])
def test_local_copy__has_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool) -> None:
    monkeypatch.setattr(object_store, "_RANGE_BYTES", 1000)
    files = {"config.json": CONFIG, "weights.bin": bytes(range(250)) * 10, "odd//weights.bin": bytes(2500)}
    with OddS3Server({"odd": {f"package/{name}": data for name, data in files.items()}}) as server:
        server.ranges = ranges
        found = copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
        asked = server.lines.count("GET /odd/package/weights.bin")
    assert content(found) == {name.replace("//", "/"): data for name, data in files.items()}
    assert asked == (3 if ranges else 2)


def test_local_copy__of_a_large_file_that_is_replaced_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_RANGE_BYTES", 1000)

    class Replaced(OddS3Server):
        def object_body(self, key: str, data: bytes) -> tuple[bytes, bool]:
            self.buckets["odd"][key] = bytes(2500)
            return data, True

    with Replaced({"odd": {"package/weights.bin": b"x" * 2500}}) as server:
        server.ranges = True
        with pytest.raises(StorageError, match=r"cannot be copied: weights\.bin: .*PreconditionFailed"):
            copied("s3://odd/package", tmp_path / "cache", {"s3": keys_of(server)})
    assert list((tmp_path / "cache" / "packages").iterdir()) == []
