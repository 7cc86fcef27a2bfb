"""The import path that TensorFlow packages use for their base class."""

from __future__ import annotations

from model_service.model_service import SingleNodeService


class TfServingBaseService(SingleNodeService):
    """Base class of TensorFlow packages. TensorFlow Serving is not used: ``_inference`` must be implemented."""
