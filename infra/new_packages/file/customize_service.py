"""Answers each PNG picture with its width and height."""

import struct

from model_service.model_service import SingleNodeService

SIGNATURE = b"\x89PNG\r\n\x1a\n"


class NewService(SingleNodeService):
    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        # Load your model here. What it needs to be installed stands in `dependencies` of config.json.

    def _preprocess(self, data):
        """The file of a request: its name, and its bytes."""
        ((name, file),) = data["images"].items()
        return name, file.read()

    def _inference(self, data):
        name, content = data
        if not content.startswith(SIGNATURE):
            raise ValueError("%s is no PNG picture" % name)
        width, height = struct.unpack(">II", content[16:24])
        return {"file": name, "width": width, "height": height}
