"""Numbers about models and codes, held against a model of known likelihood, torch.distributions, loops and laws."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, MultivariateNormal, Normal
from torch.distributions import kl_divergence as kl_oracle

from vae_tutorial.loss import kl_divergence
from vae_tutorial.metrics import (
    accuracy,
    active_units,
    auroc,
    elbo,
    excess_surprise,
    fit_probe,
    gaussian_log_likelihood,
    grouped_bound,
    iwae_bound,
    kl_by_sampling,
    linear_probe,
    log_weights,
    marginal_entropy,
    mean_elbo,
    nearest_mean,
    thickness,
    without_class,
)
from vae_tutorial.model import VAE, Decoder, Encoder


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class LinearVAE(nn.Module):
    """x = W z + b + sigma * noise, in 12 pixels and 2 dimensions, so that p(x) and p(z|x) are known normals.

    The columns of W stand at right angles, so that the dimensions of p(z|x) are independent. The encoder returns
    its mean and log-variance, both moved by `off`: at 0 the posterior is the true one.
    """

    def __init__(self, off=0.0, log_sigma=-0.5):
        super().__init__()
        turned = torch.linalg.qr(torch.randn(12, 2, dtype=torch.float64))[0]
        self.weight = nn.Parameter(turned * torch.tensor([1.5, 0.7]))
        self.bias = torch.randn(12, dtype=torch.float64)
        self.log_sigma, self.off = torch.tensor(log_sigma, dtype=torch.float64), off

    def decoder(self, z):
        return (z @ self.weight.T + self.bias).unflatten(1, (1, 3, 4))

    def encoder(self, x):
        variance = 1 / (1 + self.weight.pow(2).sum(dim=0) / self.log_sigma.exp() ** 2)
        mu = variance * ((x.flatten(1) - self.bias) @ self.weight) / self.log_sigma.exp() ** 2
        return mu + self.off, (variance.log() + self.off).expand_as(mu)

    def log_likelihood(self, x):
        """Return ln p(x) of every image."""
        covariance = self.weight @ self.weight.T + self.log_sigma.exp() ** 2 * torch.eye(12)
        return MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1)).detach()

    def exact_elbo(self, x):
        """Return ln p(x) minus the divergence of the encoder's posterior from the true one, for every image."""
        (mu, logvar), off = self.encoder(x), self.off
        q, true = Normal(mu, (logvar / 2).exp()), Normal(mu - off, ((logvar - off) / 2).exp())
        return (self.log_likelihood(x) - kl_oracle(q, true).sum(dim=1)).detach()


def small_images(count):
    return torch.randn(count, 1, 3, 4, dtype=torch.float64)


def assert_mean(draws, wanted):
    """Hold the mean of independent draws (K, B) against what is expected, within five standard errors."""
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert ((draws.mean(dim=0) - wanted).abs() < 5 * error).all()


def weights_of(model, x, quarter):
    """Return ln w of 4 * quarter draws per image: 4 at a time, of as many copies as make up a quarter."""
    log_w = log_weights(model, x.repeat(quarter, 1, 1, 1), 4).detach()
    return log_w.unflatten(1, (quarter, len(x))).flatten(0, 1)


# likelihood and bounds


@given(st.sampled_from([torch.float32, torch.float64]), st.floats(-2, 2), st.integers(1, 3), st.integers(0, 99))
def test_the_log_likelihood_is_that_of_normals_summed_over_an_image(dtype, log_sigma, count, seed):
    x, recon = torch.randn(2, count, 2, 3, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    log_sigma = torch.tensor(log_sigma, dtype=dtype)
    wanted = Normal(recon, log_sigma.exp()).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gaussian_log_likelihood(x, recon, log_sigma), wanted)


def test_the_best_sigma_is_the_root_mean_square_of_the_error():
    x, recon = torch.randn(2, 4, 1, 5, 5, dtype=torch.float64)
    log_sigma = (x - recon).pow(2).mean().sqrt().log().requires_grad_()
    gaussian_log_likelihood(x, recon, log_sigma).sum().backward()
    torch.testing.assert_close(log_sigma.grad, torch.zeros_like(log_sigma))


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 1, 4, 4), (3, 4, 4)])
def test_the_log_likelihood_refuses_a_reconstruction_of_another_shape(shape):
    with pytest.raises(AssertionError) as error:
        gaussian_log_likelihood(torch.zeros(2, 3, 4, 4), torch.zeros(shape), torch.tensor(0.0))
    assert str(error.value).startswith(f"x is (2, 3, 4, 4), but recon is {shape}")


