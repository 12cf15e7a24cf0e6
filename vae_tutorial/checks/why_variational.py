"""The checks of notebook 02: the autoencoder, its samples and their entropy, KL by sampling, the ELBO, active units."""

import contextlib
import copy

import torch
from torch import Tensor
from torch.distributions import Normal

from vae_tutorial import latent, loss, metrics, model
from vae_tutorial.checks import Check, Exercise, looking
from vae_tutorial.checks.comparing import Near, alike, brief, same, times
from vae_tutorial.checks.engine import Lesson, clue, holds, must, should
from vae_tutorial.checks.looking import (
    call,
    gradients,
    named,
    noise,
    portable,
    returned,
    uniform,
    untouched,
    value_of,
)

# 2.1 noise and KL taken away


def observe_autoencoder(Autoencoder):
    x, image = torch.zeros(1024, 1, 32, 32), torch.zeros(1, 3, 32, 32)
    parts = [(mode, looking.StubEncoder(), looking.StubDecoder()) for mode in ("train", "eval")]
    real = model.Encoder(3, 2, 4), model.Decoder(3, 2, 4)
    for mode, encoder, decoder in parts:
        net = Autoencoder(encoder, decoder).train(mode == "train")
        encoder.train(mode == "eval")
        got = net(x)
        calls = f"the encoder {times(encoder.calls)} and the decoder {times(len(decoder.seen))}"
        yield holds((encoder.calls, len(decoder.seen)) == (1, 1), f"forward calls {calls}: call each once.")
        left = net.training is decoder.training is (mode == "train") is not encoder.training
        yield holds(left, "forward changes the mode of the model or of a part of it: leave the modes as they are.")
        net(x)
        yield must(f"In {mode} mode, what is decoded", code_of(decoder), read_code, mode=mode, encoder=encoder)
        yield from returned("forward", got, ("recon", "mu", "logvar"), {"mu": encoder.mu, "logvar": encoder.logvar})
        if isinstance(got[0], Tensor):
            yield from gradients("recon", got[0], {"mu": encoder.mu})
    yield must("recon of a single image", Autoencoder(*real).eval()(image)[0].detach(), unit="like x")
    far, double = Autoencoder(*copy.deepcopy(real)).to("meta"), Autoencoder(*copy.deepcopy(real)).double()
    yield from portable(Autoencoder, lambda: far(image.to("meta")), lambda: double(image.double())[0])


def code_of(decoder):
    """Return the code that two passes decoded, or the word noise where they decoded different ones."""
    one, other = decoder.seen
    return "noise" if isinstance(one, Tensor) and not same(one, other) else value_of(one)


def read_code(got, _, mode, encoder):
    if isinstance(got, str):
        return f"In {mode} mode there is noise in what is decoded, but an autoencoder has none: mu itself is expected."
    variance = encoder.logvar.exp()
    said = named(got, {"logvar": encoder.logvar, "the variance": variance, "std": variance.sqrt()})
    return said and f"In {mode} mode {said} is decoded, where mu is expected."


def observe_decode_same(decode_same):
    sizes = ((1024, 8), (5, 9), (1, 4))
    groups = [{name: looking.WatchedDecoder(dims).train(name == "one") for name in ("one", "two")} for _, dims in sizes]
    for decoders, (count, dims) in zip(groups, sizes, strict=True):
        afterwards = [looking.unharmed("decoder", decoder, training=False) for decoder in decoders.values()]
        images = error = None
        try:
            images = decode_same(decoders, count, dims)
        except Exception as raised:
            error = raised
        yield from observe_codes(decoders, count, dims, error)
        fits = isinstance(images, dict) and list(images) == list(decoders)
        other = "a dictionary with other keys" if isinstance(images, dict) else brief(images)
        yield holds(fits, f"decode_same returns {other}, where {{name: images}} for every decoder is expected.")
        if not fits:
            return
        for (name, decoder), after in zip(decoders.items(), afterwards, strict=True):
            left = not any(part.training for part in decoder.modules())
            yield holds(left, "A decoder is in train mode at the end, where eval mode is expected.")
            yield from after()
            made = f"images[{name!r}] is not what that decoder makes of z: keep its output as it comes."
            yield holds(alike(images[name], decoder.net(all_codes(decoder))), made)
            carries = "The images carry a gradient: put the line @torch.no_grad() back."
            yield holds(not images[name].requires_grad, carries)
    z = all_codes(groups[0]["one"])
    yield must("Of z, the", noise(z), lambda *_: looking.read_noise(z, "z"))
    decode_same(groups[0], 1024, 8)
    anew = not same(all_codes(groups[0]["one"])[1024:], z)
    yield holds(anew, "Two calls decode the same z: draw it anew in every call.")
    yield from looking.own_generator(decode_same, lambda: decode_same(groups[2], 1, 4))
    far, double = {"one": looking.WatchedDecoder(6).to("meta")}, {"one": looking.WatchedDecoder(6).double()}
    yield from portable(decode_same, lambda: decode_same(far, 2, 6), lambda: decode_same(double, 2, 6)["one"])


