"""The checks of notebook 04: the ELBO, the importance-weighted bound, classifier probes, anomalies."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torch.optim.optimizer import register_optimizer_step_pre_hook

from vae_tutorial import metrics, model
from vae_tutorial.checks import Check, Exercise
from vae_tutorial.checks.comparing import brief, same
from vae_tutorial.checks.engine import Lesson, holds, must, should
from vae_tutorial.checks.looking import (
    StubEncoder,
    call,
    fails_elsewhere,
    fit,
    formula,
    gradients,
    named,
    noise,
    own_generator,
    portable,
    read_draw,
    refused,
    returned,
    unharmed,
    uniform,
    untouched,
    value_of,
)
from vae_tutorial.latent import class_means
from vae_tutorial.loss import kl_divergence
from vae_tutorial.metrics import gaussian_log_likelihood


def compare(has, wanted, name):
    """Say how a sum of terms, {term: factor}, differs from the wanted one."""
    called = {term: "the constant" if term == "1" else term for term in has | wanted}
    lacks, extra = ([called[t] for t in some if t not in other] for some, other in ((wanted, has), (has, wanted)))
    off = {term: has[term] / factor for term, factor in wanted.items() if has.get(term, factor) != factor}
    factor = "{} has the factor {:g}, where {:g} is expected"
    said = [
        f"{called[t]} has the wrong sign" if ratio == -1 else factor.format(called[t], has[t], wanted[t])
        for t, ratio in off.items()
    ]
    if len(off) == len(wanted) and len(set(off.values())) == 1 and not extra:
        said = [f"this is {off.popitem()[1]:g} times what is expected"]
    elif lacks and extra:
        said.append(f"{' and '.join(extra)} stands where {' and '.join(lacks)} is expected")
    else:
        said += [f"{term} is missing" for term in lacks] + [f"{term} does not belong there" for term in extra]
    return f"{name} is {formula(has)}: {' and '.join(said)}." if said else None


# 4.1 the ELBO


def observe_likelihood(log_likelihood):
    name, unit = "gaussian_log_likelihood(x, recon, log_sigma)", "one number per image"
    for signed in (1, -1):  # where log_sigma is negative, some mistakes only raise
        cases, results = [], []
        for at, size in enumerate((0.6, 0.3, 1.1, 1.7)):
            shape = (4, 1, 4, 3) if at % 2 else (4, 2, 5, 3)
            x, recon = uniform(-1, 1, *shape), uniform(-1, 0.4, *shape).requires_grad_()
            log_sigma = torch.tensor(signed * size, requires_grad=True)
            after = untouched(name, x=x, recon=recon, log_sigma=log_sigma)
            results.append(log_likelihood(x, recon, log_sigma))
            cases.append((x, recon.detach(), log_sigma.detach()))
            yield from after()
        for one in results:
            yield must(name, value_of(one), read_density, unit, results=results, cases=cases)
    yield from gradients("gaussian_log_likelihood", one, {"recon": recon, "log_sigma": log_sigma})
    far, recon = 3 * torch.ones(2, 1, 4, 4), -3 * torch.ones(2, 1, 4, 4)
    cut = "gaussian_log_likelihood is right for moderate numbers, but not far out: clamp nothing, stay in logarithms."
    yield must("gaussian_log_likelihood far out", log_likelihood(far, recon, torch.tensor(-5.0)), cut)
    clamped = "right for all but extreme numbers. A clamp has no gradient outside its range, and is not needed here."
    further = log_likelihood(far, recon, torch.tensor(-11.0))
    yield should("Further out", further, clamped, "clamp|clip|max|min|eps|nll")
    pairs = "x and recon of different shapes are taken, so PyTorch compares all pairs: keep the line that refuses them."
    yield holds(refused(lambda: log_likelihood(far[:, 0], recon, log_sigma)), pairs)
    meta, scalar = torch.empty(2, 1, 4, 4, device="meta"), torch.empty((), device="meta")
    double = far.double(), recon.double(), log_sigma.double()
    yield from portable(log_likelihood, lambda: log_likelihood(meta, meta, scalar), lambda: log_likelihood(*double))


def read_density(got, _, results, cases):
    """Read a wrong formula as a sum of known terms, from several sigmas and numbers of pixels."""
    if not all(isinstance(one, Tensor) and one.shape == (4,) for one in results):
        return None
    terms = {}
    for x, recon, log_sigma in cases:
        d, sigma = (x - recon).flatten(1).double(), log_sigma.double().exp()
        pixel, once = torch.ones_like(d), torch.ones(4, 1).double()
        parts = {"1": pixel, "ln sigma": pixel * sigma.log(), "sigma": pixel * sigma}
        parts |= {"(a constant once per image)": once, "(ln sigma once per image)": once * sigma.log()}
        scales = {" / sigma^2": -2, "": 0, " / sigma": -1, " / sigma^4": -4, " sigma^2": 2}
        parts |= {f"d^2{said}": d**2 * sigma**power for said, power in scales.items()}
        parts |= {f"|d|{said}": d.abs() * sigma**power for said, power in scales.items()}
        for term, part in parts.items():
            terms.setdefault(term, []).append(part.sum(1))
    terms = {term: torch.cat(parts) for term, parts in terms.items()}
    wanted = {"1": round(-0.5 * math.log(2 * math.pi), 3), "ln sigma": -1.0, "d^2 / sigma^2": -0.5}
    once = "(a constant once per image)", "(ln sigma once per image)"
    levels = ("ln sigma",), ("sigma",), ("ln sigma", once[0]), ("ln sigma", once[1]), ("ln sigma", *once)
    for level, square in itertools.product(levels, [term for term in terms if "d" in term]):  # few terms at a time
        if has := fit(torch.cat(results), {term: terms[term] for term in ("1", *level, square)}, 1e-4):
            return compare(has, wanted, "With d = x - recon, the log-density of a pixel")
    return None


PIXELS, CONSTANT = "log_density.flatten(1).sum(dim=1)", "-0.5 * math.log(2 * math.pi)"
DENSITY = f"{CONSTANT} - log_sigma - 0.5 * ((x - recon) / log_sigma.exp()).pow(2)"
LIKELIHOOD_ROWS = (
    (CONSTANT, "-math.log(2 * math.pi)", "The constant lacks its one half."),
    (CONSTANT, "-0.5 * math.log(math.pi)", "The constant is that of pi, where the formula has 2 pi."),
    (CONSTANT, "-0.5 * math.log(2) * math.pi", "The logarithm of 2 is multiplied by pi: the formula has the logarithm of 2 pi."),
    (CONSTANT, "-0.5 * math.log10(2 * math.pi)", "The constant has a logarithm to base 10: math.log is the natural one."),
    ("/ log_sigma.exp()", "/ log_sigma", "The difference is divided by log_sigma, which is only the logarithm of sigma."),
    (DENSITY, "Normal(recon, log_sigma).log_prob(x)", "log_sigma is taken for sigma: it is the logarithm of sigma."),
    (DENSITY, "Normal(recon, log_sigma.exp() ** 2).log_prob(x)", "The variance is taken for sigma: Normal takes the standard deviation."),
    (DENSITY, "Normal(recon, (0.5 * log_sigma).exp()).log_prob(x)", "log_sigma is taken for the logarithm of the variance: it is the logarithm of sigma."),
    (PIXELS, "log_density.flatten(1).mean(dim=1)", "The log-densities are averaged over the pixels: the formula adds them up."),
)  # fmt: skip


class Line(nn.Module):
    """A decoder that draws sin(z @ weight), and notes its codes."""

    def __init__(self, latent_dim):
        super().__init__()
        self.weight, self.seen = torch.randn(latent_dim, 12) / 4, []

    def forward(self, z):
        images = self.image(z)
        self.seen.append(z.detach().clone())
        return images

    def image(self, z):
        return torch.sin(z @ self.weight).view(len(z), 1, 3, 4)


def vae_of(encoder, decoder):
    net = model.VAE(encoder, decoder).eval()
    net.log_sigma = nn.Parameter(torch.tensor(-0.7))
    return net


def known_vae(count):
    """Return a VAE whose encoder knows its codes, with images, mu and logvar."""
    net = vae_of(StubEncoder(count, 16), Line(16))
    net.encoder.logvar = uniform(-5, 3, count, 16).requires_grad_()
    return net, uniform(-1, 1, count, 1, 3, 4), net.encoder.mu.detach(), net.encoder.logvar.detach()


def terms_at(z, net, x, mu, logvar):
    """Return what the ELBO and ln w of the images are made of, where z, (..., B, D), is decoded: (..., B) each."""
    images = net.decoder.image(z.flatten(0, -2)).view(*z.shape[:-1], *x.shape[1:])
    log_p = Normal(images, net.log_sigma.detach().exp()).log_prob(x).flatten(-3).sum(-1)
    q = Normal(mu, (0.5 * logvar).exp())
    terms = {"ln p(x|z)": log_p, "ln p(z)": Normal(0, 1).log_prob(z).sum(-1), "ln q(z|x)": q.log_prob(z).sum(-1)}
    terms |= {"ln p(mu)": Normal(0, 1).log_prob(mu).sum(-1), "ln q(mu|x)": q.log_prob(mu).sum(-1)}
    terms |= {"KL": kl_divergence(mu, logvar).sum(-1), "1": torch.ones(())}
    return {name: term.expand_as(log_p) for name, term in terms.items()}


def from_state(state, function, *args):
    """Call a function from a random state, so that two answers that draw in the same way draw the same numbers."""
    torch.set_rng_state(state)
    return function(*args)


def with_usual_draws(got, right, usual):
    """Return got as it would be with the finished version's draws: right is right with those of the answer."""
    fits = isinstance(got, Tensor) and got.shape == right.shape
    return usual.detach() + got.detach() - right if fits else value_of(got)


