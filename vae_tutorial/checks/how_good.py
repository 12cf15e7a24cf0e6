"""The checks of notebook 04: the ELBO, the importance-weighted bound, classifier probes, anomalies."""

import contextlib
import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from vae_tutorial import metrics
from vae_tutorial.checks import Check, Exercise, Wrong
from vae_tutorial.checks.compare import (
    check_gradients,
    expect_refusal,
    expect_tensor,
    name_mistake,
    on_meta,
    same,
    unchanged,
    uniform,
    wrong_losses,
)
from vae_tutorial.latent import class_means
from vae_tutorial.loss import kl_divergence
from vae_tutorial.metrics import elbo, gaussian_log_likelihood, linear_probe
from vae_tutorial.model import reparameterize

GPU = "mixes tensors of the CPU and of a GPU, which fails there: make what is new on the device of the input."
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@contextlib.contextmanager
def _about(function):
    """Say in a hint which of several functions it is about."""
    try:
        yield
    except Wrong as mistake:
        hint = str(mistake)
        if function in hint:
            raise
        plain = hint[1:2].islower() or hint.startswith("A ")  # a word, no formula
        raise Wrong(f"In {function}: {hint[0].lower() if plain else hint[0]}{hint[1:]}") from None


def _name(got, right, mistakes):
    """Raise Wrong with the hint of the known mistake that got equals, and with what was seen and expected."""
    name_mistake(got, right, [(value, hint.rstrip(".")) for value, hint in mistakes], _seen(got, right))


def _seen(got, right):
    """Say where got differs most from right, or which shape it has."""
    if not isinstance(got, torch.Tensor):
        return "."
    if got.shape != right.shape:
        return f" (the shape is {tuple(got.shape)}, not {tuple(right.shape)})."
    at = (got.double() - right.double()).abs().nan_to_num(torch.inf).argmax()
    have, want = (f"{values.flatten()[at].item():.4g}" for values in (got, right))
    return f" (it gives {have}, not {want})."


# 4.1 the ELBO


def judge_elbo(gaussian_log_likelihood, elbo, mean_elbo):
    with _about("gaussian_log_likelihood"):
        _judge_likelihood(gaussian_log_likelihood)
    with _about("elbo"):
        _judge_one_draw(elbo)
    with _about("mean_elbo"):
        _judge_mean(mean_elbo)


def _judge_likelihood(log_likelihood):
    for log_sigma in (0.6, -1.3):
        x, recon = uniform(-1, 1, 4, 2, 5, 3), uniform(-1, 0.4, 4, 2, 5, 3).requires_grad_()
        log_sigma = torch.tensor(log_sigma, dtype=torch.float64, requires_grad=True)
        intact = unchanged(x=x, recon=recon, log_sigma=log_sigma)
        got = log_likelihood(x, recon, log_sigma)
        intact()
        pixels = Normal(recon, log_sigma.exp()).log_prob(x)
        right = pixels.flatten(1).sum(1)
        _name_reduction(got, pixels)
        if log_sigma > 0:
            raw = Normal(recon, log_sigma).log_prob(x).flatten(1).sum(1)
            _name(got, right, [(raw, "log_sigma is taken as sigma itself, which is its exponential.")])
        if isinstance(got, torch.Tensor) and got.shape == right.shape and not same(got, right):
            _name_density(got.detach(), right.detach(), (x - recon).detach(), log_sigma.detach())
        expect_tensor("gaussian_log_likelihood(x, recon, log_sigma)", got, right.shape, "one number per image", x.dtype)
        if not same(got, right):
            raise Wrong(f"The result is not the sum of the normal log-densities of the pixels{_seen(got, right)}")
        inputs = {"recon": recon, "log_sigma": log_sigma}
        check_gradients(got.sum(), right.sum(), inputs, "gaussian_log_likelihood")
    far, log_sigma = 3 * torch.ones(2, 1, 4, 4), torch.tensor(-5.0)
    if not same(log_likelihood(far, -far, log_sigma), Normal(-far, log_sigma.exp()).log_prob(far).sum((1, 2, 3))):
        raise Wrong(
            "gaussian_log_likelihood is right for moderate numbers, but not far out: nothing is clamped, and no "
            "density, which becomes 0, stands inside a logarithm."
        )
    expect_refusal("gaussian_log_likelihood", lambda: log_likelihood(x[:, 0], recon[:, :1], log_sigma))
    meta, scalar = torch.empty(2, 1, 4, 4, device="meta"), torch.empty((), device="meta")
    on_meta(lambda: log_likelihood(meta, meta, scalar), f"gaussian_log_likelihood {GPU}")


def _name_reduction(got, pixels):
    """Raise Wrong where the log-densities of the pixels are right, but added up wrongly."""
    count, right = pixels[0].numel(), pixels.flatten(1).sum(1)
    _name(
        got,
        right,
        [
            (pixels, "The log-densities of the pixels are right, but not added up: one number per image, (B,)."),
            (right.sum(), "The whole batch is added up: one number per image is asked for, (B,)."),
            (right.mean(), "The images are averaged: one number per image is asked for, (B,)."),
            (pixels.mean(), "That is the mean over pixels and images: add up the pixels of each image, (B,)."),
            (right / count, f"That is the mean over the {count} pixels: the likelihood of an image adds them up"),
            (pixels.sum((2, 3)), "The channels are not added up: an image has one number, whatever its channels."),
            (pixels.flatten(1).prod(1), "The logarithms are multiplied: of a product of densities they are added."),
            (pixels.exp().flatten(1).sum(1), "The densities are added, not their logarithms."),
            (pixels.flatten(1).sum(1, keepdim=True), "The result is (B, 1), where (B,) is asked for."),
            (-right, "That is minus the log-likelihood, a loss: here the log-likelihood itself is asked for."),
            (-right / count, f"That is minus the mean over the {count} pixels: add up their log-densities."),
            (right.exp(), "That is the density itself, too small or too large for a float: stay in logarithms."),
        ],
    )