def observe_codes(decoders, count, dims, error):
    """Yield what every decoder was given, and in which mode, in a call that may have ended with an error."""
    given = [z for decoder in decoders.values() for z, _ in decoder.notes]
    odd = [brief(z) for z in given if not isinstance(z, Tensor) or z.shape[1:] != (dims,)]
    wanted = f"z of shape (num_samples, latent_dim), here {count, dims}, is expected"
    yield holds(not odd, f"A decoder gets {''.join(odd[:1])}, where {wanted}.")
    if error:
        raise error
    silent = [name for name, decoder in decoders.items() if not decoder.notes]
    yield holds(not silent, f"The decoder {''.join(silent[:1])!r} is never called: every decoder should decode z.")
    mixes = "z is decoded in train mode, where BatchNorm mixes the samples of a batch: put the decoder in eval mode."
    yield holds(not any(training for decoder in decoders.values() for _, training in decoder.notes), mixes)
    one, *others = map(all_codes, decoders.values())
    yield holds(len(one) == count, f"{len(one)} codes are decoded, where num_samples = {count} are expected.")
    luck = "The decoders do not get the same codes, so a difference of their images may be luck: draw z once, for all."
    yield holds(all(alike(z, one) for z in others), luck)


def all_codes(decoder):
    return torch.cat([z for z, _ in decoder.notes]).detach()


CODE_ROWS = (
    ("self.decoder(mu)", "self.decoder(mu, logvar)", "The decoder takes one code, and gets mu and logvar."),
)  # fmt: skip
SAME_ROWS = (
    ("decoder.eval()(z)", "decoder.eval(z)", "eval takes no argument. decoder.eval() gives the decoder back, and z goes into that."),
    ("images[name] = decoder.eval()(z)", "images = decoder.eval()(z)", "The images take the place of the dictionary: images[name] is expected."),
)  # fmt: skip


def observe_marginal_entropy(marginal_entropy):
    tables = [torch.softmax(uniform(-3, 3, n, k) + torch.arange(k) / 2, dim=1) for n, k in ((40, 7), (9, 3))]
    never, one = torch.softmax(uniform(-1, 1, 6, 5).index_fill(1, torch.tensor(3), -1e9), dim=1), torch.eye(5)[[2] * 6]
    entropy = plain(marginal_entropy)
    for p in tables:
        got = yield from call("marginal_entropy(probabilities)", entropy, probabilities=p)
        if not alike(got, metrics.marginal_entropy(p).item()):
            return  # what else is wrong names no other mistake
    zero = "marginal_entropy is right where every class occurs, but not where one never does: 0 ln 0 counts as 0."
    yield must("marginal_entropy where a class never occurs", entropy(never), zero)
    certain = "marginal_entropy should be 0 where all images are of one class: 0 ln 0 and 1 ln 1 are both 0."
    yield holds(abs(entropy(one)) < 1e-3, certain)
    yield from portable(marginal_entropy, lambda: marginal_entropy(torch.empty(6, 5, device="meta")))


def plain(function):
    """Return the function with its result as a float, where it is one number, whatever holds it."""

    def run(*given):
        result = function(*given)
        if not isinstance(result, bool | str) and getattr(result, "dtype", None) != torch.bool:
            with contextlib.suppress(TypeError, ValueError, RuntimeError):
                return float(result)
        return result

    return run


