"""A model in the folder that MLflow has saved."""

import os

import mlflow.pyfunc
import pandas
from model_service.table_model_service import TableServingBaseService


class MLflowService(TableServingBaseService):
    """Answers each row as the ``python_function`` flavor does."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = mlflow.pyfunc.load_model(os.path.dirname(os.path.abspath(__file__)))
        schema = self.model.metadata.get_input_schema()
        self.types = None if schema.is_tensor_spec() else [one.to_pandas() for one in schema.input_types()]

    def predict(self, rows):
        table = pandas.DataFrame(rows, columns=list(self.fields))
        if self.types is None:
            tensor = self.model.metadata.get_input_schema().inputs[0]
            found = self.model.predict(table.to_numpy(dtype=tensor.type))
        else:
            found = self.model.predict(table.astype(dict(zip(self.fields, self.types))))
        if isinstance(found, pandas.DataFrame):
            return {str(name): found[name] for name in found.columns}
        if isinstance(found, dict):
            return found
        return {"predictresult": found}
