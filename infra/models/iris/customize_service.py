"""Iris flowers: four measurements in, the species and its probability out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from model_service.python_model_service import XgSklServingBaseService
from onnxruntime import InferenceSession, SessionOptions

FIELDS = ("input_1", "input_2", "input_3", "input_4")
"""Sepal length, sepal width, petal length, petal width, in cm."""


class IrisService(XgSklServingBaseService):
    """Answers each element of ``data.req_data`` with one element of ``data.resp_data``, in the same order."""

    def __init__(self, model_name: str, model_path: str) -> None:
        super().__init__(model_name, model_path)
        path = Path(model_path)
        options = SessionOptions()
        # The model takes microseconds: more threads would only wait for each other.
        options.intra_op_num_threads = 1
        self.session = InferenceSession(
            path / "iris.onnx" if path.is_dir() else path, options, providers=["CPUExecutionProvider"]
        )

    def _preprocess(self, data: dict[str, Any]) -> np.ndarray:
        """The request as an array of shape (flowers, 4)."""
        try:
            rows = data["data"]["req_data"]
            return np.array([[row[field] for field in FIELDS] for row in rows], np.float32).reshape(-1, len(FIELDS))
        except (KeyError, TypeError) as error:
            shape = '{"data": {"req_data": [{"input_1": number, ... "input_4": number}]}}'
            raise ValueError(f"the request must look like {shape}; what is wrong: {error!r}") from error

    def _inference(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of shape (flowers,) and probabilities of shape (flowers, 3)."""
        labels, probabilities = self.session.run(["label", "probabilities"], {"X": data})
        return labels, probabilities

    def _postprocess(self, data: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """The answer as config.json declares it."""
        labels, probabilities = data
        answers = [
            {"predictresult": str(label), "probability": round(float(row.max()), 4)}
            for label, row in zip(labels, probabilities, strict=True)
        ]
        return {"data": {"resp_data": answers}}
