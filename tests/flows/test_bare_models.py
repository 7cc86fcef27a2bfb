"""Runs of bare models: each process makes the same package of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.s3_server import S3Server

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
IRIS = Path(__file__).parents[2] / "infra" / "models" / "iris"


def test_bare_model__in_a_bucket_is_served_by_several_instances(
    run_service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_files: Any
) -> None:
    rows = (IRIS / "data" / "iris.csv").read_text()
    write_files(tmp_path / "in", {f"{number}.csv": rows for number in range(4)})
    with S3Server(tmp_path / "s3") as server:
        server.put("models", "flowers.onnx", (IRIS / "iris.onnx").read_bytes())
        for name, value in server.environment("AWS").items():
            monkeypatch.setenv(name, value)
        ran = run_service(model="s3://models/flowers.onnx", input_path=str(tmp_path / "in"), instances=2)
    assert ran.state == "Completed", ran.error
    answers = {name: [json.loads(line) for line in text.splitlines()] for name, text in ran.files.items()}
    assert sorted(answers) == [f"{number}.csv_result.txt" for number in range(4)]
    assert len({json.dumps(one) for one in answers.values()}) == 1
    first = answers["0.csv_result.txt"][0]["data"]["resp_data"][0]
    assert list(first) == ["label", "probabilities"] and first["label"] == "setosa"
