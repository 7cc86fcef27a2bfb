"""The model store on every storage: versions, their states, and which one is taken."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from clients.places import Place, credentials_of
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from fakes.processes import closed_port
from fakes.s3_server import S3Server
from pydantic import SecretStr

from tasks.clients.packages.model_store import VERSION_FILE, ModelStore, State, check_content
from tasks.clients.packages.packages import local_copy
from tasks.clients.storage.storage import open_storage
from tasks.domain.credentials import Credentials
from tasks.domain.errors import CallError, ModelServerError, SpecificationError, StorageError
from tasks.domain.settings import Settings


class Waiting:
    """A model store whose methods can be called without an event loop; each call opens the storage anew."""

    def __init__(self, root: str, credentials: Mapping[str, Credentials] | None = None) -> None:
        self._root = root
        self._credentials = credentials or {}

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            async with open_storage(Settings(), self._credentials, 0.2) as storage:
                return await getattr(ModelStore(storage, self._root), method)(*arguments)

        return lambda *arguments: run(call(*arguments))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "model" / "__pycache__").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model" / "weights 汉.bin").write_bytes(bytes(range(256)) * 40_000)
    (folder / "model" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / VERSION_FILE).write_text("somebody's own")
    return folder


@pytest.fixture
def store(place: Place) -> Waiting:
    return Waiting(f"{place.root}/store", place.credentials)


Create = Callable[..., None]


@pytest.fixture
def create(store: Waiting, tmp_path: Path) -> Create:
    """Registers versions of a model, in a state."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def make(model: str, *versions: str, state: State = "Normal", source: str = "my-models", reason: str = "") -> None:
        for version in versions:
            store.set_state(store.create(source, model, version, empty), state, reason)

    return make


def refusal(store: Waiting, model: str, version: str | None = None) -> str:
    with pytest.raises(SpecificationError) as raised:
        store.pick("my-models", model, version)
    assert len(raised.value.problems) == 1
    return str(raised.value.problems[0])


def test_create__copies_the_package(store: Waiting, place: Place, package: Path) -> None:
    made = store.create("my-models", "digits", "0.0.1", package)
    assert (made.state, made.folder) == ("Creating", f"{place.root}/store/my-models/digits/0.0.1")
    names = [name.removeprefix("store/my-models/digits/0.0.1/") for name in place.names()]
    assert names == ["config.json", "model/weights 汉.bin", VERSION_FILE]
    weights = place.get("store/my-models/digits/0.0.1/model/weights 汉.bin")
    assert weights == (package / "model" / "weights 汉.bin").read_bytes()
    document = json.loads(place.get(f"store/my-models/digits/0.0.1/{VERSION_FILE}"))
    assert (document["state"], document["version"]) == ("Creating", "0.0.1")


def test_create__refuses_a_version_that_exists(store: Waiting, package: Path) -> None:
    made = store.create("my-models", "digits", "0.0.1", package)
    store.set_state(made, "Normal", "")
    with pytest.raises(SpecificationError, match="digits has this version already"):
        store.create("my-models", "digits", "0.0.1", package)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-x", "a/b", "a b", "汉", "x" * 65, "a\n"])
def test_create__refuses_names_that_are_no_folder(tmp_path: Path, package: Path, name: str) -> None:
    store = Waiting(str(tmp_path / "store"))
    with pytest.raises(SpecificationError) as raised:
        store.create("my-models", name, name, package)
    assert [problem.field for problem in raised.value.problems] == ["model", "model_version"]
    assert not (tmp_path / "store").exists()


def test_pick__takes_the_newest_normal_version(store: Waiting, create: Create) -> None:
    versions = ["0.0.9", "0.0.10", "0.0.2"]
    create("digits", *versions)
    create("digits", "0.0.11", state="Creating")
    create("digits", "0.1.0", state="Abnormal")
    assert store.pick("my-models", "digits", None).version == "0.0.10"
    assert store.pick("my-models", "digits", "0.0.9").version == "0.0.9"
    assert [one.version for one in store.versions("my-models", "digits")] == [
        "0.1.0",
        "0.0.11",
        "0.0.10",
        "0.0.9",
        "0.0.2",
    ]


def test_versions__stand_in_natural_order(tmp_path: Path) -> None:
    store = Waiting(str(tmp_path / "store"))
    newest_first = ["10.0.0", "2.0.0", "1.10", "1.9", "1.2.1", "1.2", "0.0.10", "0.0.9", "beta"]
    mixed = newest_first.copy()
    random.Random(1).shuffle(mixed)
    for version in mixed:
        store.create("my-models", "m", version, tmp_path / "nothing")
    assert [one.version for one in store.versions("my-models", "m")] == newest_first


@pytest.mark.parametrize("state", [state for state in get_args(State) if state != "Normal"])
def test_pick__refuses_another_state(store: Waiting, create: Create, state: State) -> None:
    create("digits", "0.0.1", state=state, reason="health never came")
    create("digits", "0.0.2")
    expected = f"model_version = '0.0.1': the version is {state}, not Normal: health never came"
    assert refusal(store, "digits", "0.0.1") == expected


