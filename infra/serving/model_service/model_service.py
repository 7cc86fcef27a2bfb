"""The base class of every ``customize_service.py``: how one request runs through a model."""

import json
from typing import Any, Dict


class SingleNodeService(object):
    """A model that answers one request after another.

    A package derives one class from this one or from one of its sub-classes, loads its model in ``__init__`` and
    implements ``_inference``, unless its base class has one. ``_preprocess`` and ``_postprocess`` pass the data on
    unchanged unless they are overridden.
    """

    def __init__(self, model_name: Any = "", model_path: Any = None) -> None:
        """Keep both arguments as attributes. A single one is ``model_path``.

        ``model_name`` is the name under which the package was deployed; ``model_path`` is the model file, or the
        package's folder, by the type of the model.
        """
        if model_path is None:
            model_name, model_path = getattr(self, "model_name", ""), model_name
        self.model_name = model_name
        self.model_path = model_path

    def _preprocess(self, data: Any) -> Any:
        """Turn the request into the model's input.

        ``data`` is the JSON body (mostly a dict), or for multipart bodies ``{form_key: {file_name: file_object}}``.
        """
        return data

    def _inference(self, data: Any) -> Any:
        """Run the model on the result of ``_preprocess``."""
        raise NotImplementedError(
            "%s._inference(self, data) is not written: it must run the model and return its output"
            % type(self).__name__
        )

    def _postprocess(self, data: Any) -> Any:
        """Turn the result of ``_inference`` into the response: any JSON value, or a str or bytes."""
        return data

    def inference(self, data: Any) -> Any:
        """Answer one request: ``_preprocess``, then ``_inference``, then ``_postprocess``."""
        return self._postprocess(self._inference(self._preprocess(data)))

    def _read_data(self, data: Any) -> Any:
        """The value of a JSON text; anything else as it is."""
        return json.loads(data) if isinstance(data, (str, bytes)) else data

    def ping(self) -> None:
        """Packages may override it; nothing here calls it."""

    def signature(self) -> Dict[str, Any]:
        """Packages may override it; nothing here calls it."""
        return {}
