"""Hypothesis calls every function with arguments of every kind: it is right, or an error names the argument.

A case draws good arguments, which must be taken, and then spoils one of them, or none.
"""

import ast
import copy
import io
import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_exercises import HINT, solution_notebook
from torch.distributions import Normal, kl_divergence

from vae_tutorial import exercises, latent, loss, model, plots

matplotlib.use("Agg")

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DTYPES = [*FLOATS, torch.uint8, torch.int64, torch.bool, torch.complex64]
SIZES, FEW, WORDS = st.integers(1, 3), st.integers(1, 4), st.text(st.characters(codec="utf-8"), max_size=9)
SIGNS = st.text("<>&\"';ab", max_size=9)  # of which HTML is made
SHOWN = []  # figures
NETWORKS = {dtype: model.VAE(model.Encoder(1, 2, 3), model.Decoder(1, 2, 3)).to(dtype).eval() for dtype in FLOATS}


@st.composite
def tensors(draw, shape, dtypes=FLOATS):
    """Draw a tensor of numbers whose squares and exponentials float16 holds."""
    dtype, spread = draw(st.sampled_from(dtypes)), draw(st.sampled_from([0.0, 0.01, 1.0, 2.0]))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return (spread * torch.randn(shape, generator=noise)).to(dtype)


def pairs(dtype, **shapes):
    """Draw several tensors of one dtype, by name."""
    return {name: tensors(shape, [dtype]) for name, shape in shapes.items()}


ANY_SHAPE = st.lists(st.integers(0, 3), max_size=5)
ANY_TENSOR = ANY_SHAPE.flatmap(lambda shape: tensors(shape, DTYPES))
NO_ARGUMENT = [
    None, True, 0, -1, 1.5, -0.1, 1025, 2**70, -(2**70), float("nan"), float("inf"), 1j, "", "8", b"8", [], [1.0], (),
    {}, {"a": 1}, {1: [2]}, set(), object(), len, torch.nn.Module, torch.nn.ReLU(), model.Encoder, torch.float32,
    np.zeros((2, 3)), np.float32(3), torch.tensor(torch.nan), torch.full((2, 3), torch.nan), torch.ones(2, 1, 32, 32),
]  # fmt: skip
SPOILT = st.sampled_from(NO_ARGUMENT) | ANY_TENSOR | WORDS


def near(got, want, *given):
    """Hold a result against one of double precision, to a few roundings of the coarsest tensor given."""
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in given)
    torch.testing.assert_close(got.double(), want, rtol=50 * rounding, atol=50 * rounding, equal_nan=True)


# the laws: each takes the result and the arguments


def encoder_has_its_sizes(encoder, in_channels, width, latent_dim):
    assert [part.shape for part in encoder(torch.zeros(2, in_channels, 32, 32))] == [(2, latent_dim)] * 2


def decoder_has_its_sizes(decoder, out_channels, width, latent_dim):
    assert decoder(torch.zeros(2, latent_dim)).shape == (2, out_channels, 32, 32)


def networks_are_kept(vae, encoder, decoder):
    assert vae.encoder is encoder and vae.decoder is decoder


def outputs_are_those_of_doubles(result, network_, **given):
    (argument,) = given.values()
    right = copy.deepcopy(network_).double()(argument.double())
    for got, want in zip(*[(out,) if torch.is_tensor(out) else out for out in (result, right)], strict=True):
        assert got.dtype == argument.dtype
        near(got, want, argument)


def sample_is_mu_plus_noise(z, mu, logvar):
    torch.manual_seed(0)
    noise = torch.randn_like(logvar).double()
    near(z, mu.double() + noise * logvar.double().exp().sqrt(), mu, logvar, z)


def kl_of(mu, logvar):
    deviation = (0.5 * logvar.double()).exp()
    return kl_divergence(Normal(mu.double(), deviation, validate_args=False), Normal(0.0, 1.0))


def kl_is_that_of_normals(kl, mu, logvar):
    size = 1 + mu.double() ** 2 + logvar.double().exp() + logvar.double().abs()  # of the terms that cancel
    near(kl.double() / size, kl_of(mu, logvar) / size, mu, logvar)


def error_is_a_mean(error, recon, x):
    near(error, (recon.double() - x.double()).pow(2).mean(), recon, x)


def parts_add_up(parts, recon, x, mu, logvar, beta, reduce):
    squares, kl = (recon.double() - x.double()).pow(2), kl_of(mu, logvar)
    fit, divergence = reduce(squares, kl)
    for got, want in zip(parts, (fit + float(beta) * divergence, fit, divergence), strict=True):
        assert got.shape == ()
        near(got, want, recon, x, mu, logvar)


