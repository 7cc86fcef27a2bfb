"""``import hiai_model_service``: the base class of packages for Ascend chips."""

from model_service.hiai_model_service import HiaiBaseService

__all__ = ["HiaiBaseService"]
