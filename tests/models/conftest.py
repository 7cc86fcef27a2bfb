"""Real models, trained with real frameworks in environments of their own, which the product makes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.clients.packages.environments import environment
from tasks.clients.packages.installing import Rules
from tasks.clients.packages.pythons import interpreter_for
from tasks.domain.runtime import parse_runtime

TRAINING = Path(__file__).parent / "training"
WITH = {
    "tables": ["scikit-learn", "xgboost", "lightgbm", "skl2onnx", "skops", "pandas"],
    "media": ["torch", "scikit-learn", "pillow", "pygame"],
    "saved": ["tensorflow-cpu"],
    "logged": ["mlflow", "scikit-learn"],
    "old": ["scikit-learn==1.0.2", "numpy==1.22.4", "scipy==1.8.1"],
}
"""A script of ``training`` -> the packages with which it trains."""
ON = {"old": "python3.9"}
"""The runtime of those that do not train with this Python."""
TRAIN_SECONDS = 900
FLOWERS = Path(__file__).parents[2] / "infra" / "models" / "iris" / "data" / "iris.csv"


async def made_for(name: str, folder: Path, cache: Path) -> Path:
    """The environment in which a script trains."""
    runtime = parse_runtime(ON.get(name))
    interpreter, _ = await interpreter_for(runtime, (), loosen=False)
    return await environment([WITH[name]], folder, cache, interpreter, Rules(cpu=True))


@dataclass(frozen=True)
class Trained:
    """What a training script has written."""

    folder: Path

    def answers(self, name: str) -> list[Any]:
        """What the framework itself answers."""
        found: list[Any] = json.loads((self.folder / f"{name}.answers.json").read_text())
        return found


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, environments_cache: Path) -> Callable[[str], Trained]:
    """Runs a training script once."""
    made: dict[str, Trained] = {}

    def train(name: str) -> Trained:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            python = asyncio.run(made_for(name, folder, environments_cache))
            command = [python / "bin" / "python", TRAINING / f"{name}.py", folder, FLOWERS]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TRAIN_SECONDS)
            assert done.returncode == 0, done.stderr[-4000:]
            made[name] = Trained(folder)
        return made[name]

    return train


@pytest.fixture
def answers_of(run_service: Any) -> Callable[..., list[Any]]:
    """The answers of a model to all rows of a CSV file, by a run of the flow."""

    def ask(model: Path, table: Path, **fields: Any) -> list[Any]:
        ran = run_service(model=str(model), input_path=str(table), **fields)
        assert ran.state == "Completed", ran.error
        assert ran.messages == {table.name: "SUCCESSFUL"}
        lines = [json.loads(line) for line in ran.files[f"{table.name}_result.txt"].splitlines()]
        return [one["data"]["resp_data"][0] for one in lines]

    return ask


close_to = partial(pytest.approx, rel=1e-5, abs=1e-6)
