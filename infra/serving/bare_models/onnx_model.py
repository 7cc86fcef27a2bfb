"""A model in ONNX, run by ONNX Runtime."""

import os

import numpy
import onnxruntime
from model_service.table_model_service import TableServingBaseService

TYPES = {
    "tensor(float)": numpy.float32,
    "tensor(double)": numpy.float64,
    "tensor(float16)": numpy.float16,
    "tensor(int64)": numpy.int64,
    "tensor(int32)": numpy.int32,
    "tensor(int16)": numpy.int16,
    "tensor(int8)": numpy.int8,
    "tensor(uint8)": numpy.uint8,
    "tensor(bool)": numpy.bool_,
    "tensor(string)": numpy.str_,
}


class OnnxService(TableServingBaseService):
    """Answers each row with the outputs of the graph, under their names."""

    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # requests are small: more threads would only wait for each other
        providers = onnxruntime.get_available_providers()
        self.session = onnxruntime.InferenceSession(file_in(model_path), options, providers=providers)

    def predict(self, rows):
        found = self.session.run(list(self.answers), feeds(self.session.get_inputs(), rows))
        return dict(zip(self.answers, found))


def feeds(inputs, rows):
    """The columns of the rows, shared out among the graph's inputs in their order."""
    given = {}
    place = 0
    for one in inputs:
        width = one.shape[1] if len(one.shape) > 1 else 1
        # Object arrays keep texts of every length.
        columns = numpy.array([row[place : place + width] for row in rows], dtype=object)
        given[one.name] = columns.reshape([len(rows), width] if len(one.shape) > 1 else [len(rows)]).astype(
            object if one.type == "tensor(string)" else TYPES[one.type]
        )
        place += width
    return given


def file_in(path):
    """The file of the graph: a model with external data is a folder."""
    if os.path.isdir(path):
        return next(os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".onnx"))
    return path
