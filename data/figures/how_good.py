"""Draw the figures of notebook 04, how_good.png and left_out.png."""

import torch
from figures.drawing import GREY, HERE, prepare, tiles
from matplotlib.figure import Figure
from torch import nn

from vae_tutorial.data import Loader
from vae_tutorial.loss import kl_divergence
from vae_tutorial.metrics import (
    auroc,
    elbo,
    excess_surprise,
    gaussian_log_likelihood,
    grouped_bound,
    log_weights,
    without_class,
)
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.plots import CLASS_COLOURS
from vae_tutorial.train import fit


def make():
    """Train the model of notebook 04 on all digits and without each of them, four minutes on one core; draw results."""
    digits = prepare()
    bounds = measure_bounds(train_on_elbo(digits, None), digits.test_images)
    areas, surprising = [], None
    for digit in range(10):
        model = train_on_elbo(digits, digit)
        score = surprise_of(model, digits.test_images)
        known, _ = without_class(digits.train_images, digits.train_labels, digit)
        excess = excess_surprise(
            surprise_of(model, known), outline_of(known), score, outline_of(digits.test_images)
        )
        strange = digits.test_labels == digit
        areas.append([auroc(values[~strange], values[strange]) for values in (score, excess)])
        surprising = digits.test_images[score.topk(10).indices] if digit == 2 else surprising
    draw_how_good(bounds, surprising)
    draw_left_out(areas)


def train_on_elbo(digits, left_out):
    """Train as notebook 04 does, on the digits that are not left out."""
    torch.manual_seed(0)
    model = VAE(Encoder(latent_dim=16), Decoder(latent_dim=16))
    model.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def loss_fn(recon, x, mu, logvar):
        log_likelihood = gaussian_log_likelihood(x, recon, model.log_sigma).mean()
        kl = kl_divergence(mu, logvar).sum(dim=1).mean()
        return kl - log_likelihood, -log_likelihood, kl

    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.5, 0.99))
    images, labels = digits.train_images, digits.train_labels
    if left_out is not None:
        images, labels = without_class(images, labels, left_out)
    fit(model, Loader(images, labels), digits.test_images, optimizer=optimizer, epochs=10, loss_fn=loss_fn)
    return model.eval()


@torch.no_grad()
def measure_bounds(model, images):
    """Return {K: the mean bound over the images} for groups of K of 128 draws."""
    torch.manual_seed(0)
    log_w = torch.cat([log_weights(model, x, 128) for x in images.split(250)], dim=1).double()
    return {2**n: grouped_bound(log_w, 2**n).mean().item() for n in range(8)}


@torch.no_grad()
def surprise_of(model, images):
    """Return minus the ELBO of every image, the mean of four draws."""
    draws = [torch.cat([elbo(model, x) for x in images.split(500)]) for _ in range(4)]
    return -torch.stack(draws).mean(dim=0)


def outline_of(images):
    """Return the sum of the differences between neighbouring pixels of every image."""
    return sum(images.diff(dim=dim).abs().flatten(1).sum(dim=1) for dim in (2, 3))


def draw_how_good(bounds, surprising):
    """Draw the bound against K, and the ten most surprising digits without the 2."""
    figure = Figure(figsize=(10, 3.3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    left.plot(bounds.keys(), bounds.values(), marker="o", color=CLASS_COLOURS[0])
    left.set_xscale("log", base=2)
    left.set_xticks(list(bounds), list(bounds))
    left.set(xlabel="draws per image, K", ylabel="bound on ln p(x), nats", title="A bound, held-out digits")
    left.grid(alpha=0.3)
    right.imshow(tiles(surprising, 5, padding=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    right.set(title="Most surprising to a model without the 2", xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    figure.savefig(HERE / "how_good.png")


def draw_left_out(areas):
    """Draw the AUROC of each digit left out, by its surprise and compared like with like."""
    figure = Figure(figsize=(6.5, 3.3), dpi=100, layout="constrained")
    axes = figure.subplots()
    by_surprise, like_with_like = zip(*areas, strict=True)
    axes.plot(range(10), by_surprise, "o", color=CLASS_COLOURS[7], label="by surprise")
    axes.plot(range(10), like_with_like, "s", color=CLASS_COLOURS[5], label="like with like")
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle="--")
    axes.set(xticks=range(10), ylim=(0, 1), xlabel="the digit left out", ylabel="AUROC", title="How well it is found")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(HERE / "left_out.png")
