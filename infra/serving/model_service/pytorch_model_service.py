"""The import path that PyTorch packages use for their base class."""

from typing import Any

from model_service.model_service import SingleNodeService


class PTServingBaseService(SingleNodeService):
    """Base class of PyTorch packages. The package's own ``__init__`` loads ``self.model``."""

    def __init__(self, model_name: Any = "", model_path: Any = None) -> None:
        super().__init__(model_name, model_path)
        self.model: Any = None

    def _inference(self, data: Any) -> Any:
        """``self.model(value)`` of each value of what ``_preprocess`` returned, under its key."""
        return {key: self.model(value) for key, value in data.items()}