AVERAGE, ENTROPY = "probabilities.mean(dim=0)", "torch.special.entr(average).sum()"
SINGLE = "torch.special.entr(probabilities)"
ENTROPY_ROWS = (
    (ENTROPY, f"{SINGLE}.sum(dim=1).mean()", "This is the mean entropy of the single answers: average the answers first."),
    (ENTROPY, f"{ENTROPY} - {SINGLE}.sum(dim=1).mean()", "The mean entropy of the single answers is subtracted: the entropy of their average alone is expected."),
    (ENTROPY, f"-{ENTROPY}", "The sign is wrong: an entropy is never negative."),
    (ENTROPY, f"{ENTROPY} / math.log(2)", "This is in bits: nats take the natural logarithm."),
    (ENTROPY, f"{ENTROPY} / math.log(10)", "The logarithm is to base 10: nats take the natural logarithm."),
    (ENTROPY, "-(probabilities * average.log()).sum()", "The sum runs over the images as well: it should run over the classes of the average alone."),
    (ENTROPY, f"{ENTROPY} / math.log(len(average))", "The entropy is divided by ln K, its largest value: leave it in nats."),
    (ENTROPY, f"0 * {ENTROPY}", "marginal_entropy is 0, though several classes occur: take p ln p of every class, and add up after that."),
    (ENTROPY, "-average.log().sum()", "Every ln p should be multiplied by its p before the sum."),
    (AVERAGE, "probabilities.mean(dim=1)", "The average runs over the classes: it should run over the images, dim=0."),
    (AVERAGE, "probabilities.sum(dim=0) / probabilities.shape[1]", "The answers are divided by the number of classes: divide by that of the images."),
    (AVERAGE, "torch.eye(probabilities.shape[1])[probabilities.argmax(dim=1)].mean(dim=0)", "Only the likeliest class of each image is counted: average the probabilities."),
)  # fmt: skip


# 2.2 the KL by sampling


def observe_kl_by_sampling(kl_by_sampling):
    mu, logvar = uniform(-2, 2, 512, 3), uniform(-4, 2.5, 512, 3)
    alone = torch.full((512, 8), 0.1), torch.full((512, 8), -0.3)
    far = torch.tensor([[-5.0, 5.0, 5.0]] * 512), torch.tensor([[-6.0, -6.0, 4.0]] * 512)
    exact = loss.kl_divergence(mu, logvar).sum(dim=1)
    usual = facts_of(exact + spread_of(mu, logvar) * torch.randn(512) / 8, mu, logvar, 64)
    after = untouched("kl_by_sampling", mu=mu, logvar=logvar)
    got = kl_by_sampling(mu, logvar, 64)
    yield from after()
    yield holds(isinstance(got, Tensor) and got.shape == (512,), read_sizes(got))
    closed = "The result is the closed form of exercise 1.1: draw z, and average over the draws."
    yield holds(not same(got, exact), closed)
    one, other = (errors_of(kl_by_sampling(*alone, 16), *alone, 16) for _ in range(2))
    shared = "Images with the same posterior get the same estimate: each image needs draws of its own."
    yield holds(not one.std() < 1e-3, shared)
    facts, known = facts_of(got, mu, logvar, 64), dict(estimate=got, mu=mu, logvar=logvar)
    yield must("Of the estimates for 512 images, the", facts, read_estimate, **known)
    if not alike(facts, usual):
        return  # what else is wrong names no other mistake
    yield must("Of the errors where all images have one posterior, the", noise(one), read_spread, errors=one, draws=16)
    anew = "Two calls use the same draws: draw z anew in every call."
    yield must("Of the difference of two calls, the", noise((one - other) / 2**0.5), anew)
    cut = "kl_by_sampling is right for moderate numbers, but not at mu = -5 or 5, logvar = -6 or 4: clamp nothing."
    yield must("Of the estimates far from 0, the", facts_of(kl_by_sampling(*far, 64), *far, 64), cut)
    few = kl_by_sampling(*alone, 1)
    finite = "With num_samples = 1 the result is nan or infinite: divide by num_samples alone."
    yield holds(few.isfinite().all(), finite)
    yield holds((few < 0).any(), "No estimate is negative, though one from few draws may well be: leave it as it is.")
    shape = tuple(kl_by_sampling(mu[:1, :1], logvar[:1, :1], 1).shape)
    yield holds(shape == (1,), f"For one image of one dimension the result has shape {shape}, where (1,) is expected.")
    yield from looking.own_generator(kl_by_sampling, lambda: kl_by_sampling(mu, logvar, 2))
    double = mu.double(), logvar.double()
    yield from portable(kl_by_sampling, lambda: on_meta(kl_by_sampling), lambda: kl_by_sampling(*double, 2))


