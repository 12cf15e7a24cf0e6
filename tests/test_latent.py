"""Codes, class means, paths, samples, the map and directions, held against explicit loops and laws."""

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal

from vae_tutorial.latent import (
    attribute_direction,
    by_activity,
    class_means,
    decode_same,
    encode_all,
    handwriting_grid,
    interpolate,
    lay_out,
    map_position,
    pca,
    quantile_grid,
    sample_prior,
    slerp,
    traverse,
)
from vae_tutorial.model import Decoder, Encoder, build_cvae

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def within(dtype):
    """Return tolerances of a few roundings of a dtype."""
    return dict.fromkeys(["rtol", "atol"], 50 * torch.finfo(dtype).eps)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(count):
    return torch.rand(count, 1, 32, 32) * 2 - 1


def buffers(module):
    return [buffer.clone() for buffer in module.buffers()]


def after_some_training(module, x):
    """Give BatchNorm running statistics away from where they start."""
    for _ in range(3):
        module(x)
    return module


class Echo(nn.Module):
    """A decoder that gives its code back, and keeps the mode it was called in."""

    def __init__(self, **kind):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, **kind))

    def forward(self, z):
        self.mode_seen = self.training
        return self.weight * z


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
def test_codes_are_the_means_in_eval_mode_whatever_the_batch_size(batch_size, device):
    encoder, x = after_some_training(Encoder(1, 2, 3), images(5)).to(device), images(7)
    codes = encode_all(encoder, x, batch_size)
    torch.testing.assert_close(codes, encoder.eval()(x.to(device))[0].detach())
    assert codes.device.type == device and not codes.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_encoding_leaves_the_encoder_as_it_was(training):
    encoder = after_some_training(Encoder(1, 2, 3), images(5)).train(training)
    before = buffers(encoder)
    encode_all(encoder, images(4))
    assert [part.training for part in encoder.modules()] == [training] * len(list(encoder.modules()))
    assert all(torch.equal(*pair) for pair in zip(before, buffers(encoder), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_encoding_restores_the_mode(training):
    encoder = Encoder(1, 2, 3).train(training)
    with pytest.raises(AssertionError, match="x must be"):
        encode_all(encoder, torch.zeros(2, 1, 28, 28))
    assert encoder.training == encoder.bn1.training == training


def loop_means(codes, labels, num_classes):
    means = torch.full((num_classes, codes.shape[1]), torch.nan, dtype=torch.float64)
    for label in range(num_classes):
        rows = [code.double() for code, own in zip(codes, labels.tolist(), strict=True) if own == label]
        if rows:
            means[label] = sum(rows) / len(rows)
    return means


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_means_are_those_of_a_loop_for_an_unbalanced_set_with_an_absent_class(dtype, device):
    labels = torch.tensor([0] * 1 + [1] * 50 + [2] * 7 + [9] * 13)[torch.randperm(71)]
    codes = torch.randn(71, 4, dtype=dtype) + labels[:, None]
    means = class_means(codes.to(device), labels.to(device))
    torch.testing.assert_close(means.cpu(), loop_means(codes, labels, 10).to(dtype), equal_nan=True)
    assert (means.device.type, means.dtype) == (device, dtype)


@pytest.mark.parametrize("num_classes", [3, 5])
def test_class_means_have_a_row_for_every_class(num_classes):
    codes, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 0, 1])
    means = class_means(codes, labels, num_classes)
    torch.testing.assert_close(means, loop_means(codes, labels, num_classes).float(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_any_whole_numbers(dtype):
    codes, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 9, 0])
    assert torch.equal(class_means(codes, labels.to(dtype)).nan_to_num(7), class_means(codes, labels).nan_to_num(7))


@given(st.sampled_from(FLOATS), st.lists(st.integers(0, 3), max_size=9), st.integers(1, 4), st.integers(0, 99))
def test_class_means_in_every_dtype_are_those_of_a_loop_over_doubles(dtype, labels, latent_dim, seed):
    codes = torch.randn(len(labels), latent_dim, generator=torch.Generator().manual_seed(seed)).to(dtype)
    labels = torch.tensor(labels, dtype=torch.long)
    means = class_means(codes, labels, num_classes=4)
    torch.testing.assert_close(means.double(), loop_means(codes, labels, 4), equal_nan=True, **within(dtype))