def _name_density(got, right, difference, log_sigma):
    """Raise Wrong with the parts of the formula that differ, if got is made of known ones."""
    count, square, sigma = difference[0].numel(), difference.pow(2).flatten(1).sum(1), log_sigma.exp()
    squares = {
        "": -square / (2 * sigma**2),
        "the squared difference is added, not subtracted": square / (2 * sigma**2),
        "the squared difference lacks its one half": -square / sigma**2,
        "the squared difference is not divided by sigma^2": -square / 2,
        "the squared difference has neither one half nor sigma^2, so it is no log-likelihood but an error": -square,
        "the squared difference is divided by sigma, not by sigma^2": -square / (2 * sigma),
        "the squared difference is divided by sigma^4, as if exp(log_sigma) were its root": -square / (2 * sigma**4),
        "the squared difference is divided by log_sigma^2: sigma is the exponential": -square / (2 * log_sigma**2),
        "the difference is not squared": -difference.abs().flatten(1).sum(1) / (2 * sigma**2),
        "the difference is divided by sigma, but not squared": -difference.abs().flatten(1).sum(1) / sigma,
        "the squared difference is multiplied by sigma^2, where it is divided": -square * sigma**2 / 2,
        "the squared difference is missing": 0 * square,
    }
    logs = {
        "": -count * log_sigma,
        "ln sigma is missing": 0 * log_sigma,
        "ln sigma is added, not subtracted": count * log_sigma,
        "ln sigma is subtracted once an image, not for every pixel": -log_sigma,
        "half of log_sigma is subtracted, as if it were the logarithm of the variance": -0.5 * count * log_sigma,
        "ln sigma is subtracted twice, as if it were ln sigma^2": -2 * count * log_sigma,
        "sigma is subtracted, where its logarithm is expected": -count * sigma,
        "ln sigma is subtracted 1024 times, but x has another number of pixels": -1024 * log_sigma,
    }
    constants = {
        "": -count * HALF_LOG_2PI,
        "the constant with ln(2 pi) is missing": 0.0,
        "the constant with ln(2 pi) is there once an image, not for every pixel": -HALF_LOG_2PI,
        "the constant ln(2 pi) lacks its one half": -2 * count * HALF_LOG_2PI,
        "the constant with ln(2 pi) is added, not subtracted": count * HALF_LOG_2PI,
        "the constant is that of pi, not of 2 pi": -0.5 * count * math.log(math.pi),
        "the constant is counted 1024 times, but x has another number of pixels": -1024 * HALF_LOG_2PI,
        "the constant is pi, where it is half of ln(2 pi)": -count * math.pi,
        "the constant is ln(2) times pi, where it is the logarithm of 2 pi": -0.5 * count * math.log(2) * math.pi,
        "the logarithm of 2 pi is the natural one, math.log": -0.5 * count * math.log10(2 * math.pi),
    }
    parts = itertools.product(squares.items(), logs.items(), constants.items())
    for (one, a), (two, b), (three, c) in sorted(parts, key=lambda three: sum(bool(name) for name, _ in three)):
        hints = "; ".join(hint for hint in (one, two, three) if hint)
        if same(got, a + b + c):
            raise Wrong(f"{hints[:1].upper()}{hints[1:]}{_seen(got, right)}")
        if same(got, (a + b + c) / count):
            raise Wrong(f"That is a mean over the {count} pixels, not a sum; {hints}{_seen(got, right)}")


class _Codes(nn.Module):
    """An encoder that gives every image of a set a mu and logvar of its own, and counts its calls."""

    def __init__(self, images, latent_dim, low=-3.0):
        super().__init__()
        self.images, self.calls, self.norm = images, 0, nn.BatchNorm1d(1)
        self.mu = nn.Parameter(2 * torch.randn(len(images), latent_dim))
        self.logvar = nn.Parameter(torch.empty(len(images), latent_dim).uniform_(low, low + 3.5))

    def forward(self, x):
        self.calls += 1
        if x.shape[1:] != self.images.shape[1:] or len(x) > len(self.images):
            raise Wrong(f"The encoder is given {tuple(x.shape)}, where the images x are expected.")
        return self.mu[: len(x)], self.logvar[: len(x)]


class _Line(nn.Module):
    """A decoder that draws a line: it keeps what it is given."""

    def __init__(self, latent_dim, shape):
        super().__init__()
        self.shape, self.seen = shape, []
        self.register_buffer("weight", torch.randn(latent_dim, math.prod(shape)) / 4)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, z):
        if not isinstance(z, torch.Tensor) or z.ndim != 2 or z.shape[1] != len(self.weight):
            given = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
            raise Wrong(f"The decoder is given {given}, where codes (B, D) are expected, here D = {len(self.weight)}.")
        self.seen.append(z.detach().clone())
        return self.image(z)

    def image(self, z):
        return torch.sin(z @ self.weight).view(len(z), *self.shape)


class _Model(nn.Module):
    """A VAE of stubs that keeps what passes: a sample in train mode, mu in eval mode, as VAE does."""

    def __init__(self, count, latent_dim, shape=(1, 3, 4)):
        super().__init__()
        self.x = torch.rand(count, *shape) * 2 - 1
        self.encoder, self.decoder = _Codes(self.x, latent_dim), _Line(latent_dim, shape)
        self.log_sigma = nn.Parameter(torch.tensor(-0.7))

    def forward(self, x):
        mu, logvar = self.encoder(x)
        return self.decoder(reparameterize(mu, logvar) if self.training else mu), mu, logvar


MU = (
    "mu is decoded, where a draw of z is expected: the ELBO is an expectation over z ~ q, and mu is its best-behaved "
    "point, better than the truth, and no bound."
)
ERROR = "A squared error is no log-likelihood in nats: use gaussian_log_likelihood."
SEEDED = "Two calls draw the same z: the noise is seeded inside the function; seed once, at the top."
SHARED = "All images share their noise: draw it anew for every image."


def _judge_one_draw(elbo):
    for training in (False, True):
        model = _Model(2000, 3).train(training)
        intact = unchanged(x=model.x, mu=model.encoder.mu, logvar=model.encoder.logvar)
        got = elbo(model, model.x)
        intact()
        _name_mode(model, training, "elbo")
        if not training and any(same(z, model.encoder.mu) for z in model.decoder.seen):
            raise Wrong(MU)
        if len(model.decoder.seen) != 1 or model.encoder.calls != 1:
            calls = f"the encoder {model.encoder.calls} times, the decoder {len(model.decoder.seen)} times"
            raise Wrong(f"elbo calls {calls}: once each, and no other forward pass.")
        z = model.decoder.seen[0]
        _name_draw(z, model)
        _name_elbo(got, model, z)
        if same(got, elbo(model, model.x)):
            raise Wrong(SEEDED)
    meta = _Model(4, 3).to("meta")
    on_meta(lambda: elbo(meta, meta.x.to("meta")), f"elbo {GPU}")


def _name_mode(model, training, name):
    if any(layer.training is not training for layer in model.modules()):
        raise Wrong(f"{name} leaves the model, or a part of it, in another mode than it was in.")


def _name_draw(z, model):
    """Raise Wrong unless z, (B, D), holds one draw from every image's posterior."""
    mu, logvar = model.encoder.mu.detach(), model.encoder.logvar.detach()
    if z.shape != mu.shape:
        raise Wrong(f"The decoder is given {tuple(z.shape)}, where one code per image is expected, {tuple(mu.shape)}.")
    if same(z, mu):
        raise Wrong(MU)
    std = (0.5 * logvar).exp()
    for name, value in {"logvar": logvar, "std": std, "mu + std": mu + std, "the variance": logvar.exp()}.items():
        if same(z, value):
            raise Wrong(f"{name} is decoded, where a draw of z is expected.")
    eps = (z - mu) / std
    if same(eps, eps[:1].expand_as(eps), 1e-3):
        raise Wrong(SHARED)
    _name_noise(eps, z, mu, logvar)


def _name_noise(eps, z, mu, logvar):
    """Raise Wrong unless eps, (N, D), is standard normal noise; z is what it was made of."""
    wide = 6 / math.sqrt(eps.numel())
    if (eps.mean().abs() < wide) and (eps.std() - 1).abs() < wide:
        if (torch.corrcoef(eps.T) - torch.eye(eps.shape[1])).abs().max() > 6 / math.sqrt(len(eps)):
            raise Wrong("The dimensions of a code share their noise: every number of z is drawn by itself.")
        return
    if z.mean().abs() < 0.1 and (z.std() - 1).abs() < 0.1:
        raise Wrong("z comes from the prior: an image's code is drawn from its own cloud, N(mu, exp(logvar)).")
    if eps.min() >= 0 and eps.max() <= 1:
        raise Wrong("The noise of z is uniform, from 0 to 1, where a normal one is expected: randn_like.")
    if _is_noise((z - logvar) / (0.5 * mu).exp(), mu, 0.2):
        raise Wrong("mu and logvar have changed places: reparameterize(mu, logvar).")
    if _is_noise((z - mu) / (0.5 * (0.5 * logvar).exp()).exp(), logvar, 3 * wide):
        raise Wrong("logvar goes into reparameterize as it is: the exponential is taken inside.")
    scales = {1.0: "exp(logvar), the variance", 0.25: "the root of std", -0.5: "1 / std", 0.0: "1"}
    for power, name in scales.items():
        if _is_noise((z - mu) / (power * logvar).exp(), logvar, 3 * wide):
            raise Wrong(f"The noise of z is scaled by {name}, where std is expected, exp(0.5 * logvar).")
    seen = f"its noise has mean {eps.mean():.2f} and std {eps.std():.2f}, not 0 and 1"
    raise Wrong(f"What is decoded is no draw from N(mu, exp(logvar)): {seen}.")