def spread_of(mu, logvar):
    """Return the standard deviation of ln q(z|x) - ln p(z) for a z from q(z|x): (B,)."""
    return ((logvar.exp() - 1).pow(2) / 2 + mu.pow(2) * logvar.exp()).sum(dim=1).sqrt()


def errors_of(estimate, mu, logvar, draws):
    """Return the errors of estimates (B,), in units of the size that chance gives them, as noise (B / 8, 8)."""
    off = estimate - loss.kl_divergence(mu, logvar).sum(dim=1)
    return (off / spread_of(mu, logvar) * draws**0.5).reshape(-1, 8)


def facts_of(estimate, mu, logvar, draws):
    """Describe estimates (B,) by what is known of them, whatever drew z."""
    off = spread_of(mu, logvar).pow(2).mean().sqrt().item() / (draws * len(mu)) ** 0.5
    sums = {"mu^2": mu.pow(2), "logvar": logvar, "exp(logvar)": logvar.exp()}
    sums = {key: term.sum(dim=1).reshape(-1, 8) for key, term in sums.items()}
    average = {"average": Near(estimate.mean().item(), 8 * off)}
    return average | noise(errors_of(estimate, mu, logvar, draws), **sums)


def on_meta(kl_by_sampling):
    """Call it with tensors on the meta device, which have no numbers for Normal to look at."""
    Normal.set_default_validate_args(False)
    try:
        return kl_by_sampling(torch.empty(3, 5, device="meta"), torch.empty(3, 5, device="meta"), 7)
    finally:
        Normal.set_default_validate_args(__debug__)


def read_sizes(got):
    """Say what a result of another shape is, for 64 draws, B = 512 and D = 3."""
    said = {
        (): ", one number for the whole batch",
        (64,): ", one number per draw: average over the draws, dimension 0, and not over the images",
        (64, 512): ", one number per draw and image: average over the draws",
        (512, 3): ", one number per image and dimension: add up the dimensions of a code",
        (3,): ", one number per dimension: of (num_samples, B, D), the dimensions of a code are dimension 2",
    }.get(tuple(getattr(got, "shape", (0,))), "")
    return f"kl_by_sampling returns {brief(got)}{said}. A tensor of shape (B,) is expected, one estimate per image."


def read_estimate(_, __, estimate, mu, logvar):
    """Read off many estimates what they are on average, as a sum of terms, or else how widely they scatter."""
    if not estimate.isfinite().all():
        return "The estimate is nan or infinite in places: look for the log or root of a number that is not positive."
    right = {"mu^2": 0.5, "logvar": -0.5, "exp(logvar)": 0.5, "1": -0.5}
    terms = {"mu^2": mu**2, "logvar": logvar, "exp(logvar)": logvar.exp(), "1": torch.ones_like(mu)}
    terms |= {"exp(-logvar)": (-logvar).exp(), "mu^2 exp(-logvar)": mu**2 / logvar.exp()}
    terms["exp(2 logvar)"] = (2 * logvar).exp()
    sums = {key: term.sum(dim=1, keepdim=True) for key, term in terms.items()}
    has = looking.read_mean(estimate[:, None], sums, spread_of(mu, logvar)[:, None])
    if has.keys() == right.keys() and all(abs(has[key] - right[key]) < 0.2 for key in right):
        return read_spread(_, __, errors_of(estimate, mu, logvar, 64), 64)
    told = f"{looking.formula(has)}, added up over D, where {looking.formula(right)} is expected"
    return has and f"On average the estimate is about {told}."


def read_spread(_, __, errors, draws):
    seen = draws / errors.std().item() ** 2
    if 0.7 < seen / draws < 1.4:
        return None
    told = f"the average of about {max(seen, 1):,.0f} draws, where num_samples = {draws} are expected"
    return f"The estimates vary as if each were {told}: draw num_samples codes for each image, all of them independent."


