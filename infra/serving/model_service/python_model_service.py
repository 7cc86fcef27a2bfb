"""The import path that XGBoost and scikit-learn packages use for their base class."""

import json
from typing import Any

from model_service.model_service import SingleNodeService


class XgSklServingBaseService(SingleNodeService):
    """Base class of XGBoost and scikit-learn packages: by default, ``model_path`` is loaded and asked for predictions.

    ``model_path`` is a file of joblib or pickle, else one of XGBoost.
    """

    _loaded: Any = None

    def _preprocess(self, data: Any) -> Any:
        """The values of each row in ``data.req_data``, in the order of the request; other requests as they are."""
        request = json.loads(data) if isinstance(data, str) else data
        inner = request.get("data") if isinstance(request, dict) else None
        if not isinstance(inner, dict) or "req_data" not in inner:
            return data
        return [list(row.values()) for row in inner["req_data"]]

    def _inference(self, data: Any) -> Any:
        """The model's prediction for each row."""
        if self._loaded is None:
            self._loaded = load_model(str(self.model_path))
        return self._loaded(data)

    def _postprocess(self, data: Any) -> Any:
        """A list of ``{"predictresult": value}``; what is no sequence of values as it is."""
        if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__iter__"):
            return data
        return [{"predictresult": value} for value in data]


def load_model(path: str) -> Any:
    """What predicts rows with the model file at ``path``. Raises what the library raises that reads it."""
    if not path.endswith((".json", ".ubj", ".bst", ".xgb")):
        try:
            import joblib

            model = joblib.load(path)
        except Exception as error:  # a file of XGBoost is no pickle: which exception tells so, depends on its bytes
            try:
                return _booster(path)
            except Exception:
                raise error from None
        if type(model).__module__.partition(".")[0] != "xgboost" or not hasattr(model, "get_dump"):
            return model.predict
        return _of_booster(model)
    return _booster(path)


def _booster(path: str) -> Any:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    return _of_booster(booster)


def _of_booster(booster: Any) -> Any:
    import numpy
    import xgboost

    def predict(rows: Any) -> Any:
        # Without names, a matrix fits a model whatever its columns were called.
        return booster.predict(xgboost.DMatrix(numpy.asarray(rows, dtype=float)), validate_features=False)

    return predict