def read_terms(_, want, got, terms, wanted, name):
    has = fit(got, terms, 1e-4) if isinstance(got, Tensor) and got.shape == want.shape else None
    return has and compare(has, wanted, name)


WEIGHT = {"ln p(x|z)": 1.0, "ln p(z)": 1.0, "ln q(z|x)": -1.0}


def observe_estimate(answer, name, cases, wanted, unit):
    """Yield what an answer that decodes draws of z shows, one per image, or K of them; wanted: the terms that it adds."""
    start, finished = torch.get_rng_state(), getattr(metrics, name)
    for training, samples, (net, x, mu, logvar) in cases:
        usual = from_state(start, finished, net.train(training), x, *samples)
        net.decoder.seen.clear()
        after = untouched(name, x=x, mu=net.encoder.mu, logvar=net.encoder.logvar)
        got = from_state(start, answer, net, x, *samples)
        yield from after()
        kept = all(part.training is training for part in net.modules())
        yield holds(kept, f"{name} leaves the model, or a part of it, in another mode than it was in.")
        codes, count = torch.cat([mu[:0], *net.decoder.seen]), len(x) * math.prod(samples)
        yield holds(len(codes) == count, f"{len(codes)} codes are decoded, where one per draw, {count}, is expected.")
        if len(codes) != count:
            return
        z, terms, got = at_codes(got, codes.unflatten(0, (*samples, len(x))), net, (x, mu, logvar), wanted)
        if count > 99:
            yield from observe_draws(name, *(part.expand_as(z).reshape(-1, 16) for part in (z, mu, logvar)))
        result, given = with_usual_draws(got, total(terms, wanted), usual), dict(got=got, terms=terms, wanted=wanted)
        yield must(name, result, read_terms, unit, name=name, **given)
    yield from trainable(answer(net, x, *samples))
    anew = "Two calls draw the same z: it must be drawn anew in every call."
    yield holds(not same(net.decoder.seen[-1], codes[-len(net.decoder.seen[-1]) :]), anew)
    yield from own_generator(answer, lambda: answer(net, x, *samples))
    far, images = vae_of(model.Encoder(1, 2, 4), model.Decoder(1, 2, 4)).to("meta"), torch.empty(2, 1, 32, 32)
    yield from portable(answer, lambda: answer(far, images.to("meta"), *samples))


def at_codes(got, z, net, images, wanted):
    """Return the codes, the terms there, and the result; codes that were decoded image by image are put in order."""
    other = z.reshape(z.shape[1], z.shape[0], -1).transpose(0, 1) if z.ndim == 3 else z
    for codes in (other, z):
        terms = terms_at(codes, net, *images)
        for sum_of in (wanted, WEIGHT):  # the KL at one z is right on average, too
            if isinstance(got, Tensor) and same(got, total(terms, sum_of)):
                return codes, terms, total(terms, wanted)
    return codes, terms, got


def total(terms, wanted):
    return sum(factor * terms[term] for term, factor in wanted.items())


def observe_draws(name, z, mu, logvar):
    """Yield what there is to know about codes (N, D) that should be drawn from N(mu, exp(logvar))."""
    as_mu = (
        "mu is decoded, as by model(x) in eval mode: decode a draw of z, because with mu the result is no lower bound."
    )
    yield holds(not same(z, mu), as_mu)
    facts = noise((z - mu) / (0.5 * logvar).exp(), mu=mu, logvar=logvar)
    yield must(f"Of the noise in the codes that {name} decodes, the", facts, lambda *_: read_draw(z, mu, logvar))


def observe_elbo(elbo):
    cases = [(training, (), known_vae(1024)) for training in (False, True)]
    yield from observe_estimate(elbo, "elbo", cases, {"ln p(x|z)": 1.0, "KL": -1.0}, "one ELBO per image, (B,)")