def _is_noise(eps, scale, wide):
    """Tell whether eps has standard deviation 1 where scale is small, and where it is large."""
    small = (scale < scale.median()).expand_as(eps)
    return all((eps[half].std() - 1).abs() < wide for half in (small, ~small))


def _name_elbo(got, model, z):
    """Raise Wrong unless got is the log-likelihood under the z that was decoded, minus the KL divergence."""
    x, log_sigma, mu, logvar = model.x, model.log_sigma, model.encoder.mu, model.encoder.logvar
    recon, std = model.decoder.image(z), (0.5 * logvar).exp()
    fit, kls = gaussian_log_likelihood(x, recon, log_sigma), kl_divergence(mu, logvar)
    kl, sampled = kls.sum(1), (Normal(mu, std).log_prob(z) - Normal(0, 1).log_prob(z)).sum(1)
    right = fit - (sampled if same(got, fit - sampled) else kl)
    squared = (x - recon).pow(2).flatten(1)
    _name(
        got,
        right,
        [
            (right.mean(), "That is the mean over the batch: return one number per image, (B,)."),
            (right.sum(), "That is the sum over the batch: return one number per image, (B,)."),
            (fit, "That is the log-likelihood alone: the KL divergence is missing."),
            (fit + kl, "The KL divergence is added: a code far from the prior costs, so subtract it."),
            (-right, "That is minus the ELBO, a loss: here the bound itself is asked for."),
            (kl, "That is the KL divergence alone: the log-likelihood is missing."),
            (-kl, "That is the KL divergence alone: the log-likelihood is missing."),
            (fit - kls.mean(1), f"The KL is averaged over the D = {kls.shape[1]} dimensions of a code: add them."),
            (fit - kls.mean(), "The KL is averaged over everything: every image subtracts the sum over its own D."),
            (fit - kl.mean(), "The KL is averaged over the batch: every image subtracts its own."),
            (fit - kls.sum(), "The KL of the whole batch is subtracted from each image: every image has its own."),
            (fit.mean() - kl, "The log-likelihood is averaged over the batch: every image has its own."),
            (fit.sum() - kl, "The log-likelihood is added up over the batch: every image has its own."),
            (fit[:, None] - kls, "The KL is not added up over D: (B, D) is not one number per image."),
            (fit - kl_divergence(logvar, mu).sum(1), "mu and logvar have changed places in the KL divergence."),
            (fit - kl_divergence(mu, logvar.exp()).sum(1), "logvar goes into the KL divergence as it is, without exp."),
            (fit - 0.5 * kl, "The KL is halved: the one half is in kl_divergence already."),
            (fit / squared.shape[1] - kl, "The log-likelihood is a mean over pixels: it must be a sum, like the KL."),
            (gaussian_log_likelihood(x, recon, 0 * log_sigma) - kl, "sigma is taken as 1: use model.log_sigma."),
            (gaussian_log_likelihood(x, recon, log_sigma.exp()) - kl, "log_sigma goes in as it is, without exp."),
            (-0.5 * squared.sum(1) - kl, "Half the squared error takes sigma as 1 and drops constants: no ELBO."),
            *((-error - kl, ERROR) for error in (squared.sum(1), squared.mean(1), squared.mean())),
        ],
    )
    if isinstance(got, torch.Tensor) and got.shape == (len(x),) and not same(got, right):
        weight = ((fit - got) / kl).median()
        if same(got, fit - weight * kl):
            raise Wrong(f"The KL is weighted with {weight:.3g}: in the ELBO it has weight 1.")
        if same(got + kl, gaussian_log_likelihood(x, model.decoder.image(mu), log_sigma)):
            raise Wrong("The log-likelihood is that of mu decoded, where the draw of z is expected.")
        if same(got + kl, gaussian_log_likelihood(x, recon, 0 * log_sigma - 1)):
            raise Wrong("log_sigma is -1, its start, where what was learned is expected: model.log_sigma.")
        raise Wrong(f"That is not the log-likelihood of x minus the KL divergence, summed over D{_seen(got, right)}")
    expect_tensor("elbo(model, x)", got, (len(x),), "one ELBO per image", x.dtype)


class _WatchedEncoder(nn.Module):
    """An encoder almost without noise, with BatchNorm; it keeps how many images it sees, and whether with gradients."""

    def __init__(self, latent_dim, low):
        super().__init__()
        self.net, self.norm, self.low = nn.Linear(12, latent_dim), nn.BatchNorm1d(latent_dim), low
        self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)
        self.batches = []

    def forward(self, x):
        if self.norm.training:
            raise Wrong("The model runs in train mode: BatchNorm then mixes the images of a batch; eval mode first.")
        mu = self.norm(self.net(x.flatten(1)))
        self.batches.append((len(x), torch.is_grad_enabled()))
        return mu, torch.full_like(mu, self.low)


class _Watched(nn.Module):
    """A small model whose encoder keeps what it sees."""

    def __init__(self, latent_dim=3, low=-40.0):
        super().__init__()
        self.encoder = _WatchedEncoder(latent_dim, low)
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 12), nn.Tanh(), nn.Unflatten(1, (1, 3, 4)))
        self.log_sigma = nn.Parameter(torch.tensor(-0.4))

    def forward(self, x):
        mu, logvar = self.encoder(x)
        return self.decoder(mu), mu, logvar


def _judge_mean(mean_elbo):
    for count, size, training in ((9, 4, True), (8, 5, False), (4, 500, True)):
        model = _Watched().train(training)
        images = torch.rand(count, 1, 3, 4) * 2 - 1
        images[-1] *= 6  # far from the others, and alone in the last batch of nine
        before, intact = copy.deepcopy(model.state_dict()), unchanged(images=images)
        got = mean_elbo(model, images, size) if size < 500 else mean_elbo(model, images)
        intact()
        _name_watched(model, before, training, count, size, mean_elbo)
        every = elbo(copy.deepcopy(model).eval(), images).detach()
        _name_mean(got, every, size)
    meta, images = _Watched().to("meta"), torch.rand(4, 1, 3, 4)
    try:
        on_meta(lambda: mean_elbo(meta, images, 3), "The images are on the CPU, the model on a GPU: x.to(device).")
    except Wrong:
        if not meta.encoder.batches:  # what has gone through the model may well be fetched back by .cpu()
            raise


def _name_watched(model, before, training, count, size, mean_elbo):
    """Raise Wrong unless the model was used well, and left as it was."""
    if not model.encoder.batches:
        raise Wrong("mean_elbo never runs the model: call elbo on every batch.")
    if any(grad for _, grad in model.encoder.batches):
        raise Wrong("The model runs with gradients, whose memory grows with every batch: with torch.no_grad().")
    if not torch.is_grad_enabled():
        raise Wrong("Gradients stay switched off for whatever comes later: `with torch.no_grad():` restores them.")
    _name_mode(model, training, "mean_elbo")
    if not all(weight.requires_grad for weight in model.parameters()):
        raise Wrong("The weights are frozen for good: torch.no_grad() switches gradients off for a moment.")
    if not all(torch.equal(before[key], value) for key, value in model.state_dict().items()):
        raise Wrong("mean_elbo changes the weights or the statistics of BatchNorm: it should only measure.")
    lengths = [length for length, _ in model.encoder.batches]
    if max(lengths) > size:
        raise Wrong(f"{max(lengths)} images go through the model at once, where batch_size is {size}: split them.")
    if sum(lengths) < count:
        raise Wrong(f"Only {sum(lengths)} of {count} images are looked at: the last batch may be a smaller one.")


