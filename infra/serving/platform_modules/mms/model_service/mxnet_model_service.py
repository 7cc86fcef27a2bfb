"""``from mms.model_service.mxnet_model_service import MXNetBaseService``."""

from model_service.model_service import SingleNodeService
from model_service.mxnet_model_service import MXNetBaseService

__all__ = ["MXNetBaseService", "SingleNodeService"]
