"""Draw the figures of notebook 05, handwriting.png and conditional.png."""

import torch
from figures.drawing import BLUE, GREEN, HERE, INK, ORANGE, PURPLE, draw_block, draw_rows, prepare, tiles
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vae_tutorial.data import Loader
from vae_tutorial.latent import handwriting_grid
from vae_tutorial.loss import elbo_loss
from vae_tutorial.model import build_cvae, eval_mode, join_labels
from vae_tutorial.train import fit


def make():
    """Train the conditional VAE of notebook 05, a minute on one core, and draw its two figures."""
    digits = prepare()
    images = join_labels(digits.train_images, digits.train_labels)
    test_x = join_labels(digits.test_images, digits.test_labels)
    torch.manual_seed(0)
    model = build_cvae(8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.5, 0.99))
    loader = Loader(images, digits.train_labels, batch_size=64)

    def image_loss(recon, x, mu, logvar):
        return elbo_loss(recon, x[:, :1], mu, logvar, beta=2.0)

    fit(model, loader, test_x, optimizer=optimizer, epochs=40, loss_fn=image_loss)
    draw_handwriting(model)
    draw_conditional(model, test_x[720:721])


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
    with eval_mode(model), torch.no_grad():
        recon = model(x)[0]
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
