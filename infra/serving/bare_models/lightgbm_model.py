"""A text model that LightGBM has saved."""

import lightgbm
import numpy
from model_service.table_model_service import TableServingBaseService


class LightGBMService(TableServingBaseService):
    """Answers each row with ``predictresult``: the number of the class, and its ``probability``; else the value."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = lightgbm.Booster(model_file=model_path)

    def predict(self, rows):
        found = self.model.predict(numpy.array(rows, dtype=float), num_threads=1)
        if "probability" not in self.answers:
            return {"predictresult": found}
        if found.ndim == 1:
            found = numpy.stack([1 - found, found], axis=1)
        return {"predictresult": found.argmax(axis=1), "probability": found.max(axis=1)}