def trainable(got):
    remark = "right, but no gradient passes through it, so nobody could train on it."
    yield should("The gradient", got.requires_grad, remark, "grad|detach|data|item|inference|tensor")


DECODED, KL = "model.decoder(reparameterize(mu, logvar))", " - kl_divergence(mu, logvar).sum(dim=1)"
FITTED = "gaussian_log_likelihood(x, recon, model.log_sigma)"
ERROR = "A squared error is no log-likelihood in nats: gaussian_log_likelihood has sigma and the constants."
ELBO_ROWS = (
    (DECODED, "model.decoder(reparameterize(mu, logvar.exp()))", "reparameterize gets the variance: it takes logvar as it is."),
    (DECODED, "model.decoder(reparameterize(mu, (0.5 * logvar).exp()))", "reparameterize gets std: it takes logvar as it is."),
    (DECODED, "model.decoder(reparameterize(logvar, mu))", "reparameterize gets logvar first: it takes mu, then logvar."),
    (DECODED, "model.decoder(torch.randn_like(mu))", "z is drawn from the prior: it must come from the posterior of its image, with mu and logvar."),
    (DECODED, "model.decoder(x)", "The decoder gets the images: it takes codes, drawn with mu and logvar."),
    (DECODED, "reparameterize(mu, logvar)", "z itself is compared with the images: decode it first."),
    (KL, " - kl_divergence(mu, logvar).mean(dim=1)", "The KL is averaged over the dimensions of a code: add them up."),
    (KL, " - kl_divergence(mu, logvar).mean()", "The KL is averaged over everything: every image has its own, summed over D."),
    (KL, " - kl_divergence(mu, logvar).sum(dim=1).mean()", "The KL is averaged over the batch: every image has its own."),
    (KL, " - kl_divergence(mu, logvar).sum()", "The KL of the whole batch is subtracted from every image: each has its own."),
    (KL, " - kl_divergence(mu, logvar).sum(dim=0)", "The KL is added up over the images: add up the D dimensions of each code."),
    (FITTED, "gaussian_log_likelihood(x, recon, model.log_sigma.exp())", "gaussian_log_likelihood gets sigma: it takes log_sigma as it is."),
    (FITTED, "gaussian_log_likelihood(x, recon, torch.zeros_like(model.log_sigma))", "sigma is taken as 1: model.log_sigma holds the logarithm of what was learned."),
    (FITTED, "-(x - recon).pow(2).flatten(1).sum(dim=1)", ERROR),
    (FITTED, "-0.5 * (x - recon).pow(2).flatten(1).sum(dim=1)", "Half the squared error takes sigma as 1 and drops the constants: gaussian_log_likelihood has them."),
    (FITTED, "-F.mse_loss(recon, x)", ERROR),
    (FITTED, "gaussian_log_likelihood(x, recon, model.log_sigma).mean()", "The log-likelihood is averaged over the batch: every image has its own."),
    (FITTED, "gaussian_log_likelihood(x, recon, model.log_sigma).sum()", "The log-likelihood is added up over the batch: every image has its own."),
)  # fmt: skip


class Watched(nn.Module):
    """An encoder with BatchNorm and almost without noise, which notes (images, mode, gradients on) of every call."""

    def __init__(self):
        super().__init__()
        self.net, self.norm, self.notes, self.other = nn.Linear(12, 3), nn.BatchNorm1d(3), [], None
        self.norm.running_mean.uniform_(-1, 1), self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        mu = self.norm(self.net(x.flatten(1)))
        trains = self.norm.training or (self.other is not None and self.other[0].training)
        self.notes.append((len(x), trains, torch.is_grad_enabled()))
        return mu, torch.full_like(mu, -40)


def watched_vae():
    encoder, decoder = Watched(), nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Unflatten(1, (1, 3, 4)))
    encoder.other = (decoder,)  # in a tuple, so that it is no part of the encoder
    return vae_of(encoder, decoder)


def observe_mean(mean_elbo):
    sizes = ((10, 4, True), (7, 3, False), (4, 500, True), (1, 1, False))
    cases = [(watched_vae().train(training), uniform(-1, 1, count, 1, 3, 4)) for count, _, training in sizes]
    for (count, size, _), (net, images) in zip(sizes, cases, strict=True):
        images[-1] *= 6  # far from the others, and in a small batch
        after, as_before = untouched("mean_elbo", images=images), unharmed("model", net)
        got = mean_elbo(net, images, size) if size < 500 else mean_elbo(net, images)
        yield from after()
        yield from observe_passes(net.encoder.notes, count, size)
        yield from as_before()
        yield must("mean_elbo(model, images, batch_size)", as_number(got))
    far = watched_vae().to("meta")
    stays = fails_elsewhere(mean_elbo, lambda: mean_elbo(far, images))
    remark = "this works on the CPU only. With the model on a GPU the images stay behind: bring every batch to device."
    yield should("On another device", not far.encoder.notes and stays, remark)


def observe_passes(notes, count, size):
    """Yield whether every image goes through the model, in batches, in eval mode and without gradients."""
    lengths, trained, graphs = zip(*notes, strict=True) if notes else ((), (), ())
    yield holds(notes, "mean_elbo never runs the model: call elbo on every batch.")
    mixes = "The model, or a part of it, runs in train mode, where BatchNorm mixes the images of a batch: put it in eval mode first."
    yield holds(not any(trained), mixes)
    memory = "The model runs with gradients, whose memory grows with every batch: switch them off with torch.no_grad()."
    yield holds(not any(graphs), memory)
    split = f"{max(lengths, default=0)} images go through the model at once, where batch_size is {size}: split them."
    yield holds(max(lengths, default=0) <= size, split)
    few = f"Only {sum(lengths)} of {count} images are looked at: the last batch may be a smaller one."
    yield holds(sum(lengths) >= count, few)


def as_number(got):
    """Return a number as a tensor, whichever type it has."""
    return torch.as_tensor(got).double() if isinstance(got, float | int | Tensor) else got


BATCHES, MEAN = "elbo(model, x.to(device)).sum() for x in images.split(batch_size)", "total.item() / len(images)"
MEAN_ROWS = (
    (BATCHES, "batch_size * elbo(model, x.to(device)).mean() for x in images.split(batch_size)", "Every batch counts as if it were full: the last one may hold fewer images."),
    (BATCHES, "len(images) * elbo(model, x.to(device)).mean() / len(images.split(batch_size)) for x in images.split(batch_size)", "The means of the batches are averaged, so an image in a small batch counts more: add up the images, then divide once."),
    (f"sum({BATCHES})", "[elbo(model, x.to(device)).sum() for x in images.split(batch_size)][-1]", "Only the last batch is counted: add up over the batches."),
    (MEAN, "total.item() / len(images.split(batch_size))", "The sum is divided by the number of batches: divide it by the number of images."),
    (MEAN, "total.item() / batch_size", "The sum is divided by batch_size: divide it by the number of images."),
    (MEAN, "total.item()", "The sum over the images is not divided by how many there are."),
    (MEAN, "-total.item() / len(images)", "This is minus the mean ELBO, a loss: the ELBO itself is asked for."),
)  # fmt: skip


