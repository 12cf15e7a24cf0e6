"""Show images, rows of images, training curves and animations; nothing is trained here.

Images are (N, C, 32, 32) in [-1, 1]. In every picture, -1 is black and 1 is white.
"""

import base64
import html
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML
from PIL import Image
from torchvision.utils import make_grid

# the colours of the classes 0 to 9: Paul Tol's "muted" colours, which colour-blind people can tell apart, and a yellow
# and a grey
CLASS_COLOURS = ["#332288", "#DDAA33", "#CC6677", "#999933", "#AA4499", "#44AA99", "#88CCEE", "#882255", "#117733"]
CLASS_COLOURS += ["#AAAAAA"]
SLIDERS = Path(__file__).with_name("explorer.js").read_text(encoding="utf-8")


def show_images(images, title=None, nrow=8):
    """Show images in a grid, nrow in a row.

    images: (N, C, 32, 32) in [-1, 1].
    """
    pixels = _grid(images, nrow)
    height, width = pixels.shape[:2]
    inches = min(10, 0.85 * min(nrow, len(images)))
    size = (inches, inches * height / width + (0.05 if title is None else 0.35))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(pixels, interpolation="nearest")
    axes.axis("off")
    if title is not None:
        axes.set_title(title)
    _finish(figure)


def show_rows(rows, title=None, columns=None):
    """Show one row of images for every label; with columns, a word stands above each column.

    rows: {label: images (N, C, 32, 32) in [-1, 1]}, the same N in every row; columns: N of anything.
    """
    count = len(next(iter(rows.values())))
    grids = {label: _grid(images, count) for label, images in rows.items()}
    size = (0.85 * count + 1.5, 0.85 * len(rows) + 0.1 + 0.3 * (title is not None) + 0.2 * bool(columns))
    figure, axes = plt.subplots(len(rows), figsize=size, layout="constrained", squeeze=False)
    for axis, (label, pixels) in zip(axes[:, 0], grids.items(), strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if columns:
        # an image and its border are 34 pixels wide
        axes[0, 0].set_xticks([17 + 34 * index for index in range(count)], columns)
        axes[0, 0].tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    if title is not None:
        figure.suptitle(title)
    _finish(figure)


def plot_history(history):
    """Draw the loss and its two parts, during every epoch on the training images, after it on the test images.

    history: {name: [(loss, recon_loss, kl_loss), ...]}, as fit returns it.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for part, (axis, label) in enumerate(zip(axes, ["total", "reconstruction", "KL"], strict=True)):
        positive = all(row[part] > 0 for rows in history.values() for row in rows)  # a loss in nats may be negative
        for name, rows in history.items():
            axis.plot(range(1, len(rows) + 1), [row[part] for row in rows], label=name, marker=".")
        axis.set(title=label, xlabel="epoch", yscale="log" if positive and label != "KL" else "linear")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend()
    _finish(figure)


def animate(images, frames_per_second=20, alt="animation"):
    """Return an animation of the images, played back and forth without end. An HTML export of a notebook keeps it.

    images: (N, C, 32, 32) in [-1, 1] -> an <img> that holds a GIF as a data URI. Browsers show at most 50 frames a
    second.
    """
    pixels = [(255 * _unit(image)).round().byte().permute(1, 2, 0).expand(-1, -1, 3) for image in images]
    frames = [
        Image.fromarray(frame.contiguous().numpy()).resize((192, 192), Image.Resampling.NEAREST) for frame in pixels
    ]
    buffer = io.BytesIO()
    back_and_forth = frames[1:] + frames[-2:0:-1]  # the loop then starts again with the first frame
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=back_and_forth, duration=int(1000 / frames_per_second), loop=0
    )
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(f'<img alt="{html.escape(str(alt))}" src="data:image/gif;base64,{data}">')


def scatter(points, labels, axes, title=None, background=None):
    """Draw points in the plane, coloured by class; a background picture, if given, fills the unit square.

    points: (N, 2); labels: (N,) from 0 to 9; axes: the labels of the two axes; background: (H, W) in [-1, 1].
    """
    figure, axis = plt.subplots(figsize=(9.6, 9) if background is not None else (7.6, 6), layout="constrained")
    size, edge = 10, "none"
    if background is not None:
        pixels = _unit(background).numpy()
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 0, 1), interpolation="nearest")
        axis.set(xlim=(0, 1), ylim=(0, 1))
        size, edge = 26, "white"
    for label, colour in enumerate(CLASS_COLOURS):
        own = points[labels == label].numpy()
        axis.scatter(*own.T, s=size, color=colour, edgecolors=edge, linewidths=0.6, label=str(label))
    axis.set(xlabel=axes[0], ylabel=axes[1], title=title)
    axis.set_aspect("equal")
    axis.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.5)
    _finish(figure)


def explore(images, columns, rows, alt="explorer"):
    """Return a picture of all images, with two sliders that choose one, for a trusted notebook or an HTML export.

    images: (R * K, C, H, W) in [-1, 1], row by row; columns: {name: K values}, rows: {name: R values}, one name each.
    The sliders need no kernel. Where scripts are not run, the picture alone is shown.
    """
    sides = [_side(columns), _side(rows)]
    count, tall = (len(side["words"]) for side in sides)
    assert len(images) == count * tall, f"{len(images)} images for {tall} rows of {count}"
    grid = make_grid(_unit(images), nrow=count, padding=0)
    return _Explorer(_sprite(grid), {"sides": sides, "start": [count // 2, tall // 2]}, alt)


def _sprite(pixels):
    """Make an image from pixels (3, H, W) in [0, 1]. If there is no colour, it has 16 greys, which halves the file."""
    if (pixels == pixels[:1]).all():
        sprite = Image.fromarray((15 * pixels[0]).round().byte().numpy())
        sprite.putpalette([17 * grey for grey in range(16) for _ in range(3)])
        return sprite
    return Image.fromarray((255 * pixels).round().byte().permute(1, 2, 0).contiguous().numpy())


class _Explorer:
    """The return value of explore: shown as HTML, or as a PNG or as text where HTML is not shown."""

    def __init__(self, sprite, settings, alt):
        buffer = io.BytesIO()
        sprite.save(buffer, "PNG", optimize=True)
        self.png, self.size, self.settings, self.alt = buffer.getvalue(), sprite.size, settings, str(alt)

    def __repr__(self):
        return self.alt

    def _repr_png_(self):
        return self.png

    def _repr_html_(self):
        script = html.escape(SLIDERS.replace("SETTINGS", json.dumps(self.settings)).strip())
        width = min(480, self.size[0])
        image = f'<img alt="{html.escape(self.alt)}" width="{width}" style="display: block; width: {width}px" '
        image += f'src="data:image/png;base64,{base64.b64encode(self.png).decode()}" onload="{script}">'
        return f'<div style="position: relative; width: {width}px">{image}</div>'


def _side(side):
    """Describe a slider: its name, a text for every position, and whether it counts up while the images count down."""
    [(name, values)] = side.items()
    numbers = all(isinstance(value, float) for value in values)
    words = [f"{value:.2f}" if numbers else str(value) for value in values]
    return {"name": name, "words": words, "upward": numbers and values[0] > values[-1]}


def _unit(images):
    """Map [-1, 1] to [0, 1], on the CPU. The range is never stretched, because that would hide low contrast."""
    return ((images.detach().float().cpu() + 1) / 2).clamp(0, 1)


def _grid(images, nrow):
    return make_grid(_unit(images), nrow=nrow, padding=2, pad_value=1).permute(1, 2, 0).numpy()


def _finish(figure):
    plt.show()
    plt.close(figure)
