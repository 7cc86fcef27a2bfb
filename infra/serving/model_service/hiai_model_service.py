"""The import path that packages for Ascend chips use for their base class."""

from model_service.model_service import SingleNodeService


class HiaiBaseService(SingleNodeService):
    """Base class of packages for Ascend chips. The package's own ``__init__`` loads the model."""