# 4.2 the importance-weighted bound


def observe_weights(log_weights):
    cases = [(False, (samples,), known_vae(count)) for samples, count in ((8, 256), (1, 3), (5, 1))]
    yield from observe_estimate(log_weights, "log_weights", cases, WEIGHT, "ln w of every draw, (num_samples, B)")


Z, LIKELIHOOD = "z = reparameterize(mu, logvar)", "gaussian_log_likelihood(x, model.decoder(z), model.log_sigma)"
RATIO, LOOP = "(prior.log_prob(z) - posterior.log_prob(z)).sum(dim=1)", "    for _ in range(num_samples):\n"
DRAW = f"{LOOP}        # a new draw for every image: (B, D)\n        {Z}\n"
FORMULA = "The KL by formula is an average over all z: ln p(z) - ln q(z|x) is needed at the z of each draw."
WEIGHTS_ROWS = (
    (Z, "z = reparameterize(mu, logvar.exp())", "reparameterize gets the variance: it takes logvar as it is."),
    (Z, "z = reparameterize(mu, (0.5 * logvar).exp())", "reparameterize gets std: it takes logvar as it is."),
    (Z, "z = reparameterize(logvar, mu)", "reparameterize gets logvar first: it takes mu, then logvar."),
    (Z, "z = torch.randn_like(mu)", "z is drawn from the prior: it must come from q(z|x)."),
    (Z, "z = mu + torch.randn(1, mu.shape[1]) * posterior.scale", "All images share their noise: draw it anew for every image."),
    (DRAW, f"    {Z}\n{LOOP}", "All draws of an image are the same z, so the bound cannot rise with K: draw anew each time."),
    (LIKELIHOOD, "-(x - model.decoder(z)).pow(2).flatten(1).sum(dim=1)", ERROR),
    (LIKELIHOOD, f"{LIKELIHOOD}.sum()", "ln p(x|z) is added up over the images: every image has its own."),
    (LIKELIHOOD, f"{LIKELIHOOD}.mean()", "ln p(x|z) is averaged over the images: every image has its own."),
    (LIKELIHOOD, f"{LIKELIHOOD}.exp()", "p(x|z) itself is taken, which can overflow or become 0: stay with its logarithm."),
    (LIKELIHOOD, LIKELIHOOD.replace("model.log_sigma", "model.log_sigma.exp()"), "gaussian_log_likelihood gets sigma: it takes log_sigma as it is."),
    (LIKELIHOOD, LIKELIHOOD.replace("model.decoder(z)", "z"), "z itself is compared with the images: decode it first."),
    (LIKELIHOOD, LIKELIHOOD.replace("(z)", "(reparameterize(mu, logvar))"), "Another z is decoded than the one in ln p(z) and ln q(z|x): one draw serves all three."),
    (RATIO, "-kl_divergence(mu, logvar).sum(dim=1)", FORMULA),
    (RATIO, "(prior.log_prob(w := reparameterize(mu, logvar)) - posterior.log_prob(w)).sum(dim=1)", "ln p(z) and ln q(z|x) are taken at another z than the one that is decoded."),
    (RATIO, "(prior.log_prob(z) - Normal(mu, logvar.exp()).log_prob(z)).sum(dim=1)", "q(z|x) is given the variance: its standard deviation is expected."),
    (RATIO, "(prior.log_prob(z) - prior.log_prob((z - mu) / posterior.scale)).sum(dim=1)", "ln q(z|x) is taken at the noise, as a standard normal, which leaves out ln std: take it at z, from the posterior."),
    (RATIO, "(prior.log_prob(z) - posterior.log_prob(z))", "ln p(z) - ln q(z|x) is not added up over D: each code should give one number."),
    (RATIO, "(prior.log_prob(z) - posterior.log_prob(z)).sum()", "ln p(z) - ln q(z|x) is added up over all images: add up the D dimensions of each code."),
    (RATIO, "(prior.log_prob(z) - posterior.log_prob(z)).mean(dim=1)", "ln p(z) - ln q(z|x) is averaged over the dimensions: add them up."),
    (RATIO, "(prior.log_prob(z) - posterior.log_prob(z)).exp().sum(dim=1)", "p(z) / q(z|x) itself is taken: its logarithm is asked for."),
    (RATIO, "(prior.log_prob(z) / posterior.log_prob(z)).sum(dim=1)", "The logarithms are divided: the logarithm of a quotient is their difference."),
    ("torch.stack(rows)", "torch.stack(rows).exp()", "w itself is returned, which overflows for real images: stay in logarithms."),
    ("torch.stack(rows)", "torch.stack(rows) - math.log(num_samples)", "ln K is subtracted here already: iwae_bound does that."),
)  # fmt: skip


def observe_iwae(iwae_bound):
    for samples, count in ((7, 4), (2, 5), (1, 3), (6, 1)):
        log_w = uniform(-3, 3, samples, count)
        yield from call("iwae_bound(log_w)", iwae_bound, read_divisor, "one bound per image, (B,)", log_w=log_w)
    far = "Where ln w is far from 0 the bound fails, because w overflows or becomes 0: stay in logarithms, as torch.logsumexp does."
    yield must("iwae_bound far from 0", iwae_bound(log_w + torch.tensor([400.0, -2000.0, 50.0, -300.0])), far)
    yield from trainable(iwae_bound(log_w.requires_grad_()))
    meta, double = torch.empty(3, 2, device="meta"), torch.ones(3, 2, dtype=torch.float64)
    yield from portable(iwae_bound, lambda: iwae_bound(meta), lambda: iwae_bound(double))


def read_divisor(got, want, log_w):
    """Say what the sum of the weights is divided by, or what else the bound is."""
    known = {
        "This is the mean of the logarithms, the ELBO: take the logarithm of the mean.": log_w.mean(0),
        "This is the largest of the weights: take the mean of all.": log_w.amax(0),
    }
    if not isinstance(got, Tensor) or got.shape != want.shape or got.isnan().any():
        return None
    by = (log_w.logsumexp(0) - got).exp()
    if said := named(got, known):
        return said
    said = f"The sum of the weights is divided by {by[0]:.4g}, where K, here {len(log_w)}, is expected."
    return said if same(by, by[:1].expand_as(by)) else None


