"""Answers each row with the name of the flower whose usual measurements are nearest."""

import json
from pathlib import Path

from model_service.model_service import SingleNodeService

FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
"""The fields of a row, in config.json in the order of the columns."""


class NewService(SingleNodeService):
    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        # Load your model here. What it needs to be installed stands in `dependencies` of config.json.
        self.flowers = json.loads((Path(__file__).parent / "model.json").read_text())

    def _preprocess(self, data):
        """The rows of a request: one, or several where a service sends them together."""
        return [[row[field] for field in FIELDS] for row in data["data"]["req_data"]]

    def _inference(self, data):
        return [min(self.flowers, key=lambda name: self._distance(name, row)) for row in data]

    def _postprocess(self, data):
        """One answer for each row, in the same order."""
        return {"data": {"resp_data": [{"predictresult": name} for name in data]}}

    def _distance(self, name, row):
        return sum((usual - cell) ** 2 for usual, cell in zip(self.flowers[name], row))
