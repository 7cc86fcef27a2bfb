"""A model behind LitServe: a picture as Base64 in JSON."""

import base64
import os
from typing import Any

import litserve


class Size(litserve.LitAPI):
    """Stands for a vision model: it says how large the picture is."""

    def setup(self, device: str) -> None:
        """Load the model."""

    def decode_request(self, request: dict[str, Any]) -> tuple[str, bytes]:
        """The task, and the picture."""
        return request["task"], base64.b64decode(request["image"], validate=True)

    def predict(self, x: tuple[str, bytes]) -> dict[str, int]:
        """The answer."""
        task, picture = x
        return {task: len(picture)}

    def encode_response(self, output: dict[str, int]) -> dict[str, int]:
        """As it is."""
        return output


if __name__ == "__main__":
    litserve.LitServer(Size(), accelerator="cpu").run(
        host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False
    )
