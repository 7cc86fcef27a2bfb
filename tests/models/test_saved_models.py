"""TensorFlow: saved models as packages with the default inference, and bare."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models.conftest import FLOWERS, Trained, close_to

from tasks.domain.errors import SpecificationError

pytestmark = [pytest.mark.models, pytest.mark.prefect, pytest.mark.timeout(1800)]
Train = Callable[[str], Trained]
SERVICE = """
from model_service.tfserving_model_service import TfServingBaseService


class Flowers(TfServingBaseService):
    def _preprocess(self, data):
        return {"flowers": [list(row.values()) for row in data["data"]["req_data"]]}

    def _postprocess(self, data):
        answers = [{"shares": a, "species": b} for a, b in zip(data["shares"], data["species"])]
        return {"data": {"resp_data": answers}}
"""


def check(found: list[Any], expected: list[Any]) -> None:
    assert [one["species"] for one in found] == [one["species"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["shares"] == close_to(other["shares"], rel=1e-4)


@pytest.mark.parametrize("below", ["", "1"])
def test_package__of_tensorflow_with_the_default_inference_answers_as_the_model(
    trained: Train, answers_of: Any, config: Any, tmp_path: Path, below: str
) -> None:
    saved = trained("saved")
    package = tmp_path / "package"
    shutil.copytree(saved.folder / "rows" / "1", package / below)
    (package / "customize_service.py").write_text(SERVICE)
    api = config()["apis"][1]
    row = api["request"]["data"]["properties"]["data"]["properties"]["req_data"]["items"][0]
    row["properties"] = {f"input_{number}": {"type": "number"} for number in range(1, 5)}
    made = {"model_type": "TensorFlow", "apis": [{**api, "url": "/"}]}
    (package / "config.json").write_text(json.dumps(made))  # tensorflow is of the base list
    check(answers_of(package, FLOWERS), saved.answers("flowers"))


def test_bare_model__of_tensorflow_answers_as_the_model(trained: Train, answers_of: Any) -> None:
    saved = trained("saved")
    check(answers_of(saved.folder / "rows", FLOWERS, rows_per_request=10), saved.answers("flowers"))


@pytest.mark.parametrize("name", ["parts", "parts/saved_model.pb"])
def test_bare_model__of_several_inputs_takes_columns_by_name(
    trained: Train, answers_of: Any, tmp_path: Path, name: str
) -> None:
    saved = trained("saved")
    table = tmp_path / "flowers.csv"
    table.write_text(f"sepal_1,sepal_2,length,width\n{FLOWERS.read_text()}")
    check(answers_of(saved.folder / name, table, csv_header="present"), saved.answers("flowers"))


def test_bare_model__of_pictures_says_that_it_needs_a_package(trained: Train, run_service: Any) -> None:
    ran = run_service(model=str(trained("saved").folder / "pictures"), input_path=str(FLOWERS))
    assert isinstance(ran.error, SpecificationError)
    assert "has the input pictures of shape (None, 8, 8, 1), for which no rows of a table can be made" in str(ran.error)
