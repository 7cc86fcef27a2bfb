"""The metrics of the original platform."""
