"""Draw the figure of notebook 03, map.png."""

import torch
from figures.drawing import HERE, INK, decode, prepare, tiles, train
from matplotlib.figure import Figure
from PIL import Image

from vae_tutorial.latent import encode_all
from vae_tutorial.loss import elbo_loss
from vae_tutorial.model import VAE
from vae_tutorial.plots import CLASS_COLOURS


def make():
    """Train one network, a minute on one core, and draw its map."""
    digits = prepare()
    model, _ = train(VAE, 2, 4e-3, digits, (20,), lambda model: None, elbo_loss)
    draw_map(model, digits)


def draw_map(model, digits):
    """Draw what notebook 03 is about: the codes in the plane with the grid of quantiles, and what is decoded there."""
    q = torch.special.ndtri((torch.arange(20) + 0.5) / 20)
    grid = torch.stack([q.repeat(20), q.flip(0).repeat_interleave(20)], dim=1)
    codes = encode_all(model.encoder, digits.test_images)
    figure = Figure(figsize=(12, 5.8), dpi=100)
    plane = figure.add_axes((0.04, 0.075, 0.425, 0.88))
    for label, colour in enumerate(CLASS_COLOURS):
        plane.scatter(*codes[digits.test_labels == label].T.numpy(), s=9, color=colour, linewidths=0, label=str(label))
    plane.scatter(*grid.T.numpy(), s=5, marker="+", color=INK, linewidths=0.6)
    plane.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xlabel="$z_1$", aspect="equal")
    plane.set_ylabel("$z_2$", rotation=0, labelpad=0)
    plane.set_title(r"held-out digits, each at its $\mu$, and the grid")
    plane.legend(loc="upper left", ncols=5, frameon=False, handletextpad=-0.4, columnspacing=0.4, fontsize=9)
    decoded = figure.add_axes((0.56, 0.075, 0.425, 0.88))
    greys = (15 * tiles(decode(model.decoder, grid), 20)).round() / 15
    decoded.imshow(greys, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 0, 1), interpolation="nearest")
    decoded.set(xlabel=r"$\Phi(z_1)$")
    decoded.set_ylabel(r"$\Phi(z_2)$", rotation=0, labelpad=10)
    decoded.set_title("the map: what the decoder makes of the grid")
    figure.savefig(HERE / "map.png")
    Image.open(HERE / "map.png").convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        HERE / "map.png", optimize=True
    )
