"""The base class of MXNet packages; they import it as ``mms.model_service.mxnet_model_service``."""

from typing import Any

from model_service.model_service import SingleNodeService


class MXNetBaseService(SingleNodeService):
    """Base class of MXNet packages. The package's own ``__init__`` loads the model, and its ``_inference`` runs it."""

    def __init__(self, model_name: Any = "", model_path: Any = None, manifest: Any = None, gpu: Any = None) -> None:
        super().__init__(model_name, model_path)
