"""The import path that Spark packages use for their base class."""

from model_service.model_service import SingleNodeService


class SparkServingBaseService(SingleNodeService):
    """Base class of Spark packages. No Spark session is started here: the package's own ``__init__`` does it."""