@pytest.mark.parametrize("off", [0.0, 0.4])
def test_the_elbo_of_a_linear_model_is_the_exact_one_on_average(off):
    model, x = LinearVAE(off), small_images(3)
    draws = elbo(model, x.repeat(10_000, 1, 1, 1)).unflatten(0, (10_000, 3)).detach()
    assert_mean(draws, model.exact_elbo(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_elbo_draws_a_code_in_both_modes(training):
    model = LinearVAE().train(training)
    assert len(elbo(model, small_images(1).expand(5, -1, -1, -1)).unique()) == 5


def test_the_elbo_has_gradients_for_every_weight_and_for_sigma():
    model = VAE(Encoder(1, 2, 3), Decoder(1, 2, 3)).eval()
    model.log_sigma = nn.Parameter(torch.tensor(0.0))
    elbo(model, torch.rand(3, 1, 32, 32) * 2 - 1).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("batch_size", [3, 7, 500])
@pytest.mark.parametrize("training", [True, False])
def test_the_mean_elbo_is_over_images_in_eval_mode_and_restores_the_mode(training, batch_size):
    model, x = VAE(Encoder(1, 2, 3), Decoder(1, 2, 3)), torch.rand(7, 1, 32, 32) * 2 - 1
    model.log_sigma = nn.Parameter(torch.tensor(0.0))
    model(x)  # so that BatchNorm's statistics are away from where they start
    model.encoder.eval()
    model.decoder.train(training)
    torch.manual_seed(5)
    result = mean_elbo(model, x, batch_size)
    assert (type(result), model.encoder.bn1.training, model.decoder.bn1.training) == (float, False, training)
    model.eval()
    torch.manual_seed(5)
    every = torch.cat([elbo(model, part) for part in x.split(batch_size)])
    assert result == pytest.approx(sum(every.tolist()) / 7)


def test_the_mean_elbo_computes_no_gradients():
    seen, model = [], LinearVAE()
    decode = model.decoder
    model.decoder = lambda z: seen.append(torch.is_grad_enabled()) or decode(z)
    mean_elbo(model, small_images(2))
    assert seen == [False] and torch.is_grad_enabled()


def test_with_the_true_posterior_every_weight_is_the_likelihood():
    model, x = LinearVAE(), small_images(4)
    log_w, exact = log_weights(model, x, 6).detach(), model.log_likelihood(x)
    torch.testing.assert_close(log_w, exact.expand(6, 4))
    torch.testing.assert_close(iwae_bound(log_w), exact)


def test_with_another_posterior_the_weights_are_the_elbo_on_average_and_their_mean_the_likelihood():
    model, x = LinearVAE(off=0.4), small_images(3)
    log_w, exact = weights_of(model, x, 5000), model.log_likelihood(x)
    assert_mean(log_w, model.exact_elbo(x))
    assert_mean((log_w - exact).exp(), torch.ones(3))
    torch.testing.assert_close(iwae_bound(log_w), exact, rtol=0, atol=0.05)


def test_every_weight_is_drawn_anew():
    assert len(log_weights(LinearVAE(off=0.4), small_images(3), 5).unique()) == 15


def test_the_bound_is_the_logarithm_of_the_mean_weight_of_a_loop_also_where_the_weights_underflow():
    log_w = torch.randn(6, 4, dtype=torch.float64)
    wanted = [math.log(sum(map(math.exp, column)) / 6) for column in log_w.T.tolist()]
    assert iwae_bound(log_w).tolist() == pytest.approx(wanted)
    torch.testing.assert_close(iwae_bound(log_w - 5000), iwae_bound(log_w) - 5000)


def test_the_bound_rises_with_the_group_size_for_every_image_and_stays_below_the_likelihood():
    model, x = LinearVAE(off=0.4), small_images(5)
    log_w = weights_of(model, x, 1024)
    bounds = torch.stack([grouped_bound(log_w, 2**power) for power in range(13)])
    torch.testing.assert_close(bounds[0], log_w.mean(dim=0))
    torch.testing.assert_close(bounds[-1], iwae_bound(log_w))
    assert (bounds.diff(dim=0) > 0).all()
    assert (bounds[:3] < model.log_likelihood(x)).all()  # on average; here the distance is many standard errors


def test_a_grouped_bound_is_the_mean_over_consecutive_groups():
    log_w = torch.randn(6, 2, dtype=torch.float64)
    groups = [log_w[:2], log_w[2:4], log_w[4:]]
    torch.testing.assert_close(grouped_bound(log_w, 2), sum(map(iwae_bound, groups)) / 3)


@pytest.mark.parametrize("group_size", [4, 5, 12])
def test_draws_that_cannot_be_cut_into_groups_are_refused(group_size):
    with pytest.raises(AssertionError) as error:
        grouped_bound(torch.zeros(6, 2), group_size)
    assert str(error.value).startswith(f"6 draws cannot be cut into groups of {group_size}")


def test_the_kl_by_sampling_comes_near_the_formula():
    mu, logvar = torch.randn(2, 5, 3, dtype=torch.float64)
    variance = logvar.exp()
    spread = (0.5 * (variance - 1) ** 2 + mu**2 * variance).sum(dim=1).sqrt()  # of ln q - ln p over the draws
    error = (kl_by_sampling(mu, logvar, 20_000) - kl_divergence(mu, logvar).sum(dim=1)).abs()
    assert (error < 5 * spread / 20_000**0.5).all() and (error > 0).all()


def test_at_the_prior_the_kl_by_sampling_is_0_for_every_draw():
    assert torch.equal(kl_by_sampling(torch.zeros(4, 3), torch.zeros(4, 3), 1), torch.zeros(4))


# codes and classes


@pytest.mark.parametrize("threshold", [1e-6, 0.01, 0.5, 5.0])
def test_active_units_are_the_dimensions_whose_variance_is_above_the_threshold(threshold):
    mu = torch.randn(200, 5, dtype=torch.float64) * torch.tensor([0.0, 0.05, 0.2, 1.0, 2.0]) + 3
    wanted = sum(statistics.variance(column) > threshold for column in mu.T.tolist())
    assert active_units(mu, threshold) == wanted and type(active_units(mu)) is int


def test_the_threshold_left_out_is_a_hundredth():
    mu = torch.tensor([[-1.0], [1.0]]) * torch.tensor([[0.07, 0.08]])  # variances 0.0098 and 0.0128
    assert active_units(mu) == active_units(mu, 0.01) == 1


def test_the_marginal_entropy_is_that_of_the_mean_prediction():
    probabilities = torch.randn(9, 4, dtype=torch.float64).softmax(dim=1)
    wanted = Categorical(probs=probabilities.mean(dim=0)).entropy()
    torch.testing.assert_close(marginal_entropy(probabilities), wanted)


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_the_marginal_entropy_is_the_logarithm_of_how_many_classes_are_equally_common(classes):
    predictions = F.one_hot(torch.arange(10) % classes, 10).double()
    assert marginal_entropy(predictions).item() == pytest.approx(math.log(classes))


def test_the_nearest_mean_is_that_of_a_loop():
    train_labels = torch.arange(40) % 10
    train_codes, codes = torch.randn(40, 3, dtype=torch.float64), torch.randn(25, 3, dtype=torch.float64)
    means = [train_codes[train_labels == label].mean(dim=0) for label in range(10)]
    wanted = [min(range(10), key=lambda label: math.dist(code, means[label])) for code in codes]
    found = nearest_mean(train_codes, train_labels, codes)
    assert found.tolist() == wanted and found.dtype == torch.int64


def blobs(num_classes=4, dtype=torch.float32):
    """Return codes and labels that lines tell apart."""
    labels = torch.arange(60) % num_classes
    return (5 * torch.eye(num_classes)[labels] + 0.3 * torch.randn(60, num_classes)).to(dtype), labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_probe_tells_apart_what_lines_can(dtype):
    codes, labels = blobs(dtype=dtype)
    probe = linear_probe(codes, labels, num_classes=4)
    assert accuracy(probe, codes, labels) == 1
    assert (type(probe), probe.weight.shape, probe.weight.dtype) == (nn.Linear, (4, 4), dtype)


def test_a_linear_probe_has_10_classes_and_sends_no_gradient_to_the_codes():
    codes, labels = blobs()
    assert linear_probe(codes.requires_grad_(), labels).out_features == 10 and codes.grad is None


def test_fit_probe_teaches_the_probe_it_is_given_and_returns_it():
    codes, labels = blobs()
    probe = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    assert fit_probe(probe, codes, labels) is probe
    assert accuracy(probe, codes, labels) == 1


@pytest.mark.parametrize(
    ("train", "rate"),
    [
        (lambda *given: fit_probe(nn.Linear(4, 4, dtype=torch.float64), *given, steps=1), 0.02),
        (lambda *given: linear_probe(*given, 4, num_steps=1), 0.02),
        (lambda *given: linear_probe(*given, 4, num_steps=1, lr=0.5), 0.5),
    ],
)
def test_the_first_step_of_a_probe_is_that_of_adam_down_the_cross_entropy(train, rate):
    codes, labels = blobs(dtype=torch.float64)
    torch.manual_seed(3)
    probe = train(codes, labels)
    torch.manual_seed(3)
    start = nn.Linear(4, 4, dtype=torch.float64)
    loss = -start(codes).log_softmax(dim=1)[range(60), labels].mean()
    for weight, before in zip(probe.parameters(), start.parameters(), strict=True):
        gradient = torch.autograd.grad(loss, before, retain_graph=True)[0]
        torch.testing.assert_close(weight, before - rate * gradient.sign(), rtol=0, atol=1e-5)


def test_accuracy_is_the_share_of_a_loop():
    scores, labels = torch.randn(30, 4), torch.randint(4, (30,))
    right = sum(max(range(4), key=row.__getitem__) == label for row, label in zip(scores.tolist(), labels, strict=True))
    result = accuracy(lambda codes: codes, scores, labels)
    assert result == pytest.approx(right / 30) and type(result) is float


def test_without_a_class_all_others_stay_in_order():
    images, labels = torch.arange(12.0).view(12, 1, 1, 1), torch.arange(12) % 3
    kept, their_labels = without_class(images, labels, 1)
    wanted = [number for number in range(12) if number % 3 != 1]
    assert kept.flatten().tolist() == wanted and their_labels.tolist() == [number % 3 for number in wanted]


# images


def bar(width, height=32, ink=1.0):
    """Return an image with one vertical bar, from the top to the bottom."""
    image = torch.full((1, height, 32), -1.0)
    image[:, :, 10 : 10 + width] = 2 * ink - 1
    return image


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("ink", [1.0, 0.5])
def test_a_bar_is_as_thick_as_it_is_wide_however_dark_or_turned(width, ink):
    image = bar(width, height=400, ink=ink)
    thick = thickness(torch.stack([image]))
    torch.testing.assert_close(thick, torch.tensor([float(width)]), rtol=1 / 300, atol=0)
    torch.testing.assert_close(thickness(torch.stack([image.transpose(1, 2)])), thick)


def test_thickness_is_that_of_a_loop_over_pixels():
    images = torch.rand(3, 1, 6, 7, dtype=torch.float64) * 2 - 1
    for image, found in zip(images, thickness(images).tolist(), strict=True):
        ink = [[(pixel + 1) / 2 for pixel in row] for row in image[0].tolist()]
        inside = itertools.product(range(1, 6), range(1, 7))
        outline = sum(math.hypot(ink[i][j] - ink[i][j - 1], ink[i][j] - ink[i - 1][j]) for i, j in inside)
        assert found == pytest.approx(2 * sum(map(sum, ink)) / outline)


def test_the_thickness_of_a_black_image_is_nan_and_of_another_of_one_colour_infinite():
    black, *others = thickness(torch.tensor([-1.0, -0.5, 1.0])[:, None, None, None].expand(3, 1, 8, 8)).tolist()
    assert math.isnan(black) and others == [math.inf, math.inf]


# how strange an image is

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=9)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_with_the_anomalous_score_above_and_half_the_ties(normal, anomalous):
    pairs = [(a > n) + 0.5 * (a == n) for n in normal for a in anomalous]
    result = auroc(torch.tensor(normal).float(), torch.tensor(anomalous).float())
    assert result == pytest.approx(sum(pairs) / len(pairs)) and type(result) is float


@given(SCORES, SCORES)
def test_auroc_turns_around_with_its_arguments_and_takes_no_notice_of_a_rising_scale(normal, anomalous):
    normal, anomalous = torch.tensor(normal).float(), torch.tensor(anomalous).float()
    assert auroc(normal, anomalous) == pytest.approx(1 - auroc(anomalous, normal))
    assert auroc(normal.exp(), anomalous.exp()) == auroc(normal, anomalous)


def test_the_excess_surprise_is_the_distance_from_the_line_of_polyfit():
    train_outline, outline = 20 * torch.rand(30, dtype=torch.float64), 20 * torch.rand(9, dtype=torch.float64)
    train_surprise, surprise = 3 * train_outline + torch.randn(30) - 7, torch.randn(9, dtype=torch.float64)
    slope, height = np.polyfit(train_outline.numpy(), train_surprise.numpy(), 1)
    excess = excess_surprise(train_surprise, train_outline, surprise, outline)
    torch.testing.assert_close(excess, surprise - (slope * outline + height))
