"""Describes a bare model: the fields of a row that it takes, and those of its answer, as JSON.

    <python of the environment> describe.py FORMAT PATH RESULT

Runs in the model's own environment, because reading a model may run code of it (pickles), and needs its framework.
"""

import json
import os
import sys
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
JSON_TYPES = {
    "i": "integer",
    "u": "integer",
    "f": "number",
    "b": "boolean",
    "U": "string",
    "O": "string",
    "S": "string",
}
"""Kinds of numpy's types -> JSON Schema's."""
NO_ROWS = "for which no rows of a table can be made: write a package for it"


class NotDescribed(Exception):
    """The model has no signature that can be used; the message says why."""


def leaf(name, kind, many=False):
    return {"name": name, "type": kind, "many": many}


def numbered(count, names=None, name="input"):
    """Leaves of ``count`` numbers."""
    return [leaf(one, "number") for one in names or ["%s_%d" % (name, number + 1) for number in range(count)]]


def of_answer(name, values):
    """The leaf of one column of answers: what a model answered to one row."""
    import numpy

    array = numpy.asarray(values)
    many = array.ndim > 1 and array.shape[1:] != (1,)
    return leaf(name, JSON_TYPES.get(array.dtype.kind, ""), many)


def scikit_learn(path):
    import joblib

    return estimator(joblib.load(path))


def skops_model(path):
    from skops import io

    return estimator(io.load(path, trusted=io.get_untrusted_types(file=path)))


def estimator(model):
    module = type(model).__module__.partition(".")[0]
    if type(model).__name__ == "Booster":
        raise NotDescribed("is a pickled Booster of %s: save it in a file by its save_model()" % module)
    if not hasattr(model, "predict"):
        raise NotDescribed("holds %s.%s, which has no predict()" % (module, type(model).__name__))
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    count = getattr(model, "n_features_in_", len(names))
    if names or count:
        samples = samples_of(model)
        inputs = numbered(count, names)
        for number, one in enumerate(inputs):
            if one["name"] in samples or number in samples:
                one["type"] = "string"
        first = [samples.get(one["name"], samples.get(number, 0.0)) for number, one in enumerate(inputs)]
    else:  # a pipeline that begins with a vectorizer of texts
        inputs, first = [leaf("text", "string")], ["a text"]
    return {"inputs": inputs, "outputs": estimator_answers(model, inputs, first)}


def estimator_answers(model, inputs, first):
    """The leaves of an answer, from the answer to one row."""
    from model_service.table_model_service import EstimatorServingBaseService

    service = EstimatorServingBaseService.__new__(EstimatorServingBaseService)
    service.model, service.answers = model, ()
    service.fields = {one["name"]: one for one in inputs}
    try:
        found = [of_answer("predictresult", service.predict([first])["predictresult"])]
    except Exception as error:
        if not hasattr(model, "classes_"):
            if "not fitted" in str(error):
                raise NotDescribed("is not trained: %s" % error) from None
            return [leaf("predictresult", "number")]
        found = [of_answer("predictresult", model.classes_)]
    if hasattr(model, "predict_proba") and hasattr(model, "classes_") and not found[0]["many"]:
        found.append(leaf("probability", "number"))
    return found


def samples_of(model):
    """A value of each column of texts, by its name or number: those that an encoder of categories takes."""
    found = {}
    steps = [model] + [step for _, step in getattr(model, "steps", ())]
    for step in steps[:2]:
        for _, transformer, columns in getattr(step, "transformers_", ()):
            encoders = [transformer] + [one for _, one in getattr(transformer, "steps", ())]
            for encoder in encoders:
                for column, values in zip(columns, getattr(encoder, "categories_", ())):
                    if values.dtype.kind in "OUS" and len(values):
                        found[column] = values[0]
        for column, values in enumerate(getattr(step, "categories_", ())):
            if values.dtype.kind in "OUS" and len(values):
                found[getattr(step, "feature_names_in_", {column: column})[column]] = values[0]
    return found


def xgboost_model(path):
    import xgboost

    model = xgboost.Booster(model_file=path)
    config = json.loads(model.save_config())["learner"]
    objective = config.get("objective", {}).get("name") or config["learner_train_param"]["objective"]
    inputs = numbered(model.num_features(), model.feature_names)
    classes = objective in ("binary:logistic", "multi:softprob")
    many = int(config["learner_model_param"].get("num_target", "1")) > 1
    return {"inputs": inputs, "outputs": class_or_value(classes and not many, many)}


def class_or_value(classes, many=False):
    if classes:
        return [leaf("predictresult", "integer"), leaf("probability", "number")]
    return [leaf("predictresult", "number", many)]


def lightgbm_model(path):
    import lightgbm

    model = lightgbm.Booster(model_file=path)
    names = model.feature_name()
    if names == ["Column_%d" % number for number in range(len(names))]:
        names = None
    objective = (objective_of(path) or "").split()[0:1]
    classes = objective in (["binary"], ["multiclass"], ["multiclassova"])
    many = not classes and model.num_model_per_iteration() > 1
    return {"inputs": numbered(model.num_feature(), names), "outputs": class_or_value(classes, many)}


