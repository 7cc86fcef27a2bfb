# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "pillow==13.0.0",
#     "scikit-learn==1.9.1",
#     "skl2onnx==1.20.0",
# ]
# ///
"""Train the digits model and write everything in this folder that comes from data: ``uv run train.py``.

Writes digits.onnx, data/, labels.csv and the ``metrics`` of config.json. The same versions write the same bytes.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).resolve().parent
SEED = 0
HELD_OUT_PICTURES = 300
PICTURES_PER_FOLDER = 50


def main() -> None:
    """Train on 1,497 pictures, measure the exported model on the other 300, write the files."""
    digits = load_digits()
    # The grey levels are 0 to 16; a PNG file holds 0 to 255. The model sees what is read back from a file: 0.0 to 1.0.
    pixels = np.round(digits.data * 255 / 16).astype(np.uint8)
    train_pixels, held_out_pixels, train_labels, held_out_labels = train_test_split(
        pixels, digits.target, test_size=HELD_OUT_PICTURES, stratify=digits.target, random_state=SEED
    )
    # The machine itself gives no probabilities: the calibration learns them from five folds of the training part.
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    classifier = CalibratedClassifierCV(SVC(C=10), cv=folds, ensemble=False)
    # One thread adds numbers in one order: the model is the same on every machine.
    with threadpool_limits(limits=1):
        classifier.fit(_model_input(train_pixels), train_labels)

    with warnings.catch_warnings():
        # The exporter asks for attributes that the next scikit-learn drops.
        warnings.simplefilter("ignore", FutureWarning)
        options = {"zipmap": False}
        model = to_onnx(classifier, _model_input(pixels[:1]), options=options)
    model.opset_import.sort(key=lambda opset: opset.domain)  # else the order changes from run to run
    exported = model.SerializeToString()
    (FOLDER / "digits.onnx").write_bytes(exported)
    session = InferenceSession(exported, providers=["CPUExecutionProvider"])
    predicted = session.run(["label"], {"X": _model_input(held_out_pixels)})[0]
    metrics = {
        "f1": f1_score(held_out_labels, predicted, average="macro"),
        "recall": recall_score(held_out_labels, predicted, average="macro"),
        "precision": precision_score(held_out_labels, predicted, average="macro"),
        "accuracy": accuracy_score(held_out_labels, predicted),
    }
    print(f"held-out: {metrics}")

    config_file = FOLDER / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["metrics"] = {name: round(float(value), 4) for name, value in metrics.items()}
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_pictures(held_out_pixels, held_out_labels)


def _model_input(pixels: np.ndarray) -> np.ndarray:
    return (pixels / 255).astype(np.float32)


def _write_pictures(pixels: np.ndarray, labels: np.ndarray) -> None:
    """The held-out pictures as data/00/digit-0001.png ..., their labels in labels.csv."""
    lines = []
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        name = f"{number // PICTURES_PER_FOLDER:02d}/digit-{number + 1:04d}.png"
        path = FOLDER / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.reshape(8, 8)).save(path, optimize=True)
        lines.append(f"{name},{label}\n")
    (FOLDER / "labels.csv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
