"""The example packages, each in the isolated environment that its config.json describes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any

INFRA = Path(__file__).parents[2] / "infra"
IRIS = INFRA / "models" / "iris"
DIGITS = INFRA / "models" / "digits"

IRIS_REQUEST = {"data": {"req_data": [{"input_1": 5.1, "input_2": 3.5, "input_3": 1.4, "input_4": 0.2}]}}
"""As the mapping example has it."""


def config_of(package: Path) -> dict[str, Any]:
    """The package's config.json."""
    config = json.loads((package / "config.json").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


@pytest.fixture(scope="session")
def environment_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the environment of a package once per session; returns its Python."""
    made: dict[Path, Path] = {}

    def make(package: Path) -> Path:
        if package not in made:
            folder = tmp_path_factory.mktemp(package.name) / "environment"
            python = folder / "bin" / "python"
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, folder], check=True)
            wanted = [
                f"{each['package_name']}=={each['package_version']}"
                for dependency in config_of(package)["dependencies"]
                for each in dependency["packages"]
            ]
            needed = ["--requirement", str(INFRA / "serving" / "requirements.txt")]
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *wanted, *needed], check=True)
            made[package] = python
        return made[package]

    return make


@pytest.fixture
def iris(start_server: StartServer, environment_of: Any) -> Any:
    """The running iris package."""
    return start_server(IRIS, python=environment_of(IRIS)).ready()


@pytest.fixture
def digits(start_server: StartServer, environment_of: Any) -> Any:
    """The running digits package."""
    return start_server(DIGITS, python=environment_of(DIGITS)).ready()


def multipart(*files: Path, key: str = "images") -> tuple[bytes, str]:
    """Body and content type of a request with the contents of ``files``."""
    parts = b"".join(
        b'--part\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (key.encode(), file.name.encode(), file.read_bytes())
        for file in files
    )
    return parts + b"--part--\r\n", "multipart/form-data; boundary=part"


@pytest.mark.parametrize("package", [IRIS, DIGITS])
def test_config__names_exact_versions_and_measured_metrics(package: Path) -> None:
    config = config_of(package)
    packages = [each for dependency in config["dependencies"] for each in dependency["packages"]]
    assert {each["restraint"] for each in packages} == {"EXACT"}
    assert set(config["metrics"]) == {"f1", "recall", "precision", "accuracy"}
    assert all(0.95 < value <= 1 for value in config["metrics"].values())


@pytest.mark.parametrize(
    ("package", "suffixes", "files"), [(IRIS, {".csv"}, 1), (DIGITS, {".png"}, 300)], ids=["iris", "digits"]
)
def test_data_folder__holds_nothing_but_data(package: Path, suffixes: set[str], files: int) -> None:
    found = [path for path in (package / "data").rglob("*") if path.is_file()]
    assert ({path.suffix for path in found}, len(found)) == (suffixes, files)


def test_iris__answers_the_request_of_the_mapping_example(iris: Any) -> None:
    answer = iris.post(IRIS_REQUEST)
    assert answer.status == 200
    (element,) = answer.json()["data"]["resp_data"]
    assert element["predictresult"] == "setosa"
    assert 0.9 < element["probability"] <= 1


def test_iris__is_as_accurate_as_its_readme_says_one_row_a_request_or_all_in_one(iris: Any) -> None:
    with (IRIS / "data" / "iris.csv").open(newline="") as file:
        rows = [{f"input_{n}": float(cell) for n, cell in enumerate(row, 1)} for row in csv.reader(file)]
    labels = (IRIS / "labels.csv").read_text().split()
    assert len(rows) == len(labels) == 150
    together = iris.post({"data": {"req_data": rows}}).json()["data"]["resp_data"]
    one_by_one = [iris.post({"data": {"req_data": [row]}}).json()["data"]["resp_data"][0] for row in rows]
    assert together == one_by_one
    right = sum(answer["predictresult"] == label for answer, label in zip(together, labels, strict=True))
    assert right == 143


def test_iris__says_what_is_wrong_with_a_request(iris: Any) -> None:
    few, cells = [{"input_1": 5.1}], [[5.1, 3.5, 1.4, 0.2]]
    requests: list[Any] = [{}, [], {"data": {"req_data": few}}, {"data": {"req_data": cells}}]
    for wrong in requests:
        answer = iris.post(wrong)
        assert answer.status == 500
        assert answer.json()["error"].startswith("ValueError: the request must look like")
    assert iris.post({"data": {"req_data": []}}).json() == {"data": {"resp_data": []}}


def test_digits__is_as_accurate_as_its_readme_says(digits: Any) -> None:
    with (DIGITS / "labels.csv").open(newline="") as file:
        labels = dict(csv.reader(file))
    assert len(labels) == 300
    right = 0
    for name, label in labels.items():
        answer = digits.post(*multipart(DIGITS / "data" / name)).json()
        assert answer["scores"][0][0] == answer["predicted_label"]
        assert len(answer["scores"]) == 5
        right += answer["predicted_label"] == label
    assert right == 298


def test_digits__answers_several_pictures_with_a_list(digits: Any) -> None:
    files = sorted((DIGITS / "data" / "00").iterdir())[:3]
    together = digits.post(*multipart(*files)).json()
    assert together == [digits.post(*multipart(file)).json() for file in files]


def test_digits__says_what_is_wrong_with_a_request(digits: Any) -> None:
    picture = DIGITS / "data" / "00" / "digit-0001.png"
    for body, content_type in (multipart(picture, key="photo"), (b"{}", "application/json")):
        answer = digits.post(body, content_type)
        assert (
            answer.json()["error"] == "ValueError: the request must be multipart/form-data with a file under 'images'"
        )
    broken = digits.post(*multipart(DIGITS / "train.py"))
    assert (broken.status, broken.json()["error"].partition(":")[0]) == (500, "UnidentifiedImageError")
