"""Base class of services for bare models: a table in, one answer for each of its rows."""

import inspect
import json
import os
from typing import Any, Dict, List

from model_service.model_service import SingleNodeService

NUMBERS = ("number", "integer")


class TableServingBaseService(SingleNodeService):
    """Takes rows in ``data.req_data`` and answers each with an element of ``data.resp_data``.

    A sub-class implements :meth:`predict`. Which fields a row and an answer have is said in the package's config.json:
    ``fields`` and ``answers``, name -> JSON Schema.
    """

    def __init__(self, model_name: Any = "", model_path: Any = None) -> None:
        super().__init__(model_name, model_path)
        folder = os.path.dirname(os.path.abspath(inspect.getfile(type(self))))
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            api = json.load(file)["apis"][0]
        self.fields = _fields(api["request"], "req_data")
        self.answers = _fields(api["response"], "resp_data")

    def predict(self, rows: List[List[Any]]) -> Dict[str, Any]:
        """The answers to ``rows`` (values in the order of ``fields``), as columns: name -> one value for each row."""
        raise NotImplementedError("%s.predict(self, rows) is not written" % type(self).__name__)

    def _preprocess(self, data: Any) -> List[List[Any]]:
        request = self._read_data(data)
        try:
            rows = request["data"]["req_data"]
            return [[row[name] for name in self.fields] for row in rows]
        except (KeyError, TypeError) as error:
            shape = '{"data": {"req_data": [{"%s": ...}]}}' % '": ..., "'.join(self.fields)
            raise TypeError("the request should look like %s; what is wrong: %r" % (shape, error)) from error

    def _inference(self, data: List[List[Any]]) -> List[Dict[str, Any]]:
        columns = self.predict(data) if data else {}
        found = {name: _values(column) for name, column in columns.items() if name in self.answers}
        for name, values in found.items():
            if len(values) != len(data):
                raise ValueError("the model answered %d rows with %d values of %s" % (len(data), len(values), name))
        return [{name: values[number] for name, values in found.items()} for number in range(len(data))]

    def _postprocess(self, data: List[Dict[str, Any]]) -> Dict[str, Any]:
        return {"data": {"resp_data": data}}


def _fields(message: Dict[str, Any], name: str) -> Dict[str, Any]:
    items = message["data"]["properties"]["data"]["properties"][name]["items"]
    row = items[0] if isinstance(items, list) else items
    return dict(row["properties"])


def _values(column: Any) -> List[Any]:
    """A column as a list; an array of one column is one of values."""
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    if values and all(isinstance(value, list) and len(value) == 1 for value in values):
        return [value[0] for value in values]
    return values


class EstimatorServingBaseService(TableServingBaseService):
    """Asks ``self.model``, which has the methods of a scikit-learn estimator; the sub-class loads it.

    Answers each row with ``predictresult`` and, for classifiers, its ``probability``.
    """

    model: Any = None

    def predict(self, rows: List[List[Any]]) -> Dict[str, Any]:
        table = self.table(rows)
        columns = {"predictresult": self.model.predict(table)}
        if "probability" in self.answers:
            columns["probability"] = self.model.predict_proba(table).max(axis=1)
        return columns

    def table(self, rows: List[List[Any]]) -> Any:
        """The rows in the form of the training data: with column names, as an array, or as texts."""
        named = hasattr(self.model, "feature_names_in_")
        if not named and not hasattr(self.model, "n_features_in_"):
            return [row[0] for row in rows]
        numbers = [name for name, schema in self.fields.items() if schema.get("type") in NUMBERS]
        if named:
            import pandas

            return pandas.DataFrame(rows, columns=list(self.fields)).astype(dict.fromkeys(numbers, float))
        import numpy

        return numpy.array(rows, dtype=float if len(numbers) == len(self.fields) else object)