SUMMED, LOG_K = "torch.logsumexp(log_w, dim=0)", " - math.log(len(log_w))"
BOUND = f"{SUMMED}{LOG_K}"
BOUND_ROWS = (
    (BOUND, "torch.log(torch.exp(log_w - log_w.max()).mean(dim=0)) + log_w.max()", "The largest ln w of all images is subtracted, so that another image's weights can become 0: subtract the largest of each image, over dim=0."),
    (LOG_K, "", "The sum of the weights is not divided by K: in logarithms, that means to subtract ln K."),
    (LOG_K, " / len(log_w)", "The logarithm is divided by K: dividing the weights by K subtracts ln K from it."),
    (LOG_K, " - len(log_w)", "K is subtracted, where ln K is expected."),
    (LOG_K, " - math.log2(len(log_w))", "ln K is the natural logarithm: log2 is another one."),
    (LOG_K, " - math.log10(len(log_w))", "ln K is the natural logarithm: log10 is another one."),
    (BOUND, "torch.logsumexp(log_w / len(log_w), dim=0)", "ln w is divided by K, where w should be: that subtracts ln K."),
)  # fmt: skip


def observe_groups(grouped_bound):
    for samples, size in ((12, 3), (12, 2), (8, 8), (6, 1)):
        log_w = uniform(-3, 3, samples, 5) * torch.tensor([0.3, 1.0, 2.0, 3.0, 1.5])
        either = lambda log_w, size: one_after_another(grouped_bound(log_w, size), log_w, size)  # noqa: E731
        name = f"grouped_bound(log_w, {size})"
        yield from call(name, either, None, "one bound per image, (B,)", log_w=log_w, group_size=size)
    yield from trainable(grouped_bound(log_w.requires_grad_(), 2))
    meta, double = torch.empty(4, 3, device="meta"), torch.ones(4, 3, dtype=torch.float64)
    yield from portable(grouped_bound, lambda: grouped_bound(meta, 2), lambda: grouped_bound(double, 2))


def one_after_another(got, log_w, size):
    """Return the bound of neighbouring draws where got is that of draws at equal distances, which is as good."""
    stepped = log_w.view(size, -1, log_w.shape[1]).logsumexp(0).sub(math.log(size)).mean(0)
    fits = isinstance(got, Tensor) and got.dtype == log_w.dtype and same(got, stepped)
    return metrics.grouped_bound(log_w, size) if fits else got


GROUPS, AVERAGE = "log_w.split(group_size)", "torch.stack([iwae_bound(group) for group in groups]).mean(dim=0)"
GROUPS_ROWS = (
    (GROUPS, "log_w.chunk(group_size)", "The draws are cut into group_size groups: group_size should be the number of draws in each group."),
    (GROUPS, "[log_w[at : at + group_size] for at in range(len(log_w) - group_size + 1)]", "The groups overlap: each should begin where the one before it ends."),
    (GROUPS, "[log_w[at : at + group_size] for at in range(len(log_w) // group_size)]", "The groups overlap: each should begin where the one before it ends."),
    (GROUPS, "[log_w]", "This is the bound of all draws, whatever group_size is: average the bounds of the groups."),
    (GROUPS, "log_w.split(1)", "This is the mean of the logarithms, the bound of single draws, whatever group_size is."),
    (GROUPS, "log_w.split(group_size, dim=1)", "The images are cut into groups: cut the draws, the first axis."),
    (AVERAGE, "sum(iwae_bound(group) for group in groups) / group_size", "The sum of the bounds is divided by the size of a group: divide it by the number of groups."),
    (AVERAGE, "torch.stack([iwae_bound(group) for group in groups]).max(dim=0).values", "The best of the groups is taken: average them."),
    (AVERAGE, "torch.stack([group.logsumexp(dim=0) for group in groups]).mean(dim=0)", "The sum over a group is not divided by its size: iwae_bound does that."),
)  # fmt: skip


# 4.3 what the code knows


def observe_nearest(nearest_mean):
    for count in (60, 1):
        labels = torch.cat([torch.arange(10), torch.randint(0, 10, (70,)).clamp(max=7)])[torch.randperm(80)]
        centres = 2 * torch.randn(10, 4) * torch.linspace(0.2, 2, 10)[:, None] + 1
        train_codes, codes = centres[labels] + torch.randn(80, 4), centres.repeat(6, 1) + 1.5 * torch.randn(60, 4)
        two = torch.cdist(codes, class_means(train_codes, labels)).sort(dim=1).values
        codes = codes[two[:, 1] - two[:, 0] > 0.05][:count]  # a close call may go either way
        name, given = "nearest_mean(train_codes, train_labels, codes)", (train_codes, labels, codes)
        after = untouched(name, train_codes=train_codes, train_labels=labels, codes=codes)
        got = nearest_mean(*given)
        yield from after()
        whole = isinstance(got, Tensor) and not got.is_floating_point() and got.dtype != torch.bool
        yield must(name, got.long() if whole else got, None, "one class per code, (N,)")
    meta = torch.empty(12, 3, device="meta")
    yield from portable(nearest_mean, lambda: nearest_mean(meta, labels[:12], meta))


MEANS, CDIST = "class_means(train_codes, train_labels)", "torch.cdist(codes, means)"
SMALLEST, ONE_HOT = "distances.argmin(dim=1)", "F.one_hot(train_labels, 10).to(train_codes)"
NEAREST_ROWS = (
    (MEANS, "torch.stack([train_codes[train_labels == c].mean(dim=0) for c in range(9)])", "There are means of nine classes: the last class is never the answer."),
    (CDIST, "(codes[:, None] - means).pow(2).sum(dim=1)", "The differences are added up over the classes: add them up over D, the last axis."),
    (MEANS, "class_means(codes, train_labels)", "class_means gets codes with the labels of the training codes: give it train_codes."),
    (MEANS, "train_codes", "The means are missing: this finds the nearest training code, not the nearest class."),
    (MEANS, f"{ONE_HOT}.T @ train_codes", "The codes of each class are added up: take their mean."),
    (MEANS, f"{ONE_HOT}.T @ train_codes / len(train_codes)", "The sums are divided by the number of all codes: divide each by how many its class has."),
    (MEANS, "class_means(train_codes, train_labels)[1:]", "The mean of class 0 is left out, so all others move up."),
    (CDIST, "torch.cdist(train_codes, means)", "The training codes are classified, where codes should be."),
    (CDIST, "torch.cdist(means, codes)", "The distances are transposed: one row per code is expected, (N, 10)."),
    (CDIST, "-codes @ means.T", "The largest dot product is looked for, and a mean with large numbers wins it too often: measure the distance."),
    (CDIST, "-F.cosine_similarity(codes[:, None], means, dim=2)", "The smallest angle is looked for: measure the distance."),
    (CDIST, "torch.cdist(codes, means, p=1)", "The differences are added up without their squares: a distance adds squares."),
    (CDIST, "(codes[:, None] - means).sum(dim=2)", "The differences are added up with their signs: square them first."),
    (CDIST, "codes - means", "codes and means are subtracted row by row: every code is compared with every mean."),
    (SMALLEST, "distances.argmax(dim=1)", "The farthest mean is found: the smallest distance wins."),
    (SMALLEST, "distances", "The distances are returned: the class with the smallest is asked for, (N,)."),
    (SMALLEST, "distances.min(dim=1)", "min(dim=1) gives the smallest distances and their classes: only the classes are asked for."),
    (SMALLEST, "distances.min(dim=1).values", "The smallest distances are returned: the classes that they belong to are asked for."),
    (SMALLEST, "train_labels[distances.argmin(dim=1)]", "argmin gives the class already: do not look it up in train_labels."),
    (SMALLEST, "train_labels[torch.cdist(codes, train_codes).argmin(dim=1)]", "The class of the nearest training code is returned: the nearest class mean is asked for."),
    (SMALLEST, "distances.argmin(dim=1) + 1", "The classes are counted from 1: the first is 0."),
    (SMALLEST, "distances.argmin(dim=1).float()", "The classes are returned as floats: whole numbers are expected, as argmin gives them."),
)  # fmt: skip