def _name_mean(got, every, size):
    total, count, batches = every.sum(), len(every), every.split(size)
    got = torch.tensor(got) if isinstance(got, float) else got
    means = torch.stack([batch.mean() for batch in batches])
    hint = "The means of the batches are averaged, so an image in a small batch counts more: sum, then divide once"
    _name(
        got,
        total / count,
        [
            (total, "That is the sum over all images: divide by how many there are."),
            (means.mean(), f"{hint} (the batches hold {', '.join(str(len(batch)) for batch in batches)} images)."),
            (means.sum(), "The means of the batches are added up: sum over the images, then divide once."),
            (means.sum() / count, "The means of the batches are added up: sum over the images, then divide once."),
            (total / len(batches), "The sum is divided by the number of batches: divide by the number of images."),
            (total / size, "The sum is divided by batch_size: divide by the number of images."),
            (total / (len(batches) * size), "The sum is divided as if every batch were full: count the images."),
            (batches[0].mean(), "That is the mean of the first batch alone."),
            (batches[-1].mean(), "That is the mean of the last batch alone: add up over the batches."),
            (batches[-1].sum() / count, "Only the last batch is counted: add up over the batches."),
            (-total / count, "That is minus the mean ELBO, a loss: the bound itself is asked for."),
            (every, "That is one number per image: their mean is asked for."),
            (every.median(), "That is the median: the mean is asked for."),
        ],
    )
    expect_tensor("mean_elbo(model, images)", got, (), "one number")
    if not same(got, total / count):
        raise Wrong(f"That is not the mean over the images{_seen(got, total / count)}")


# 4.2 the importance-weighted bound


def judge_iwae(log_weights, iwae_bound, grouped_bound):
    with _about("log_weights"):
        _judge_weights(log_weights)
    with _about("iwae_bound"):
        _judge_bound(iwae_bound)
    with _about("grouped_bound"):
        _judge_groups(grouped_bound)


def _judge_weights(log_weights):
    for count, samples in ((5, 300), (3, 1)):
        model = _Model(count, 4).eval()
        intact = unchanged(x=model.x, mu=model.encoder.mu, logvar=model.encoder.logvar)
        got = log_weights(model, model.x, samples)
        intact()
        _name_mode(model, False, "log_weights")
        if isinstance(got, torch.Tensor) and got.shape == (count, samples) != (samples, count):
            raise Wrong(f"The result is (B, K), {tuple(got.shape)}: K rows are asked for, (num_samples, B).")
        expect_tensor("log_weights(model, x, num_samples)", got, (samples, count), "ln w of every draw", model.x.dtype)
        z = _codes_seen(model, samples, count)
        if samples > 1:
            _name_draws(z, model)
        _name_weights(got, model, z)
    if same(got, log_weights(model, model.x, samples)):
        raise Wrong(SEEDED)
    meta = _Model(4, 3).to("meta")
    on_meta(lambda: log_weights(meta, meta.x.to("meta"), 2), f"log_weights {GPU}")


def _codes_seen(model, samples, count):
    """Return the codes that were decoded as (K, B, D), in whichever order they came."""
    if not model.decoder.seen:
        raise Wrong("The decoder is never called: decode every draw of z.")
    codes = torch.cat(model.decoder.seen)
    if len(codes) != samples * count:
        of = f"{samples} draws for each of {count} images"
        raise Wrong(f"{len(codes)} codes are decoded, where {samples * count} are expected, {of}.")
    if len(model.decoder.seen) == samples:
        return codes.view(samples, count, -1)
    rows, columns = codes.view(samples, count, -1), codes.view(count, samples, -1).transpose(0, 1)
    std = (0.5 * model.encoder.logvar.detach()).exp()
    far = [((z - model.encoder.mu.detach()) / std).pow(2).mean() for z in (rows, columns)]
    return rows if far[0] <= far[1] else columns


def _name_draws(z, model):
    """Raise Wrong unless z, (K, B, D), holds K different draws from every posterior."""
    mu, logvar = model.encoder.mu.detach(), model.encoder.logvar.detach()
    if same(z[0], mu) and same(z[-1], mu):
        raise Wrong("mu is decoded K times, where K draws of z are expected.")
    if same(z, z[:1].expand_as(z)):
        raise Wrong("All K draws of an image are the same z, so the bound cannot rise with K: draw anew each time.")
    eps = (z - mu) / (0.5 * logvar).exp()
    if same(eps, eps[:, :1].expand_as(eps), 1e-3):
        raise Wrong(SHARED)
    _name_noise(eps.flatten(0, 1), z, mu, logvar)
    if z.flatten(0, 1)[:, 0].unique().numel() < 0.95 * z[..., 0].numel():
        raise Wrong("Some draws are repeated: every row needs draws of its own.")


def _name_weights(got, model, z):
    """Raise Wrong unless got, (K, B), is ln w at the very z that were decoded."""
    mu, logvar, log_sigma, x = model.encoder.mu, model.encoder.logvar, model.log_sigma, model.x
    prior, std = Normal(0, 1).log_prob(z), (0.5 * logvar).exp()
    posterior = Normal(mu, std).log_prob(z)
    recons = [model.decoder.image(codes) for codes in z]

    def fit_at(log_sigma):
        return torch.stack([gaussian_log_likelihood(x, recon, log_sigma) for recon in recons])

    fit = fit_at(log_sigma)
    p, q, kl, constant = prior.sum(2), posterior.sum(2), kl_divergence(mu, logvar), HALF_LOG_2PI * z.shape[2]
    wide, sharp = Normal(mu, logvar.exp()).log_prob(z).sum(2), Normal(0, 1).log_prob((z - mu) / std).sum(2)
    _name(
        got,
        fit + p - q,
        [
            (fit - p + q, "ln p(z) - ln q(z|x) has the wrong sign: p stands above, q below the line."),
            (fit + p + q, "ln q(z|x) is added: w is divided by q(z|x), so its logarithm is subtracted."),
            (fit + p, "ln q(z|x) is missing: without it the weights do not average to p(x)."),
            (fit - q, "ln p(z) is missing: the weight holds the prior of the code that was drawn."),
            (fit, "ln p(z) - ln q(z|x) is missing: that is the log-likelihood alone."),
            (p - q, "ln p(x|z) is missing, or stands there as p(x|z) itself, which is almost 0."),
            (p - q - fit, "ln p(x|z) has the wrong sign."),
            (fit + p - q - kl.sum(1), "The KL is subtracted as well: ln p(z) - ln q(z|x) stands for it here."),
            (fit + (p - q).sum(1, keepdim=True), "ln p(z) - ln q(z|x) is added up over all images: over D only."),
            (fit + (prior / posterior).sum(2), "The logarithms are divided: that of a quotient is their difference."),
            (fit + (p - q).exp(), "p(z) / q(z|x) stands there itself: its logarithm is asked for."),
            (fit + p - q - math.log(len(z)), "ln K is subtracted here already: iwae_bound does that."),
            (fit_at(log_sigma.exp()) + p - q, "log_sigma goes in as it is, without exp."),
            (fit - kl.sum(1), "The KL by formula is an average over all z: take ln p(z) - ln q(z|x) at each z."),
            (fit + (prior - posterior).mean(2), "The dimensions are averaged: of a code, ln p and ln q are sums."),
            (fit + (prior - posterior)[..., 0], "Only the first dimension counts: add up all D."),
            (fit + p - wide, "q(z|x) has the standard deviation exp(0.5 * logvar), not the variance."),
            (fit + p - sharp, "ln q(z|x) is taken of the noise, which leaves out - ln std: take it of z."),
            (fit + p - q + constant, "The constant ln(2 pi) is in q, but not in p: both have it, or none."),
            (fit + p - q - constant, "The constant ln(2 pi) is in p, but not in q: both have it, or none."),
            (-(fit + p - q), "That is minus ln w."),
            ((fit + p - q).exp(), "That is w itself, which overflows for real images: stay in logarithms."),
            (fit.mean(1, keepdim=True) + p - q, "The log-likelihood is averaged over the images: each has its own."),
            (fit.sum(1, keepdim=True) + p - q, "The log-likelihood is added up over the images: each has its own."),
            (fit / x[0].numel() + p - q, "The log-likelihood is a mean over pixels: the image's is their sum."),
        ],
    )
    if not same(got, fit + p - q):
        if same(got, got[:1].expand_as(got)) and len(got) > 1:
            raise Wrong("All K rows are the same: every draw of z has a weight of its own.")
        if same(got - fit, (got - fit)[:1].expand_as(got)) and len(got) > 1:
            raise Wrong("ln p(z) - ln q(z|x) is the same for every draw: take it at the z of that draw.")
        formula = "ln p(x|z) + ln p(z) - ln q(z|x), all three at the z that is decoded"
        raise Wrong(f"That is not {formula}{_seen(got, fit + p - q)}")


