"""The checks of notebook 02: the autoencoder, its samples and their entropy, KL by sampling, the ELBO, active units."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal

from vae_tutorial import latent, loss, metrics
from vae_tutorial.checks import Check, Exercise, Wrong
from vae_tutorial.checks.compare import (
    StubDecoder,
    StubEncoder,
    WatchedDecoder,
    check_gradients,
    expect_refusal,
    expect_tensor,
    kind_of_code,
    name_mistake,
    name_prior,
    name_total,
    number,
    on_meta,
    same,
    unchanged,
    uniform,
)
from vae_tutorial.model import Autoencoder, Decoder, Encoder

GPU = "makes a tensor on the CPU, which fails as soon as the model is on a GPU: make it on the device of its input."

# 2.1 noise and KL taken away


def judge_without(autoencoder, decode_same, marginal_entropy):
    _judge_autoencoder(autoencoder)
    _judge_decode_same(decode_same)
    _judge_marginal_entropy(marginal_entropy)


def _judge_autoencoder(autoencoder):
    for training in (True, False):
        encoder, decoder = StubEncoder(), StubDecoder()
        net = autoencoder(encoder, decoder).train(training)
        encoder.train(not training), decoder.train(not training)
        got = net(torch.zeros(2000, 1, 32, 32))
        if encoder.calls != 1 or len(decoder.seen) != 1:
            calls = f"the encoder {encoder.calls} times and the decoder {len(decoder.seen)} times"
            raise Wrong(f"forward calls {calls}: once each.")
        kind, mode = kind_of_code(decoder.seen[0], encoder), "train" if training else "eval"
        if kind == "a sample":
            raise Wrong(f"In {mode} mode a sample is decoded, but an autoencoder has no noise: mu itself is decoded.")
        if kind != "mu":
            raise Wrong(f"In {mode} mode {kind} is decoded, where mu is expected.")
        if net.training is not training or encoder.training is training or decoder.training is training:
            raise Wrong("forward changes the mode of the model or of its parts: leave it as it is.")
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"forward returns {type(got).__name__}, where the three of recon, mu, logvar are expected.")
        if not (same(got[0], 3 * encoder.mu + 1) and same(got[1], encoder.mu) and same(got[2], encoder.logvar)):
            raise Wrong("recon must be what the decoder makes of mu, as it is; mu and logvar come after it.")
        check_gradients(got[0].sum(), (3 * encoder.mu + 1).sum(), {"mu": encoder.mu}, "recon")
    one = autoencoder(Encoder(1, 2, 3), Decoder(1, 2, 3)).eval()(torch.zeros(1, 1, 32, 32))[0]
    expect_tensor("recon of a single image", one, (1, 1, 32, 32), "like x")


def _judge_decode_same(decode_same):
    for count, latent_dim, training in ((1000, 6, True), (5, 9, False)):
        decoders = {name: WatchedDecoder(latent_dim).train(training) for name in ("one", "two")}
        before = {n: {k: v.clone() for k, v in d.net.state_dict().items()} for n, d in decoders.items()}
        images = decode_same(decoders, count, latent_dim)
        if not isinstance(images, dict) or list(images) != list(decoders):
            raise Wrong("decode_same must return {name: images}, with the names of the decoders: keep the other lines.")
        if silent := [name for name, decoder in decoders.items() if not decoder.seen]:
            raise Wrong(f"The decoder {silent[0]!r} is never called: every one of them decodes z.")
        codes = {name: _code_of(name, decoder, count, latent_dim) for name, decoder in decoders.items()}
        if not all(torch.equal(z, codes["one"]) for z in codes.values()):
            raise Wrong("Every decoder gets draws of its own, and a difference may be luck: draw z once, for all.")
        for name, decoder in decoders.items():
            if not all(torch.equal(before[name][key], value) for key, value in decoder.net.state_dict().items()):
                raise Wrong("decode_same changes a decoder's weights or statistics: decode in eval mode.")
            expect_tensor(f'images["{name}"]', images[name], (count, 1, 32, 32), "one image per z", torch.float32)
            if images[name].requires_grad:
                raise Wrong("The images carry a gradient: keep the line @torch.no_grad().")
            if any(module.training for module in decoder.modules()):
                raise Wrong("A decoder is back in train mode at the end: leave it in eval mode.")
            if not same(images[name], decoder.net(codes[name])):
                raise Wrong("The images are not what the decoder makes of z: hand them out as they are, and leave z.")
        if latent_dim == 6:
            name_prior(codes["one"])
        if same(images["one"], decode_same(decoders, count, latent_dim)["one"]):
            raise Wrong("Two calls give the same images: seed once, at the top, not inside the function.")
    meta = {name: WatchedDecoder(6).to("meta") for name in ("one", "two")}
    on_meta(lambda: decode_same(meta, 2, 6), f"decode_same {GPU}")
    if decode_same({"one": WatchedDecoder(6).double()}, 2, 6)["one"].dtype != torch.float64:
        raise Wrong("With weights of type float64 the images are of another type: z takes its dtype from weight.")


def _code_of(name, decoder, count, latent_dim):
    """Raise Wrong unless the decoder was called once, in eval mode, with z of the right shape; return z."""
    if len(decoder.seen) > 1:
        raise Wrong(f"The decoder {name!r} is called {len(decoder.seen)} times: once, with all of z.")
    z = decoder.seen[0]
    if z.shape != (count, latent_dim):
        wanted = f"(num_samples, latent_dim) is {count, latent_dim}"
        raise Wrong(f"The decoder gets z of shape {tuple(z.shape)}, where {wanted}.")
    if any(decoder.modes):
        raise Wrong("z is decoded in train mode, where BatchNorm makes strokes even of ghosts: eval mode first.")
    return z


SOFTMAX = "The probabilities go through a softmax again: they add up to 1 already"


def _judge_marginal_entropy(marginal_entropy):
    for rows, classes in ((40, 7), (9, 3)):
        p = torch.softmax(3 * uniform(-1, 1, rows, classes) + torch.arange(classes) / 2, dim=1)
        intact = unchanged(probabilities=p)
        got, average = _tensor(marginal_entropy(p), p), p.mean(dim=0)
        intact()
        right, single = torch.special.entr(average).sum(), torch.special.entr(p)
        per_row = torch.special.entr(p.mean(dim=1)).sum()
        mistakes = [
            (single.sum(1).mean(), "That is the mean entropy of the single answers: average the answers first"),
            (single.sum(), "That adds up the entropies of the single answers: average the answers first"),
            (single.mean(), "Entropies of single answers are averaged: average the answers first, and add up after"),
            (-right, "The entropy is never negative, the sign is wrong: p ln p needs a minus, entr has it already"),
            (right / math.log(2), "That is in bits, with the logarithm to base 2: nats take the natural logarithm"),
            (right / math.log(10), "That is with the logarithm to base 10: nats take the natural logarithm"),
            (right / math.log(classes), f"That is divided by ln {classes}: the entropy itself is asked for"),
            (right / classes, "The terms of the classes are averaged, where they are added up"),
            (right.exp(), "That is e to the entropy: the entropy itself is asked for"),
            (per_row, "The average runs over the classes, where it should run over the images (dim=0)"),
            (-average.log().sum(), "Each ln p must be multiplied by its p before the sum"),
            (-average.log().mean(), "Each ln p must be multiplied by its p, and then added up"),
            (
                right - single.sum(1).mean(),
                "The mean entropy of the single answers is subtracted: leave it out, the average alone is asked for",
            ),
            (torch.special.entr(p.sum(dim=0)).sum(), "The answers are added up, not averaged: divide by the images"),
            (torch.special.entr(p.softmax(1).mean(0)).sum(), SOFTMAX),
            (torch.special.entr(average.softmax(0)).sum(), SOFTMAX),
            (
                torch.special.entr(p.sum(0) / classes).sum(),
                f"The answers are divided by {classes}, the number of classes, not of images",
            ),
            (
                torch.special.entr(F.one_hot(p.argmax(1), classes).double().mean(0)).sum(),
                "The most likely classes are counted: average the probabilities",
            ),
            (torch.special.entr(p.mean()), "The mean runs over everything: over the images alone, dim=0"),
            (1 - average.pow(2).sum(), "That is one minus the sum of squares, not the entropy"),
        ]
        seen = f" (it gives {number(got)}, not {right:.4f})."
        name_mistake(got, right, mistakes, seen)
        if same(got, torch.special.entr(average)):
            raise Wrong("marginal_entropy is a number per class: add them up.")
        expect_tensor("marginal_entropy(probabilities)", got, (), "one number, in nats")
        if not same(got, right):
            raise Wrong(f"marginal_entropy is not the entropy of the average answer{seen}")
        expect_tensor("marginal_entropy(probabilities)", got, (), "one number, in nats", p.dtype)
    one_class = torch.zeros(6, 5, dtype=torch.float64).index_fill_(1, torch.tensor([2]), 1.0)
    got = _tensor(marginal_entropy(one_class), one_class)
    if not got.isfinite():
        raise Wrong(f"When a class never occurs marginal_entropy gives {got.item()}: 0 ln 0 counts as 0.")
    if not same(got, torch.zeros_like(got), 1e-3):
        raise Wrong(f"When all images are of one class marginal_entropy must be 0, and it is {got.item():.3f}.")
    meta = torch.empty(6, 5, device="meta")
    on_meta(lambda: marginal_entropy(meta), f"marginal_entropy {GPU}")


def _tensor(value, like):
    """A number that .item() made, as a tensor again: it is as good."""
    return torch.tensor(value, dtype=like.dtype) if isinstance(value, float) else value


# 2.2 the KL by sampling


MANY = 4000


def judge_kl_by_sampling(kl_by_sampling):
    for batch, dims in ((3, 5), (4, 2)):
        mu, logvar = uniform(-2, 2, batch, dims), uniform(-3, 1.5, batch, dims)
        intact = unchanged(mu=mu, logvar=logvar)
        got = kl_by_sampling(mu, logvar, MANY)
        intact()
        _name_estimate(kl_by_sampling, got, mu, logvar)
    _judge_draws(kl_by_sampling)
    meta = torch.empty(3, 5, device="meta")
    Normal.set_default_validate_args(False)  # it would look at numbers, which tensors on the meta device have not
    try:
        on_meta(lambda: kl_by_sampling(meta, meta, 7), f"kl_by_sampling {GPU}")
    finally:
        Normal.set_default_validate_args(__debug__)


def _name_estimate(kl_by_sampling, got, mu, logvar):
    """Raise Wrong unless got is near the closed form; name the closed form of the wrong formula that it is near to."""
    batch, dims = mu.shape
    entries = loss.kl_divergence(mu, logvar)
    right = entries.sum(dim=1)
    for value, hint in _reductions(entries):
        if (
            isinstance(got, torch.Tensor)
            and got.shape == value.shape
            and _near(got, value)
            and value.shape != right.shape
        ):
            raise Wrong(hint)
    if isinstance(got, torch.Tensor) and got.ndim == 2 and batch in got.shape and MANY in got.shape:
        raise Wrong(f"The result has shape {tuple(got.shape)}, a number per draw: average over the draws.")
    if isinstance(got, torch.Tensor) and got.shape == (MANY,):
        raise Wrong(
            "The result has a number per draw, and the images are averaged: average over dimension 0, the draws."
        )
    expect_tensor("kl_by_sampling(...)", got, (batch,), "one estimate per image", mu.dtype)
    seen = f" (for an image of KL {right[0]:.2f} it gives {got[0].item():.2f})."
    for value, hint in _wrong_estimates(mu, logvar, entries):
        if _near(got, value) and not _near(got, right):
            raise Wrong(f"{hint}{seen}")
    if got.isnan().any():
        raise Wrong(f"The estimate is nan: is a root or a logarithm taken of a negative number{seen}")
    if not _near(got, right):
        _judge_draws(kl_by_sampling, biased=False)
        raise Wrong(f"{MANY:,} draws must come close to the closed form, and they do not{seen}")


def _near(got, value):
    return bool(((got - value).abs() < 0.12 + 0.03 * value.abs()).all())


def _reductions(entries):
    yield entries, "kl_by_sampling gives a number per dimension: the log-probability of a code is the sum over D."
    yield entries.sum(), "kl_by_sampling is summed over the batch as well: one number per image."
    yield entries.sum(1).mean(), "kl_by_sampling is averaged over the batch as well: one number per image."
    yield entries.mean(), "kl_by_sampling is averaged over everything: sum over D, average over the draws alone."
    yield entries.sum(0), "kl_by_sampling adds up the images: in (num_samples, B, D) the dimensions are dimension 2."
    yield entries.mean(0), "kl_by_sampling averages over the images: average over the draws, dimension 0."


def _wrong_estimates(mu, logvar, entries):
    """The expectations of what students write; log-probabilities of Gaussians are quadratic, so each has a formula."""
    kl, dims = entries.sum(1), mu.shape[1]
    variance = logvar.exp()
    entropy = (0.5 * (1 + math.log(2 * math.pi) + logvar)).sum(1)
    cross = (0.5 * (math.log(2 * math.pi) + mu**2 + variance)).sum(1)
    yield -kl, "A KL divergence is never negative: it is ln q minus ln p, not ln p minus ln q"
    yield kl / dims, f"Log-probabilities add up over the dimensions of a code: this is D = {dims} times too small"
    yield -entropy, "ln p(z) is missing: subtract the prior's log-probability"
    yield cross, "ln q(z|x) is missing: it is the difference of two log-probabilities"
    yield -cross, "ln q(z|x) is missing: it is the difference of two log-probabilities"
    yield -entropy - cross, "The two log-probabilities are added, where their difference is asked for"
    for std, given in _wrong_deviations(logvar):
        yield _kl(mu, std), f"Normal takes the standard deviation, and {given}"
    yield _kl(0 * mu, variance.sqrt()), "mu is missing: the posterior lies around mu"
    outside = Normal(torch.zeros_like(mu), 1.0)
    drawn_from_prior = (-0.5 * logvar - (1 + mu**2) / (2 * variance) + 0.5).sum(1)
    yield drawn_from_prior, "z is drawn from the prior: the expectation is over the posterior, q(z|x)"
    yield -drawn_from_prior, "z is drawn from the prior: the expectation is over the posterior, q(z|x)"
    at_mu = (Normal(mu, variance.sqrt()).log_prob(mu) - outside.log_prob(mu)).sum(1)
    yield at_mu, "z is mu itself, and nothing is drawn: the expectation is over draws"
    yield kl * MANY, "The draws are added up: take their mean"
    yield kl / math.log(2), "That is in bits: nats take the natural logarithm, as log_prob does"
    yield kl.exp(), "The ratio of the probabilities is averaged, where their logarithms are"


def _wrong_deviations(logvar):
    yield logvar.exp(), "the variance is given: take its root"
    yield (2 * logvar).exp(), "exp(2 * logvar) is given: take half of logvar, not twice"
    yield logvar.exp() / 2, "half the variance is given: the half belongs in the exponent"
    yield (logvar / 4).exp(), "the root is taken twice"
    yield (-0.5 * logvar).exp(), "one over it is given: a sign too many in the exponent"
    yield torch.ones_like(logvar), "1 is given: logvar is never used"


def _kl(mu, std):
    return (0.5 * (mu**2 + std**2 - 1) - std.log()).sum(1)


def _judge_draws(kl_by_sampling, biased=True):
    """Raise Wrong unless the estimate is the mean of num_samples draws, each of its own for every image and dimension.

    1,000 images have one posterior, so that the mean and the spread of their estimates are known; biased says whether
    to name a wrong mean, too.
    """
    mu, logvar = torch.full((1000, 8), 0.1, dtype=torch.float64), torch.full((1000, 8), -0.3, dtype=torch.float64)
    right = loss.kl_divergence(mu, logvar)[0].sum()
    few, again = kl_by_sampling(mu, logvar, 2), kl_by_sampling(mu, logvar, 2)
    if torch.equal(few, again):
        exact = same(few, right.expand(1000))
        way = "it is the closed form, but the estimate is asked for" if exact else "seed once, at the top"
        raise Wrong(f"Two calls give the same number: {way}.")
    if few.std() < 1e-6 * few.abs().mean():
        raise Wrong("All images get the same noise: each has draws of its own.")
    if (few.mean() - right).abs() > 5 * few.std() / 1000**0.5:
        if biased:
            off = f"On average over 1,000 images, 2 draws give {few.mean():.3f}, and the KL is {right:.3f}"
            raise Wrong(f"{off}: is the sum divided by another number than that of the draws, or cut off at 0?")
        return
    z = 0.1 + torch.randn(40_000, 8, dtype=torch.float64) * math.exp(-0.15)
    single = (Normal(0.1, math.exp(-0.15)).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1).std()
    ratio = float(few.std() / (single / 2**0.5))
    if 2.4 < ratio < 3.3:
        raise Wrong("All dimensions of a code get the same noise: each has a number of its own.")
    if ratio > 1.2:
        raise Wrong(f"2 draws are as noisy as {2 / ratio**2:.1f} should be: draw num_samples independent codes.")
    if ratio < 0.85:
        raise Wrong(f"2 draws are as exact as {2 / ratio**2:.0f} should be: draw num_samples codes, not more.")


# 2.3 the ELBO


def judge_elbo(elbo_loss, equivalent_beta):
    _judge_elbo_loss(elbo_loss)
    _judge_equivalent_beta(equivalent_beta)


def _judge_elbo_loss(elbo_loss):
    recon, x = uniform(-1, 1, 5, 3, 16, 16).requires_grad_(), uniform(-0.4, 1, 5, 3, 16, 16)
    for beta, size in ((0.3, 1.0), (2.5, 0.1)):
        mu, logvar = (size * uniform(-3, 3, 5, 7)).requires_grad_(), (size * uniform(-4, 3, 5, 7)).requires_grad_()
        intact = unchanged(recon=recon, x=x, mu=mu, logvar=logvar)
        got = elbo_loss(recon, x, mu, logvar, beta)
        intact()
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"elbo_loss returns {type(got).__name__}, where the loss and its two parts are expected.")
        squared, kl = (recon - x).pow(2), loss.kl_divergence(mu, logvar)
        error, rate = 0.5 * squared.flatten(1).sum(1).mean(), kl.sum(1).mean()
        if same(got[1], rate) and (same(got[2], error) or same(got[0], error)):
            raise Wrong("The order is loss, half_squared_error, kl: keep the last line.")
        _name_error(got[1], recon - x, error, error + beta * rate)
        _name_rate(got[2], kl, rate, beta)
        name_total(got[0], error, rate, beta)
        check_gradients(got[0], error + beta * rate, {"recon": recon, "mu": mu, "logvar": logvar}, "elbo_loss")
    if not same(elbo_loss(recon, x, mu, logvar)[0], loss.elbo_loss(recon, x, mu, logvar)[0]):
        raise Wrong("elbo_loss without a beta must use 1.0: keep the default in the first line.")
    expect_refusal("elbo_loss", lambda: elbo_loss(recon[:, :1], x, mu, logvar))


def _name_error(got, signed, error, total):
    squared, batch, pixels = signed.pow(2), len(signed), signed[0].numel()
    seen = f" (it gives {number(got)}, not {error:.4f})."
    mistakes = [
        (2 * error, "The half is missing: -ln p(x|z) of a Gaussian with variance 1 is half the squared error"),
        (squared.mean(), "That is the mean over the pixels: the squared error of an image is summed"),
        (0.5 * squared.mean(), "That is the mean over the pixels: the squared error of an image is summed"),
        (error * batch / pixels, "Pixels are averaged and images added up: it is the other way round"),
        (error / 2, "The half is there twice, or squared as well: half the square, not the square of the half"),
        (0.5 * signed.flatten(1).sum(1).pow(2).mean(), "The errors are added up and then squared: square each first"),
        (error * batch, "The images of the batch are added up: the mean over the batch is asked for"),
        (2 * error * batch, "The half is missing, and the images are added up: the mean over the batch is asked for"),
        (0.5 * squared.sum(1).mean(), "The sum runs over the channels alone: over height and width, too"),
        (0.5 * squared.flatten(2).sum(2).mean(), "The sum runs over height and width alone: over the channels, too"),
        (0.5 * squared.sum(3).mean(), "The sum runs over one dimension alone: flatten(1) joins all of an image"),
        (error / batch, "The batch is divided by twice"),
        (-error, "The squared error has the wrong sign: it is a negative log-probability"),
        (error.sqrt(), "A root is taken, where the squared error is asked for"),
        (0.5 * squared.sqrt().flatten(1).sum(1).mean(), "That is the absolute error: square it"),
        (error / pixels, "The sum over the pixels is divided by their number again"),
        (512 * squared.mean(), "512 is N / 2 for 1024 pixels alone: this image has others"),
        (error + pixels / 2 * math.log(2 * math.pi), "The constant N/2 ln 2 pi is in it: leave it out"),
        (total, "half_squared_error is changed in place: make a new number for the loss"),
    ]
    name_mistake(got, error, mistakes, seen)
    expect_tensor("half_squared_error", got, (), "one number: summed over an image, averaged over the batch")
    if not same(got, error):
        raise Wrong(
            f"half_squared_error is not half the squared error, summed over an image, averaged over the batch{seen}"
        )


def _name_rate(got, kl, rate, beta):
    batch, dims = kl.shape
    seen = f" (it gives {number(got)}, not {rate:.4f})."
    mistakes = [
        (kl.mean(), "The KL is averaged over D, but the squared error is summed: reduce both terms in the same way"),
        (kl.sum(), "The images of the batch are added up: the mean over the batch is asked for"),
        (kl.sum(0).mean(), "The KL is summed over the batch and averaged over D: it is the other way round"),
        (0.5 * rate, "The KL is halved once too often: the 0.5 is in kl_divergence already"),
        (2 * rate, "The KL is twice too large: its 0.5 is missing"),
        (beta * rate, "beta weighs the KL in the sum only: the third value is the KL without it"),
        (-rate, "The KL is negative, which it never is: a sign too many"),
        (rate / batch, "The batch is divided by twice"),
    ]
    name_mistake(got, rate, mistakes, seen)
    if same(got, kl.sum(1)):
        raise Wrong("kl is a number per image: take the mean over the batch.")
    expect_tensor("kl", got, (), "one number: summed over D, averaged over the batch", kl.dtype)
    if not same(got, rate):
        raise Wrong(f"kl is not the KL divergence of mu and logvar, summed over D, averaged over the batch{seen}")


def _judge_equivalent_beta(equivalent_beta):
    for beta, pixels, dims in ((0.3, 3 * 20 * 17, 7), (2.0, 11, 5), (0.1, 1024, 128)):
        got, right = equivalent_beta(beta, pixels, dims), beta * pixels / (2 * dims)
        if isinstance(got, torch.Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, bool) or not isinstance(got, int | float):
            raise Wrong(f"equivalent_beta gives a {type(got).__name__}, where a number is expected.")
        wrong = {
            beta * pixels / dims: "The 2 is missing: the loss is multiplied by N / 2, to make half the squared error",
            beta * pixels / 2: "D is missing: the mean KL is the summed one divided by D",
            beta * dims / (2 * pixels): "N and D have changed places",
            beta * 2 * dims / pixels: "That is turned over: N stands above the line, 2 D below it",
            2 * dims / (beta * pixels): "That is turned over: what stands above the line is beta and N",
            beta * pixels * dims / 2: "D divides: the mean KL is the summed one divided by D",
            pixels / (2 * dims): "beta itself is missing",
            2 * beta * pixels / dims: "The 2 belongs below the line",
            beta * pixels / 2 / dims**2: "D divides once only",
            beta * dims / 2: "N is missing: multiplied by N / 2, the mean squared error becomes half the sum",
            beta / (2 * dims): "N is missing: multiplied by N / 2, the mean squared error becomes half the sum",
            beta / dims: "N is missing: multiplied by N / 2, the mean squared error becomes half the sum",
            51.2 / dims: "51.2 is right for beta = 0.1 and 1024 pixels alone: use the arguments",
            beta * 1024 / (2 * dims): "1024 is typed in where num_pixels belongs",
            0.1 * pixels / (2 * dims): "0.1 is typed in where beta belongs",
            beta * pixels // (2 * dims): "What is behind the point is dropped: / divides, // and int(...) round down",
            round(right, 1): "That is rounded: give the number as it is",
            round(right, 2): "That is rounded: give the number as it is",
            beta * pixels / 2 * dims: "a / 2 * b multiplies by b: put 2 * latent_dim in brackets",
        }
        seen = f" (for beta {beta}, N = {pixels}, D = {dims} it gives {got:.8g}, not {right:.8g})."
        for value, hint in wrong.items():
            if math.isclose(got, value, rel_tol=1e-5) and not math.isclose(got, right, rel_tol=1e-5):
                raise Wrong(f"{hint}{seen}")
        if not math.isclose(got, right, rel_tol=1e-5):
            raise Wrong(f"With that beta the two losses differ{seen}")


# 2.4 active units


def judge_active_units(active_units):
    counts, cases = [], []
    for count, spreads in ((400, (0.02, 0.3, 1.5, 0.05, 0.2, 3.0, 0.0)), (50, (0.05, 0.8, 2.0))):
        spread = torch.tensor(spreads)
        means = torch.linspace(-2.2, 2.6, len(spreads)) if count == 400 else torch.tensor([-2.0, 0.0, 9.0])
        mu = torch.randn(count, len(spreads))
        mu = (mu - mu.mean(0)) / mu.std(0) * spread + means
        for threshold in (0.01, 0.5):
            intact = unchanged(mu=mu)
            got = active_units(mu) if threshold == 0.01 else active_units(mu, threshold)
            intact()
            counts.append(_as_count(got, mu))
            cases.append((mu, threshold))
    _name_counts(counts, cases)
    for dtype in (torch.float64, torch.float16):
        if int(active_units(mu.to(dtype))) != 2:
            raise Wrong(f"With codes of type {dtype} the count changes.")
    on_meta(lambda: active_units(torch.empty(9, 4, device="meta")), f"active_units {GPU}")


LARGE = "The size of mu is compared, where its variance is meant: a constant mean is not activity"
COUNTS = {
    "The standard deviation is compared, where the variance is meant": [lambda mu, t: mu.std(0) > t],
    "That counts the dimensions below the threshold: active ones are above": [lambda mu, t: ~(mu.var(0) > t)],
    "The variance runs over the dimensions: over the images it is dim=0": [lambda mu, t: mu.var(1) > t],
    "All dimensions are counted: only those whose variance is above the threshold": [lambda mu, t: mu.var(0) >= 0],
    LARGE: [
        lambda mu, t: mu.pow(2).mean(0) > t,
        lambda mu, t: mu.abs().mean(0) > t,
        lambda mu, t: mu.mean(0).pow(2) > t,
        lambda mu, t: mu.mean(0) > t,
        lambda mu, t: mu.mean(0).abs() > t,
        lambda mu, t: mu.abs().amax(0) > t,
    ],
    "Single entries are counted: first the variance of every dimension": [lambda mu, t: mu > t],
    "0.01 is typed in where threshold belongs": [lambda mu, t: mu.var(0) > 0.01],
    "All dimensions get one answer together: one variance for every dimension, dim=0, and count those above": [
        lambda mu, t: mu.var() > t
    ],
    "One mean of all numbers is subtracted: the variance of a dimension takes its own, dim=0": [
        lambda mu, t: (mu - mu.mean()).pow(2).mean(0) > t
    ],
    "It says whether all are active, not how many are: .sum() counts": [lambda mu, t: (mu.var(0) > t).all()],
    "The range is compared, where the variance is meant": [lambda mu, t: mu.amax(0) - mu.amin(0) > t],
    "The squares are added up, where the variance is their mean": [lambda mu, t: mu.var(0) * (len(mu) - 1) > t],
}


def _as_count(got, mu):
    """Raise Wrong unless got is one number; return it."""
    if isinstance(got, torch.Tensor) and got.shape == mu.shape[1:]:
        raise Wrong("active_units gives an entry per dimension: count the ones that are above the threshold.")
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    if not isinstance(got, int | float):
        raise Wrong(f"active_units gives a {type(got).__name__}, where a whole number is expected.")
    return got


def _name_counts(counts, cases):
    """Raise Wrong unless every count is that of the dimensions above the threshold; a hint must fit all of them."""
    right = [int((mu.var(0) > threshold).sum()) for mu, threshold in cases]
    if counts == right:
        return
    case = next(i for i, (got, want) in enumerate(zip(counts, right, strict=True)) if got != want)
    mu, threshold = cases[case]
    variances = [round(v, 3) for v in mu.var(0).tolist()]
    seen = f" (with variances {variances} and threshold {threshold} it gives {counts[case]:g}, not {right[case]})."
    for hint, masks in COUNTS.items():
        if any(counts == [int(mask(mu, t).sum()) for mu, t in cases] for mask in masks):
            raise Wrong(f"{hint}{seen}")
    raise Wrong(f"That is not the number of dimensions whose variance is above the threshold{seen}")


REMINDERS = {
    "2.1": "mu goes into the decoder; z is drawn once, before the loop; each decoder is put in eval mode and decodes "
    "z; marginal_entropy averages over the images first and takes the entropy of that average.",
    "2.2": "Normal takes mu and the standard deviation; draw from the posterior; subtract the prior's log-probability "
    "from the posterior's, add up over dimension 2, average over dimension 0.",
    "2.3": "half the squared error and the KL are both summed over an image and averaged over the batch; the beta of "
    "the sums is beta times N, divided by 2 D.",
    "2.4": "take the variance of each column of mu, and count those above the threshold.",
}

WITHOUT = (Autoencoder, latent.decode_same, metrics.marginal_entropy)

check = Check(
    {
        "2.1": Exercise("noise and KL taken away", 15, judge=judge_without, finished=WITHOUT),
        "2.2": Exercise("the KL by sampling", 10, judge=judge_kl_by_sampling, finished=(metrics.kl_by_sampling,)),
        "2.3": Exercise("the ELBO", 15, judge=judge_elbo, finished=(loss.elbo_loss, loss.equivalent_beta)),
        "2.4": Exercise("active units", 10, judge=judge_active_units, finished=(metrics.active_units,)),
    },
    REMINDERS,
)
