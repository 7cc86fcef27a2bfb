"""Trains a model with a scikit-learn that does not exist for the Python of the product."""

import json
import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier

FOLDER = Path(sys.argv[1])
flowers, species = load_iris(return_X_y=True)
model = GradientBoostingClassifier(n_estimators=5).fit(flowers, species)
(FOLDER / "old.pkl").write_bytes(pickle.dumps(model))
(FOLDER / "old.answers.json").write_text(json.dumps(model.predict(flowers).tolist()))
