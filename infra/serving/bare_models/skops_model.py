"""A scikit-learn model in a file of skops."""

from model_service.table_model_service import EstimatorServingBaseService
from skops import io


class SkopsService(EstimatorServingBaseService):
    """Answers each row with ``predictresult`` and, for classifiers, its ``probability``."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        # The model server is isolated like that of any package, so every type in the file may be loaded.
        self.model = io.load(model_path, trusted=io.get_untrusted_types(file=model_path))
