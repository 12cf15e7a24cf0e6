"""Draw the figures of notebook 01, and the README's: divergence, network, film and preview.png, latent_space.gif."""

from functools import partial

import numpy as np
import torch
from figures.drawing import (
    BLUE,
    FILM_EPOCHS,
    GREEN,
    GREY,
    HERE,
    INK,
    ORANGE,
    PURPLE,
    decode,
    draw_block,
    draw_rows,
    prepare,
    tiles,
    train,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from PIL import Image
from torch.distributions import Normal

from vae_tutorial.latent import class_means, encode_all, interpolate
from vae_tutorial.loss import elbo_loss, kl_divergence
from vae_tutorial.model import VAE, Autoencoder
from vae_tutorial.plots import CLASS_COLOURS

FRAME_EPOCHS = (0, 0.2, 0.4, 0.8, 1.4, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40)
LIMIT, SQUARE, SIDE, GREYS = 8, 2, 10, 5  # of the scatter plots, of the decoded square, of its grid, of its pixels
POSTERIORS = [(1.4, 1.0), (0.0, 0.4), (1.4, 0.4)]  # (mu, sigma), of divergence.png
# of network.png, in pixels of 900 x 370: the arrows of the encoder, which the decoder mirrors, and between them;
# x, y, size, colour of the words; x, y of the boxes
ENCODER_ARROWS = [(103, 240, 122, 240), (172, 240, 204, 240), (254, 240, 272, 240)]
ARROWS = [(334, 240, 352, 266), (334, 240, 352, 214), (427, 268, 464, 250), (427, 212, 464, 230), (510, 240, 568, 240)]
WORDS = [(226, 342, 13, BLUE, "Encoder"), (226, 322, 9, BLUE, "three convolutions halve height and width")]
WORDS += [(674, 342, 13, GREEN, "Decoder"), (674, 322, 9, GREEN, "three transposed convolutions double them")]
WORDS += [(226, 146, 9, GREY, "channels, height, width"), (674, 146, 9, GREY, "channels, height, width")]
WORDS += [(390, 297, 9, PURPLE, "128 numbers each"), (498, 270, 12, INK, r"$z = \mu + \sigma\,\varepsilon$")]
WORDS += [(390, 95, 11, ORANGE, r"KL divergence:  $N(\mu,\, \sigma^2)$  against  $N(0,\, I)$")]
WORDS += [(450, 22, 11, ORANGE, "reconstruction error:  recon  against  $x$")]
BOXES = [(390, 268, "-", r"$\quad\;\mu\quad\;$"), (390, 212, "-", r"$\log\,\sigma^2$"), (487, 240, "-", r"$\;z\;$")]
BOXES += [(487, 160, "--", r"$\varepsilon \sim N(0,\, I)$")]


def make():
    """Train three networks, five minutes on one core, and draw the five figures."""
    digits = prepare()
    z, x = torch.randn(1, 128, generator=torch.Generator().manual_seed(3)), digits.test_images[-1:]

    def look(model):
        return torch.cat([decode(model.decoder, z), decode(model.decoder, encode_all(model.encoder, x))])

    model, film = train(VAE, 128, 4e-3, digits, FILM_EPOCHS, look)
    draw_divergence()
    draw_network(model, digits)
    draw_film(*torch.stack(film, dim=1))
    draw_preview(model, digits, torch.stack(film)[:, 0])
    autoencoder, vae = train_latent_space(Autoencoder, 0.0, digits), train_latent_space(VAE, 1.0, digits)
    draw_latent_space(autoencoder, vae, digits.test_labels)


def train_latent_space(kind, beta, digits):
    """Train with two latent dimensions; return (held-out mu, the decoded square) at each of FRAME_EPOCHS.

    The loss is elbo_loss: vae_loss takes the mean over the pixels and over the latent dimensions, so with only two of
    these its KL term outweighs the reconstruction, and the VAE collapses onto the prior. The learning rate is a quarter
    of notebook 01's: with all of it the autoencoder's codes reach 30, and no scale shows both networks.
    """
    line = torch.linspace(-SQUARE, SQUARE, SIDE)
    square = torch.cartesian_prod(line.flip(0), line).flip(1)  # the first row of images has the largest z_2

    def look(model):
        return encode_all(model.encoder, digits.test_images), tiles(decode(model.decoder, square), SIDE)

    return train(kind, 2, 1e-3, digits, FRAME_EPOCHS, look, partial(elbo_loss, beta=beta))[1]


def draw_divergence():
    """Draw three posteriors over the prior, and below each the curve whose area is its KL divergence."""
    figure = Figure(figsize=(9, 3.7))
    all_axes = figure.subplots(2, len(POSTERIORS), sharex=True, sharey="row")
    figure.subplots_adjust(left=0.09, right=0.99, top=0.91, bottom=0.13, hspace=0.12, wspace=0.08)
    z = torch.linspace(-3.5, 5.5, 901)
    for (above, below), (mu, sigma) in zip(all_axes.T, POSTERIORS, strict=True):
        p, q = Normal(0, 1).log_prob(z), Normal(mu, sigma).log_prob(z)
        integrand = q.exp() * (q - p)
        (divergence,) = kl_divergence(torch.tensor([mu]), 2 * torch.tensor([sigma]).log()).tolist()
        for log_density, colour in ((p, GREY), (q, BLUE)):
            above.fill_between(z, log_density.exp(), color=colour, alpha=0.25, linewidth=0)
            above.plot(z, log_density.exp(), color=colour)
        above.set_title(rf"$\mu = {mu:g},\; \sigma = {sigma:g}$")
        below.fill_between(z, integrand.clamp(min=0), color=ORANGE, alpha=0.4, linewidth=0)
        below.fill_between(z, integrand.clamp(max=0), facecolor="none", edgecolor=ORANGE, hatch="////", linewidth=0)
        below.plot(z, integrand, color=ORANGE)
        below.axhline(0, color=INK, linewidth=0.8)
        below.set(ylim=(-0.3, 2.6), xlabel="$z$")
        below.text(0.03, 0.9, f"area: KL = {divergence:.2f}", transform=below.transAxes, va="top", weight="bold")
    all_axes[0, 0].set_ylabel("density")
    all_axes[0, 0].text(-1.2, 0.33, "$p$", color=GREY, ha="right", size=13)
    all_axes[0, 0].text(2.5, 0.33, "$q$", color=BLUE, size=13)
    all_axes[1, 0].set_ylabel(r"$q\,(\ln q - \ln p)$")
    for axes in all_axes.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(size=2, labelsize=8)
    figure.savefig(HERE / "divergence.png", dpi=200)


def draw_network(model, digits):
    """Draw the diagram of the VAE, around a held-out digit and its reconstruction."""
    figure = Figure(figsize=(9, 3.7))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 900), ylim=(0, 370))
    axes.axis("off")
    x = digits.test_images[320:321]
    recon = decode(model.decoder, encode_all(model.encoder, x))
    for image, middle, name in ((x, 60, "$x$"), (recon, 840, "recon")):
        place = (middle - 40, middle + 40, 200, 280)
        axes.imshow(tiles(image), cmap="gray", vmin=0, vmax=1, extent=place, aspect="auto")
        axes.text(middle, 178, f"{name}\n(1, 32, 32)", ha="center", va="top")
    for (channels, size), left in zip(((16, 16), (32, 8), (64, 4)), (146, 226, 300), strict=True):
        for middle, colour in ((left, BLUE), (900 - left, GREEN)):
            draw_block(axes, middle, 240, 14 + 3.6 * size, 6 + channels / 2, colour)
            axes.text(middle, 178, f"({channels}, {size}, {size})", ha="center", va="top")
    draw_words_and_lines(axes)
    figure.savefig(HERE / "network.png", dpi=200)


