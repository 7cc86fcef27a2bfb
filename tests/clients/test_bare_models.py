"""Bare models on each kind of storage: found, described in an environment of their own, made into a package once."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from clients.places import Place
from clients.support import ROOT

from tasks.clients.packages.bare_models import BareModel, find_bare_model, made_package, write_package
from tasks.clients.packages.packages import read_config
from tasks.clients.storage.storage import Storage
from tasks.domain.bare_models import MADE, Made
from tasks.domain.errors import SpecificationError
from tasks.domain.paths import Address, parse_address
from tasks.domain.settings import Settings

IRIS = (ROOT / "infra" / "models" / "iris" / "iris.onnx").read_bytes()
PICKLED = pickle.dumps({"not": "a model"})


class Bomb:
    """Unpickling it writes which process does so, and what that one knows."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        seen = "{'process': os.getpid(), 'environment': dict(os.environ)}"
        return exec, (f"import json, os; json.dump({seen}, open({self.path!r}, 'w'))",)


def found(place: Place, relative: str) -> BareModel | None:
    return place.do(lambda storage: find_bare_model(storage, place.root.child(relative)))


def refused(place: Place, relative: str) -> str:
    with pytest.raises(SpecificationError) as raised:
        found(place, relative)
    return str(raised.value)


def made(place: Place, relative: str) -> Path:
    async def work(storage: Storage) -> Path:
        model = await find_bare_model(storage, place.root.child(relative))
        assert model is not None
        return await made_package(storage, model, Settings())

    return place.do(work)


def test_find__tells_files_folders_and_packages(place: Place) -> None:
    place.put("a/model.pkl", PICKLED)
    place.put("a/README.md", b"x")
    place.put("b/model.pkl", PICKLED)
    place.put("b/requirements.txt", b"six")
    place.put("c/m.onnx", IRIS)
    place.put("c/weights.bin", b"x")
    place.put("d/MLmodel", b"x")
    place.put("e/saved_model.pb", b"x")
    place.put("f/2/saved_model.pb", b"x")
    place.put("g/config.json", b"{}")
    place.put("g/model.pkl", PICKLED)
    place.put("h/model/config.json", b"{}")
    place.put("i/data.csv", b"1")
    root = place.root
    assert found(place, "a/model.pkl") == BareModel("scikit-learn", root.child("a"), "model.pkl")
    assert found(place, "a") == BareModel("scikit-learn", root.child("a"), "model.pkl")
    assert found(place, "b") == BareModel("scikit-learn", root.child("b"))  # with its requirements
    assert found(place, "c") == BareModel("ONNX", root.child("c"))
    assert found(place, "d") == found(place, "d/MLmodel") == BareModel("MLflow", root.child("d"))
    assert found(place, "e") == found(place, "e/saved_model.pb") == BareModel("saved_model", root.child("e"))
    assert found(place, "f") == BareModel("saved_model", root.child("f"))
    assert [found(place, name) for name in ("g", "h", "i", "nothing")] == [None] * 4


def test_find__refuses_several_models_and_unknown_formats(place: Place) -> None:
    place.put("two/a.pkl", PICKLED)
    place.put("two/b.pkl", PICKLED)
    place.put("other/a.pkl", PICKLED)
    place.put("other/data.csv", b"1,2")
    place.put("text/notes.txt", b"hello")
    expected = "holds one model file only; name the file, or write a package"
    assert f"has a.pkl, b.pkl: a folder of a bare model {expected}" in refused(place, "two")
    assert f"has a.pkl, data.csv: a folder of a bare model {expected}" in refused(place, "other")
    assert 'is no text model of LightGBM, whose first line is "tree"' in refused(place, "text/notes.txt")
    assert "missing.joblib': there is no such file" in refused(place, "text/missing.joblib")


@pytest.mark.slow
def test_made_package__is_a_whole_package_made_once(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Packages of its own, which it changes; the environments of all tests.
    environments = Settings().cache / "environments"
    environments.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "environments").symlink_to(environments)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    place.put("models/flowers.onnx", IRIS)
    package = made(place, "models/flowers.onnx")
    assert sorted(path.name for path in package.iterdir() if not path.name.startswith(".")) == [
        "config.json", "customize_service.py", "flowers.onnx"
    ]  # fmt: skip
    assert (package / "flowers.onnx").read_bytes() == IRIS
    state = (package / "config.json").stat().st_ino
    assert made(place, "models/flowers.onnx") == package
    place.put("elsewhere/flowers.onnx", IRIS)
    assert made(place, "elsewhere/flowers.onnx") == package  # by content
    assert (package / "config.json").stat().st_ino == state
    config, _ = place.do(lambda storage: read_config(Storage(Settings()), local(package)))
    assert (config.model_type, config.requirements) == ("Custom", [["onnxruntime", "numpy"]])
    row = json.loads((package / "config.json").read_text())["apis"][0]["request"]["data"]["properties"]["data"]
    assert list(row["properties"]["req_data"]["items"][0]["properties"]) == [f"input_{n}" for n in (1, 2, 3, 4)]
    # Changed in the cache, for example by a model: it is made again.
    (package / "config.json").write_text("{}")
    assert made(place, "models/flowers.onnx") == package
    assert json.loads((package / "config.json").read_text())["model_type"] == "Custom"
    assert not [path for path in package.parent.iterdir() if path.suffix == ".part"]


@pytest.mark.slow
def test_write_package__writes_it_to_an_empty_folder_only(place: Place, tmp_path: Path) -> None:
    place.put("flowers.onnx", IRIS)

    async def work(storage: Storage) -> None:
        await write_package(storage, place.root.child("flowers.onnx"), tmp_path / "written", Settings())

    place.do(work)
    names = sorted(path.name for path in (tmp_path / "written").iterdir())
    assert names == ["config.json", "customize_service.py", "flowers.onnx"]
    with pytest.raises(SpecificationError, match="should be an empty folder, or not be there yet"):
        place.do(work)


@pytest.mark.slow
def test_made_package__loads_a_pickle_in_its_own_environment_and_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kept")
    monkeypatch.setitem(MADE, "scikit-learn", Made("Custom", "scikit_learn.py", ("joblib", "numpy")))
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(str(tmp_path / "seen"))))
    with pytest.raises(SpecificationError, match=r"holds builtins.NoneType, which has no predict\(\)"):
        made(Place("local", local(tmp_path), {}, None), "bomb.pkl")
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["process"] != os.getpid()
    assert "PATH" in seen["environment"] and "kept" not in seen["environment"].values()


@pytest.mark.slow
def test_made_package__says_which_module_the_model_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MADE, "scikit-learn", Made("Custom", "scikit_learn.py", ("joblib", "numpy")))
    (tmp_path / "own.pkl").write_bytes(b"\x80\x04cown_module\nModel\n.")
    with pytest.raises(SpecificationError) as raised:
        made(Place("local", local(tmp_path), {}, None), "own.pkl")
    expected = "cannot be read as a model of scikit-learn: ModuleNotFoundError: No module named 'own_module'"
    assert f"{expected}; put a requirements.txt beside it" in str(raised.value)


def local(folder: Path) -> Address:
    return parse_address(str(folder))