def objective_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("objective="):
                return line.partition("=")[2].strip()
            if line.startswith("Tree="):
                return None
    return None


def onnx_model(path):
    import onnxruntime
    from onnx_model import TYPES, feeds, file_in

    session = onnxruntime.InferenceSession(file_in(path), providers=["CPUExecutionProvider"])
    graph_inputs = session.get_inputs()
    inputs = []
    for one in graph_inputs:
        if one.type not in TYPES:
            shown = (one.name, one.type)
            raise NotDescribed("has the input %s of the type %s, which no cell of a table can be" % shown)
        inputs += columns_of(one.name, one.shape, json_type(TYPES[one.type]), len(graph_inputs) == 1)
    row = ["" if one["type"] == "string" else 0 for one in inputs]
    outputs = session.get_outputs()
    try:
        found = session.run(None, feeds(graph_inputs, [row]))
    except Exception as error:
        raise NotDescribed("cannot answer a row of %d fields: %s" % (len(row), error)) from None
    answers = []
    for one, values in zip(outputs, found):
        if len(values) != 1:
            raise NotDescribed("answers one row with %d values of %s" % (len(values), one.name))
        answers.append(leaf(one.name, "object") if isinstance(values, list) else of_answer(one.name, values))
    return {"inputs": inputs, "outputs": answers}


def json_type(kind):
    import numpy

    return JSON_TYPES[numpy.dtype(kind).kind]


def columns_of(name, shape, kind, only):
    """The leaves of one input: as many as it has columns."""
    if len(shape) > 2 or (len(shape) == 2 and not isinstance(shape[1], int)) or not shape:
        shown = ", ".join(str(size) for size in shape)
        raise NotDescribed("has the input %s of shape (%s), %s" % (name, shown, NO_ROWS))
    width = shape[1] if len(shape) == 2 else 1
    if width == 1 and not only:
        return [leaf(name, kind)]
    prefix = "input" if only else name
    return [leaf("%s_%d" % (prefix, number + 1), kind) for number in range(width)]


def saved_model(path):
    from model_service.tfserving_model_service import SavedModel

    model = SavedModel(path)
    inputs = []
    row = {}
    for name, spec in model.model_inputs.items():
        if spec.shape.rank is None:
            raise NotDescribed("has the input %s of no known shape" % name)
        text = spec.dtype.name == "string"
        kind = "string" if text else JSON_TYPES.get(spec.dtype.as_numpy_dtype().dtype.kind, "number")
        leaves = columns_of(name, spec.shape.as_list(), kind, len(model.model_inputs) == 1)
        inputs += leaves
        values = ["" if kind == "string" else 0] * len(leaves)
        row[name] = [values] if spec.shape.rank > 1 else values
    return {"inputs": inputs, "outputs": [of_answer(name, values) for name, values in model.predict(row).items()]}


def mlflow_model(path):
    import mlflow.models
    from mlflow.types import DataType

    types = {
        DataType.boolean: "boolean", DataType.integer: "integer", DataType.long: "integer", DataType.float: "number",
        DataType.double: "number", DataType.string: "string",
    }  # fmt: skip
    info = mlflow.models.Model.load(path)
    schema = info.get_input_schema()
    if schema is None:
        raise NotDescribed("has no signature: log it again with signature=infer_signature(...) or an input_example")
    if schema.is_tensor_spec():
        if len(schema.inputs) != 1:
            raise NotDescribed("takes several tensors, %s" % NO_ROWS)
        tensor = schema.inputs[0]
        inputs = columns_of(tensor.name or "input", list(tensor.shape), JSON_TYPES[tensor.type.kind], True)
    else:
        for one in schema.inputs:
            if one.type not in types:
                shown = (one.name, one.type)
                raise NotDescribed("has the input %s of the type %s, which no cell of a table can be" % shown)
        inputs = [
            leaf(str(one.name or "input_%d" % (number + 1)), types[one.type])
            for number, one in enumerate(schema.inputs)
        ]
    return {"inputs": inputs, "outputs": mlflow_answers(info.get_output_schema(), types)}


def mlflow_answers(schema, types):
    if schema is None:
        return [leaf("predictresult", "")]
    if schema.is_tensor_spec():
        tensor = schema.inputs[0]
        return [leaf("predictresult", JSON_TYPES.get(tensor.type.kind, ""), len(tensor.shape) > 1)]
    return [leaf(str(one.name or "predictresult"), types.get(one.type, "")) for one in schema.inputs]


FORMATS = {
    "scikit-learn": scikit_learn, "skops": skops_model, "XGBoost": xgboost_model, "LightGBM": lightgbm_model,
    "ONNX": onnx_model, "MLflow": mlflow_model, "saved_model": saved_model,
}  # fmt: skip


def main():
    kind, path, result = sys.argv[1:]
    warnings.simplefilter("ignore")
    sys.path[:0] = [HERE, os.path.dirname(HERE)]
    try:
        found = FORMATS[kind](path)
    except NotDescribed as error:
        found = {"refused": str(error)}
    except Exception as error:
        found = {"failed": "%s: %s" % (type(error).__name__, error)}
    with open(result, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
