"""The import path that TensorFlow packages use for their base class."""

import os
import threading
from typing import Any, Dict, List, Optional

from model_service.model_service import SingleNodeService

DEFAULT_SIGNATURE = "serving_default"
_UNSET = object()


class TfServingBaseService(SingleNodeService):
    """Base class of TensorFlow packages: by default, the saved model in ``model_path`` is asked.

    TensorFlow Serving, which the original asks, is not needed: the model is loaded into this process.
    """

    _own_model: Any = _UNSET
    _saved: Optional["SavedModel"] = None
    _loading = threading.Lock()

    @property
    def model(self) -> Any:
        """What the package has set; else the saved model, loaded at the first use."""
        return self._saved_model() if self._own_model is _UNSET else self._own_model

    @model.setter
    def model(self, model: Any) -> None:
        self._own_model = model

    def _inference(self, data: Any) -> Any:
        """The outputs of the signature: the only one, else ``serving_default``, else the first; as lists."""
        return self._saved_model().predict(data)

    def load(self) -> None:
        """Load the saved model now, if ``_inference`` is not overridden."""
        self._saved_model()

    def _saved_model(self) -> "SavedModel":
        with self._loading:
            if self._saved is None:
                self._saved = SavedModel(str(self.model_path))
            return self._saved


class SavedModel(object):
    """A saved model and one of its signatures.

    ``model_inputs`` and ``model_outputs``: name -> what TensorFlow says of each.
    """

    def __init__(self, path: str) -> None:
        """Load it. Raises ValueError without a saved model or a signature, ImportError without TensorFlow."""
        import tensorflow

        folder = _folder_of(path)
        if folder is None:
            raise ValueError("there is no saved_model.pb in %s" % path)
        self._tensorflow = tensorflow
        self._loaded = tensorflow.saved_model.load(folder)  # kept: its variables live as long as it does
        signatures = dict(self._loaded.signatures)
        if not signatures:
            raise ValueError("the saved model in %s has no signature" % folder)
        self._signature = signatures.get(DEFAULT_SIGNATURE) or next(iter(signatures.values()))
        # In the order of their names: TensorFlow's own is another one in each process.
        self.model_inputs: Dict[str, Any] = dict(sorted(self._signature.structured_input_signature[1].items()))
        self.model_outputs: Dict[str, Any] = dict(sorted(self._signature.structured_outputs.items()))

    def predict(self, data: Any) -> Dict[str, Any]:
        """The outputs by name, as lists. Raises KeyError for an input that is missing."""
        tensors = {
            name: self._tensorflow.convert_to_tensor(self._value(data, name), dtype=spec.dtype)
            for name, spec in self.model_inputs.items()
        }
        return {name: output.numpy().tolist() for name, output in self._signature(**tensors).items()}

    def _value(self, data: Any, name: str) -> Any:
        if not isinstance(data, dict):
            return data
        if name not in data and len(data) == len(self.model_inputs) == 1:
            return next(iter(data.values()))  # packages call their only input as they like
        return data[name]


def _folder_of(path: str) -> Optional[str]:
    """The folder of saved_model.pb: ``path``, or the newest of numbered folders in it, as TensorFlow Serving has."""
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return path
    numbered: List[str] = [name for name in os.listdir(path) if name.isdigit()] if os.path.isdir(path) else []
    for name in sorted(numbered, key=int, reverse=True):
        if os.path.isfile(os.path.join(path, name, "saved_model.pb")):
            return os.path.join(path, name)
    return None
