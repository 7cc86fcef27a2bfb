"""Trains two models of PyTorch: one tells of which recording a piece of sound is, one reads handwritten digits."""

import json
import sys
import wave
from pathlib import Path

import numpy
import pygame
import torch
from PIL import Image
from sklearn.datasets import load_digits

FOLDER = Path(sys.argv[1])
RECORDINGS = Path(pygame.__file__).parent / "examples" / "data"
PIECE = 1000
torch.manual_seed(0)


def fit(model, inputs, classes, steps=300):
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), classes).backward()
        optimizer.step()
    return model.eval()


def write(name, model, inputs, classes, names):
    """The labels that the model itself gives to each file, and how many of them are right."""
    with torch.no_grad():
        found = model(inputs).argmax(1)
    labels = {file: int(label) for file, label in zip(names, found, strict=True)}
    share = float((found == classes).float().mean())
    (FOLDER / f"{name}.answers.json").write_text(json.dumps([labels, share]))


class Digits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.classes = torch.nn.Linear(8 * 64, 10)

    def forward(self, pictures):
        return self.classes(torch.relu(self.features(pictures)).flatten(1))


pictures, digits = load_digits(return_X_y=True)
pixels = (pictures.reshape(-1, 8, 8) * 15.9375).astype(numpy.uint8)
inputs = torch.tensor(pixels, dtype=torch.float32).unsqueeze(1) / 255
digits = torch.tensor(digits)
reader = fit(Digits(), inputs, digits, 100)
torch.jit.script(reader).save(FOLDER / "digits.pt")
(FOLDER / "digits").mkdir()
for number in range(40):
    Image.fromarray(pixels[number]).save(FOLDER / "digits" / f"{number:02}.png")
write("digits", reader, inputs[:40], digits[:40], [f"{number:02}.png" for number in range(40)])

pieces, labels, names = [], [], []
(FOLDER / "sounds").mkdir()
for label, path in enumerate(sorted(RECORDINGS.glob("*.wav"))):
    try:
        with wave.open(str(path)) as sound:
            width, rate, channels = sound.getsampwidth(), sound.getframerate(), sound.getnchannels()
            frames = sound.readframes(sound.getnframes())
    except wave.Error:  # compressed
        continue
    size = PIECE * width * channels
    for number in range(min(len(frames) // size, 8)):
        names.append(f"{path.stem}-{number}.wav")
        with wave.open(str(FOLDER / "sounds" / names[-1]), "wb") as piece:
            piece.setparams((channels, width, rate, 0, "NONE", ""))
            piece.writeframes(frames[number * size : (number + 1) * size])
        samples = numpy.frombuffer(frames[number * size : (number + 1) * size], "u1" if width == 1 else "<i2")
        pieces.append(numpy.log1p(numpy.abs(numpy.fft.rfft(samples[:PIECE].astype(numpy.float32)))))
        labels.append(label)
spectra, labels = torch.tensor(numpy.array(pieces), dtype=torch.float32), torch.tensor(labels)
listener = fit(torch.nn.Linear(spectra.shape[1], int(labels.max()) + 1), spectra, labels)
torch.jit.script(listener).save(FOLDER / "sounds.pt")
write("sounds", listener, spectra, labels, names)
