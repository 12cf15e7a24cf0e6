"""Draw the figure of notebook 02, ghosts.png."""

from functools import partial

import torch
from figures.drawing import HERE, decode, draw_rows, prepare, train

from vae_tutorial.loss import vae_loss
from vae_tutorial.model import VAE, Autoencoder


def make():
    """Train two networks, a minute on one core, and draw what they make of the same draws from the prior."""
    digits = prepare()
    z = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))

    def images(kind, beta):
        model, _ = train(kind, 16, 4e-3, digits, (15,), lambda model: None, partial(vae_loss, beta=beta), batch_size=64)
        return decode(model.decoder, z)

    rows = {"autoencoder": images(Autoencoder, 0.0), "VAE": images(VAE, 0.1)}
    draw_rows(rows, figsize=(12, 1.95), bottom=0.02, ticks=()).savefig(HERE / "ghosts.png")