POSTERIOR, DRAWS = "Normal(mu, torch.exp(0.5 * logvar))", "posterior.sample((num_samples,))"
LOGS, AVERAGED = "(posterior.log_prob(z) - prior.log_prob(z)).sum(dim=2)", "log_ratio.mean(dim=0)"
SAMPLING_ROWS = (
    (POSTERIOR, "Normal(mu, logvar.exp())", "The variance is used as standard deviation: give Normal the root of the variance."),
    (POSTERIOR, "Normal(mu, 0.5 * logvar.exp())", "Half the variance is used as standard deviation: the 0.5 belongs in the exponent."),
    (POSTERIOR, "Normal(mu, torch.exp(-0.5 * logvar))", "1 / std is used as standard deviation: look at the sign in the exponent."),
    (POSTERIOR, "Normal(mu, torch.exp(-logvar))", "1 / variance is used as standard deviation: in the exponent the sign is wrong, and a factor is missing."),
    (POSTERIOR, "Normal(mu, torch.exp(2 * logvar))", "exp(2 * logvar) is used as standard deviation: for a square root the exponent is halved."),
    (POSTERIOR, "Normal(mu, logvar.abs())", "logvar itself, without its sign, is used as standard deviation: it is a logarithm, and exp undoes that."),
    (POSTERIOR, "Normal(mu, torch.ones_like(mu))", "The posterior has variance 1 for every image: it should depend on logvar."),
    (POSTERIOR, "Normal(torch.zeros_like(mu), torch.exp(0.5 * logvar))", "The posterior has mean 0 for every image: it should depend on mu."),
    (DRAWS, "prior.sample((num_samples,))", "z is drawn from the prior: the expectation is over the posterior."),
    (DRAWS, "mu.expand(num_samples, *mu.shape)", "z is mu itself: it should be drawn from the posterior."),
    (DRAWS, "mu + torch.rand(num_samples, *mu.shape) * posterior.stddev", "The noise in z is uniform, as rand draws it: it should be standard normal."),
    (DRAWS, "posterior.sample()", "sample() draws once: give it the size (num_samples,)."),
    (DRAWS, "posterior.sample().expand(num_samples, *mu.shape)", "There is only one draw per image: num_samples are expected."),
    (DRAWS, "mu + torch.randn(num_samples, len(mu), 1) * posterior.stddev", "All dimensions of a code get the same noise: each needs a number of its own."),
    (LOGS, LOGS.replace("posterior.log_prob(z) - prior", "prior.log_prob(z) - posterior"), "The sign is wrong: which log-probability is subtracted?"),
    (LOGS, LOGS.replace("-", "+"), "The two log-probabilities are added: take their difference."),
    (LOGS, "posterior.log_prob(z).sum(dim=2)", "ln p(z) is missing: the difference of two log-probabilities is expected."),
    (LOGS, "-prior.log_prob(z).sum(dim=2)", "ln q(z|x) is missing: the difference of two log-probabilities is expected."),
    (LOGS, LOGS.replace("sum", "mean"), "The log-probabilities of the dimensions are averaged: that of a code is their sum."),
    (LOGS, f"{LOGS}.abs()", "log_ratio has lost its sign: for a single draw it may be negative."),
    (LOGS, LOGS.replace("posterior.log_prob(z)", "posterior.log_prob(mu)"), "ln q is taken at mu: both log-probabilities are those of the same draw z."),
    (AVERAGED, "log_ratio.sum(dim=0)", "The draws are added up: take their average."),
    (AVERAGED, "torch.logsumexp(log_ratio, dim=0) - math.log(num_samples)", "The ratios are averaged before the log is taken: average their logs."),
)  # fmt: skip


# 2.3 the ELBO


