"""Bare models and original packages for tables: every answer is that of the framework itself."""

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
IRIS = Path(__file__).parents[2] / "infra" / "models" / "iris"


@pytest.mark.parametrize(
    ("file", "answers"),
    [
        ("forest.joblib", "forest"), ("forest.m", "forest"), ("forest2.pkl", "forest"), ("forest4.pkl", "forest"),
        ("named.joblib", "named"), ("named.skops", "named"), ("line.joblib", "line"), ("mixed.joblib", "mixed"),
        ("texts.joblib", "texts"), ("boosted.json", "boosted"), ("boosted.ubj", "boosted"),
        ("boosted.joblib", "boosted"), ("values.ubj", "values"), ("light.txt", "light"),
    ],
)  # fmt: skip
def test_bare_model__answers_a_csv_as_its_framework_does(
    trained: Train, answers_of: Any, file: str, answers: str
) -> None:
    tables = trained("tables")
    found = answers_of(tables.folder / file, tables.folder / f"{answers}.csv")
    expected = tables.answers(answers)
    assert [one["predictresult"] for one in found] == close_to([one["predictresult"] for one in expected]) or [
        one["predictresult"] for one in found
    ] == [one["predictresult"] for one in expected]
    assert [one.get("probability", 0) for one in found] == close_to([one.get("probability", 0) for one in expected])


def test_bare_model__takes_many_rows_in_a_request(trained: Train, answers_of: Any) -> None:
    tables = trained("tables")
    found = answers_of(tables.folder / "forest.joblib", tables.folder / "forest.csv", rows_per_request=50)
    assert [one["predictresult"] for one in found] == [one["predictresult"] for one in tables.answers("forest")]


def test_bare_model__of_onnx_answers_under_the_names_of_its_graph(trained: Train, answers_of: Any) -> None:
    tables = trained("tables")
    found = answers_of(tables.folder / "forest.onnx", tables.folder / "forest.csv")
    expected = tables.answers("forest")
    assert [one["label"] for one in found] == [one["predictresult"] for one in expected]
    assert [max(one["probabilities"]) for one in found] == close_to([one["probability"] for one in expected])


def test_bare_model__of_an_old_scikit_learn_is_served_by_the_python_that_has_it(
    trained: Train, answers_of: Any
) -> None:
    old = trained("old")
    found = answers_of(old.folder / "old.pkl", FLOWERS)
    assert [one["predictresult"] for one in found] == old.answers("old")


def test_bare_model__that_is_a_pickled_booster_says_how_to_save_it(trained: Train, run_service: Any) -> None:
    tables = trained("tables")
    ran = run_service(model=str(tables.folder / "values.pkl"), input_path=str(tables.folder / "values.csv"))
    assert isinstance(ran.error, SpecificationError)
    assert "is a pickled Booster of xgboost: save it in a file by its save_model()" in str(ran.error)


@pytest.mark.parametrize(
    ("kind", "file", "answers", "needs"),
    [
        ("Scikit_Learn", "forest.joblib", "forest", "scikit-learn"),
        ("Scikit_Learn", "forest.m", "forest", "scikit-learn"),
        ("XGBoost", "values.ubj", "values", "xgboost"),
        ("XGBoost", "values.m", "values", "xgboost"),
    ],
)
def test_original_package__with_the_default_inference_answers_as_the_framework(
    trained: Train, answers_of: Any, tmp_path: Path, kind: str, file: str, answers: str, needs: str
) -> None:
    tables = trained("tables")
    package = tmp_path / "package"
    package.mkdir()
    source = tables.folder / file
    shutil.copyfile(source if source.exists() else source.with_suffix(".ubj"), package / file)
    rows = (tables.folder / f"{answers}.csv").read_text().splitlines()
    fields = {f"input_{number + 1}": {"type": "number"} for number in range(rows[0].count(",") + 1)}
    config = json.loads((IRIS / "config.json").read_text())
    row = config["apis"][0]["request"]["data"]["properties"]["data"]["properties"]["req_data"]["items"][0]
    row["properties"] = fields
    config |= {"model_type": kind, "dependencies": [{"installer": "pip", "packages": [{"package_name": needs}]}]}
    del config["health"]
    (package / "config.json").write_text(json.dumps(config))
    (package / "customize_service.py").write_text(
        "from model_service.python_model_service import XgSklServingBaseService\n\n\n"
        "class Service(XgSklServingBaseService):\n    pass\n"
    )
    found = answers_of(package, tables.folder / f"{answers}.csv")
    assert [one["predictresult"] for one in found] == close_to(
        [one["predictresult"] for one in tables.answers(answers)]
    )