def vae_loss_is_of_means(parts, **given):
    parts_add_up(parts, **given, reduce=lambda squares, kl: (squares.mean(), kl.mean()))


def elbo_loss_is_of_sums(parts, **given):
    parts_add_up(parts, **given, reduce=lambda squares, kl: (0.5 * squares.sum() / len(kl), kl.sum() / len(kl)))


def codes_are_the_means(codes, encoder, images, batch_size):
    torch.testing.assert_close(codes, encoder(images)[0].detach(), rtol=1e-3, atol=1e-5)


def means_are_those_of_a_loop(means, codes, labels, num_classes):
    for label, mean in enumerate(means):
        near(mean, codes[labels == label].double().mean(0), codes)
    assert len(means) == num_classes


def path_is_even_and_hits_both_ends(path, start, end, num_steps):
    if start.isfinite().all() and end.isfinite().all():
        assert torch.equal(path[0], start) and torch.equal(path[-1], end)
    steps = torch.linspace(0, 1, num_steps, dtype=torch.float64)[:, None]
    near(path, start.double() + steps * (end.double() - start.double()), start)


def samples_are_decoded_noise(images, decoder, num_samples, latent_dim):
    torch.manual_seed(0)
    assert torch.equal(images, decoder(torch.randn(num_samples, latent_dim))) and images.shape[0] == num_samples


def images_lie_in_their_grid(_, images, title, nrow):
    (figure,) = SHOWN
    (pixels,) = [np.asarray(picture.get_array()) for picture in figure.axes[0].get_images()]
    for index, image in enumerate(images.double()):
        row, column = divmod(index, min(nrow, len(images)))
        (height, width), shade = image.shape[1:], (image[:, 0, 0] + 1).clamp(0, 2) / 2
        edge = 2 if len(images) > 1 else 0  # one image alone has none
        corner = pixels[edge + row * (height + 2), edge + column * (width + 2)]
        assert np.allclose(corner, shade, atol=0.01)


def there_is_a_row_for_each(_, rows, title, columns):
    (figure,) = SHOWN
    assert [axes.get_ylabel() for axes in figure.axes] == [str(label) for label in rows]


def curves_are_the_history(_, history):
    (figure,) = SHOWN
    for part, axes in enumerate(figure.axes):
        drawn = [list(line.get_ydata()) for line in axes.get_lines()]
        np.testing.assert_equal(drawn, [[row[part] for row in rows] for rows in history.values()])


def points_are_all_drawn(_, points, labels, axes, title, background):
    (figure,) = SHOWN
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == len(points)


class Tags(HTMLParser):
    def handle_starttag(self, tag, attributes):
        self.seen = [*getattr(self, "seen", []), (tag, dict(attributes))]


def tags_of(html):
    parser = Tags()
    parser.feed(html)
    return parser.seen


def animation_is_one_picture(shown, images, frames_per_second, alt):
    ((tag, attributes),) = tags_of(shown.data)
    assert (tag, attributes.keys()) == ("img", {"alt", "src"})
    assert attributes["alt"].replace("\r", "\n") == str(alt).replace("\r", "\n")
    assert Image.open(io.BytesIO(b64decode(attributes["src"].partition(",")[2]))).size == (192, 192)


def explorer_is_one_picture_and_its_sliders(shown, images, columns, rows, alt):
    (_, frame), (tag, attributes) = tags_of(shown._repr_html_())
    assert (tag, frame.keys(), attributes.keys()) == ("img", {"style"}, {"alt", "width", "style", "src", "onload"})
    assert attributes["alt"].replace("\r", "\n") == str(alt).replace("\r", "\n")
    sides = json.loads(re.search(r"start} = (.*);", attributes["onload"])[1])["sides"]
    assert [side["name"] for side in sides] == [str(*columns), str(*rows)]
    height, width = images.shape[2:]
    assert Image.open(io.BytesIO(shown._repr_png_())).size == tuple(
        len(side["words"]) * size for side, size in zip(sides, (width, height), strict=True)
    )


def code_stays_the_same(stripped, source):
    assert ast.dump(ast.parse(stripped)) == ast.dump(ast.parse(source))
    assert exercises.strip_markers(stripped) == stripped


def blanks_are_opened(opened, source, number=None):
    stripped = exercises.strip_markers(source)  # a marker inside a string is none, and stays
    blanks = sum(source.count(marker) - stripped.count(marker) for marker in ("# SOLUTION", "# END SOLUTION"))
    assert "SOLUTION" not in opened or "SOLUTION" in stripped
    assert opened.count("...") == source.count("...") + blanks


