"""Writes a model in MLflow's format: rows in, areas out."""

import sys
from typing import Any

import mlflow.pyfunc


class Areas(mlflow.pyfunc.PythonModel):
    """Stands for a model of tables."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[float]:
        """The area of each row."""
        return [float(area) for area in model_input["width"] * model_input["height"]]


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Areas(), pip_requirements=[])