def _judge_bound(iwae_bound):
    for count, samples in ((4, 7), (5, 2), (3, 1)):
        log_w = uniform(-3, 3, samples, count)
        intact = unchanged(log_w=log_w)
        got = iwae_bound(log_w)
        intact()
        right = log_w.exp().mean(0).log()
        if isinstance(got, torch.Tensor) and got.shape == (samples,) != (count,):
            raise Wrong(f"The result is one number per draw, {tuple(got.shape)}: take the sum over the K draws, dim 0.")
        _name(got, right, _wrong_bounds(log_w))
        expect_tensor("iwae_bound(log_w)", got, (count,), "one bound per image", log_w.dtype)
        if not same(got, right):
            raise Wrong(f"That is not the logarithm of the mean of the {samples} weights{_seen(got, right)}")
    far = uniform(-3, 3, 6, 4).float() + torch.tensor([400.0, -2000.0, 50.0, -300.0])
    if not same(iwae_bound(far), torch.logsumexp(far, 0) - math.log(6), 1e-3):
        where = "e^400 overflows, and e^-300 becomes 0"
        raise Wrong(f"Far from 0 the bound fails: {where}, so logsumexp takes out the largest of each image first.")
    meta = torch.empty(3, 2, device="meta")
    on_meta(lambda: iwae_bound(meta), f"iwae_bound {GPU}")


def _wrong_bounds(log_w):
    samples, images = log_w.shape
    total = log_w.exp().sum(0).log()
    same_weights = f"{samples} equal weights must give that weight: subtract ln {samples}"
    yield total, f"The sum of the weights is not divided by how many there are: {same_weights}."
    yield total + math.log(samples), f"ln K is added: {same_weights}."
    yield total / samples, "The logarithm is divided by K: dividing the weights by K subtracts ln K from it."
    yield total - math.log(images), "ln of the number of images is subtracted: K is the number of draws."
    yield total - samples, "K is subtracted, where ln K is expected."
    yield total - math.log2(samples), "The logarithm of K is the natural one, as everywhere here."
    yield total - math.log10(samples), "The logarithm of K is the natural one, as everywhere here."
    for typed in {7, 128} - {samples}:
        yield total - math.log(typed), f"{typed} is typed in, the number of draws of another case: use that of log_w."
    yield total - math.log(log_w.numel()), "ln of the number of all weights is subtracted: K is the number of draws."
    yield (log_w / samples).logsumexp(0), "ln w is divided by K, not w: that subtracts ln K."
    yield log_w.mean(0), "That is the mean of the logarithms, the ELBO: take the logarithm of the mean."
    yield log_w.max(0).values, "That is the largest of the weights: take the mean of all."
    yield log_w.exp().mean(0), "That is the mean weight: its logarithm is missing."
    yield (total - math.log(samples)).mean(), "The images are averaged: one number per image, (B,)."
    yield torch.logsumexp(log_w, (0, 1)), "All images are summed as well: over the K draws, for each image."
    yield torch.logsumexp(log_w.flatten(), 0) - math.log(log_w.numel()), "Over the K draws only, for each image."
    yield -(total - math.log(samples)), "That is minus the bound."


def _judge_groups(grouped_bound):
    log_w = uniform(-3, 3, 8, 5) * torch.tensor([0.3, 1.0, 2.0, 3.0, 1.5])
    intact = unchanged(log_w=log_w)
    for size in (2, 4, 8, 1):
        got = grouped_bound(log_w, size)
        intact()
        stepped = log_w.view(size, -1, 5).transpose(0, 1)
        both = [groups.logsumexp(1).sub(math.log(size)).mean(0) for groups in (log_w.view(-1, size, 5), stepped)]
        right = both[1] if same(got, both[1]) else both[0]
        _name(got, right, _wrong_groups(log_w, size))
        expect_tensor(f"grouped_bound(log_w, {size})", got, (5,), "one bound per image", log_w.dtype)
        if not same(got, right):
            raise Wrong(f"With groups of {size} of 8 draws, that is not the mean of their bounds{_seen(got, right)}")
    meta = torch.empty(4, 3, device="meta")
    on_meta(lambda: grouped_bound(meta, 2), f"grouped_bound {GPU}")


def _wrong_groups(log_w, size):
    number = len(log_w) // size
    cut, other = log_w.view(number, size, -1), log_w.view(size, number, -1)
    bounds = cut.logsumexp(1) - math.log(size)
    few = "of one group alone: the draws of all groups count, or the rise with K is not exact"
    yield bounds[0], f"That is the bound {few}."
    yield bounds[-1], f"That is the bound {few}."
    yield bounds, f"That is the bound of every group, {number} of them: average them."
    yield bounds.T, f"That is the bound of every group, {number} of them: average them."
    yield bounds.sum(0), "The bounds of the groups are added up: average them."
    yield bounds.sum(0) / size, "The sum is divided by the size of a group: by how many groups there are."
    if number > 1:
        yield bounds[:-1].mean(0), "The last group is left out."
    for starts in (range(len(log_w)), range(len(log_w) - size + 1), range(number)):
        windows = [log_w[at : at + size] for at in starts]
        overlapping = torch.stack([window.logsumexp(0) - math.log(len(window)) for window in windows]).mean(0)
        yield overlapping, "The groups overlap: each begins where the one before it ends."
    yield bounds.max(0).values, "That is the best of the groups: average them."
    yield bounds.mean(), "The images are averaged as well: one number per image, (B,)."
    yield bounds.mean(1), "The images are averaged, not the groups: one number per image, (B,)."
    yield cut.logsumexp(1).mean(0), "The sum over a group is not divided by its size: iwae_bound does."
    full = log_w.logsumexp(0) - math.log(len(log_w))
    yield full, f"That is the bound of all {len(log_w)} draws, whatever the group size is: average bounds, not weights."
    yield log_w.mean(0), "That is the mean of the logarithms, the bound at K = 1, whatever the group size is."
    changed = f"The groups hold {number} draws each, where group_size is {size}: it is their size, not their number."
    for wrong in (other, log_w.view(number, size, -1).transpose(0, 1)):
        yield (wrong.logsumexp(1) - math.log(number)).mean(0), changed
        yield (wrong.logsumexp(1) - math.log(size)).mean(0), changed