def observe_probe(linear_probe):
    cases = []
    for num_classes, count in ((10, 200), (4, 50)):
        labels = torch.cat([torch.arange(num_classes), torch.randint(0, num_classes, (count - num_classes,))])
        cases.append((num_classes, labels, 1.2 * torch.randn(num_classes, 5)[labels] + torch.randn(count, 5) + 0.5))
    start = torch.get_rng_state()
    for num_classes, labels, codes in cases:
        usual, _, _ = from_state(start, steps_of, metrics.linear_probe, codes, labels, num_classes, 5)
        codes.requires_grad_()  # as where an encoder made them
        after = untouched("linear_probe", codes=codes, labels=labels)
        got, right, (probe, weights) = from_state(start, steps_of, linear_probe, codes, labels, num_classes, 5)
        yield from after()
        reaches = "The gradient reaches codes, and would go on into the encoder: cut codes off from their history."
        yield holds(codes.grad is None, reaches)
        yield holds(
            codes.requires_grad,
            "codes loses its history for the caller too: make a new tensor, and leave the old one as it was.",
        )
        yield holds(len(got) == 5, f"The number of steps taken is {len(got)}, where num_steps is 5.")
        if len(got) != 5:
            return
        name = "The gradient of the loss, which should be the mean cross-entropy of all codes,"
        yield must(name, with_usual_draws(got, right, usual))
        trained = isinstance(probe, nn.Module) and same(probe(codes), F.linear(codes, *weights))
        yield holds(trained, f"linear_probe returns {brief(probe)}, where the layer that was trained is expected.")
    meta, double = torch.empty(12, 3, device="meta"), torch.ones(12, 3, dtype=torch.float64)
    far = lambda: linear_probe(meta, labels[:12], num_steps=2)  # noqa: E731
    yield from portable(linear_probe, far, lambda: linear_probe(double, labels[:12], num_steps=2)(double))


def steps_of(linear_probe, codes, labels, *options):
    """Train a probe; return the gradients at its steps, (steps, weights), the right ones, the probe and its weights."""
    got, right, weights = [], [], []

    def note(optimizer, *_):
        weights[:] = [weight for group in optimizer.param_groups for weight in group["params"]]
        got.append(torch.cat([(0 * w if w.grad is None else w.grad).detach().flatten() for w in weights]))
        loss = F.cross_entropy(F.linear(codes.detach(), *weights), labels)
        right.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)]))

    hook = register_optimizer_step_pre_hook(note)
    try:
        probe = linear_probe(codes, labels, *options)
    finally:
        hook.remove()
    return *(torch.stack(some) if some else torch.empty(0) for some in (got, right)), (probe, weights)


LOSS, CLEAR, BACK = (
    "F.cross_entropy(probe(codes), labels)",
    "        optimizer.zero_grad()\n",
    "        loss.backward()\n",
)
STEP = "        optimizer.step()\n"
FIRST = "The scores go through a {} first: cross_entropy takes them as they are.".format
SQUARED = "This is the squared error, where the cross-entropy is expected."
PROBE_ROWS = (
    (LOSS, "F.cross_entropy(labels, probe(codes))", "cross_entropy gets the labels first: it takes the scores, then the labels."),
    (LOSS, "F.cross_entropy(probe(codes).softmax(dim=1), labels)", "The scores go through a softmax twice: cross_entropy applies it itself."),
    (LOSS, "F.cross_entropy(probe(codes).softmax(dim=0), labels)", FIRST("softmax over the codes")),
    (LOSS, "F.cross_entropy(probe(codes).sigmoid(), labels)", FIRST("sigmoid")),
    (LOSS, "F.cross_entropy(probe(codes).argmax(dim=1), labels)", "cross_entropy takes the scores, as floats, and the number of each class: argmax and one_hot are not needed."),
    (LOSS, 'F.cross_entropy(probe(codes), labels, reduction="sum")', "The cross-entropy is summed over the codes: take the mean."),
    (LOSS, 'F.cross_entropy(probe(codes), labels, reduction="none")', "The cross-entropy is not reduced: take the mean over the codes."),
    (LOSS, "-F.cross_entropy(probe(codes), labels)", "The loss has the wrong sign: it is made as small as possible."),
    (LOSS, "F.nll_loss(probe(codes), labels)", "nll_loss takes logarithms of probabilities, and gets scores: cross_entropy takes scores."),
    (LOSS, "F.nll_loss(probe(codes).softmax(dim=1), labels)", "The logarithm is missing: this is minus the probability of the right class."),
    (LOSS, "F.mse_loss(probe(codes), F.one_hot(labels, num_classes).to(codes))", SQUARED),
    (LOSS, "F.mse_loss(probe(codes).softmax(dim=1), F.one_hot(labels, num_classes).to(codes))", SQUARED),
    (LOSS, "F.binary_cross_entropy_with_logits(probe(codes), F.one_hot(labels, num_classes).to(codes))", "This asks yes or no for every class by itself: one class out of several is asked for."),
    (CLEAR, "", "The gradients of the step before are never cleared: PyTorch adds the new ones to them."),
    (CLEAR + BACK, BACK + CLEAR, "The optimizer steps without gradients: clear the old ones first, then compute the new ones, then step."),
    (CLEAR + BACK + STEP, STEP + CLEAR + BACK, "The optimizer steps first, with the gradients of the step before: clear, compute, step."),
)  # fmt: skip


# 4.4 leave one out


def observe_without(without_class):
    labels, images = torch.tensor([3, 1, 1, 2, 0, 3, 5, 9, 3, 1, 0, 7]), uniform(-1, 1, 12, 1, 4, 4)
    for digit, count in ((3, 12), (1, 12), (0, 12), (8, 12), (3, 2), (3, 1)):
        x, its, name = images[:count], labels[:count], f"without_class(images, labels, {digit})"
        after = untouched(name, images=x, labels=its)
        got = without_class(x, its, digit)
        yield from after()
        kept = got[0] if isinstance(got, tuple | list) and len(got) == 2 else None
        if isinstance(kept, Tensor) and kept.shape[1:] == x.shape[1:]:
            left = [int((x == one).flatten(1).all(1).int().argmax()) for one in kept]
            listed = f"The list of the images that {name} keeps, by position,"
            yield must(listed, left, read_kept, labels=its, digit=digit)
        yield from returned(name, got, ("images", "labels"), {"keep": its != digit, "all labels": its})


