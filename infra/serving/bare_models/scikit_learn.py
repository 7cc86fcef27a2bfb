"""A scikit-learn model, or another one with its methods, in a file of joblib or pickle."""

import joblib
from model_service.table_model_service import EstimatorServingBaseService


class ScikitLearnService(EstimatorServingBaseService):
    """Answers each row with ``predictresult`` and, for classifiers, its ``probability``."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = joblib.load(model_path)
