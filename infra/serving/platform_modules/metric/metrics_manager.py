"""``MetricsManager.metrics``: what packages update with their own times. Nothing here reads it."""

from typing import Any, Dict


class _Unread(object):
    """A metric."""

    def update(self, value: Any = None) -> None:
        """Take a value."""


class _Metrics(Dict[str, Any]):
    """Empty, so that ``name in metrics`` is false; a metric that is asked for without that question is there, too."""

    def __missing__(self, name: str) -> _Unread:
        return _Unread()


class MetricsManager(object):
    """Holds the metrics."""

    metrics = _Metrics()