def read_kept(got, _, labels, digit):
    """Say which classes are taken out, from the positions of the images that stay."""
    gone = [labels[at].item() for at in range(len(labels)) if at not in got]
    if not gone:
        return f"The images of digit, here {digit}, are still there, so the model learns what it should not know."
    one_class = len(set(gone)) == 1 and gone[0] != digit and gone.count(gone[0]) == int((labels == gone[0]).sum())
    typed = (
        f"The images of {gone[0]} are taken out, where those of digit, here {digit}, should be: is a number typed in?"
    )
    return typed if one_class else None


KEEP, PICKED = "labels != digit", "images[keep], labels[keep]"
WITHOUT_ROWS = (
    (KEEP, "labels == digit", "Only the images of digit are left: they should be the ones that are missing."),
    (KEEP, "labels is not digit", "`is not` compares two things as a whole and gives one True: != compares every label."),
    (PICKED, "images[keep], torch.where(labels[keep] > digit, labels[keep] - 1, labels[keep])", "The labels above digit are made smaller by 1: every label should stay as it is."),
    (KEEP, "torch.arange(len(labels)) != digit", "digit is taken for a position: all images whose label is digit should go."),
    (KEEP, "[label != digit for label in labels]", "keep is a list: a tensor is expected, with one True or False for each image."),
    (KEEP, "(labels != digit).long()", "keep holds whole numbers, which pick images by their position: True and False are expected."),
    (PICKED, "images, labels[keep]", "The images of digit are still there, only their labels are gone: pick the images with keep as well."),
    (PICKED, "images[keep], labels", "The labels of digit are still there, only its images are gone: pick the labels with keep as well."),
    (PICKED, "labels[keep], images[keep]", "Images and labels have changed places: the images come first."),
)  # fmt: skip


def observe_auroc(auroc):
    ties, more = torch.tensor([2.0, 4, 4, 1, 7, 5, 3]), torch.tensor([4.0, 6, 5, 9, 1])
    cases = [(torch.randn(40), torch.randn(13) + 1.2), (ties, more), (torch.tensor([1.0, 2.0]), torch.tensor([3.0]))]
    cases += [
        (torch.full((3,), 5.0), torch.full((2,), 5.0)),
        (more, ties),
        (ties, ties + 1e-6 * ties),
        (torch.randn(6) + 2, torch.randn(9)),
    ]
    results = []
    for normal, anomalous in cases:
        after = untouched("auroc", normal=normal, anomalous=anomalous)
        results.append(as_number(auroc(normal, anomalous)))
        yield from after()
    for (normal, anomalous), one in zip(cases, results, strict=True):
        name = f"auroc, of {len(normal)} normal and {len(anomalous)} anomalous scores,"
        yield must(name, one, read_share, "one number", results=results, cases=cases)


def read_share(_, want, results, cases):
    """Read a wrong share as a sum of the share of the pairs that are above, and of those that are equal."""
    if not all(isinstance(one, Tensor) and one.shape == () for one in results):
        return None
    pairs = [(anomalous[:, None] > normal, anomalous[:, None] == normal) for normal, anomalous in cases]
    above, equal = (torch.stack([pair[at].double().mean() for pair in pairs]) for at in (0, 1))
    terms = {"the share of pairs above": above, "the share of equal pairs": equal, "1": torch.ones(len(cases))}
    has = fit(torch.stack(results), terms)
    wanted = {"the share of pairs above": 1.0, "the share of equal pairs": 0.5}
    return has and compare(has, wanted, "auroc")


ABOVE, EQUAL = "anomalous[:, None] > normal[None, :]", "anomalous[:, None] == normal[None, :]"
AREA, COUNTED = "(above.float().mean() + 0.5 * equal.float().mean()).item()", "(above.sum() + 0.5 * equal.sum())"
AUROC_ROWS = (
    (AREA, "((anomalous[:, None] > normal).sum() + 0.5 * (anomalous[:, None] == normal).sum()).item() / len(anomalous) ** 2", "The pairs are divided by M * M: there are M * N of them."),
    (EQUAL, "torch.isclose(anomalous[:, None], normal[None, :])", "Scores that are only close count as equal: a tie is an exact one."),
    (ABOVE, "anomalous[:, None] < normal[None, :]", "The two have changed places: count the pairs where the anomalous score is higher."),
    (ABOVE, "anomalous[:, None] >= normal[None, :]", "above holds the ties as well, so a tie counts one and a half."),
    (ABOVE, "anomalous > normal", "The scores are compared one by one: a column against a row compares all pairs."),
    (EQUAL, "anomalous[:, None] != normal[None, :]", "equal holds the pairs that are not equal."),
    (EQUAL, "anomalous[:, None] <= normal[None, :]", "equal holds every pair that is not above."),
    (EQUAL, "anomalous[:, None] >= normal[None, :]", "equal holds the pairs that are above as well."),
    (AREA, f"{COUNTED}.item()", "This is the number of pairs: divide by how many there are."),
    (AREA, f"({COUNTED} / len(normal)).item()", "The number of pairs is divided by the number of normal scores: divide by that of all pairs."),
    (AREA, f"({COUNTED} / len(anomalous)).item()", "The number of pairs is divided by the number of anomalous scores: divide by that of all pairs."),
    (AREA, "(above.mean() + 0.5 * equal.mean()).item()", "mean cannot take True and False: .float() makes numbers of them."),
    (AREA, "above.any(dim=1).float().mean().item()", "An anomalous score counts whole as soon as it is above one normal score: count all pairs."),
    (AREA, f"(lambda area: max(area, 1 - area))({AREA})", "An area below one half is turned round: leave it, because it says that the score misleads."),
    (AREA, f"max({AREA}, 0.5)", "An area below one half is raised to it: leave it, because it says that the score misleads."),
    (AREA, "float(anomalous.mean() > normal.mean())", "Only the two means are compared: compare all pairs."),
    (AREA, "(anomalous.mean() - normal.mean()).item()", "This is the difference of the two means: compare all pairs."),
)  # fmt: skip


# 4.5 like with like