# 4.3 what the code knows


def judge_classifiers(nearest_mean, linear_probe):
    with _about("nearest_mean"):
        _judge_nearest(nearest_mean)
    with _about("linear_probe"):
        _judge_linear(linear_probe)


def _judge_nearest(nearest_mean):
    labels = torch.cat([torch.arange(10), torch.randint(0, 10, (70,))])[torch.randperm(80)]
    centres = 2 * torch.randn(10, 4) * torch.linspace(0.2, 2, 10)[:, None] + 1
    train_codes, codes = centres[labels] + torch.randn(80, 4), centres.repeat(6, 1) + 1.5 * torch.randn(60, 4)
    means = class_means(train_codes, labels)
    two = torch.cdist(codes, means).sort(dim=1).values
    codes = codes[two[:, 1] - two[:, 0] > 0.05]  # a close call may go either way
    distances = torch.cdist(codes, means)
    intact = unchanged(train_codes=train_codes, train_labels=labels, codes=codes)
    try:
        got = nearest_mean(train_codes, labels, codes)
    except RuntimeError as error:
        if "10x80" in str(error):  # the one-hot labels of the training codes, turned
            raise Wrong("class_means is given labels of the training codes with other codes: use theirs.") from error
        raise
    intact()
    near = labels[torch.cdist(codes, train_codes).argmin(1)]
    unit, sums = F.normalize(codes, dim=1) @ F.normalize(means, dim=1).T, means * labels.bincount()[:, None]
    _name(
        got,
        distances.argmin(1),
        [
            (distances.argmax(1), "That is the farthest mean: the smallest distance wins."),
            (distances, "Those are the distances: the class with the smallest is asked for, (N,)."),
            (distances.min(1).values, "Those are the smallest distances: which class they belong to is asked for."),
            (distances.argmin(0), "That is the nearest code of every class: the nearest class of every code, (N,)."),
            (distances.argmin(1, keepdim=True), "The result is (N, 1), where (N,) is asked for."),
            (near, "That is the class of the nearest training code: the nearest class *mean* is asked for."),
            ((codes @ means.T).argmax(1), "That is the largest product: a long mean wins it; measure the distance."),
            ((codes @ means.T).argmin(1), "That is the smallest product: measure the distance."),
            (unit.argmax(1), "That is the smallest angle: measure the distance."),
            (torch.cdist(codes, means, 1).argmin(1), "Absolute differences are added: a distance adds squares."),
            (torch.cdist(codes, means, torch.inf).argmin(1), "Only the largest difference counts: all are squared."),
            ((codes[:, None] - means).sum(2).argmin(1), "Differences are added with their signs: square them first."),
            (torch.cdist(train_codes, means).argmin(1), "The training codes are classified: classify codes."),
            (torch.cdist(codes, train_codes).argmin(1), "That is the index of a training code: means are missing."),
            (labels[distances.argmin(1)], "A label is looked up with the class's number, which is the answer."),
            (distances.argmin(1) + 1, "The classes are counted from 1: the first is 0."),
            (torch.cdist(codes, means[1:]).argmin(1), "The mean of class 0 is missing, so all others move up."),
            (torch.cdist(codes, sums).argmin(1), "The codes of a class are added up: their mean is asked for."),
            (torch.cdist(codes, sums / 8).argmin(1), "The sums are divided by a tenth of all codes: by each class's."),
            (torch.cdist(codes, sums / 80).argmin(1), "Sums are divided by the number of all codes: by each class's."),
            (F.one_hot(distances.argmin(1), 10), "That is one-hot: the number of the class is asked for, (N,)."),
        ],
    )
    expect_tensor("nearest_mean(train_codes, train_labels, codes)", got, (len(codes),), "one class per code")
    if got.is_floating_point() or got.dtype == torch.bool:
        raise Wrong(f"The classes are of type {got.dtype}: whole numbers are expected, as argmin gives them.")
    if not same(got, distances.argmin(1)):
        at = int((got != distances.argmin(1)).nonzero()[0])
        seen = f"class {got[at]} for code {at}, whose nearest mean is that of class {distances.argmin(1)[at]}"
        raise Wrong(f"nearest_mean does not give the class of the nearest mean: {seen}.")
    meta = torch.empty(12, 3, device="meta")
    on_meta(lambda: nearest_mean(meta, labels[:12], meta), f"nearest_mean {GPU}")


def _judge_linear(answer):
    for num_classes in (10, 4):
        codes, labels = _labelled_codes(num_classes)
        intact = unchanged(codes=codes, labels=labels)
        options = {} if num_classes == 10 else {"num_classes": num_classes}
        state = torch.get_rng_state()
        probe = _train_probe(answer, codes, labels, options)
        intact()
        _name_encoder_gradient(codes)
        _name_layer(probe, codes, num_classes)
        torch.set_rng_state(state)
        finished = linear_probe(codes, labels, **options)
        torch.set_rng_state(state)
        early = answer(codes.detach(), labels, num_steps=20, **options)
        _name_fit(probe, finished, early, codes.detach(), labels, state)
    meta = torch.empty(12, 3, device="meta")
    on_meta(lambda: answer(meta, labels[:12], num_steps=2), f"linear_probe {GPU}")


def _labelled_codes(num_classes):
    """Draw codes of overlapping classes; they hang on a graph, as an encoder's do."""
    centres = 1.2 * torch.randn(num_classes, 5) + 0.5
    labels = torch.cat([torch.arange(num_classes), torch.randint(0, num_classes, (190,))])
    codes = centres[labels] + torch.randn(len(labels), 5)
    return codes.requires_grad_(), labels


def _train_probe(answer, codes, labels, options):
    """Run the probe on codes that an encoder, a doubling, has made; a graph used twice means that it is in the way."""
    try:
        return answer(codes, labels, **options)
    except RuntimeError as error:
        if "graph a second time" in str(error):
            raise Wrong(
                "The gradient goes back into the encoder, and fails at the second step: detach codes."
            ) from error
        raise


def _name_encoder_gradient(codes):
    if codes.grad is not None:
        raise Wrong(
            "The probe's gradient reaches codes, and would go on into the encoder, which then learns the labels: "
            "a probe only looks on, so cut the codes off."
        )
    if not codes.requires_grad:
        raise Wrong("codes are cut off in place, for whoever passed them in: detach() returns a new tensor.")


def _name_layer(probe, codes, num_classes):
    if not isinstance(probe, nn.Module):
        raise Wrong(f"linear_probe returns a {type(probe).__name__}, where the trained layer is expected.")
    if any(weight.grad_fn is not None for weight in probe.parameters()) or not list(probe.parameters()):
        raise Wrong("linear_probe returns a layer without weights of its own.")
    got = probe(codes.detach())
    expect_tensor("What the probe says to codes", got, (len(codes), num_classes), "one number per class", codes.dtype)