def observe_elbo_loss(elbo_loss):
    cases = (0.3, *batch(5, 7)), (2.5, *batch(3, 4))
    for beta, recon, x, mu, logvar in cases:
        leaves = {"recon": recon.requires_grad_(), "mu": mu.requires_grad_(), "logvar": logvar.requires_grad_()}
        after = untouched("elbo_loss", x=x, **leaves)
        got = elbo_loss(recon, x, mu, logvar, beta)
        yield from after()
        total, error, kl = (part.detach() for part in loss.elbo_loss(recon, x, mu, logvar, beta))
        if isinstance(got, tuple | list) and len(got) == 3:
            for name, one, entries in (("kl", got[2], mu.shape[1]), ("half_squared_error", got[1], 1024)):
                known = dict(name=name, batch=len(x), entries=entries, beta=beta, total=total)
                yield clue(name, value_of(one), read_term, **known)
            name = "half_squared_error"
            yield clue("loss", value_of(got[0]), looking.read_total, mse=error, kl=kl, beta=beta, error=name)
        yield from returned("elbo_loss", got, ("loss", "half_squared_error", "kl"))
        if isinstance(got[0], Tensor):
            yield from gradients("loss", got[0], leaves)
    default = "elbo_loss without a beta must use 1.0: keep the default in the first line."
    yield must("loss without a beta", value_of(elbo_loss(recon, x, mu, logvar)[0]), default)
    pairs = "elbo_loss takes recon and x of different shapes, and compares all pairs: put the line with assert back."
    yield holds(looking.refused(lambda: elbo_loss(recon[:1], x, mu, logvar)), pairs)
    fewer = "elbo_loss takes fewer codes than images: put the line with assert back."
    yield holds(looking.refused(lambda: elbo_loss(recon, x, mu[:1], logvar[:1])), fewer)
    colour = "this is right for images of one channel only. With three, it does not add up all pixels of an image."
    yield should("Three channels", in_colour(elbo_loss), colour, "1024|1_024|512|32|view|reshape|sum|mse")
    far, double = ([part.detach().to(kind) for part in (recon, x, mu, logvar)] for kind in ("meta", torch.float64))
    yield from portable(elbo_loss, lambda: elbo_loss(*far), lambda: elbo_loss(*double)[0])


def batch(size, dims):
    """Draw recon, x, mu and logvar."""
    images = uniform(-1, 1, size, 1, 32, 32), uniform(-0.4, 1, size, 1, 32, 32)
    return *images, uniform(-3, 3, size, dims), uniform(-4, 3, size, dims)


def in_colour(elbo_loss):
    """Tell whether the error is right for images of three channels."""
    recon, x, codes = torch.ones(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), torch.zeros(2, 3)
    try:
        return same(elbo_loss(recon, x, codes, codes)[1], torch.tensor(1536.0))
    except Exception:
        return False


def read_term(got, want, name, batch, entries, beta, total):
    """Read a wrong term of the loss by its size: entries are averaged that should be added up, or images added up."""
    if not isinstance(got, Tensor):
        return None
    if got.ndim:
        per = "one number per image" if got.shape == (batch,) else "where one number is expected"
        return f"{name} has shape {tuple(got.shape)}, {per}: add up each image, and average over the batch."
    axis, half = ("D", "the 0.5 is in kl_divergence") if name == "kl" else ("the pixels", "look at the factor 0.5")
    more = {1: "", 2: f"doubled ({half}), and ", 0.5: f"halved once too often ({half}), and "}
    sizes = {
        1: "otherwise right",
        -1: "of the wrong sign: the right one is never negative",
        1 / entries: f"averaged over {axis} as well: average over the batch alone",
        batch: "added up over the batch as well: average over the batch",
        batch / entries: f"averaged over {axis} and added up over the batch: it should be the other way round",
        1 / batch: "divided by the number of images once too often",
        beta: "multiplied by beta already: beta weighs the KL in loss only",
    }
    sizes = {size * factor: words + said for size, said in sizes.items() for factor, words in more.items()}
    changed = {"changed in place: it and loss are names of one tensor, so += and *= change both": total}
    said = looking.ratio(got, want, sizes) or named(got, changed)
    return said and f"{name} is {said} (it is {brief(got)}, where {brief(want)} is expected)."


