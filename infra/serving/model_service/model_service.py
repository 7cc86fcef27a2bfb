"""The base class of every ``customize_service.py``: how one request runs through a model."""

from __future__ import annotations

from typing import Any


class SingleNodeService:
    """A model that answers one request after another.

    A package derives one class from this one (or from one of its sub-classes, which differ in name only), loads its
    model in ``__init__`` and implements ``_inference``. ``_preprocess`` and ``_postprocess`` pass the data on unchanged
    unless they are overridden.
    """

    def __init__(self, model_name: str, model_path: str) -> None:
        """Keep both arguments as attributes.

        ``model_name`` is the name under which the package was deployed. ``model_path`` is its only model file; a
        package of several files gets its folder instead.
        """
        self.model_name = model_name
        self.model_path = model_path

    def _preprocess(self, data: Any) -> Any:
        """Turn the request into the model's input.

        ``data`` is the JSON body (mostly a dict), or for multipart bodies ``{form_key: {file_name: file_object}}``.
        """
        return data

    def _inference(self, data: Any) -> Any:
        """Run the model on the result of ``_preprocess``. Every package must implement this method."""
        raise NotImplementedError(
            f"{type(self).__name__}._inference(self, data) is not written: it must run the model and return its output"
        )

    def _postprocess(self, data: Any) -> Any:
        """Turn the result of ``_inference`` into the response: any JSON value, or a str or bytes sent unchanged."""
        return data

    def inference(self, data: Any) -> Any:
        """Answer one request: ``_preprocess``, then ``_inference``, then ``_postprocess``."""
        return self._postprocess(self._inference(self._preprocess(data)))