@pytest.mark.parametrize("num_steps", [2, 3, 10, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_hits_both_ends_exactly(num_steps, dtype):
    start, end = 1e3 * torch.randn(2, 33, dtype=dtype)
    path = interpolate(start, end, num_steps)
    assert torch.equal(path[0], start) and torch.equal(path[-1], end)
    assert (path.shape, path.dtype) == ((num_steps, 33), dtype)


def test_a_path_is_the_one_of_a_loop():
    start, end = torch.randn(2, 5, dtype=torch.float64)
    steps = [start + step / 6 * (end - start) for step in range(7)]
    torch.testing.assert_close(interpolate(start, end, 7), torch.stack(steps))


@given(st.sampled_from(FLOATS), st.integers(0, 4), st.integers(2, 50), st.integers(0, 99))
def test_a_path_in_every_dtype_hits_both_ends_and_is_even(dtype, latent_dim, num_steps, seed):
    start, end = torch.randn(2, latent_dim, generator=torch.Generator().manual_seed(seed)).to(dtype)
    path = interpolate(start, end, num_steps)
    assert torch.equal(path[0], start) and torch.equal(path[-1], end)
    steps = torch.linspace(0, 1, num_steps, dtype=torch.float64)[:, None]
    torch.testing.assert_close(path.double(), start.double() + steps * (end.double() - start.double()), **within(dtype))


def test_a_path_backwards_is_the_path_reversed():
    start, end = torch.randn(2, 5)
    torch.testing.assert_close(interpolate(end, start, 9), interpolate(start, end, 9).flip(0))


@pytest.mark.parametrize("device", ["meta", *DEVICES])
def test_a_path_stays_on_its_device(device):
    assert interpolate(*torch.zeros(2, 3, device=device), 4).device.type == device


@pytest.mark.parametrize("walk", [interpolate, slerp])
@pytest.mark.parametrize(("start", "end"), [((3,), (4,)), ((3,), (1,)), ((1, 3), (1, 3)), ((), ())])
def test_ends_that_are_no_two_codes_are_refused(walk, start, end):
    with pytest.raises(AssertionError) as error:
        walk(torch.zeros(start), torch.zeros(end), 5)
    assert str(error.value).startswith(f"{torch.Size(start)} and {torch.Size(end)} are not (D,)")


def angles(path):
    """Return the angle between each code of a path and the next."""
    return torch.cosine_similarity(path[1:], path[:-1], dim=1).acos()


@given(st.integers(2, 9), st.integers(2, 20), st.integers(0, 99))
def test_an_arc_between_codes_of_equal_length_keeps_the_length_and_takes_equal_angles(latent_dim, num_steps, seed):
    start, end = torch.randn(2, latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    end = end / end.norm() * start.norm()
    path = slerp(start, end, num_steps)
    torch.testing.assert_close(path.norm(dim=1), start.norm().expand(num_steps))
    whole = torch.cosine_similarity(start, end, dim=0).acos()
    torch.testing.assert_close(angles(path), (whole / (num_steps - 1)).expand(num_steps - 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [(1.0, 1.0), (0.5, 4.0)])
def test_an_arc_hits_both_ends_whatever_their_lengths(lengths, dtype):
    start, end = torch.randn(2, 7, dtype=dtype) * torch.tensor(lengths, dtype=dtype)[:, None]
    path = slerp(start, end, 6)
    torch.testing.assert_close(path[[0, -1]], torch.stack([start, end]))
    assert (path.shape, path.dtype) == ((6, 7), dtype)


def test_the_middle_of_an_arc_between_two_axes_lies_halfway_on_the_circle():
    start, end = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(slerp(start, end, 3)[1], torch.full((2,), 0.5**0.5, dtype=torch.float64))


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -2.0, 0.0])
def test_where_the_ends_lie_on_one_line_through_0_the_arc_is_the_straight_path(factor):
    start = torch.randn(5)
    assert torch.equal(slerp(start, factor * start, 7), interpolate(start, factor * start, 7))
    assert torch.equal(slerp(factor * start, start, 7), interpolate(factor * start, start, 7))


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_the_decoder_as_it_was(training):
    decoder = after_some_training(Decoder(1, 2, 3), torch.randn(5, 3)).train(training)
    before = buffers(decoder)
    sample_prior(decoder, 4, 3)
    assert [part.training for part in decoder.modules()] == [training] * len(list(decoder.modules()))
    assert all(torch.equal(*pair) for pair in zip(before, buffers(decoder), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_a_failed_sampling_restores_the_mode(training):
    decoder = Decoder(1, 2, 3).train(training)
    with pytest.raises(RuntimeError):
        sample_prior(decoder, 4, 5)
    assert decoder.training == decoder.bn1.training == training


def test_sampling_decodes_in_eval_mode_without_gradients():
    decoder = Echo()
    assert not sample_prior(decoder, 4, 3).requires_grad
    assert (decoder.mode_seen, decoder.training) == (False, True)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("num_samples", [1, 4])
def test_samples_are_images_between_minus_1_and_1(num_samples):
    samples = sample_prior(Decoder(3, 2, 7), num_samples, 7)
    assert samples.shape == (num_samples, 3, 32, 32)
    assert -1 <= samples.min() < samples.max() <= 1


def test_codes_are_drawn_from_the_standard_normal_distribution():
    z = sample_prior(Echo(dtype=torch.float64), 20_000, 3)
    # five standard errors of a mean and of a (co)variance
    assert (z.mean(dim=0).abs() < 5 / len(z) ** 0.5).all()
    assert ((z.T.cov() - torch.eye(3)).abs() < 5 * (2 / len(z)) ** 0.5).all()


def test_samples_differ_from_each_other_and_from_call_to_call():
    decoder = Decoder(1, 2, 3)
    assert len(torch.cat([sample_prior(decoder, 5, 3) for _ in range(2)]).unique(dim=0)) == 10


@pytest.mark.parametrize("device", ["meta", *DEVICES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_device_and_dtype_of_the_decoder(device, dtype):
    samples = sample_prior(Decoder(1, 2, 3).to(device, dtype), 2, 3)
    assert (samples.device.type, samples.dtype) == (device, dtype)


@given(st.integers(1, 4), st.integers(0, 99))
def test_samples_are_decoded_noise(num_samples, seed):
    decoder = Decoder(1, 2, 3).eval()
    torch.manual_seed(seed)
    samples = sample_prior(decoder, num_samples, 3)
    torch.manual_seed(seed)
    assert torch.equal(samples, decoder(torch.randn(num_samples, 3)))


def test_decode_same_gives_every_decoder_the_same_draws_in_eval_mode_without_gradients():
    decoders = {"one": Echo(), "other": Echo()}
    images = decode_same(decoders, 20_000, 3)
    assert list(images) == ["one", "other"] and torch.equal(images["one"], images["other"])
    assert not images["one"].requires_grad
    assert not any(decoder.mode_seen or decoder.training for decoder in decoders.values())
    # five standard errors of a mean and of a (co)variance
    assert (images["one"].mean(dim=0).abs() < 5 / 20_000**0.5).all()
    assert ((images["one"].T.cov() - torch.eye(3)).abs() < 5 * (2 / 20_000) ** 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decode_same_decodes_as_each_decoder_does(dtype):
    decoders = {name: after_some_training(Decoder(1, 2, 3), torch.randn(5, 3)).to(dtype) for name in "ab"}
    torch.manual_seed(1)
    images = decode_same(decoders, 4, 3)
    torch.manual_seed(1)
    z = torch.randn(4, 3, dtype=dtype)
    for name, decoder in decoders.items():
        assert torch.equal(images[name], decoder.eval()(z)) and images[name].dtype == dtype


@pytest.mark.parametrize("training", [True, False])
def test_handwriting_has_a_row_for_each_code_and_the_classes_across(training):
    model, z = build_cvae(2, 3, num_classes=4).train(training), torch.randn(5, 3)
    after_some_training(model, torch.rand(6, 5, 32, 32))
    images = handwriting_grid(model, z, num_classes=4)
    assert images.shape == (20, 1, 32, 32) and not images.requires_grad
    assert all(part.training == training for part in model.modules())
    model.eval()
    for row in range(5):
        for label in range(4):
            wanted = model.decode(z[row : row + 1], torch.eye(4)[label : label + 1])
            torch.testing.assert_close(images[4 * row + label], wanted[0])


# the map


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_map_has_the_shares_of_the_prior_in_equal_steps_across_and_down(n):
    shares = Normal(0.0, 1.0).cdf(quantile_grid(n))
    for row in range(n):
        for column in range(n):
            wanted = torch.tensor([(column + 0.5) / n, 1 - (row + 0.5) / n])
            torch.testing.assert_close(shares[n * row + column], wanted)


@pytest.mark.parametrize("n", [1, 3])
def test_lay_out_puts_every_pixel_where_a_loop_does(n):
    images = torch.rand(n * n, 1, 4, 5)
    picture = lay_out(images, n)
    assert picture.shape == (4 * n, 5 * n)
    for number, image in enumerate(images):
        row, column = divmod(number, n)
        assert torch.equal(picture[4 * row : 4 * row + 4, 5 * column : 5 * column + 5], image[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_position_on_the_map_is_the_share_of_the_prior_below_the_posterior_mean(device):
    encoder, x = after_some_training(Encoder(1, 2, 2), images(5)).to(device), images(7)
    positions = map_position(encoder, x)
    assert positions.device.type == "cpu" and encoder.training
    torch.testing.assert_close(positions, Normal(0.0, 1.0).cdf(encoder.eval()(x.to(device))[0].detach().cpu()))


# directions


def test_activity_is_the_variance_and_orders_the_dimensions():
    mu = torch.randn(50, 6, dtype=torch.float64) * torch.tensor([0.1, 3.0, 0.0, 1.0, 0.5, 2.0]) + 5
    order, activity = by_activity(mu)
    variances = [statistics.variance(column) for column in mu.T.tolist()]
    assert activity.tolist() == pytest.approx(variances)
    assert order.tolist() == sorted(range(6), key=lambda dim: -variances[dim]) == [1, 5, 3, 4, 0, 2]


@pytest.mark.parametrize("dim", [0, 2, 3])
def test_a_traversal_changes_one_dimension_alone(dim):
    code, values = torch.randn(4), torch.tensor([-3.0, 0.0, 3.0, 1.0, 2.0])
    before = code.clone()
    codes = traverse(code, dim, values)
    for row, value in zip(codes, values, strict=True):
        assert row.tolist() == [value if n == dim else number for n, number in enumerate(before.tolist())]
    assert torch.equal(code, before) and codes.shape == (5, 4)


def loop_direction(codes, values, labels):
    differences = []
    for label in sorted(set(labels.tolist())):
        rows = [(c, v) for c, v, own in zip(codes, values.tolist(), labels.tolist(), strict=True) if own == label]
        middle = statistics.median_low(value for _, value in rows)
        high, low = [code for code, value in rows if value > middle], [code for code, value in rows if value <= middle]
        differences.append(sum(high) / len(high) - sum(low) / len(low))
    return sum(differences) / len(differences)


def test_a_direction_is_that_of_a_loop_over_classes_of_any_size():
    labels = torch.tensor([3] * 2 + [5] * 31 + [0] * 8)[torch.randperm(41)]
    codes, values = torch.randn(41, 4, dtype=torch.float64), torch.rand(41)
    torch.testing.assert_close(attribute_direction(codes, values, labels), loop_direction(codes, values, labels))


def test_a_direction_takes_no_notice_of_what_tells_the_classes_apart():
    labels, values = torch.arange(40) % 4, torch.rand(40)
    codes = torch.randn(40, 3, dtype=torch.float64)
    shifted, higher = codes + 100 * torch.randn(4, 3)[labels], values + 10 * labels
    direction = attribute_direction(codes, values, labels)
    torch.testing.assert_close(attribute_direction(shifted, higher, labels), direction)


@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 99))
def test_principal_components_are_those_of_the_singular_values_up_to_the_sign(count, latent_dim, seed):
    codes = torch.randn(count, latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 3
    components, variances = pca(codes, latent_dim)
    _, singular, rows = torch.linalg.svd(codes - codes.mean(dim=0), full_matrices=False)
    found = min(count - 1, latent_dim)  # no more directions have a variance
    torch.testing.assert_close(variances[:found], singular[:found] ** 2 / (count - 1))
    torch.testing.assert_close(variances[found:], torch.zeros(latent_dim - found, dtype=torch.float64))
    signs = (components[:found] * rows[:found]).sum(dim=1).sign()
    torch.testing.assert_close(components[:found], signs[:, None] * rows[:found])


def test_principal_components_are_a_turned_axis_system_and_k_of_them_the_first_k():
    codes = torch.randn(50, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0])
    components, variances = pca(codes, 5)
    torch.testing.assert_close(components @ components.T, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close((codes @ components.T).var(dim=0), variances)
    assert all(map(torch.equal, pca(codes, 2), (components[:2], variances[:2])))
