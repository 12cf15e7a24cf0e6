"""Pictures of images, rows of images, training curves and animations: tensors go in, nothing is trained here.

Images are (N, C, 32, 32) in [-1, 1], and are shown on that range: -1 is black, 1 is white, in every picture.
"""

import base64
import html
import io

import matplotlib.pyplot as plt
from IPython.display import HTML
from PIL import Image
from torchvision.utils import make_grid


def show_images(images, title=None, nrow=8):
    """Show images in a grid, nrow in a row.

    images: (N, C, 32, 32) in [-1, 1].
    Raises ValueError for another shape.
    """
    pixels = _grid(images, nrow)
    height, width = pixels.shape[:2]
    inches = min(10, 0.85 * nrow)
    size = (inches, inches * height / width + (0.35 if title else 0.05))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(pixels, interpolation="nearest")
    axes.axis("off")
    if title:
        axes.set_title(title)
    _finish(figure)


def show_rows(rows, title=None, columns=None):
    """Show one row of images for every label, with a word over each column if columns gives them.

    rows: {label: images (N, C, 32, 32) in [-1, 1]}, the same N in every row; columns: N of anything.
    Raises ValueError for another shape.
    """
    count = max(len(images) for images in rows.values())
    grids = {label: _grid(images, count) for label, images in rows.items()}
    size = (0.85 * count + 1.5, 0.85 * len(rows) + 0.1 + 0.3 * bool(title) + 0.2 * bool(columns))
    figure, axes = plt.subplots(len(rows), figsize=size, layout="constrained", squeeze=False)
    for axis, (label, pixels) in zip(axes[:, 0], grids.items(), strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if columns:
        axes[0, 0].set_xticks([17 + 34 * index for index in range(count)], columns)
        axes[0, 0].tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    if title:
        figure.suptitle(title)
    _finish(figure)


def plot_history(history):
    """Draw the loss and its two parts after every epoch, on the training and on the held-out images.

    history: {name: [(loss, recon_loss, kl_loss), ...]}, as fit returns it.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for part, (axis, label) in enumerate(zip(axes, ["total", "reconstruction", "KL"], strict=True)):
        for name, rows in history.items():
            axis.plot(range(1, len(rows) + 1), [row[part] for row in rows], label=name.replace("_", "-"), marker=".")
        axis.set(title=label, xlabel="epoch", yscale="linear" if label == "KL" else "log")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend()
    _finish(figure)


def animate(images, frames_per_second=20, alt="animation"):
    """Return an animation of the images, back and forth without end, that a notebook shows and an HTML export keeps.

    images: (N, C, 32, 32) in [-1, 1] -> an <img> that holds a GIF as a data URI.
    Raises ValueError for another shape.
    """
    pixels = [(255 * _unit(image)).round().byte().permute(1, 2, 0).expand(-1, -1, 3) for image in _checked(images)]
    frames = [
        Image.fromarray(frame.contiguous().numpy()).resize((192, 192), Image.Resampling.NEAREST) for frame in pixels
    ]
    buffer = io.BytesIO()
    back_and_forth = frames[1:] + frames[-2::-1]
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=back_and_forth, duration=1000 // frames_per_second, loop=0
    )
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(f'<img alt="{html.escape(alt)}" src="data:image/gif;base64,{data}">')


def _checked(images):
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images must have shape (N, 1 or 3, H, W) with N of at least 1, but has {tuple(images.shape)}."
        )
    return images.detach().float().cpu()


def _unit(images):
    """Map [-1, 1] to [0, 1], the same way for every picture: a stretched range would hide low contrast."""
    return ((images + 1) / 2).clamp(0, 1)


def _grid(images, nrow):
    return make_grid(_unit(_checked(images)), nrow=nrow, padding=2, pad_value=1).permute(1, 2, 0).numpy()


def _finish(figure):
    plt.show()
    plt.close(figure)