def fold_is_in_the_text(code, markdown):
    assert code in markdown


def exercise_is_made_once(exercise, notebook, name):
    nbformat.validate(exercise)
    assert exercises.make_exercise(exercise, name) == exercise


# the cases: the function, what good arguments are drawn from, the law. A name that ends in _ is not spoilt.

HISTORY = st.dictionaries(WORDS, st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 3), max_size=3), min_size=1, max_size=2)
MARKERS = ["x = 1  # SOLUTION", "return x  # SOLUTION", "# BEGIN SOLUTION", "# END SOLUTION"]
LINES = st.sampled_from([*MARKERS, "", "y = x", "if x:", "    z", "'''", "x = ["]) | WORDS
CODE = st.lists(LINES, max_size=6).map(lambda lines: "\n    ".join(["def f(x):", *lines]))


def batch(draw):
    count, size, dtype = draw(SIZES), draw(SIZES), draw(st.sampled_from(FLOATS))
    shapes = dict(recon=(count, 1, size, 4), x=(count, 1, size, 4), mu=(count, size), logvar=(count, size))
    return {**pairs(dtype, **shapes), "beta": st.floats(0, 5)}


def labelled(draw):
    count = draw(st.integers(0, 9))
    labels = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    return dict(codes=tensors((count, draw(FEW))), labels=labels.map(lambda row: torch.tensor(row, dtype=torch.long)))


def rows_of(draw):
    count = draw(SIZES)
    images = tensors((count, 1, draw(SIZES), 3))
    columns = st.none() | st.lists(SIZES, min_size=count, max_size=count)
    return dict(rows=st.dictionaries(SIZES, images, min_size=1, max_size=2), title=st.none() | SIZES, columns=columns)


def explored(draw):
    tall, count = draw(SIZES), draw(SIZES)
    values = [
        st.dictionaries(WORDS, st.lists(st.floats() | WORDS, min_size=n, max_size=n), min_size=1, max_size=1)
        for n in (count, tall)
    ]
    return dict(
        images=tensors((tall * count, draw(st.sampled_from([1, 3])), 2, 3)),
        columns=values[0],
        rows=values[1],
        alt=SIGNS,
    )


def damaged(draw):
    """Draw a notebook, one part of which, anywhere in it, may be another thing."""
    notebook = json.loads(nbformat.writes(solution_notebook()))
    part, anything = notebook, st.sampled_from([None, 4, "", "x", [], [3], {}, {"a": [1]}])
    while isinstance(part, dict | list) and part:
        key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if draw(st.integers(0, 3)) == 3:
            part[key] = draw(anything)
            break
        part = part[key]
    return dict(notebook=st.just(nbformat.from_dict(notebook)), name=st.just("a.ipynb"))


def run(network_, **given):
    return network_(*given.values())


def network_and_input(draw):
    dtype, part = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(["", "encoder", "decoder"]))
    name, shape = ("z", [3]) if part == "decoder" else ("x", [1, 32, 32])
    network = NETWORKS[dtype].get_submodule(part)
    return {"network_": st.just(network), name: tensors((draw(st.integers(0, 3)), *shape), [dtype])}


def posterior(draw):
    shape = draw(SIZES), draw(SIZES)
    return pairs(draw(st.sampled_from(FLOATS)), mu=shape, logvar=shape)


def two_images(draw):
    shape = draw(st.lists(SIZES, max_size=4))
    return pairs(draw(st.sampled_from(FLOATS)), recon=shape, x=shape)


def ends(draw):
    shape = [draw(st.integers(0, 4))]
    return dict(**pairs(draw(st.sampled_from(FLOATS)), start=shape, end=shape), num_steps=st.integers(2, 50))


def pictures(draw):
    return dict(images=tensors((draw(FEW), draw(st.sampled_from([1, 3])), draw(SIZES), draw(SIZES))))


def scattered(draw):
    count = draw(st.integers(0, 9))
    labels = st.lists(st.integers(0, 9), min_size=count, max_size=count).map(lambda row: torch.tensor(row).long())
    background = st.none() | tensors((draw(SIZES), 2))
    texts = dict(axes=st.tuples(SIZES, SIZES), title=st.none() | SIZES)
    return dict(points=tensors((count, 2)), labels=labels, background=background, **texts)