def observe_excess(excess_surprise):
    for count, others in ((9, 6), (6, 6), (7, 1)):
        train_outline, outline = uniform(2, 9, count), uniform(1, 12, others)
        outline[:2] = torch.tensor([1.5, 11.5])[:others]  # one is far below the line, one far above
        train, scored = 3 * train_outline - 16 + uniform(-6, 6, count), 10 - outline + uniform(-6, 6, others)
        given = dict(train_surprise=train, train_outline=train_outline, surprise=scored, outline=outline)
        after = untouched("excess_surprise", **given)
        got = excess_surprise(*given.values())
        yield from after()
        if others > 3 and (line := subtracted(got, scored, outline - train_outline.mean())):
            own = slope_of(outline, scored)
            yield must("Of the line that is subtracted from the surprise, the", line, read_line, own=own)
        yield must("excess_surprise", value_of(got), None, "one number per image to be scored, (N,)")


def subtracted(got, surprise, outline):
    """Return slope and height of the line that is subtracted from the surprise; None if it is no line."""
    if not isinstance(got, Tensor) or got.shape != surprise.shape or got.dtype != surprise.dtype:
        return None
    line = (surprise - got.detach()).double()
    slope = slope_of(outline, line)
    height = line.mean() - slope * outline.mean()
    straight = line.isfinite().all() and same(height + slope * outline, line)
    return {"slope": slope, "height at the mean outline of the training images": height} if straight else None


def slope_of(across, up):
    across, up = (across - across.mean()).double(), up.double()
    return (across * up).sum() / across.pow(2).sum()


def read_line(got, _, own):
    fitted = "The line is fitted to the images to be scored: fit it to the training images."
    return fitted if same(got["slope"], own) else None


SLOPE = "(centred * (train_surprise - train_surprise.mean())).sum() / centred.pow(2).sum()"
PRODUCT, SQUARES = SLOPE.split(" / ")
LEVEL, ROSE, EXCESS = "train_surprise.mean() + slope", " * (outline - train_outline.mean())", "surprise - expected"
COVARIANCE = PRODUCT.replace("sum", "mean")
EXCESS_ROWS = (
    (SLOPE, PRODUCT, "The slope is not divided by the sum of the squares."),
    (SLOPE, COVARIANCE, "The slope is the mean of the products: take their sum, and divide it by the sum of the squares of the outline's differences."),
    (SLOPE, f"{SQUARES} / {PRODUCT}", "The slope is upside down, as if outline were divided by it: look at which sum divides which."),
    (SLOPE, f"{PRODUCT} / {SQUARES}.sqrt()", "The slope is divided by the root of the sum of the squares: divide by the sum itself."),
    (SLOPE, f"{COVARIANCE} / centred.std()", "The slope is divided by the standard deviation of the outline: divide one sum by another, as in the formula."),
    (SLOPE, f"{PRODUCT} / train_outline.var()", "The slope divides a sum by a variance, which is a mean: use the same above and below."),
    (SLOPE, f"{COVARIANCE} / train_outline.var()", "The slope divides by M above and by M - 1 below, as var does: use sums in both places."),
    (SLOPE, f"{PRODUCT} / train_outline.pow(2).sum()", "The mean of the outline is not subtracted before it is squared."),
    (SLOPE, "(train_outline * train_surprise).sum() / train_outline.pow(2).sum()", "No mean is subtracted in the slope."),
    (SLOPE, f"{PRODUCT} / (train_surprise - train_surprise.mean()).pow(2).sum()", "The slope is divided by the squares of the surprise: divide by those of the outline."),
    (SLOPE, "torch.corrcoef(torch.stack([train_outline, train_surprise]))[0, 1]", "The slope is a correlation: the spread of the surprise divides it as well."),
    (SLOPE, "((train_surprise - train_surprise.mean()) / centred).mean()", "The slope is the mean of the ratios: divide the sums."),
    (SLOPE, "train_surprise.std() / train_outline.std()", "The slope is a ratio of two spreads: the products of the differences are missing."),
    (SLOPE, f"(centred * train_surprise - train_surprise.mean()).sum() / {SQUARES}", "The slope lacks brackets around the difference from the mean surprise."),
    ("(train_surprise - train_surprise.mean())", "train_surprise.mean()", "The slope multiplies with the mean surprise, which gives 0: the difference from it is expected."),
    (LEVEL, "slope", "The mean surprise is missing from the line."),
    (LEVEL, "train_surprise.mean() - slope", "The slope is subtracted: a line rises with its slope."),
    (ROSE, " * outline", "The mean outline is not subtracted: the line goes through the means of both."),
    (ROSE, " * centred", "The line is taken at the outlines of the training images: take it at those of the images to be scored."),
    (LEVEL + ROSE, "train_surprise.mean()", "The slope is never used: only the mean surprise is subtracted."),
    (EXCESS, "(surprise - expected) / train_surprise.std()", "The difference is divided by a spread: it is asked for in nats."),
)  # fmt: skip


check = Check(
    {
        "4.1": Exercise("the ELBO in nats", 15, (
            Lesson(gaussian_log_likelihood, observe_likelihood, LIKELIHOOD_ROWS, "The log-density of a pixel has three terms: half of ln(2 pi), ln sigma, and the squared difference over two sigma squared. Subtract all three, and add up over the pixels of an image."),
            Lesson(metrics.elbo, observe_elbo, ELBO_ROWS, "Decode a draw of z. Subtract the KL, summed over D, from the log-likelihood."),
            Lesson(metrics.mean_elbo, observe_mean, MEAN_ROWS, "Add up the ELBO of all images, in eval mode and without gradients. Divide once, by the number of images."),
        )),
        "4.2": Exercise("the importance-weighted bound", 10, (
            Lesson(metrics.log_weights, observe_weights, WEIGHTS_ROWS, "Each row has a draw of its own. ln p(x|z), ln p(z) and ln q(z|x) are all taken at that z."),
            Lesson(metrics.iwae_bound, observe_iwae, BOUND_ROWS, "Take the logsumexp over the draws. Subtract the logarithm of their number."),
            Lesson(metrics.grouped_bound, observe_groups, GROUPS_ROWS, "Cut the draws into groups of group_size. Average the bounds of the groups."),
        )),
        "4.3": Exercise("nearest mean and linear probe", 10, (
            Lesson(metrics.nearest_mean, observe_nearest, NEAREST_ROWS, "The class means come from the training codes. The class with the smallest distance is returned."),
            Lesson(metrics.linear_probe, observe_probe, PROBE_ROWS, "The probe sees detached codes. Each step is an ordinary training step on the cross-entropy of its outputs."),
        )),
        "4.4": Exercise("leave one out", 5, (
            Lesson(metrics.without_class, observe_without, WITHOUT_ROWS, "Keep the images whose label is not digit, and keep their labels."),
            Lesson(metrics.auroc, observe_auroc, AUROC_ROWS, "Compare every anomalous score with every normal one. A larger one counts whole, an equal one half; divide by the number of pairs."),
        )),
        "4.5": Exercise("like with like", 5, (
            Lesson(metrics.excess_surprise, observe_excess, EXCESS_ROWS, "Slope and means come from the training images. Subtract from each surprise what the line says at its outline."),
        )),
    }
)  # fmt: skip