def _name_fit(probe, finished, early, codes, labels, state):
    """Raise Wrong unless the probe fits about as well as the finished one; early, after 20 steps, tells the mistake."""
    with torch.no_grad():
        outputs, early = probe(codes), early(codes)
        got, best = (F.cross_entropy(said, labels).item() for said in (outputs, finished(codes)))
    num_classes = outputs.shape[1]

    def trained(loss_of=lambda scores: F.cross_entropy(scores, labels), **options):
        return _as_trained(codes, num_classes, state, loss_of, **options)

    uncleared = trained(clear=False)
    if got < best + 0.01 and not same(early, uncleared, 1e-3):
        return
    wrong = [
        (trained(steps=0), "The weights never move: clear, backward, step, in this order, in every one of num_steps."),
        (trained(steps=1), "One step only is taken: every one of num_steps takes one."),
        (uncleared, "The gradients of the last step are never cleared: PyTorch adds the new ones to them."),
    ]
    losses = ((trained(loss_of), hint) for loss_of, hint in wrong_losses(labels, num_classes))
    for value, hint in itertools.chain(wrong, losses):
        if same(early, value, 1e-3):
            raise Wrong(hint)
    right = (outputs.argmax(1) == labels).double().mean().item()
    seen = f"a cross-entropy of {got:.3f} and {100 * right:.0f} % right, where {best:.3f} can be reached"
    raise Wrong(
        f"After training, the probe gives the codes it was fitted on {seen}: is the loss their "
        "cross-entropy, and every step taken on all of them?"
    )


def _as_trained(codes, num_classes, state, loss_of, steps=20, clear=True):
    """Return what a probe says to the codes that was trained on a loss of its scores, from the same start."""
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    probe = nn.Linear(codes.shape[1], num_classes)
    torch.set_rng_state(after)
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.02)
    for _ in range(steps):
        if clear:
            optimizer.zero_grad()
        loss_of(probe(codes)).backward()
        optimizer.step()
    return probe(codes).detach()


# 4.4 leave one out, 4.5 like with like


def judge_anomaly(without_class, auroc):
    with _about("without_class"):
        _judge_without(without_class)
    with _about("auroc"):
        _judge_auroc(auroc)


def _judge_without(without_class):
    labels = torch.tensor([3, 1, 1, 2, 0, 3, 5, 9, 3, 1, 0, 7])
    images = torch.rand(12, 1, 4, 4) * 2 - 1
    intact = unchanged(images=images, labels=labels)
    for digit in (3, 1, 0, 8):
        got = without_class(images, labels, digit)
        intact()
        keep = labels != digit
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"without_class returns {type(got).__name__}, where the two of images, labels are expected.")
        if any(getattr(part, "ndim", 0) == 0 for part in got):
            raise Wrong("One image, or one label, comes back, where all that stay are expected.")
        _name_keep(got, keep)
        if digit != 8 and any(isinstance(part, torch.Tensor) and len(part) == len(images) for part in got):
            raise Wrong(f"The digit {digit} is still there, so the model is trained on what it should not know.")
        if same(got[0], images[~keep]) and digit != 8:
            raise Wrong(f"Only the digit {digit} is left: it should be the one that is missing.")
        if len(got[0]) == len(images) - 1 != int(keep.sum()):
            raise Wrong(
                f"One image is taken out, the one at position {digit}: all images of the *class* {digit} should be."
            )
        for name, part, whole in (("images", got[0], images), ("labels", got[1], labels)):
            what = f"The tensor of {name} without the digit {digit}"
            expect_tensor(what, part, whole[keep].shape, "those that stay", whole.dtype)
            if not same(part, whole[keep]):
                raise Wrong(
                    f"The {name} that stay are others than those whose label is not {digit}, in the same order."
                )


def _name_keep(got, keep):
    """Raise Wrong where keep is no row of True and False, as what it picks shows."""
    images, labels = got
    if isinstance(images, torch.Tensor) and images.ndim == 5:
        raise Wrong("keep does not hold one True or False for each image, (N,): compare labels with digit by !=.")
    if isinstance(labels, torch.Tensor) and labels.dtype == torch.bool:
        raise Wrong("keep itself is returned, where the labels that it picks are expected.")
    if len(images) == len(keep) and len(images.unique(dim=0)) <= 2:
        raise Wrong("keep holds whole numbers, which pick rows by their position: True and False are expected.")


def _judge_auroc(auroc):
    for normal, anomalous in (
        (torch.randn(40), torch.randn(13) + 1.2),
        (torch.tensor([2.0, 4, 4, 1, 7, 5, 3]), torch.tensor([4.0, 6, 5, 9, 1])[torch.randperm(5)]),
        (torch.tensor([1.0, 2.0]), torch.tensor([3.0])),
        (torch.tensor([5.0, 5.0, 5.0]), torch.tensor([5.0, 5.0])),
        (torch.tensor([4.0, 6, 5, 9, 1]), torch.tensor([2.0, 4, 4, 1, 7, 5, 3])),
    ):
        intact = unchanged(normal=normal, anomalous=anomalous)
        got = auroc(normal, anomalous)
        intact()
        above = (anomalous[:, None] > normal).double()
        equal = (anomalous[:, None] == normal).double()
        right = (above + 0.5 * equal).mean()
        got = torch.tensor(got, dtype=torch.float64) if isinstance(got, float | int) else got
        _name(got, right, _wrong_areas(normal, anomalous, above, equal))
        expect_tensor("auroc(normal, anomalous)", got, (), "one number from 0 to 1")
        if not same(got, right):
            sizes = f"{len(normal)} normal and {len(anomalous)} anomalous scores"
            sizes += ", some of them equal," if equal.any() else ""
            raise Wrong(f"For {sizes} that is not the share of pairs{_seen(got, right)}")


def _wrong_areas(normal, anomalous, above, equal):
    pairs, right = above.numel(), (above + 0.5 * equal).mean()
    if right < 0.5:  # only here do these two differ from the right answer, and other mistakes were seen before
        yield 1 - right, "An area below one half is turned round: leave it, it says that the score misleads"
        yield right.clamp(min=0.5), "An area below one half is raised to it: leave it, it says that the score misleads"
    yield above + 0.5 * equal, "That is one number per pair: their mean is asked for"
    yield 100 * right, "That is a percentage: a share from 0 to 1 is asked for"
    yield right.round(decimals=2), "The share is rounded: that can wait until it is printed"
    yield (above - 0.5 * equal).mean(), "The ties are subtracted, and should be added"
    yield (above + 1.5 * equal).mean(), "above holds the ties as well: a tie then counts one and a half"
    yield (1.5 * above + 0.5 * equal).mean(), "equal holds the pairs that are above as well"
    yield (0.5 + 0.5 * above).mean(), "equal holds every pair that is not above"
    yield (0.5 + above - 0.5 * equal).mean(), "equal holds the pairs that are *not* equal"
    yield (anomalous.mean() > normal.mean()).double(), "It is all or nothing: the share of *all pairs* is asked for"
    yield above.mean(), "A tie counts nothing here, and should count one half"
    yield (above + equal).mean(), "A tie counts as found here, and should count one half"
    yield (1 - above - 0.5 * equal).mean(), "The two have changed places: how often is the *anomalous* score higher"
    yield (1 - above - equal).mean(), "The two have changed places, and a tie should count one half"
    yield (1 - above).mean(), "The two have changed places, and a tie should count one half"
    yield (above + 0.5 * equal).sum(), f"That is the number of pairs: divide by how many there are, {pairs}"
    for count in (len(normal), len(anomalous)):
        yield (above + 0.5 * equal).sum() / count, f"The pairs are divided by {count}, but there are {pairs}"
    yield 0.5 * (above + equal).mean(), "Only ties count one half: a pair that is above counts whole"
    yield above.mean() + 0.5 * equal.sum(), "The ties are summed, not averaged: the share of pairs that are equal"
    yield anomalous.double().mean() - normal.double().mean(), "That is a difference of means: compare all pairs"
    yield (anomalous > normal.mean()).double().mean(), "Only the mean of the normal scores is compared: all pairs"
    yield (anomalous.mean() > normal).double().mean(), "Only the mean of the anomalous scores is compared: all pairs"


