"""A model that XGBoost has saved."""

import numpy
import xgboost
from model_service.table_model_service import TableServingBaseService


class XGBoostService(TableServingBaseService):
    """Answers each row with ``predictresult``: the number of the class, and its ``probability``; else the value."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = xgboost.Booster(model_file=model_path)
        # Requests are small: more threads would only wait for each other.
        self.model.set_param({"nthread": 1})

    def predict(self, rows):
        table = numpy.array(rows, dtype=float)  # what is null becomes NaN, which is missing for XGBoost
        names, kinds = self.model.feature_names, self.model.feature_types
        matrix = xgboost.DMatrix(table, feature_names=names, feature_types=kinds, enable_categorical=True)
        found = self.model.predict(matrix)
        if "probability" not in self.answers:
            return {"predictresult": found}
        if found.ndim == 1:
            found = numpy.stack([1 - found, found], axis=1)
        return {"predictresult": found.argmax(axis=1), "probability": found.max(axis=1)}
