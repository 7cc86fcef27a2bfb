"""A model behind MLServer: the V2 inference protocol, whose constants config.json holds."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sums(MLModel):
    """Stands for a model of tables."""

    async def load(self) -> bool:
        """Load the model."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The sum of each row."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("sum", rows.sum(axis=1, keepdims=True))]
        )