def test_pick__refuses_a_model_without_a_normal_version(store: Waiting, create: Create) -> None:
    create("digits", "0.0.1", state="Abnormal")
    create("digits", "0.0.2", state="Creating")
    expected = "has no version in the Normal state; there are: 0.0.2 (Creating), 0.0.1 (Abnormal)"
    assert refusal(store, "digits") == f"model = 'digits': {expected}"


def test_pick__says_what_there_is(store: Waiting, create: Create) -> None:
    assert "there is no such model in my-models" in refusal(store, "digits")
    assert "there are: none yet" in refusal(store, "digits")
    create("digits", "0.0.1")
    create("iris", "0.0.1")
    create("theirs", "0.0.1", source="my-subscriptions")
    assert "there are: digits, iris." in refusal(store, "flowers")
    assert refusal(store, "digits", "7").endswith("there is no such version; there are: 0.0.1 (Normal)")
    assert store.models("my-models") == ["digits", "iris"]
    assert store.pick("my-subscriptions", "theirs", None).version == "0.0.1"


def test_versions__pass_over_folders_without_a_state(store: Waiting, place: Place, create: Create) -> None:
    create("digits", "0.0.1")
    place.put("store/my-models/digits/half/config.json", b"{}")
    place.put("store/my-models/digits/a file", b"x")
    assert [one.version for one in store.versions("my-models", "digits")] == ["0.0.1"]


@pytest.mark.parametrize("text", [b"not json", b"[]", b'{"state": "Great"}', b"\xff"])
def test_versions__whose_file_is_broken_are_abnormal_and_hide_no_others(
    store: Waiting, place: Place, create: Create, package: Path, text: bytes
) -> None:
    create("digits", "0.0.1")
    place.put(f"store/my-models/digits/0.0.2/{VERSION_FILE}", text)
    broken, good = store.versions("my-models", "digits")
    assert (broken.version, broken.state) == ("0.0.2", "Abnormal")
    assert f"its {VERSION_FILE} is broken" in broken.reason
    assert store.pick("my-models", "digits", None) == good
    assert store.create("my-models", "digits", "0.0.2", package).state == "Creating"  # registering it again mends it


def test_set_state__leaves_nothing_but_the_file(tmp_path: Path, package: Path) -> None:
    store = Waiting(str(tmp_path / "store"))
    store.set_state(store.create("my-models", "digits", "0.0.1", package), "Normal", "")
    names = {path.name for path in (tmp_path / "store" / "my-models" / "digits" / "0.0.1").iterdir()}
    assert names == {"config.json", "model", VERSION_FILE}


def test_set_state__is_seen_by_the_next_reader(store: Waiting, place: Place, create: Create) -> None:
    create("digits", "0.0.1", state="Creating")
    other = Waiting(f"{place.root}/store", place.credentials)
    assert other.versions("my-models", "digits")[0].state == "Creating"
    store.set_state(store.versions("my-models", "digits")[0], "Normal", "")
    assert other.pick("my-models", "digits", None).state == "Normal"


def test_create__that_fails_leaves_an_abnormal_version(tmp_path: Path, package: Path) -> None:
    store = Waiting(str(tmp_path / "store"))
    (tmp_path / "store" / "my-models" / "digits" / "0.0.1" / "model" / "weights 汉.bin").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be copied"):
        store.create("my-models", "digits", "0.0.1", package)
    found = store.versions("my-models", "digits")[0]
    assert (found.state, found.reason) == ("Abnormal", "the package could not be copied")


def test_create__refuses_a_link_out_of_the_package_and_leaves_nothing(
    store: Waiting, place: Place, package: Path, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("key")
    (package / "model" / "linked").symlink_to(tmp_path / "private")
    with pytest.raises(SpecificationError, match=r"model/linked.*outside of the package"):
        store.create("my-models", "digits", "0.0.1", package)
    assert [name for name in place.names() if name.startswith("store/")] == []


def test_create__keeps_what_a_link_inside_leads_to(store: Waiting, place: Place, package: Path) -> None:
    (package / "linked").symlink_to("config.json")
    store.create("my-models", "digits", "0.0.1", package)
    assert place.get("store/my-models/digits/0.0.1/linked") == b"{}"


def test_pick__refuses_a_version_of_which_a_file_was_changed(tmp_path: Path, package: Path) -> None:
    store = Waiting(str(tmp_path / "store"))
    made = store.set_state(store.create("my-models", "digits", "0.0.1", package), "Normal", "")
    (Path(made.folder) / "written by the model.log").touch()
    assert store.pick("my-models", "digits", None).state == "Normal"
    (Path(made.folder) / "config.json").write_text('{"model_type": "Image"}')
    for version in (None, "0.0.1"):
        assert "its file config.json was changed or removed after it was registered" in refusal(
            store, "digits", version
        )


def test_store__that_cannot_be_reached_is_told() -> None:
    with closed_port() as port:
        credentials = Credentials(
            endpoint_url=f"http://127.0.0.1:{port}",
            access_key_id="a",
            secret_access_key="hidden",
            region="us-east-1",
        )
        store = Waiting("s3://bucket/store", {"s3": credentials})
        with pytest.raises(StorageError) as raised:
            store.models("my-models")
    assert str(raised.value) == (
        "The model store s3://bucket/store cannot be listed: "
        f"The storage http://127.0.0.1:{port} cannot be reached: connection refused."
    )


def test_pick__of_a_name_that_is_a_folder_here_says_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecificationError, match=r"\./model exists: write \./model to use it"):
        Waiting(str(tmp_path / "store")).pick("my-models", "model", None)


