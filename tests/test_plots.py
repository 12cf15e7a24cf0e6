"""The pictures: what is drawn is what was given, on its true range; no text breaks out of the HTML."""

import base64
import html
import io
import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
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
    return torch.full((count, channels, 32, 32), float(value))


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
    history = {"train": [(3, 2, 1), (2, 1.5, 0.5)], "test": [(4, 3, 1), (3, 2, 1)]}
    plots.plot_history(history)
    for part, axes in enumerate(figures[0].axes):
        lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
        assert lines["test"] == ([1, 2], [row[part] for row in history["test"]])
        assert lines["train"] == ([1, 2], [row[part] for row in history["train"]])


@pytest.mark.parametrize("loss", [-300, 0, 10])
def test_a_loss_that_is_not_positive_is_drawn_too(figures, loss):
    plots.plot_history({"train": [(10, 10, 1), (loss, 10, 1)]})
    scales = [axes.get_yscale() for axes in figures[0].axes]
    assert scales == ["log" if loss > 0 else "linear", "log", "linear"]


def gif(html):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/gif;base64,([^\"]+)", html.data)[1])))


def test_an_animation_goes_there_and_back_without_end():
    steps = torch.cat([images(1, value) for value in (-1.0, 0.0, 1.0)])
    film = gif(plots.animate(steps, alt="three greys"))
    shades = []
    for frame in range(film.n_frames):
        film.seek(frame)
        shades.append(film.convert("L").getpixel((90, 90)))
    assert shades == [0, 128, 255, 128] and film.info["loop"] == 0


def test_an_animation_says_in_words_what_it_shows():
    assert 'alt="a &lt;b&gt;"' in plots.animate(images(2), alt="a <b>").data


def test_points_have_the_colour_of_their_class_and_lie_on_the_picture_as_it_is(figures):
    points, labels = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]), torch.tensor([3, 0, 3])
    plots.scatter(points, labels, ("across", "up"), background=torch.full((64, 64), 0.2))
    (axes,) = figures[0].axes
    dots = {collection.get_label(): collection for collection in axes.collections}
    assert np.allclose(dots["3"].get_offsets(), points[labels == 3]) and len(dots["1"].get_offsets()) == 0
    assert matplotlib.colors.to_hex(dots["3"].get_facecolor()[0]).upper() == plots.CLASS_COLOURS[3]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim()) == ("across", "up", (0, 1))
    (picture,) = axes.get_images()
    assert picture.get_extent() == [0, 1, 0, 1] and np.allclose(drawn(axes), 0.6) and picture.get_clim() == (0, 1)


def explorer(rows=("down", [1.5, -1.5]), channels=1):
    shades = torch.cat([images(1, value, channels) for value in (-1.0, -0.2, 0.2, 1.0, 0.6, -0.6)])
    return plots.explore(shades, {"along": [-1.0, 0.0, 1.0]}, dict([rows]), alt="six <greys>")


def settings_of(shown):
    (script,) = re.findall(r' onload="([^"]*)"', shown._repr_html_())
    return json.loads(re.search(r"start} = (.*);", html.unescape(script))[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_explorer_holds_every_image_at_its_place_in_one_still_picture(channels):
    shown = explorer(channels=channels)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown._repr_html_())
    assert base64.b64decode(data) == shown._repr_png_()
    pixels = np.asarray(Image.open(io.BytesIO(shown._repr_png_())).convert("L"))
    assert pixels.shape == (64, 96)
    assert pixels[16::32, 16::32].tolist() == [[0, 102, 153], [255, 204, 51]]


def test_the_sliders_of_an_explorer_know_their_values_and_grow_with_them():
    along, down = settings_of(explorer())["sides"]
    assert along == {"name": "along", "words": ["-1.00", "0.00", "1.00"], "upward": False}
    assert down == {"name": "down", "words": ["1.50", "-1.50"], "upward": True}  # the first row is the last stop
    assert settings_of(explorer(("digit", range(3, 5))))["sides"][1]["words"] == ["3", "4"]


def test_where_scripts_are_not_run_an_explorer_is_a_picture_and_nothing_that_looks_alive():
    shown = explorer()
    assert re.findall(r"<(\w+)", re.sub(r'onload="[^"]*"', "", shown._repr_html_())) == ["div", "img"]
    assert 'alt="six &lt;greys&gt;"' in shown._repr_html_() and repr(shown) == "six <greys>"
    assert " id=" not in shown._repr_html_() and "http" not in shown._repr_html_()


@given(st.text("<>&\"'=/ab\r\n", max_size=20) | st.text(max_size=9))
@example("</script><img src=x onerror=alert(1)>")
@example('"><b onload="')
@example("'; alert(1); '")
@example("\u2028 */ `${x}`")
def test_no_text_breaks_out_of_the_html(text):
    pair = images(2)
    shown = plots.explore(pair, {text: [text, "b"]}, {text: [text]}, alt=text)
    for page, tags in ((shown._repr_html_(), ["div", "img"]), (plots.animate(pair, alt=text).data, ["img"])):
        found = re.findall(r'<(\w+)((?: [\w-]+="[^"]*")*)>', page)
        assert [tag for tag, _ in found] == tags and page.count("<") == 2 * len(tags) - 1
        assert html.unescape(re.search(r' alt="([^"]*)"', page)[1]) == text
    for side in settings_of(shown)["sides"]:
        assert side["name"] == side["words"][0] == text


def test_nothing_stays_open_and_nothing_is_changed():
    given = torch.rand(4, 1, 32, 32, requires_grad=True)
    before = given.clone()
    plots.show_images(given)
    plots.show_rows({"a": given})
    plots.animate(given)
    plots.scatter(given.detach()[:, 0, 0, :2], torch.arange(4), ("a", "b"))
    plots.explore(given, {"a": range(2)}, {"b": range(2)})
    assert plt.get_fignums() == [] and torch.equal(given, before)


def test_an_explorer_has_an_image_for_every_place():
    with pytest.raises(AssertionError, match="3 images for 2 rows of 2"):
        plots.explore(torch.zeros(3, 1, 4, 4), {"a": [1, 2]}, {"b": [1, 2]})
