"""The base classes under the names of the model server of MXNet."""
