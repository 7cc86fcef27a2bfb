"""The import path that PyTorch packages use for their base class."""

from __future__ import annotations

from model_service.model_service import SingleNodeService


class PTServingBaseService(SingleNodeService):
    """Base class of PyTorch packages. The package's own ``__init__`` loads the model."""
