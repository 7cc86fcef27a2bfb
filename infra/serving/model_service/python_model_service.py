"""The import path that XGBoost and scikit-learn packages use for their base class."""

from __future__ import annotations

from model_service.model_service import SingleNodeService


class XgSklServingBaseService(SingleNodeService):
    """Base class of XGBoost and scikit-learn packages. The package's own ``__init__`` loads the model."""