ERROR, RATE = "0.5 * (recon - x).pow(2).flatten(1).sum(dim=1).mean()", "kl_divergence(mu, logvar).sum(dim=1).mean()"
RETURN = "return loss, half_squared_error, kl"
ELBO_ROWS = (
    (ERROR, ERROR.replace("pow(2)", "abs()"), "The absolute error stands where the squared one is expected."),
    (ERROR, ERROR.replace("pow(2).flatten(1).sum(dim=1)", "flatten(1).sum(dim=1).pow(2)"), "The errors are added up and then squared: square the error of each pixel first."),
    (ERROR, 'F.binary_cross_entropy((recon + 1) / 2, ((x + 1) / 2).clamp(0, 1), reduction="sum") / len(x)', "half_squared_error is a cross-entropy: half the squared error is expected."),
    (ERROR, "0 * kl_divergence(recon, x).sum()", "half_squared_error is 0: something is compared with itself."),
    (ERROR, f"{ERROR} + 512 * math.log(2 * math.pi)", "half_squared_error has the constant N/2 ln(2 pi) in it: leave it out."),
    (RATE, RATE.replace("mu, logvar", "logvar, mu"), "kl_divergence gets logvar first: it takes mu, then logvar."),
    (RATE, RATE.replace("mu, logvar", "recon, x"), "kl_divergence gets images: it takes mu and logvar."),
    (RETURN, "return half_squared_error, kl, loss", "The loss comes last: return loss, half_squared_error, kl, in this order."),
    (RETURN, "return loss, kl, half_squared_error", "half_squared_error and kl have changed places: return loss, half_squared_error, kl."),
)  # fmt: skip


def observe_equivalent_beta(equivalent_beta):
    for given in ((0.3, 3 * 20 * 17, 7), (2.0, 11, 5), (0.1, 1024, 128), (0.1, 11, 90)):
        yield must(f"equivalent_beta{given}", plain(equivalent_beta)(*given))


BETA = "beta * num_pixels / (2 * latent_dim)"
BETA_ROWS = (
    (BETA, "beta * (num_pixels // (2 * latent_dim))", "// rounds down: divide with /."),
    (BETA, "beta * num_pixels / latent_dim", "The 2 is missing: half the squared error is N / 2 times the mean one."),
    (BETA, "beta * num_pixels / 2 * latent_dim", "a / 2 * b multiplies by b, and D should divide: put 2 * latent_dim in brackets."),
    (BETA, "beta * num_pixels / 2", "D is missing: the mean KL is the summed one divided by D."),
    (BETA, "beta * latent_dim / (2 * num_pixels)", "N and D have changed places: vae_loss is multiplied by N / 2, and the mean KL is the summed one divided by D."),
    (BETA, "2 * beta * latent_dim / num_pixels", "Apart from beta, the fraction is upside down."),
    (BETA, "beta / (2 * latent_dim)", "N is missing: vae_loss is multiplied by N / 2."),
    (BETA, "beta / latent_dim", "N / 2 is missing: vae_loss is multiplied by it."),
    (BETA, "beta * 1024 / (2 * latent_dim)", "1024 is typed in where num_pixels belongs."),
    (BETA, "51.2 / latent_dim", "51.2 is right for beta = 0.1 and 1024 pixels only: use the arguments."),
    (BETA, "beta * num_pixels // (2 * latent_dim)", "The digits after the point are lost: / divides, but // and int round down."),
)  # fmt: skip


# 2.4 active units


def observe_active_units(active_units):
    spreads = [0.02, 0.3, 1.5, 0.05, 0.2, 3.0, 0.0], [0.4], [0.02, 0.05], torch.logspace(-3, 1, 80)
    cases = [torch.randn(count, len(spread)) for count, spread in zip((400, 2, 50, 400), spreads, strict=True)]
    cases = [(mu - mu.mean(dim=0)) / mu.std(dim=0) for mu in cases]
    cases = [
        mu * torch.as_tensor(spread) + uniform(-3, 3, len(spread)) for mu, spread in zip(cases, spreads, strict=True)
    ]
    for mu in cases:
        variances = [round(one, 3) for one in mu.var(dim=0).tolist()]
        for more in ({}, {"threshold": 0.5}):
            kinds = f"dimensions with variances {variances}" if len(variances) < 9 else "80 dimensions"
            name = f"active_units(mu{', 0.5' * len(more)}), for {kinds},"
            yield from call(name, plain(active_units), mu=mu, **more)
    yield from portable(active_units, lambda: active_units(torch.empty(9, 4, device="meta")))


