"""Draw the figure of notebook 04, how_good.png."""

import torch
from figures.drawing import CLASS_COLOURS, GREY, HERE, prepare, tiles
from matplotlib.figure import Figure
from torch import nn

from vae_tutorial.checks import how_good
from vae_tutorial.data import Loader
from vae_tutorial.loss import kl_divergence
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.train import fit


def make():
    """Train the model of notebook 04 on all digits and without each of them, four minutes on one core; draw results."""
    digits = prepare()
    bounds = measure_bounds(train_on_elbo(digits, None), digits.test_images)
    areas, surprising = [], None
    for digit in range(10):
        model = train_on_elbo(digits, digit)
        score = surprise_of(model, digits.test_images)
        known, _ = how_good.without_class(digits.train_images, digits.train_labels, digit)
        excess = how_good.excess_surprise(
            surprise_of(model, known), outline_of(known), score, outline_of(digits.test_images)
        )
        strange = digits.test_labels == digit
        areas.append([how_good.auroc(values[~strange], values[strange]) for values in (score, excess)])
        surprising = digits.test_images[score.topk(10).indices] if digit == 2 else surprising
    draw_how_good(bounds, surprising, areas)


def train_on_elbo(digits, left_out):
    """Train as notebook 04 does, on the digits that are not left out."""
    torch.manual_seed(0)
    model = VAE(Encoder(latent_dim=16), Decoder(latent_dim=16))
    model.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def loss_fn(recon, x, mu, logvar):
        log_likelihood = how_good.gaussian_log_likelihood(x, recon, model.log_sigma).mean()
        kl = kl_divergence(mu, logvar).sum(dim=1).mean()
        return kl - log_likelihood, -log_likelihood, kl

    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.5, 0.99))
    images, labels = digits.train_images, digits.train_labels
    if left_out is not None:
        images, labels = how_good.without_class(images, labels, left_out)
    fit(model, Loader(images, labels), digits.test_images, optimizer=optimizer, epochs=10, loss_fn=loss_fn)
    return model.eval()


@torch.no_grad()
def measure_bounds(model, images):
    """Return {K: the mean bound over the images} for groups of K of 128 draws."""
    torch.manual_seed(0)
    log_w = torch.cat([how_good.log_weights(model, x, 128) for x in images.split(250)], dim=1).double()
    return {2**n: how_good.grouped_bound(log_w, 2**n).mean().item() for n in range(8)}


@torch.no_grad()
def surprise_of(model, images):
    """Return minus the ELBO of every image, the mean of four draws."""
    draws = [torch.cat([how_good.elbo(model, x) for x in images.split(500)]) for _ in range(4)]
    return -torch.stack(draws).mean(dim=0)


def outline_of(images):
    """Return the sum of the differences between neighbouring pixels of every image."""
    return sum(images.diff(dim=dim).abs().flatten(1).sum(dim=1) for dim in (2, 3))


def draw_how_good(bounds, surprising, areas):
    """Draw the bound against K, the ten most surprising digits without the 2, and the AUROC of each digit left out."""
    figure = Figure(figsize=(12, 3.3), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.15, 1.15))
    left.plot(bounds.keys(), bounds.values(), marker="o", color=CLASS_COLOURS[0])
    left.set_xscale("log", base=2)
    left.set_xticks(list(bounds), list(bounds))
    left.set(xlabel="draws per image, K", ylabel="bound on ln p(x), nats", title="A bound, held-out digits")
    middle.imshow(tiles(surprising, 5, padding=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    middle.set(title="Most surprising to a model without the 2", xticks=[], yticks=[])
    middle.spines[:].set_visible(False)
    for values, marker, colour, name in zip(
        zip(*areas, strict=True),
        "os",
        (CLASS_COLOURS[7], CLASS_COLOURS[5]),
        ("by surprise", "like with like"),
        strict=True,
    ):
        right.plot(range(10), values, marker, color=colour, label=name)
    right.axhline(0.5, color=GREY, linewidth=1, linestyle="--")
    right.set(xticks=range(10), ylim=(0, 1), xlabel="the digit left out", ylabel="AUROC", title="How well it is found")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(HERE / "how_good.png")