def judge_excess(excess_surprise):
    for count, others in ((9, 6), (6, 6)):
        train_outline, outline = uniform(20, 90, count), uniform(10, 120, others)
        outline[:2] = torch.tensor([15, 115])  # one is far below the line, one far above
        train, given = 3 * train_outline - 400 + uniform(-60, 60, count), 75 - 6 * outline + uniform(-60, 60, others)
        intact = unchanged(train_surprise=train, train_outline=train_outline, surprise=given, outline=outline)
        got = excess_surprise(train, train_outline, given, outline)
        intact()
        line = _line(train_outline, train)
        right = given - line(outline)
        _name(got, right, _wrong_excess(train, train_outline, given, outline))
        expect_tensor("excess_surprise(...)", got, (others,), "one number per image to be scored", given.dtype)
        if not got.isfinite().all() or got.abs().max() > 1e9:
            raise Wrong("The slope is divided by a sum of differences from their mean, which is 0: square them first.")
        if not same(got, right):
            raise Wrong(f"That is not how far the images lie above the line of the training images{_seen(got, right)}")


def _line(across, up):
    """Return the least-squares line of up against across, as a function."""
    rows = torch.stack([torch.ones_like(across), across], dim=1)
    start, slope = torch.linalg.lstsq(rows, up[:, None]).solution[:, 0]
    return lambda values: start + slope * values


def _wrong_excess(train, train_outline, given, outline):
    line, own = _line(train_outline, train), _line(outline, given)
    centred, up, level = train_outline - train_outline.mean(), train - train.mean(), train.mean()
    excess, slope, steps = given - line(outline), (centred @ up) / (centred @ centred), outline - train_outline.mean()
    like = "simple images score low, whether they belong or not: compare with the line"
    lost = "The sign is lost: an image below the line is *less* surprising than expected."
    yield given, f"That is the surprise itself: {like}."
    yield given - level, f"Only the mean surprise is subtracted, the slope is missing, or comes out as 0: {like}."
    yield line(outline), "That is what the line says: how far the surprise lies above it is asked for."
    yield -excess, "The sign is turned: an image above the line is *more* surprising than expected."
    yield given - own(outline), "The line is fitted to the images to be scored: fit it to the training images."
    yield excess.abs(), lost
    yield excess.pow(2), lost
    yield excess.clamp(min=0), "What lies below the line is raised to 0: how far below matters as well."
    yield excess.sort().values, "The scores are sorted, so that nobody knows whose they are."
    for spread in (train, given):
        yield excess / spread.std(), "The difference is divided by a spread: it is asked for in nats."
    yield excess / line(outline), "The difference is divided by what the line says: it is asked for in nats."
    yield given + line(outline), "What the line says is added: a difference is asked for."
    yield given - line(outline).mean(), "The mean of the line is subtracted: each image has its own place on it."
    yield given / line(outline), "The surprise is divided by what the line says: a difference is asked for."
    yield train - line(train_outline), "The training images are scored: score surprise and outline."
    yield given - slope * outline, "The line goes through the origin: it goes through the means, s-bar and a-bar."
    yield given - level - slope * outline, "The mean outline is not subtracted: the line goes through both means."
    yield given - slope * steps, "The mean surprise is missing from what the line says."
    yield given - level + slope * steps, "The slope has the wrong sign."
    theirs = "of the images to be scored: the line goes through the means of the training images."
    yield given - level - slope * (outline - outline.mean()), f"The outline is compared with the mean {theirs}"
    yield given - given.mean() - slope * steps, f"The line is given the mean surprise {theirs}"
    yield given - given.mean() - slope * (outline - outline.mean()), f"Both means are those {theirs}"
    for other, hint in _wrong_slopes(train, train_outline, given, outline):
        yield given - level - other * steps, hint


def _wrong_slopes(train, train_outline, given, outline):
    centred, up, count = train_outline - train_outline.mean(), train - train.mean(), len(train)
    product, square, across = centred @ up, centred @ centred, outline - outline.mean()
    root = "The slope is divided by a root, of the sum of squares or of the variance: by the sum itself."
    mixed = "A mean over N and one over N - 1 are mixed in the slope: the same on both sides."
    squared = "The mean of the outline is not subtracted before it is squared."
    yield (across @ given) / (across @ across), "The slope is that of the images to be scored: use the training images."
    yield (up / centred).mean(), "The slope is the mean of the ratios: divide the sums."
    yield (up / centred).sum(), "The slope is a sum of ratios: divide the sums."
    yield up.std() / centred.std(), "The slope is a ratio of two spreads: the products of the differences are missing."
    yield (centred * train - train.mean()).sum() / square, "The slope lacks brackets around a difference from the mean."
    yield square / product, "The slope is upside down, or divides: the sum of squares divides, the slope multiplies."
    yield product, "The slope is not divided by the sum of the squares."
    yield product / count, "The slope is not divided by the variance of the outline."
    yield product / square.sqrt() / count**0.5, root
    yield product / square.sqrt(), root
    yield product / (up @ up), "The slope is divided by the squares of the surprise: those of the outline divide."
    yield product / (square * (up @ up)).sqrt(), "The slope is a correlation: the spread of the surprise is in it."
    yield product / square / count, "The slope divides a mean by a sum: the same on both sides."
    yield product / square * count, "The slope divides a sum by a mean: the same on both sides."
    yield product / count / train_outline.var(), mixed
    yield product / (train_outline.sum() ** 2), "The slope squares the sum, where the squares are summed."
    yield product / (train_outline @ train_outline), squared
    yield (train_outline @ train) / (train_outline @ train_outline), "No mean is subtracted in the slope."


REMINDERS = {
    "4.1": "the log-density of a pixel is minus one half ln(2 pi), minus ln sigma, minus the squared difference over "
    "two sigma squared, added up over an image; elbo decodes a draw of z and subtracts the KL summed over D; mean_elbo "
    "adds up over all batches, in eval mode and without gradients, and divides once, by the number of images.",
    "4.2": "each draw has a z of its own, and ln p(x|z), ln p(z) and ln q(z|x) are all taken there; the bound is the "
    "logsumexp over the draws minus the logarithm of their number; groups of draws give bounds, which are averaged.",
    "4.3": "the class means come from the training codes, and the smallest distance wins; the probe sees detached "
    "codes, and takes an ordinary training step on the cross-entropy of its raw outputs.",
    "4.4": "keep the images whose label is another; compare every anomalous score with every normal one, count a "
    "larger one whole and an equal one half, and divide by the number of pairs.",
    "4.5": "slope and means come from the training images; subtract from each surprise what the line says at its "
    "outline.",
}

ELBO = (metrics.gaussian_log_likelihood, metrics.elbo, metrics.mean_elbo)
IWAE = (metrics.log_weights, metrics.iwae_bound, metrics.grouped_bound)
CLASSIFIERS = (metrics.nearest_mean, metrics.linear_probe)

check = Check(
    {
        "4.1": Exercise("the ELBO in nats", 15, judge=judge_elbo, finished=ELBO),
        "4.2": Exercise("the importance-weighted bound", 10, judge=judge_iwae, finished=IWAE),
        "4.3": Exercise("nearest mean and linear probe", 10, judge=judge_classifiers, finished=CLASSIFIERS),
        "4.4": Exercise("leave one out", 5, judge=judge_anomaly, finished=(metrics.without_class, metrics.auroc)),
        "4.5": Exercise("like with like", 5, judge=judge_excess, finished=(metrics.excess_surprise,)),
    },
    REMINDERS,
)