def draw_words_and_lines(axes):
    """Draw what does not depend on the network: words, boxes, arrows, and the brackets of the two loss terms."""
    for x, y, size, colour, words in WORDS:
        axes.text(x, y, words, color=colour, size=size, ha="center", weight="bold" if size == 13 else None)
    for x, y, line, words in BOXES:
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#F3EEF6", "edgecolor": PURPLE, "linestyle": line}
        axes.text(x, y, words, ha="center", va="center", size=12, bbox=box)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "color": INK, "shrinkA": 0, "shrinkB": 0}
    mirrored = [(900 - right, y, 900 - left, y) for left, _, right, y in ENCODER_ARROWS]
    for *start, x, y in ENCODER_ARROWS + ARROWS + mirrored:
        axes.annotate("", (x, y), start, arrowprops=arrow)
    axes.annotate("", (487, 220), (487, 179), arrowprops={**arrow, "linestyle": (0, (4, 3))})
    for left, right, low, high in ((60, 840, 45, 138), (357, 423, 118, 188)):
        axes.plot([left, left, right, right], [high, low, low, high], color=ORANGE, linewidth=1.4)


def draw_film(decoded, rebuilt):
    """Draw the film of notebook 01: one code and one held-out digit, as the network learns."""
    rows = {"one z, decoded\nafter epoch": decoded, "one digit, rebuilt\nafter epoch": rebuilt}
    draw_rows(rows, figsize=(12, 2.5), bottom=0.12).savefig(HERE / "film.png")


