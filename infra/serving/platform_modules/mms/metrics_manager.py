"""``from mms.metrics_manager import MetricsManager``: as in ``metric``."""

from metric.metrics_manager import MetricsManager

__all__ = ["MetricsManager"]
