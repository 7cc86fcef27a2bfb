"""What dependencies of a config.json may name: it becomes an argument of the installer."""

from __future__ import annotations

import json

import pytest

from tasks.domain.config_file import parse_config
from tasks.domain.errors import SpecificationError
from tasks.domain.package import PackageConfig


def read(name: str, version: str | None = None) -> PackageConfig:
    package = {"package_name": name} | ({} if version is None else {"package_version": version})
    text = json.dumps({"model_type": "PyTorch", "dependencies": [{"installer": "pip", "packages": [package]}]})
    return parse_config(text.encode(), "config.json")


@pytest.mark.parametrize(
    ("name", "version", "requirement"),
    [
        ("numpy", None, "numpy"),
        (" numpy ", " 1.17.0 ", "numpy==1.17.0"),
        ("ruamel.yaml", "0.15.0rc1", "ruamel.yaml==0.15.0rc1"),
        ("torch", "1.8.0+cpu", "torch==1.8.0+cpu"),
        ("torch", "1!1.8.*", "torch==1!1.8.*"),
        ("uvicorn[standard, dev]", "0.1", "uvicorn[standard, dev]==0.1"),
        ("numpy>=1.15, <2", None, "numpy>=1.15, <2"),
        ("sklearn", None, "scikit-learn"),
        ("/home/mind/model/x.whl", None, "./x.whl"),
        ("/home/mind/model/wheels/x-1.0+cpu-py3-none-any.whl", None, "./wheels/x-1.0+cpu-py3-none-any.whl"),
        ("./x-1.tar.gz", "", "./x-1.tar.gz"),
    ],
)
def test_requirement__of_a_package_or_a_wheel_of_the_model(name: str, version: str | None, requirement: str) -> None:
    assert read(name, version).requirements == [[requirement]]


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "-", "--index-url=http://evil/", "--index-url http://evil/", "-r", "-e .", "-e.", ".", "..", "./", "/",
        "git+https://example.com/x.git", "https://example.com/x-1-py3-none-any.whl", "file:///etc/x.whl",
        "numpy @ https://example.com/x.whl", "numpy; python_version > '3'", "numpy scipy", "numpy\n--no-index",
        "numpy\0", "$(id)", "`id`", "numpy|sh", "numpy#", "nümpy", "numpy>", "numpy==1 --pre", "numpy[", "/etc/x.whl",
        "../x.whl", "/home/mind/model/../x.whl", "/home/mind/model//x.whl", "/home/mind/model/-x.whl",
        "/home/mind/model/", "a/../../x.whl", "x" * 10_000 + "!",
    ],
)  # fmt: skip
def test_requirement__that_an_installer_could_take_for_more_is_refused(name: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        read(name)
    assert len(refused.value.problems) == 1
    said = str(refused.value.problems[0])
    assert said.startswith("config.json: dependencies[0].packages[0].package_name")
    assert "should be the name of a Python package" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "version", [">=1.0", "1.0 --pre", "--pre", "1.0;", "latest", "1,<2", "1\n2", "https://e.com/x"]
)
def test_version__that_is_none_is_refused(version: str) -> None:
    with pytest.raises(
        SpecificationError, match=r"packages\[0\]\.package_version.*: should be a version, as in 1\.20\.0"
    ):
        read("numpy", version)


def test_version__stands_once() -> None:
    with pytest.raises(SpecificationError, match=r"package_version = '1': package_name already has a version"):
        read("numpy>=1", "1")


def test_requirement__with_a_password_shows_none() -> None:
    with pytest.raises(SpecificationError) as refused:
        read("git+https://user:hunter2@example.com/x.git")
    assert "hunter2" not in str(refused.value)


def test_requirements__that_are_files_are_named_by_field() -> None:
    config = read("/home/mind/model/wheels/x.whl")
    assert config.wheels == {"dependencies[0].packages[0].package_name": "wheels/x.whl"}
    assert read("numpy").wheels == {}
