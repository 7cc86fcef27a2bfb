"""What the kind of a model decides: which service gets text, whose lists are wrapped, what ``model_path`` is."""

from typing import Any, FrozenSet, NamedTuple, Optional, Tuple

from model_service.caffe_model_service import CaffeBaseService
from model_service.hiai_model_service import HiaiBaseService
from model_service.mxnet_model_service import MXNetBaseService
from model_service.python_model_service import XgSklServingBaseService
from model_service.pytorch_model_service import PTServingBaseService
from model_service.spark_model_service import SparkServingBaseService
from model_service.tfserving_model_service import TfServingBaseService


class Family(NamedTuple):
    """Model types that the original serves alike.

    ``as_text``: ``_preprocess`` gets JSON as text, and a list that is returned is wrapped. ``endings``: of model files,
    the likeliest group first; empty if ``model_path`` is the package's folder.
    """

    name: str
    types: FrozenSet[str]
    base: Any
    as_text: bool = False
    endings: Tuple[Tuple[str, ...], ...] = ()


_PICKLED = (".m", ".pkl", ".pickle", ".joblib", ".sav", ".skops")
FAMILIES = (
    Family(
        "PyTorch",
        frozenset({"pytorch"}),
        PTServingBaseService,
        endings=((".pth", ".pt"), (".pkl", ".bin", ".ckpt", ".pth.tar", ".tar", ".model", ".onnx", ".safetensors")),
    ),
    Family(
        "Scikit_Learn or XGBoost",
        frozenset({"scikit_learn", "xgboost", "lightgbm"}),
        XgSklServingBaseService,
        as_text=True,
        endings=(_PICKLED, (".ubj", ".model", ".bin", ".bst", ".xgb", ".onnx"), (".json",)),
    ),
    Family(
        "Spark",
        frozenset({"spark", "spark_mllib", "pyspark"}),
        SparkServingBaseService,
        as_text=True,
        endings=((".model", ".zip"), (".pmml",)),
    ),
    Family("TensorFlow", frozenset({"tensorflow"}), TfServingBaseService),
    Family("Caffe", frozenset({"caffe"}), CaffeBaseService),
    Family("MXNet", frozenset({"mxnet"}), MXNetBaseService),
    Family("Ascend", frozenset({"mindspore", "ascend"}), HiaiBaseService),
)


def family_of(model_type: str, service_class: type) -> Optional[Family]:
    """The family by ``model_type`` of config.json, as in the original; for other types by the base class."""
    for family in FAMILIES:
        if model_type.lower() in family.types:
            return family
    for family in FAMILIES:
        if issubclass(service_class, family.base):
            return family
    return None
