"""The base classes of the original platform, under every path by which published packages import them."""

from model_service.caffe_model_service import CaffeBaseService
from model_service.hiai_model_service import HiaiBaseService
from model_service.model_service import SingleNodeService
from model_service.mxnet_model_service import MXNetBaseService
from model_service.python_model_service import XgSklServingBaseService
from model_service.pytorch_model_service import PTServingBaseService
from model_service.spark_model_service import SparkServingBaseService
from model_service.tfserving_model_service import TfServingBaseService

__all__ = [
    "CaffeBaseService",
    "HiaiBaseService",
    "MXNetBaseService",
    "PTServingBaseService",
    "SingleNodeService",
    "SparkServingBaseService",
    "TfServingBaseService",
    "XgSklServingBaseService",
]
