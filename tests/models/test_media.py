"""Packages of the original's kind for pictures and sounds, with PyTorch: each answer is that of the model itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models.conftest import Trained

pytestmark = [pytest.mark.models, pytest.mark.prefect, pytest.mark.timeout(1800)]
PICTURES = """
import numpy as np
import torch
from PIL import Image
from model_service.pytorch_model_service import PTServingBaseService


class Digits(PTServingBaseService):
    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = torch.jit.load(model_path).eval()

    def _preprocess(self, data):
        found = {}
        for key, files in data.items():
            pixels = [np.asarray(Image.open(file).convert("L"), np.float32) / 255 for file in files.values()]
            found[key] = torch.tensor(np.stack(pixels)[:, None])
        return found

    def _postprocess(self, data):
        return {"label": int(data["file"].argmax(1)[0]), "scores": data["file"][0]}
"""
SOUNDS = """
import wave

import numpy as np
import torch
from model_service.pytorch_model_service import PTServingBaseService


class Sounds(PTServingBaseService):
    def __init__(self, model_path):
        super().__init__(model_path)
        self.model = torch.jit.load(self.model_path)

    def _preprocess(self, data):
        for file in data["file"].values():
            with wave.open(file) as sound:
                kind = np.uint8 if sound.getsampwidth() == 1 else "<i2"
                samples = np.frombuffer(sound.readframes(sound.getnframes()), kind)[:1000].astype(np.float32)
        return {"file": torch.tensor(np.log1p(np.abs(np.fft.rfft(samples))), dtype=torch.float32)[None]}

    def _postprocess(self, data):
        return {"label": int(data["file"].argmax(1)[0]), "scores": data["file"][0]}
"""


@pytest.mark.parametrize(
    ("name", "service", "share"), [("digits", PICTURES, 0.95), ("sounds", SOUNDS, 0.95)], ids=["digits", "sounds"]
)
def test_package__of_pytorch_with_the_default_inference_answers_files_as_the_model(
    trained: Callable[[str], Trained], run_service: Any, tmp_path: Path, name: str, service: str, share: float
) -> None:
    media = trained("media")
    package = tmp_path / "package"
    package.mkdir()
    shutil.copyfile(media.folder / f"{name}.pt", package / "model.pt")
    (package / "customize_service.py").write_text(service)
    request = {"Content-type": "multipart/form-data"}
    request["data"] = {"type": "object", "properties": {"file": {"type": "file"}}}  # type: ignore[assignment]
    config = {"model_type": "PyTorch", "apis": [{"url": "/", "method": "post", "request": request}]}
    (package / "config.json").write_text(json.dumps(config))  # torch, numpy and Pillow are of the base list
    ran = run_service(model=str(package), input_path=str(media.folder / name))
    assert ran.state == "Completed", ran.error
    labels, right = media.answers(name)
    assert right >= share  # of its training data: it has learned something
    found = {file.removesuffix("_result.txt"): json.loads(text) for file, text in ran.files.items()}
    assert {file: one["label"] for file, one in found.items()} == labels
    assert all(max(one["scores"]) == one["scores"][one["label"]] for one in found.values())
