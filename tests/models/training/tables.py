"""Trains models for tables: flowers (classes), patients (values), as every format in which such models are kept."""

import json
import pickle
import sys
from pathlib import Path

import joblib
import lightgbm
import numpy
import pandas
import xgboost
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skops import io

FOLDER = Path(sys.argv[1])


def write(name, rows, answers):
    """The rows as CSV, and what the model answers to them."""
    with open(FOLDER / f"{name}.csv", "w") as file:
        for row in rows:
            file.write(",".join(str(cell) for cell in row) + "\n")
    (FOLDER / f"{name}.answers.json").write_text(json.dumps(answers))


def of_classes(model, rows):
    labels, shares = model.predict(rows).tolist(), model.predict_proba(rows).max(axis=1).tolist()
    return [{"predictresult": label, "probability": share} for label, share in zip(labels, shares, strict=True)]


def of_values(values):
    return [{"predictresult": float(value)} for value in values]


flowers, species = load_iris(return_X_y=True)
table, numbers = load_iris(return_X_y=True, as_frame=True)
names = numbers.map(dict(enumerate(["setosa", "versicolor", "virginica"])))
patients, progress = load_diabetes(return_X_y=True)
patients = patients.round(4)

forest = RandomForestClassifier(10, random_state=0).fit(flowers, species)
joblib.dump(forest, FOLDER / "forest.joblib")
joblib.dump(forest, FOLDER / "forest.m", compress=3)
for protocol in (2, 4):
    (FOLDER / f"forest{protocol}.pkl").write_bytes(pickle.dumps(forest, protocol))
write("forest", flowers, of_classes(forest, flowers))

named = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(table, names)
joblib.dump(named, FOLDER / "named.joblib")
io.dump(named, FOLDER / "named.skops")
write("named", flowers, of_classes(named, table))

line = LinearRegression().fit(patients, progress)
joblib.dump(line, FOLDER / "line.joblib")
write("line", patients, of_values(line.predict(patients)))

people = pandas.DataFrame({"city": ["Rome", "Oslo", "Lima"] * 20, "age": range(60)})
bought = (people.age + people.city.str.len() * (people.city == "Oslo") > 30).astype(bool)
mixed = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), ["age"])), LogisticRegression()
).fit(people, bought)
joblib.dump(mixed, FOLDER / "mixed.joblib")
write("mixed", people.to_numpy(), of_classes(mixed, people))

words = ["good fine", "bad poor", "good great", "poor awful"]
texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, ["yes", "no", "yes", "no"])
joblib.dump(texts, FOLDER / "texts.joblib")
write("texts", [[text] for text in words], of_classes(texts, words))

boosted = xgboost.XGBClassifier(n_estimators=5).fit(table, species)
for ending in ("json", "ubj"):
    boosted.save_model(FOLDER / f"boosted.{ending}")
joblib.dump(boosted, FOLDER / "boosted.joblib")
write("boosted", flowers, of_classes(boosted, table))

values = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(patients, progress), 5)
values.save_model(FOLDER / "values.ubj")
(FOLDER / "values.pkl").write_bytes(pickle.dumps(values))
write("values", patients, of_values(values.predict(xgboost.DMatrix(patients))))

light = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(flowers, species == 2)
light.booster_.save_model(FOLDER / "light.txt")
shares = light.booster_.predict(flowers)
write(
    "light", flowers,
    [{"predictresult": int(one > 0.5), "probability": float(max(one, 1 - one))} for one in shares],
)  # fmt: skip

sample = flowers[:1].astype(numpy.float32)
(FOLDER / "forest.onnx").write_bytes(to_onnx(forest, sample, options={"zipmap": False}).SerializeToString())