ENCODER, DECODER = NETWORKS[torch.float32].children()
FLOAT_IMAGES = tensors((3, 1, 32, 32), [torch.float32])
PAGES = st.sampled_from([HINT, exercises.make_exercise(solution_notebook(), "a").cells[4].source])
CASES = [
    (model.Encoder, lambda draw: dict(in_channels=SIZES, width=SIZES, latent_dim=SIZES), encoder_has_its_sizes),
    (model.Decoder, lambda draw: dict(out_channels=SIZES, width=SIZES, latent_dim=SIZES), decoder_has_its_sizes),
    (model.VAE, lambda draw: dict(encoder=st.just(len), decoder=st.just(model.Decoder())), networks_are_kept),
    (run, network_and_input, outputs_are_those_of_doubles),
    (model.reparameterize, posterior, sample_is_mu_plus_noise),
    (loss.kl_divergence, posterior, kl_is_that_of_normals),
    (loss.recon_loss, two_images, error_is_a_mean),
    (loss.vae_loss, batch, vae_loss_is_of_means),
    (loss.elbo_loss, batch, elbo_loss_is_of_sums),
    (
        latent.encode_all,
        lambda draw: dict(encoder=st.just(ENCODER), images=FLOAT_IMAGES, batch_size=FEW),
        codes_are_the_means,
    ),
    (latent.class_means, lambda draw: dict(**labelled(draw), num_classes=st.integers(4, 9)), means_are_those_of_a_loop),
    (latent.interpolate, ends, path_is_even_and_hits_both_ends),
    (
        latent.sample_prior,
        lambda draw: dict(decoder=st.just(DECODER), num_samples=FEW, latent_dim=st.just(3)),
        samples_are_decoded_noise,
    ),
    (
        plots.show_images,
        lambda draw: dict(**pictures(draw), title=st.none() | SIZES, nrow=FEW),
        images_lie_in_their_grid,
    ),
    (plots.show_rows, rows_of, there_is_a_row_for_each),
    (plots.plot_history, lambda draw: dict(history=HISTORY), curves_are_the_history),
    (plots.scatter, scattered, points_are_all_drawn),
    (
        plots.animate,
        lambda draw: dict(**pictures(draw), frames_per_second=st.floats(1, 50), alt=SIGNS),
        animation_is_one_picture,
    ),
    (plots.explore, explored, explorer_is_one_picture_and_its_sliders),
    (exercises.strip_markers, lambda draw: dict(source=CODE), code_stays_the_same),
    (exercises.open_blanks, lambda draw: dict(source=CODE), blanks_are_opened),
    (exercises.fold_code, lambda draw: dict(markdown=PAGES), fold_is_in_the_text),
    (exercises.make_exercise, damaged, exercise_is_made_once),
]
MAY_REFUSE = (exercises.strip_markers, exercises.open_blanks, exercises.fold_code, exercises.make_exercise)


CALLED = ("loss_fn", "train_step", "after_step", "after_epoch")


def names(error, arguments):
    """Tell whether an error names an argument, the images as the encoder calls them, or the place in a file."""
    words = "|".join([*arguments, "x", r"line \d+", "a.ipynb"])
    return re.search(rf"\b({words})\b", str(error)) or str(arguments.get("path", words)) in str(error)


def try_once(data, function, strategies, law, spoils=SPOILT):
    """Call a function with arguments that are drawn, one of them spoilt or none; hold what comes of it to the law."""
    arguments = {name: data.draw(strategy, name) for name, strategy in strategies(data.draw).items()}
    spoilt = data.draw(st.none() | st.sampled_from([name for name in arguments if name[-1] != "_"]), "spoilt")
    if spoilt:
        arguments[spoilt] = data.draw(spoils, spoilt)
    torch.manual_seed(0)
    try:
        result = function(**arguments)
    except (ValueError, TypeError, OSError) as error:
        assert spoilt or function in MAY_REFUSE, "a good argument is refused"
        assert spoilt == "path" or not isinstance(error, OSError), "a good path is refused"
        own = spoilt in CALLED and callable(arguments[spoilt])  # what a caller's function raises comes through
        assert own or names(error, arguments), "the error names no argument"
    else:
        law(result, **arguments)


@pytest.mark.filterwarnings("ignore")  # of Matplotlib, for curves without a name or a positive value
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
@given(data=st.data())
def test_an_answer_is_right_or_the_argument_is_named(case, data, monkeypatch):
    monkeypatch.setattr(plots, "_finish", SHOWN.append)
    SHOWN.clear()
    try:
        try_once(data, *case)
    finally:
        plt.close("all")