VARIANCE, COUNT = "mu.var(dim=0)", "int((variance > threshold).sum())"
LARGE = "The size of mu is compared, but a large and constant mean says nothing about the image: take the variance."
ACTIVE_ROWS = (
    (VARIANCE, "mu.std(dim=0)", "The standard deviation is compared with the threshold, where the variance is expected."),
    (VARIANCE, "mu.var(dim=1)", "The variance runs over the dimensions: it should run over the images, dim=0."),
    (VARIANCE, "mu.var()", "There is one variance for all dimensions together: each should have its own, dim=0."),
    (VARIANCE, "(mu - mu.mean()).pow(2).mean(dim=0)", "The mean of all numbers is subtracted: the variance of a dimension takes that dimension's mean, dim=0."),
    (VARIANCE, "(mu - mu.mean(dim=0)).abs().mean(dim=0)", "The absolute deviation is compared with the threshold: the variance takes squares."),
    (VARIANCE, "(mu - mu.mean(dim=0)).mean(dim=0)", "No dimension counts as active, whatever mu is: the threshold is for a variance, and a variance is a mean of squares."),
    (VARIANCE, "mu.pow(2).mean(dim=0)", LARGE),
    (VARIANCE, "mu.abs().mean(dim=0)", LARGE),
    (VARIANCE, "mu.mean(dim=0)", LARGE),
    (VARIANCE, "(mu - mu.mean(dim=0)).pow(2).sum(dim=0)", "The squares are added up: the variance is their mean."),
    (VARIANCE, "mu", "Single entries are compared with the threshold: take the variance of every dimension first."),
    (COUNT, "int((variance < threshold).sum())", "The dimensions below the threshold are counted: the active ones are above it."),
    (COUNT, "int((variance > 0.01).sum())", "0.01 is typed in where threshold belongs."),
    (COUNT, "variance > threshold", "This is True or False for every dimension: count how often it is True."),
    (COUNT, "bool((variance > threshold).all())", "This says whether all dimensions are active, not how many are."),
    (COUNT, "len(variance > threshold)", "All dimensions are counted: count how often the comparison is True."),
    (VARIANCE, "mu.var(dim=0) / mu.var(dim=0).sum()", "The variances are divided by their sum: the threshold holds for the variance itself."),
    (COUNT, "int((variance > threshold).float().mean())", "This is the share of active dimensions, cut to a whole number: their number is expected."),
    (COUNT, "int(variance > threshold).sum()", "int takes one number: count first, and close the bracket of int after that."),
    (COUNT, "float((variance > threshold).float().mean())", "This is the share of active dimensions: their number is expected."),
)  # fmt: skip


check = Check(
    {
        "2.1": Exercise("noise and KL taken away", 15, (
            Lesson(model.Autoencoder, observe_autoencoder, CODE_ROWS, "The decoder gets mu, in both modes.", "forward"),
            Lesson(latent.decode_same, observe_decode_same, SAME_ROWS, "Draw z once, before the loop. Put each decoder in eval mode, and let it decode z."),
            Lesson(metrics.marginal_entropy, observe_marginal_entropy, ENTROPY_ROWS, "First average the answers over the images. Then take the entropy of that average."),
        )),
        "2.2": Exercise("the KL by sampling", 10, (
            Lesson(metrics.kl_by_sampling, observe_kl_by_sampling, SAMPLING_ROWS, "Draw from the posterior, whose standard deviation is the root of exp(logvar). Subtract ln p(z) from ln q(z|x), add up over D, and average over the draws."),
        )),
        "2.3": Exercise("the ELBO", 15, (
            Lesson(loss.elbo_loss, observe_elbo_loss, ELBO_ROWS, "Add up each image: half its squared errors, and its KLs. Then average over the batch."),
            Lesson(loss.equivalent_beta, observe_equivalent_beta, BETA_ROWS, "vae_loss is multiplied by N / 2. The mean KL in it is the summed KL divided by D."),
        )),
        "2.4": Exercise("active units", 10, (
            Lesson(metrics.active_units, observe_active_units, ACTIVE_ROWS, "Take the variance of each column of mu. Count those above the threshold."),
        )),
    }
)  # fmt: skip
