"""A saved model of TensorFlow."""

from model_service.table_model_service import TableServingBaseService
from model_service.tfserving_model_service import SavedModel


class SavedModelService(TableServingBaseService):
    """Answers each row with the outputs of the model's signature, under their names."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        self.model = SavedModel(str(model_path))

    def predict(self, rows):
        given = {}
        place = 0
        for name, spec in self.model.model_inputs.items():
            width = spec.shape[1] if spec.shape.rank > 1 else 1
            columns = [row[place : place + width] for row in rows]
            given[name] = columns if spec.shape.rank > 1 else [column[0] for column in columns]
            place += width
        return self.model.predict(given)
