"""MLflow: model folders as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from models.conftest import Trained, close_to

from tasks.domain.errors import SpecificationError

pytestmark = [pytest.mark.models, pytest.mark.prefect, pytest.mark.timeout(1800)]
Train = Callable[[str], Trained]


@pytest.mark.parametrize("name", ["flowers", "sums"])
def test_bare_model__of_mlflow_answers_as_the_model(trained: Train, answers_of: Any, name: str) -> None:
    logged = trained("logged")
    found = answers_of(logged.folder / name, logged.folder / "flowers.csv")
    assert [one["predictresult"] for one in found] == close_to(logged.answers(name))


def test_bare_model__of_mlflow_without_a_signature_says_how_to_give_one(trained: Train, run_service: Any) -> None:
    logged = trained("logged")
    ran = run_service(model=str(logged.folder / "unsigned"), input_path=str(logged.folder / "flowers.csv"))
    assert isinstance(ran.error, SpecificationError)
    assert "has no signature: log it again with signature=infer_signature(...)" in str(ran.error)
