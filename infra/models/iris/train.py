# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "scikit-learn==1.9.1",
#     "skl2onnx==1.20.0",
# ]
# ///
"""Train the iris model and write everything in this folder that comes from data: ``uv run train.py``.

Writes iris.onnx, data/iris.csv, labels.csv and the ``metrics`` of config.json. The same versions write the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).resolve().parent
SEED = 0
HELD_OUT_ROWS = 50


def main() -> None:
    """Train on 100 flowers, measure the exported model on the other 50, write the files."""
    iris = load_iris()
    names = iris.target_names[iris.target]
    rows = iris.data.astype(np.float32)
    train_rows, held_out_rows, train_names, held_out_names = train_test_split(
        rows, names, test_size=HELD_OUT_ROWS, stratify=names, random_state=SEED
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    # One thread adds numbers in one order: the model is the same on every machine.
    with threadpool_limits(limits=1):
        classifier.fit(train_rows, train_names)

    model = to_onnx(classifier, rows[:1], options={"zipmap": False})
    model.opset_import.sort(key=lambda opset: opset.domain)  # else the order changes from run to run
    exported = model.SerializeToString()
    (FOLDER / "iris.onnx").write_bytes(exported)
    session = InferenceSession(exported, providers=["CPUExecutionProvider"])
    predicted = session.run(["label"], {"X": held_out_rows})[0]
    metrics = {
        "f1": f1_score(held_out_names, predicted, average="macro"),
        "recall": recall_score(held_out_names, predicted, average="macro"),
        "precision": precision_score(held_out_names, predicted, average="macro"),
        "accuracy": accuracy_score(held_out_names, predicted),
    }
    everywhere = accuracy_score(names, session.run(["label"], {"X": rows})[0])
    print(f"held-out: {metrics}; accuracy on all {len(rows)} rows: {everywhere:.4f}")

    config_file = FOLDER / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["metrics"] = {name: round(float(value), 4) for name, value in metrics.items()}
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (FOLDER / "data").mkdir(exist_ok=True)
    lines = (",".join(f"{value:.1f}" for value in row) for row in iris.data)
    (FOLDER / "data" / "iris.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (FOLDER / "labels.csv").write_text("\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
