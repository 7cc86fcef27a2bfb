"""The import path that Caffe packages use for their base class."""

from model_service.model_service import SingleNodeService


class CaffeBaseService(SingleNodeService):
    """Base class of Caffe packages. The package's own ``__init__`` loads the model, and its ``_inference`` runs it."""
