"""Trains a model of TensorFlow for flowers (whose file is given), and saves it with one input, and with several."""

import csv
import json
import sys
from pathlib import Path

import tensorflow

FOLDER = Path(sys.argv[1])
ROWS = Path(sys.argv[2])
tensorflow.random.set_seed(0)

with open(ROWS) as file:
    rows = [[float(cell) for cell in row] for row in csv.reader(file)]
classes = [number // 50 for number in range(150)]
x, y = tensorflow.constant(rows), tensorflow.constant(classes)
weights, bias = tensorflow.Variable(tensorflow.zeros([4, 3])), tensorflow.Variable(tensorflow.zeros([3]))
for _ in range(500):
    with tensorflow.GradientTape() as tape:
        logits = x @ weights + bias
        loss = tensorflow.reduce_mean(tensorflow.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    for variable, gradient in zip((weights, bias), tape.gradient(loss, (weights, bias)), strict=True):
        variable.assign_sub(0.1 * gradient)


class Flowers(tensorflow.Module):
    def __init__(self):
        super().__init__()
        self.weights, self.bias = weights, bias

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 4], tensorflow.float32, "flowers")])
    def of_rows(self, flowers):
        shares = tensorflow.nn.softmax(flowers @ self.weights + self.bias)
        return {"shares": shares, "species": tensorflow.argmax(shares, 1)}

    @tensorflow.function(
        input_signature=[
            tensorflow.TensorSpec([None, 2], tensorflow.float32, "sepal"),
            tensorflow.TensorSpec([None], tensorflow.float32, "length"),
            tensorflow.TensorSpec([None], tensorflow.float32, "width"),
        ]
    )
    def of_parts(self, sepal, length, width):
        return self.of_rows(tensorflow.concat([sepal, length[:, None], width[:, None]], 1))


model = Flowers()
tensorflow.saved_model.save(model, str(FOLDER / "rows" / "1"), signatures=model.of_rows)
tensorflow.saved_model.save(model, str(FOLDER / "parts"), signatures={"serving_default": model.of_parts})
found = model.of_rows(x)
answers = [
    {"shares": shares, "species": species}
    for shares, species in zip(found["shares"].numpy().tolist(), found["species"].numpy().tolist(), strict=True)
]
(FOLDER / "flowers.answers.json").write_text(json.dumps(answers))


class Pictures(tensorflow.Module):
    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 8, 8, 1], tensorflow.float32, "pictures")])
    def mean(self, pictures):
        return {"mean": tensorflow.reduce_mean(pictures, [1, 2, 3])}


pictures = Pictures()
tensorflow.saved_model.save(pictures, str(FOLDER / "pictures"), signatures=pictures.mean)
