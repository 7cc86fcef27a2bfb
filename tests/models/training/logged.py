"""Trains models for flowers, and saves them as MLflow does: with a signature, without one, and as a Python model."""

import json
import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FOLDER = Path(sys.argv[1])
flowers, species = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=500).fit(flowers, species)
answers = model.predict(flowers)
signature = infer_signature(flowers, answers)
mlflow.sklearn.save_model(model, FOLDER / "flowers", signature=signature)
mlflow.sklearn.save_model(model, FOLDER / "unsigned")


class Shares(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.iloc[:, :2].sum(axis=1)


mlflow.pyfunc.save_model(FOLDER / "sums", python_model=Shares(), signature=signature)
(FOLDER / "flowers.csv").write_text(flowers.to_csv(index=False, header=False))
(FOLDER / "flowers.answers.json").write_text(json.dumps(answers.tolist()))
(FOLDER / "sums.answers.json").write_text(json.dumps(flowers.iloc[:, :2].sum(axis=1).tolist()))
