"""The model server of MXNet, as far as packages import it."""
