"""Digits from two numbers each, by an autoencoder and a VAE: ``tensorgrad demo autoencoder``.

An autoencoder is a network with a narrow waist that learns to give back what it is given: the two
numbers there, the code, have to say what the picture shows. D. Kingma and M. Welling,
"Auto-encoding variational Bayes", 2014, make a model of pictures of it: the encoder gives a normal
distribution of codes in place of one, and is kept near the standard normal distribution, so that
pictures can be drawn by drawing codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import DataLoader, TensorDataset, digits, idx_folder, write_atomically
from tensorgrad.viz import draw_pictures

Array = np.ndarray[Any, Any]


class Autoencoder(nn.Module):
    """Pixels -> hidden -> code -> hidden -> pixels."""

    def __init__(self, pixels: int, hidden: int = 256, code: int = 2) -> None:
        self.encoder = nn.Sequential(
            nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.code = nn.Linear(hidden, code)
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, pixels),
        )  # fmt: skip

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """Pictures (N, pixels) in [0, 1], as well as they can be told from their codes."""
        return tg.sigmoid(self.decoder(self.code(self.encoder(x))))

    def loss(self, x: tg.Tensor) -> tg.Tensor:
        """What is lost of a picture, in nats: its pixels are taken for probabilities of white."""
        return pixel_loss(self.decoder(self.code(self.encoder(x))), x)


class VAE(Autoencoder):
    """The code is the mean of a normal distribution, whose deviation the network gives as well."""

    def __init__(self, pixels: int, hidden: int = 256, code: int = 2) -> None:
        super().__init__(pixels, hidden, code)
        self.log_variance = nn.Linear(hidden, code)

    def loss(self, x: tg.Tensor) -> tg.Tensor:
        """The negative evidence lower bound of a picture, in nats."""
        return sum(self.parts(x), tg.tensor(0.0))

    def parts(self, x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        """The loss of the pixels by a code drawn at random, and what the codes tell of a picture.

        The second is the divergence (Kullback and Leibler) of the distribution of its codes from
        the standard normal one.
        """
        hidden = self.encoder(x)
        mean, log_variance = self.code(hidden), self.log_variance(hidden)
        noise = tg.random.normal(mean.shape)
        code = mean + tg.exp(log_variance / 2) * noise  # so that gradients reach both
        told = (mean**2 + tg.exp(log_variance) - 1 - log_variance).sum() / (2 * len(x))
        return pixel_loss(self.decoder(code), x), told


def pixel_loss(logits: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
    """The cross-entropy of all pixels of a picture, mean over pictures."""
    return nn.functional.binary_cross_entropy_with_logits(logits, x, "sum") / len(x)


def fit(model: Autoencoder, pictures: Array, epochs: int, seed: int) -> float:
    """Train on ``pictures`` (N, pixels); returns the loss of the last epoch."""
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @tg.compile
    def step(x: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = model.loss(x)
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(pictures), 128, shuffle=True, drop_last=True, seed=seed)
    losses: list[float] = []
    for _ in range(epochs):
        losses = [step(x).item() for (x,) in loader]
    return float(np.mean(losses))


def error(model: Autoencoder, pictures: Array) -> float:
    """The mean squared error of a pixel of pictures given back."""
    with tg.no_grad():
        return float(np.mean((model(tg.tensor(pictures)).numpy() - pictures) ** 2))


def error_of_pca(train: Array, test: Array, code: int = 2) -> float:
    """The same by principal components: what two numbers can do without hidden units."""
    mean = train.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(train - mean, rowvar=False))
    plane = directions[:, -code:]  # the eigenvalues ascend
    return float(np.mean(((test - mean) @ plane @ plane.T + mean - test) ** 2))


def plane(model: Autoencoder, side: int) -> Array:
    """What codes on a grid stand for, (side, side, pixels).

    The grid has as many codes of the standard normal distribution between its lines everywhere.
    """
    shares = (np.arange(side) + 0.5) / side
    places = np.sqrt(2.0) * tg.special.erfinv(tg.tensor(2 * shares - 1)).numpy()
    across, down = np.meshgrid(places, -places)
    codes = np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)
    with tg.no_grad():
        return tg.sigmoid(model.decoder(tg.tensor(codes))).numpy().reshape(side, side, -1)


def load(data: str | None) -> tuple[Array, Array, int]:
    """Pictures (N, pixels) in [0, 1] to train and to test with, and the epochs they need.

    data: a folder with the IDX files of MNIST or a relative; the digits that come along if None.
    """
    if data is None:
        images = digits()[0]
        pictures = images / np.float32(images.max())
        return pictures[:1400], pictures[1400:], 100
    files = idx_folder(data)
    train, test = (x / np.float32(255) for x in (files.train_images, files.test_images))
    return train, test, 10


def run(folder: Path, seed: int, data: str | None = None) -> None:
    """Train both; print what they lose, and leave pictures of what they give back."""
    train, test, epochs = load(data)
    shape = train.shape[1:]
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    print(f"{len(train):,} pictures of {shape[0]} x {shape[1]} pixels, two numbers for each")
    print(f"{'on ' + format(len(test), ',') + ' others':<24}{'error of a pixel':>18}")
    print(f"{'principal components':<24}{error_of_pca(train, test):>18.4f}")
    rows = [test[:12]]
    for name, kind in (("autoencoder", Autoencoder), ("VAE", VAE)):
        tg.manual_seed(seed)
        model = kind(train.shape[1])
        fit(model, train, epochs, seed)
        print(f"{name:<24}{error(model, test):>18.4f}")
        with tg.no_grad():
            rows.append(model(tg.tensor(test[:12])).numpy())
    assert isinstance(model, VAE)
    with tg.no_grad():
        pixels, told = (part.item() for part in model.parts(tg.tensor(test)))
    print(f"the VAE's bound: {pixels + told:.2f} nats for a picture, {told:.2f} of them its code")
    zoom = max(2, 120 // shape[0] // 2)
    given = np.stack(rows).reshape(3, 12, *shape)
    write_atomically(folder / "given-back.png", draw_pictures(given, zoom))
    drawn = plane(model, 16).reshape(16, 16, *shape)
    write_atomically(folder / "plane.png", draw_pictures(drawn, max(1, zoom - 1)))
    nn.save_safetensors(model, folder / "model.safetensors")