def draw_preview(model, digits, film):
    """Draw five rows of ten pictures: what the network of notebook 01 can do."""
    z = torch.randn(10, 128, generator=torch.Generator().manual_seed(0))
    codes = encode_all(model.encoder, digits.test_images)
    means = class_means(codes, digits.test_labels)
    rows = {
        "held-out digits": digits.test_images[3::100],
        "reconstructions": decode(model.decoder, codes[3::100]),
        "samples from\nthe prior": decode(model.decoder, z),
        "a digit 1 turns\ninto an 8": decode(model.decoder, interpolate(means[1], means[8], 10)),
        "one z, decoded\nafter epoch": film,
    }
    draw_rows(rows, figsize=(12, 5.9), bottom=0.05).savefig(HERE / "preview.png")


def draw_latent_space(autoencoder, vae, labels):
    """Write the animation of what train_latent_space gave for both networks, in 25 colours of a palette."""
    tints = [1 - weight * (1 - np.array(to_rgb(colour))) for colour in CLASS_COLOURS for weight in (1, 0.5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * np.vstack([np.linspace([0] * 3, [1] * 3, GREYS), *tints])).round().astype(int).ravel())
    frames = [draw_frame(*each, labels) for each in zip(FRAME_EPOCHS, autoencoder, vae, strict=True)]
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [300] * len(others) + [2000]
    first.save(HERE / "latent_space.gif", save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def draw_frame(epoch, autoencoder, vae, labels):
    """Draw one frame, 900 x 824 pixels: for both networks the codes, below them the images of the dashed square."""
    figure = Figure(figsize=(9, 8.24), dpi=100)
    figure.text(0.5, 0.968, f"epoch {epoch:g}", ha="center", size=13, weight="bold")
    for left, name, (codes, picture) in ((45, "Autoencoder", autoencoder), (496, "VAE", vae)):
        draw_codes(figure.add_axes((left / 900, 390 / 824, 384 / 900, 384 / 824)), name, codes, labels)
        figure.text((left + 192) / 900, 349 / 824, "decoded: the dashed square", ha="center")
        figure.add_artist(Rectangle((left + 26, 10), 332, 332, fill=False, linestyle="--", transform=None))
        figure.figimage((picture * (GREYS - 1)).round() / (GREYS - 1), left + 32, 16, cmap="gray", vmin=0, vmax=1)
    dots = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in CLASS_COLOURS]
    figure.legend(dots, range(10), loc="center", bbox_to_anchor=(0.513, 582 / 824), frameon=False, handletextpad=0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])


def draw_codes(axes, name, codes, labels):
    """Draw the codes (N, 2), the prior's circles and the square that is decoded, on one scale for all networks."""
    axes.scatter(*codes.T, s=7, c=[CLASS_COLOURS[label] for label in labels], linewidths=0)
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=INK))
    axes.add_patch(Rectangle((-SQUARE, -SQUARE), 2 * SQUARE, 2 * SQUARE, fill=False, color=INK, linestyle="--"))
    ticks = range(-LIMIT, LIMIT + 1, 4)
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=ticks, yticks=ticks)
    axes.tick_params(labelleft=name == "Autoencoder", size=2, labelsize=8)
    axes.set_title(name, size=11, weight="bold")
    outside = int((codes.abs() > LIMIT).any(dim=1).sum())
    words = "circles: 1 and 2 standard deviations of the prior"
    if outside:
        words += f"\n{outside} of the {len(codes)} codes lie outside"
    axes.text(0.3 - LIMIT, LIMIT - 0.3, words, size=8, va="top", linespacing=1.5)
