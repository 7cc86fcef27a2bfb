"""Hand-written digits: a picture in, the digit and its five best scores out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from model_service.python_model_service import XgSklServingBaseService
from onnxruntime import InferenceSession, SessionOptions
from PIL import Image

FORM_KEY = "images"
SIDE = 8
"""The model knows pictures of 8x8 pixels, white on black, as its training data has them."""
SCORES = 5


class DigitsService(XgSklServingBaseService):
    """Answers a picture with one object, several pictures in one request with a list of objects in their order."""

    def __init__(self, model_name: str, model_path: str) -> None:
        super().__init__(model_name, model_path)
        path = Path(model_path)
        options = SessionOptions()
        # The model takes microseconds: more threads would only wait for each other.
        options.intra_op_num_threads = 1
        self.session = InferenceSession(
            path / "digits.onnx" if path.is_dir() else path, options, providers=["CPUExecutionProvider"]
        )

    def _preprocess(self, data: dict[str, dict[str, io.BytesIO]]) -> np.ndarray:
        """The pictures as an array of shape (pictures, 64), black 0.0, white 1.0."""
        files = data.get(FORM_KEY) if isinstance(data, dict) else None
        if not isinstance(files, dict):
            raise ValueError(f"the request must be multipart/form-data with a file under {FORM_KEY!r}")  # noqa: TRY004
        return np.stack([_pixels(file) for file in files.values()])

    def _inference(self, data: np.ndarray) -> np.ndarray:
        """The probabilities of the digits 0 to 9, shape (pictures, 10)."""
        return self.session.run(["probabilities"], {"X": data})[0]

    def _postprocess(self, data: np.ndarray) -> dict[str, Any] | list[dict[str, Any]]:
        """The answer as config.json declares it."""
        answers = [_answer(row) for row in data]
        return answers[0] if len(answers) == 1 else answers


def _pixels(file: io.BytesIO) -> np.ndarray:
    picture = Image.open(file).convert("L")
    if picture.size != (SIDE, SIDE):
        # Each pixel the mean of the area it stands for: how the training data came from larger scans.
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32).reshape(-1) / np.float32(255)


def _answer(probabilities: np.ndarray) -> dict[str, Any]:
    best = np.argsort(-probabilities, kind="stable")[:SCORES]
    return {
        "predicted_label": str(best[0]),
        "scores": [[str(digit), f"{probabilities[digit]:.3f}"] for digit in best],
    }
