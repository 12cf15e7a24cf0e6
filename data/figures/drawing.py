"""What the scripts of all notebooks' figures share: colours, training, decoding, rows of images, boxes."""

from itertools import count
from pathlib import Path

import matplotlib
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torchvision.utils import make_grid

from vae_tutorial.data import Loader, load_images
from vae_tutorial.loss import vae_loss
from vae_tutorial.model import Decoder, Encoder, eval_mode
from vae_tutorial.train import fit, train_step

HERE = Path(__file__).resolve().parent.parent  # data/
BLUE, GREEN, ORANGE, PURPLE, INK, GREY = "#0072B2", "#007A5A", "#C04F00", "#8A4F9E", "#222222", "#666666"
FILM_EPOCHS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 40)


def prepare():
    """Set what makes the pictures come out the same each time; return the digits."""
    torch.set_num_threads(1)
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK})
    return load_images("mnist-5k")


def train(kind, latent_dim, learning_rate, digits, epochs, look, loss_fn=vae_loss, batch_size=32):
    """Train as the notebooks do; return the model, and look(model) at each of the epochs, fifths of one included."""
    torch.manual_seed(0)
    model = kind(Encoder(latent_dim=latent_dim), Decoder(latent_dim=latent_dim))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.5, 0.99))
    loader, steps, seen = Loader(digits.train_images, digits.train_labels, batch_size), count(), []

    def step(*arguments):
        if next(steps) / len(loader) in epochs:
            seen.append(look(model))
        return train_step(*arguments)

    fit(model, loader, digits.test_images, optimizer=optimizer, epochs=epochs[-1], loss_fn=loss_fn, train_step=step)
    return model, [*seen, look(model)]


@torch.no_grad()
def decode(decoder, z):
    """Decode in eval mode, (N, D) -> (N, 1, 32, 32), and put the decoder's mode back."""
    with eval_mode(decoder):
        return decoder(z)


def tiles(images, nrow=1, padding=0):
    """Lay images (N, 1, 32, 32) in [-1, 1] out, on white, as one picture (H, W) in [0, 1]."""
    return make_grid(images / 2 + 0.5, nrow=nrow, padding=padding, pad_value=1)[0].clamp(0, 1).numpy()


def draw_rows(rows, figsize, bottom, ticks=FILM_EPOCHS):
    """Draw rows of images, {label: (N, 1, 32, 32)}, with the epochs of the film, or other ticks, below."""
    figure = Figure(figsize=figsize, dpi=100)
    all_axes = figure.subplots(len(rows))
    figure.subplots_adjust(left=0.135, right=0.985, top=0.98, bottom=bottom, hspace=0.1)
    for axes, (label, images) in zip(all_axes, rows.items(), strict=True):
        axes.imshow(tiles(images, len(images), padding=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_ylabel(label, rotation=0, ha="right", va="center", size=13)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    all_axes[-1].set_xticks([17 + 33 * n for n in range(len(ticks))], ticks, size=12)
    all_axes[-1].tick_params(length=0)
    return figure


def draw_block(axes, middle, y, height, width, colour, slant=10):
    """Draw a box whose front is as wide as there are channels."""
    left, right, low, high = middle - width / 2 - 5, middle + width / 2 - 5, y - height / 2 - 5, y + height / 2 - 5
    front = [(left, low), (right, low), (right, high), (left, high)]
    top = [(left, high), (left + slant, high + slant), (right + slant, high + slant), (right, high)]
    side = [(right, low), (right + slant, low + slant), (right + slant, high + slant), (right, high)]
    for corners, alpha in ((front, 0.25), (top, 0.1), (side, 0.45)):
        axes.add_patch(Polygon(corners, facecolor=to_rgba(colour, alpha), edgecolor=colour, joinstyle="round"))
