"""``from mms.model_service.model_service import SingleNodeService``."""

from model_service.model_service import SingleNodeService

__all__ = ["SingleNodeService"]
