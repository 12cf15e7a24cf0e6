"""The pictures: what is drawn is what was given, on its true range; what cannot be drawn is refused."""

import base64
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from vae_tutorial import plots

matplotlib.use("Agg")


@pytest.fixture
def figures(monkeypatch):
    """The figures that are shown, kept open to be looked at."""
    shown = []
    monkeypatch.setattr(plots, "_finish", shown.append)
    yield shown
    plt.close("all")


def images(count, value=0.0, channels=1):
    return torch.full((count, channels, 32, 32), value)


def drawn(axes):
    (picture,) = axes.get_images()
    return np.asarray(picture.get_array())


@pytest.mark.parametrize("value, shade", [(-1, 0), (0, 0.5), (0.2, 0.6), (1, 1), (7, 1), (-7, 0)])
def test_a_pixel_has_the_same_shade_whatever_else_is_in_the_picture(figures, value, shade):
    plots.show_images(images(3, value))
    assert np.allclose(drawn(figures[0].axes[0])[5, 5], shade)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_in_its_row(figures, channels):
    plots.show_images(torch.cat([images(1, step / 10, channels) for step in range(10)]), nrow=4)
    pixels = drawn(figures[0].axes[0])
    assert pixels.shape == (3 * 34 + 2, 4 * 34 + 2, 3)
    assert np.allclose(pixels[2 + 34 + 5, 2 + 2 * 34 + 5], (0.6 + 1) / 2)  # the seventh: second row, third column


def test_rows_carry_their_labels_and_columns_theirs(figures):
    plots.show_rows({"above": images(3, -1), "below": images(3, 1)}, "title", columns=[1, 2, 5])
    above, below = figures[0].axes
    assert [axes.get_ylabel() for axes in (above, below)] == ["above", "below"]
    assert [label.get_text() for label in above.get_xticklabels()] == ["1", "2", "5"]
    assert drawn(above)[5, 5, 0] == 0 and drawn(below)[5, 5, 0] == 1


def test_the_curves_are_the_history(figures):
    history = {"train": [(3, 2, 1), (2, 1.5, 0.5)], "held_out": [(4, 3, 1), (3, 2, 1)]}
    plots.plot_history(history)
    for part, axes in enumerate(figures[0].axes):
        lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
        assert lines["held-out"] == ([1, 2], [row[part] for row in history["held_out"]])
        assert lines["train"] == ([1, 2], [row[part] for row in history["train"]])


def gif(html):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", html.data)[1])))


def test_an_animation_goes_there_and_back_without_end():
    steps = torch.cat([images(1, value) for value in (-1.0, 0.0, 1.0)])
    film = gif(plots.animate(steps, alt="three greys"))
    shades = []
    for frame in range(film.n_frames):
        film.seek(frame)
        shades.append(film.convert("L").getpixel((90, 90)))
    assert shades == [0, 128, 255, 128, 0] and film.info["loop"] == 0


def test_an_animation_says_in_words_what_it_shows():
    assert 'alt="a &lt;b&gt;"' in plots.animate(images(2), alt="a <b>").data


@pytest.mark.parametrize("draw", [plots.show_images, plots.animate, lambda x: plots.show_rows({"a": x})])
@pytest.mark.parametrize("shape", [(32, 32), (2, 2, 32, 32), (0, 1, 32, 32)])
def test_what_are_no_images_is_refused(draw, shape):
    with pytest.raises(ValueError, match=rf"images must have shape .*{re.escape(str(shape))}"):
        draw(torch.zeros(shape))


def test_nothing_stays_open_and_nothing_is_changed():
    given = torch.rand(4, 1, 32, 32, requires_grad=True)
    before = given.clone()
    plots.show_images(given)
    plots.show_rows({"a": given})
    plots.animate(given)
    assert plt.get_fignums() == [] and torch.equal(given, before)
