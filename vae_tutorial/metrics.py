"""Measure a model: its likelihood and KL, what its codes say about the classes, how surprising it finds an image.

Shapes: N images in a set, B in a batch, D latent dimensions, C channels, H, W height and width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from vae_tutorial.latent import class_means
from vae_tutorial.loss import kl_divergence
from vae_tutorial.model import eval_mode, reparameterize


def gaussian_log_likelihood(x, recon, log_sigma):
    """Return ln p(x|z) of every image: each pixel is N(recon, sigma^2), all with the same sigma.

    x, recon: (B, C, H, W); log_sigma: ln sigma, a tensor of one number -> (B,), in nats, summed over C, H, W.
    Source: Kingma & Welling 2014, appendix C.2; Rybkin et al. 2021 for one learned sigma.
    """
    assert x.shape == recon.shape, f"x is {tuple(x.shape)}, but recon is {tuple(recon.shape)}"
    # the logarithm of the normal density of every pixel, constants included: (B, C, H, W)
    log_density = -0.5 * math.log(2 * math.pi) - log_sigma - 0.5 * ((x - recon) / log_sigma.exp()).pow(2)
    # independent pixels: the density of an image is the product of theirs, so its logarithm is: (B,)
    return log_density.flatten(1).sum(dim=1)


def elbo(model, x):
    """Return the ELBO of every image, estimated from one draw of z each.

    model: encoder, decoder and log_sigma; x: (B, C, 32, 32) in [-1, 1] -> (B,), in nats, summed over pixels
    and D.
    z is sampled in train mode and in eval mode. The mode changes only BatchNorm.
    Source: Kingma & Welling 2014, equation 7 with L = 1.
    """
    mu, logvar = model.encoder(x)  # (B, D) each
    # a draw of z, decoded; model(x) would decode mu in eval mode: (B, C, 32, 32)
    recon = model.decoder(reparameterize(mu, logvar))
    # the log-likelihood of x minus the KL divergence of its whole code: (B,)
    return gaussian_log_likelihood(x, recon, model.log_sigma) - kl_divergence(mu, logvar).sum(dim=1)


def mean_elbo(model, images, batch_size=500):
    """Return the mean ELBO of a set, as a float, in nats per image, in eval mode and without gradients.

    images: (N, C, 32, 32) in [-1, 1], on any device; the model's mode is restored.
    """
    device = next(model.parameters()).device
    # inside eval_mode(model), and without gradients, add up the ELBO of all images, batch after batch, each
    # brought to device; mean is the sum divided by the number of images: one number
    with eval_mode(model), torch.no_grad():
        total = sum(elbo(model, x.to(device)).sum() for x in images.split(batch_size))
    mean = total.item() / len(images)
    return mean


def log_weights(model, x, num_samples):
    """Return ln w = ln p(x|z) + ln p(z) - ln q(z|x) for several draws of z from q(z|x) per image.

    model: encoder, decoder and log_sigma; x: (B, C, 32, 32) in [-1, 1] -> (num_samples, B), in nats.
    Source: Burda et al. 2016, section 3.
    """
    mu, logvar = model.encoder(x)  # (B, D) each
    posterior, prior = Normal(mu, torch.exp(0.5 * logvar)), Normal(0, 1)
    rows = []
    for _ in range(num_samples):
        # a new draw for every image: (B, D)
        z = reparameterize(mu, logvar)
        # ln p(x|z) of each image: (B,)
        log_likelihood = gaussian_log_likelihood(x, model.decoder(z), model.log_sigma)
        # ln p(z) - ln q(z|x), of all D dimensions together: (B,)
        log_ratio = (prior.log_prob(z) - posterior.log_prob(z)).sum(dim=1)
        rows.append(log_likelihood + log_ratio)
    return torch.stack(rows)


def iwae_bound(log_w):
    """Return the logarithm of the mean weight of every image.

    log_w: (K, B), ln w of K draws -> (B,), in nats.
    Source: Burda et al. 2016, section 3.
    """
    # ln of the sum of K weights, minus ln K: (K, B) -> (B,)
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


def grouped_bound(log_w, group_size):
    """Return the mean of the bounds of K / group_size groups of draws, one group after another.

    log_w: (K, B) -> (B,), in nats. When the group size doubles, it never falls, for any image (Jensen).
    """
    assert len(log_w) % group_size == 0, f"{len(log_w)} draws cannot be cut into groups of {group_size}"
    # the draws, cut into groups of group_size: K / group_size tensors of (group_size, B)
    groups = log_w.split(group_size)
    # the bound of every group, averaged over the groups: (B,)
    return torch.stack([iwae_bound(group) for group in groups]).mean(dim=0)


def kl_by_sampling(mu, logvar, num_samples):
    """Estimate KL(N(mu, diag(exp(logvar))) || N(0, I)) for every image of a batch, from draws of z.

    mu, logvar: (B, D) -> (B,), in nats: the sum over D, the mean over num_samples draws.
    Source: Kingma & Welling 2014, section 2.3: a Monte Carlo estimate of the expectation over q(z|x).
    """
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    # a Gaussian per entry, with the mean mu and the variance exp(logvar): (B, D)
    posterior = Normal(mu, torch.exp(0.5 * logvar))
    # draws from the posterior: (num_samples, B, D)
    z = posterior.sample((num_samples,))
    # ln q(z|x) - ln p(z), for whole codes: (num_samples, B)
    log_ratio = (posterior.log_prob(z) - prior.log_prob(z)).sum(dim=2)
    # the average over the draws: (B,)
    return log_ratio.mean(dim=0)


def active_units(mu, threshold=0.01):
    """Count the latent dimensions whose posterior mean changes from image to image.

    mu: (N, D), the posterior means of N images -> int, from 0 to D.
    Source: Burda et al. 2016, section 5.2.
    """
    # the variance of every dimension over the images: (D,)
    variance = mu.var(dim=0)
    # how many of them are above the threshold
    return int((variance > threshold).sum())


def marginal_entropy(probabilities):
    """Return the entropy of a classifier's average prediction.

    probabilities: (N, K), rows that sum to 1 -> a number, in nats: 0 where all are of one class,
    ln K where the K classes are equally common.
    Source: Salimans et al. 2016, section 4, where it is the entropy of p(y).
    """
    # the mean over the images: (K,)
    average = probabilities.mean(dim=0)
    # minus the sum of p ln p over the classes, with 0 ln 0 = 0: one number
    return torch.special.entr(average).sum()


def thickness(images):
    """Return the thickness of the strokes in pixels: twice the inked area over the length of its outline.

    images: (N, 1, H, W) in [-1, 1] -> (N,); nan for a black image, inf for any other image of one colour.
    """
    # how much ink there is on each pixel, from 0 for black (-1) to 1 for white (1): (N, H, W)
    ink = (images[:, 0] + 1) / 2
    across = ink[:, 1:, 1:] - ink[:, 1:, :-1]  # how it changes from the left: (N, H - 1, W - 1)
    down = ink[:, 1:, 1:] - ink[:, :-1, 1:]  # and from above: (N, H - 1, W - 1)
    # the length of the slope (across, down), summed over each image: (N,)
    outline = (across.pow(2) + down.pow(2)).sqrt().sum(dim=(1, 2))
    # twice the sum of the ink of each image, over its outline: (N,)
    return 2 * ink.sum(dim=(1, 2)) / outline


def nearest_mean(train_codes, train_labels, codes):
    """Return for every code the class whose mean code is closest.

    train_codes: (M, D), train_labels: (M,), every class from 0 to 9 among them; codes: (N, D) -> (N,), int64.
    """
    # the mean training code of every class: (10, D)
    means = class_means(train_codes, train_labels)
    # the distance from every code to every mean: (N, 10)
    distances = torch.cdist(codes, means)
    # the class with the smallest distance: (N,)
    return distances.argmin(dim=1)


def linear_probe(codes, labels, num_classes=10, num_steps=200, lr=0.02):
    """Return a linear layer from codes to classes, trained on all codes; the encoder is not trained.

    codes: (N, D), labels: (N,) from 0 to num_classes - 1 -> nn.Linear(D, num_classes), on their device.
    Source: Alain & Bengio 2017.
    """
    # the same numbers without their history: no gradient flows back through them: (N, D)
    codes = codes.detach()
    labels = labels.to(codes.device)
    probe = nn.Linear(codes.shape[1], num_classes, device=codes.device, dtype=codes.dtype)
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr)
    for _ in range(num_steps):
        # F.cross_entropy, which applies the softmax, of the probe's answer to codes, and labels: one number
        loss = F.cross_entropy(probe(codes), labels)
        # clear the old gradients, compute the new ones, change the weights
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe


def fit_probe(probe, codes, labels, steps=100):
    """Teach a classifier to tell the class from the code; return it.

    probe: codes (N, D) -> scores (N, K), one a class, changed in place; labels: (N,) from 0 to K - 1.
    All codes are used in every step. Source: Alain & Bengio 2017, for linear probes.
    """
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.02)
    for _ in range(steps):
        # the cross-entropy between the probe's scores and the labels, mean over the codes: one number
        loss = F.cross_entropy(probe(codes), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe


def accuracy(probe, codes, labels):
    """Return the share of codes, from 0 to 1, for which the class with the highest score is the right one.

    probe: codes (N, D) -> scores (N, K), one a class; labels: (N,) from 0 to K - 1.
    """
    with torch.no_grad():
        scores = probe(codes)
    # the class with the highest score, of every code: (N,)
    predicted = scores.argmax(dim=1)
    # the share of codes where that is the label: one number
    return (predicted == labels).float().mean().item()


def without_class(images, labels, digit):
    """Return (images, labels) of all images but those of one digit, in the same order.

    images: (N, C, H, W), labels: (N,) -> (M, C, H, W), (M,).
    """
    # True for the images that stay: (N,)
    keep = labels != digit
    # the images and the labels that stay: (M, C, H, W), (M,)
    return images[keep], labels[keep]


def auroc(normal, anomalous):
    """Return how often an anomalous score is higher than a normal one, over all pairs; a tie counts one half.

    normal: (N,), anomalous: (M,) -> a number from 0 to 1; 0.5 is guessing.
    Source: Hanley & McNeil 1982: the area under the ROC curve is the Mann-Whitney statistic.
    """
    # each anomalous score against each normal one; above and equal are True or False: (M, N)
    above = anomalous[:, None] > normal[None, :]
    equal = anomalous[:, None] == normal[None, :]
    # the share of the pairs that are above, plus half the share of those that are equal: one number
    return (above.float().mean() + 0.5 * equal.float().mean()).item()


def excess_surprise(train_surprise, train_outline, surprise, outline):
    """Return how far the surprise of images lies above the line that the training images' surprise follows.

    train_surprise, train_outline: (M,), surprise, outline: (N,) -> (N,), in nats.
    The line is the least-squares fit of train_surprise against train_outline.
    """
    centred = train_outline - train_outline.mean()  # (M,)
    # the slope of the line, from the training images: one number
    slope = (centred * (train_surprise - train_surprise.mean())).sum() / centred.pow(2).sum()
    # what the line says of each image: (N,)
    expected = train_surprise.mean() + slope * (outline - train_outline.mean())
    # how far each lies above it: (N,)
    return surprise - expected