def test_create__makes_the_bucket_of_the_store(s3_server: S3Server, package: Path) -> None:
    keys = credentials_of(s3_server)
    store = Waiting("s3://new-bucket-of-a-store/models", {"s3": keys})
    assert store.models("my-models") == []
    store.create("my-models", "digits", "0.0.1", package)
    assert Waiting("s3://new-bucket-of-a-store/models", {"s3": keys}).models("my-models") == ["digits"]


def test_create__in_a_store_that_refuses_says_why(place: Place, package: Path) -> None:
    if place.kind == "local":
        (Path(place.root.path) / "store").write_text("a file")
        with pytest.raises(StorageError, match=r"The model store .* cannot be listed: It is a file, not a folder\."):
            Waiting(f"{place.root}/store").create("my-models", "digits", "0.0.1", package)
        return
    wrong = place.credentials[place.kind].model_copy(update={"secret_access_key": SecretStr("wrong-secret")})
    with pytest.raises(StorageError) as raised:
        Waiting(f"{place.root}/store", {place.kind: wrong}).create("my-models", "digits", "0.0.1", package)
    refused = "cannot be listed: No permission (HTTP 403 Forbidden, SignatureDoesNotMatch) with the access key TEST..."
    assert str(raised.value) == f"The model store {place.root}/store {refused}."


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html><body>Sign in</body></html>", "<html>Sign in<br></html>"])
def test_store__at_the_address_of_a_page_says_so(page: str) -> None:
    class Page(OddS3Server):
        def listing(self, bucket: str, query: Mapping[str, str]) -> str:
            return page

        def object_body(self, key: str, data: bytes) -> tuple[bytes, bool]:
            return page.encode(), False

        def etag(self, key: str, data: bytes, *, listed: bool) -> str:
            return ""

    with Page({"bucket": {f"store/{VERSION_FILE}": b"a page"}}) as server:
        credentials = Credentials(endpoint_url=server.endpoint, access_key_id="a", secret_access_key="b")
        with pytest.raises(
            StorageError, match=r"store s3://bucket/store cannot be listed: .* does not answer as S3 does"
        ):
            Waiting("s3://bucket/store", {"s3": credentials}).models("my-models")


def test_set_state__on_a_disk_that_cannot_be_written_names_the_setting(tmp_path: Path, package: Path) -> None:
    store = Waiting(str(tmp_path / "store"))
    made = store.create("my-models", "digits", "0.0.1", package)
    (tmp_path / "store").rename(tmp_path / "gone")
    (tmp_path / "store").write_text("a file")
    with pytest.raises(CallError, match=r"THRESHER_MODEL_STORE = .* should be a folder that can be written to: "):
        store.set_state(made, "Normal", "")


def test_content__of_a_version_that_a_run_has_taken_is_checked_when_an_instance_starts(
    store: Waiting, place: Place, package: Path, tmp_path: Path
) -> None:
    (package / "model" / "config.json").write_text("{}")
    made = store.set_state(store.create("my-models", "digits", "0.0.1", package), "Normal", "")
    folder = f"{place.root}/store/my-models/digits/0.0.1"

    def check(content: str = made.content, at: str = folder) -> None:
        async def checked() -> None:
            async with open_storage(Settings(), place.credentials, 0.2) as storage:
                copy = await local_copy(storage, at, tmp_path / "cache")
                await check_content(storage, at, copy, content)

        run(checked())

    assert len(made.content) == 64
    for at in (folder, f"{folder}/model"):
        check(at=at)
    with pytest.raises(ModelServerError, match=r"was deleted or registered again after this run had taken it"):
        check("0" * 64)
    place.put("store/my-models/digits/0.0.1/model/weights 汉.bin", b"poisoned")
    for at, name in ((folder, "model/weights 汉.bin"), (f"{folder}/model", "weights 汉.bin")):
        with pytest.raises(ModelServerError, match=f"digits 0.0.1 is refused: its file {name} was changed"):
            check(at=at)
    store.delete(made)
    with pytest.raises((ModelServerError, StorageError)):
        check()
    assert store.models("my-models") == []
