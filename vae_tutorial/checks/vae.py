"""The checks of notebook 01: the loss, the network, the training step and the latent space."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial import latent, loss, model, train
from vae_tutorial.checks import Check, Exercise
from vae_tutorial.checks.comparing import alike, brief, difference, relation, same, times
from vae_tutorial.checks.engine import Lesson, clue, must, should
from vae_tutorial.checks.looking import (
    StubDecoder,
    StubEncoder,
    call,
    fit,
    formula,
    gradients,
    noise,
    own_generator,
    portable,
    read_draw,
    read_noise,
    refusal,
    returned,
    untouched,
)
from vae_tutorial.checks.networks import forward, layers, restructured

# 1.1 loss


def observe_kl(kl_divergence):
    mu, logvar = uniform(-3, 3, 40, 7).requires_grad_(), uniform(-4, 3, 40, 7).requires_grad_()
    far = torch.tensor([[-5.0, 5.0, -5.0, 5.0]]), torch.tensor([[-9.5, -9.5, 9.5, 9.5]])
    unit = "one KL divergence per entry, (B, D), not reduced"
    yield from call(
        "kl_divergence(mu, logvar)", kl_divergence, lambda got, _: read_kl(got, mu, logvar), unit, mu=mu, logvar=logvar
    )
    cut = "kl_divergence is right for moderate numbers, but not at mu = -5 or 5, logvar = -9.5 or 9.5: clamp nothing."
    yield must("kl_divergence far from 0", kl_divergence(*far), cut)
    clamp = "right for all but extreme numbers. A clamp has no gradient outside its range, and nothing here needs one."
    yield should("Further out", kl_divergence(far[0], 2 * far[1]), clamp, "clamp|clip|hardtanh|max|min")
    meta, double = torch.empty(2, 3, device="meta"), torch.ones(2, 3, dtype=torch.float64)
    yield from portable(kl_divergence, lambda: kl_divergence(meta, meta), lambda: kl_divergence(double, double))


def read_kl(got, mu, logvar):
    """Read a wrong formula as a sum of known terms, and compare the terms."""
    if not isinstance(got, Tensor) or got.shape != mu.shape or got.dtype != mu.dtype or not got.isfinite().all():
        return None
    m, v = mu.detach().double(), logvar.detach().double()
    terms = {"1": torch.ones_like(m), "logvar": v, "mu^2": m**2, "exp(logvar)": v.exp(), "mu": m, "|mu|": m.abs()}
    terms |= {"mu^3": m**3, "mu^4": m**4, "exp(2 logvar)": (2 * v).exp(), "exp(logvar / 2)": (v / 2).exp()}
    terms |= {"exp(-logvar)": (-v).exp(), "logvar^2": v**2, "|logvar|": v.abs(), "exp(mu)": m.exp(), "mu logvar": m * v}
    terms |= {
        "mu^2 exp(-logvar)": m**2 * (-v).exp(),
        "mu^2 exp(logvar)": m**2 * v.exp(),
        "exp(-logvar / 2)": (-v / 2).exp(),
    }
    has = fit(got, terms)
    if has is None:
        return None
    wanted = {"1": -0.5, "logvar": -0.5, "mu^2": 0.5, "exp(logvar)": 0.5}
    ratios = {name: has.get(name, 0) / factor for name, factor in wanted.items()}
    plain = has.keys() == wanted.keys() and len(set(ratios.values())) == 1
    lacks, extra = [name for name in wanted if name not in has], [name for name in has if name not in wanted]
    off = [name for name in wanted if ratios[name] != 1]
    flipped = [name for name in wanted if ratios[name] == -1]
    hints = [
        (not has, "kl_divergence is 0 whatever mu and logvar are"),
        (plain and ratios["1"] == -1, "This is minus the KL, as appendix B of the paper gives it: the KL itself is never negative"),
        (plain, f"kl_divergence is {ratios['1']:g} times the right value: which factor stands before the bracket"),
        ("exp(-logvar)" in has and "logvar" in has, "The two distributions have changed places: KL(q || p) is not KL(p || q)"),
        (has.get("logvar") == -1 and "exp(2 logvar)" in has, "logvar stands where log sigma belongs: it is the log of sigma^2"),
        ("exp(2 logvar)" in has, "exp(logvar) is sigma^2 already, and is squared once more"),
        ("exp(logvar / 2)" in has and "exp(logvar)" in lacks, "exp(logvar / 2) is sigma, where the formula has sigma^2"),
        ("mu^2" in lacks, f"mu enters as {', '.join(name for name in extra if 'mu' in name) or 'nothing at all'}, where the formula has mu^2"),
        (lacks == ["1"] and not extra, "At mu = 0 and logvar = 0 the KL is 0, but here it is 0.5: a constant is missing"),
        (extra, f"There is a term {', '.join(extra)}, which the formula does not have"),
        (lacks, f"The formula's term {', '.join(lacks)} is missing"),
        (ratios == {"1": 1, "logvar": -2, "mu^2": -2, "exp(logvar)": -2}, "-0.5 multiplies the 1 alone: put the bracket around the whole sum"),
        (flipped == off, f"{' and '.join(off)} has the wrong sign" if len(off) == 1 else f"{' and '.join(off)} have the wrong signs"),
        (True, f"The factor of {' and '.join(off)} is not the formula's"),
    ]  # fmt: skip
    return f"{next(hint for fits, hint in hints if fits)} (kl_divergence is {formula(has)})."


CRAMPED = "kl_divergence calls itself here: torch's own function of that name is torch.distributions.kl_divergence."
KL = "-0.5 * (1 + logvar - mu.pow(2) - logvar.exp())"
KL_ROWS = (
    (KL, "F.kl_div(mu, logvar)", "F.kl_div compares two tables of log-probabilities: here the formula for Gaussians is asked for."),
    (KL, 'F.kl_div(mu, logvar, reduction="none")', "F.kl_div compares two tables of log-probabilities, not two Gaussians."),
    (KL, "kl_divergence(torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0, 1))", CRAMPED),
    (KL, "0.5 * (mu.pow(2) / logvar.exp() + logvar.exp() - logvar - 1)", "mu^2 is divided by sigma^2: p has variance 1, so nothing is divided."),
    (KL, "-0.5 * (1 + torch.log(logvar) - mu.pow(2) - logvar)", "logvar is a log already: it may be negative, and its log is nan."),
)  # fmt: skip


def observe_recon(recon_loss):
    recon, x = uniform(-1, 1, 5, 3, 32, 32).requires_grad_(), uniform(-0.4, 1, 5, 3, 32, 32)
    unit = "the mean over the batch, the channels and the pixels"
    yield from call(
        "recon_loss(recon, x)", recon_loss, lambda got, want: read_recon(got, want, recon, x), unit, recon=recon, x=x
    )
    pairs = (
        "recon_loss takes recon and x of different shapes, so PyTorch compares all pairs: keep the line that refuses."
    )
    yield from refusal("recon_loss", lambda: recon_loss(recon[:, 0], x[:, :1]), pairs)
    meta = torch.empty(2, 1, 32, 32, device="meta")
    yield from portable(recon_loss, lambda: recon_loss(meta, meta), lambda: recon_loss(recon.double(), x.double()))


def read_recon(got, want, recon, x):
    """Read a wrong number as a mean or sum of another error."""
    if not isinstance(got, Tensor):
        return None
    recon, off = recon.detach(), (recon - x).detach()
    bits = F.binary_cross_entropy_with_logits(recon, x, reduction="none")
    halves = F.binary_cross_entropy((recon + 1) / 2, ((x + 1) / 2).clamp(0, 1), reduction="none")
    errors = {
        "the squared error": off**2,
        "the absolute error: square the difference instead": off.abs(),
        "the smooth L1 (Huber) error, not the squared one": F.smooth_l1_loss(recon, x, reduction="none"),
        "a cross-entropy, not the squared error": bits,
        "a cross-entropy, of pixels scaled to [0, 1], not the squared error": halves,
        "a cross-entropy, of sigmoid(recon), not the squared error": F.binary_cross_entropy_with_logits(recon, (x + 1) / 2, reduction="none"),
        "the difference, whose signs cancel: square it first": off,
        "the difference of the squares, not the square of the difference": recon**2 - x**2,
        "recon times x": recon * x,
    }  # fmt: skip
    for name, error in errors.items():
        if got.shape != want.shape:
            if same(got, error):
                return f"recon_loss is {name}, one number for each pixel: average over everything."
            axes = [[0], [1], [2, 3], [1, 2, 3], [0, 1], [0, 2, 3]]
            for how, reduce in (("averaged", torch.mean), ("summed", torch.sum)):
                if any(
                    got.numel() == reduce(error, a).numel() and same(got.flatten(), reduce(error, a).flatten())
                    for a in axes
                ):
                    return f"recon_loss is {name}, {how} over some axes only, of shape {tuple(got.shape)}: one number is asked for."
            continue
        ratio = (got / error.mean()).item()
        sizes = {
            1: "",
            -1: " with the wrong sign",
            0.5: " times 0.5",
            2: " times 2",
            15360: ", summed over everything: take the mean",
        }
        sizes |= {3072: ", summed over each image, then averaged over the batch: take the mean over both"}
        sizes |= {
            5: ", summed over the batch: take the mean",
            1024: ", summed over the pixels: take the mean",
            3: ", summed over the channels: take the mean",
        }
        sizes |= {
            1 / 5: ", divided by the batch size once too often",
            0.5 * 15360: ", halved and summed: take the mean",
            0.5 * 3072: ", halved and summed over each image: take the mean",
        }
        said = next((said for size, said in sizes.items() if abs(ratio - size) < 1e-4 * abs(size)), None)
        if said is not None and not (name == "the squared error" and not said):
            return f"recon_loss is {name}{said}."
    known = {
        "0: is a thing compared with itself": want * 0,
        "the square of the mean difference: average the squares": off.mean() ** 2,
        "a variance, which leaves out the mean of the difference": off.var(),
        "the square root of the mean squared error: drop the root": want.sqrt(),
        "the length of the difference, a root of a sum: take the mean of the squares": off.norm(),
        "the largest squared error: take the mean": off.pow(2).max(),
        "the error of the first image alone: average over all": off[0].pow(2).mean(),
        "the error of the first channel alone: use all": off[:, 0].pow(2).mean(),
    }
    return next(
        (
            f"recon_loss is {name}{'?' if name[0] == '0' else '.'}"
            for name, value in known.items()
            if got.shape == want.shape and same(got, value)
        ),
        None,
    )


def observe_vae_loss(vae_loss):
    recon, x = uniform(-1, 1, 5, 3, 32, 32).requires_grad_(), uniform(-0.4, 1, 5, 3, 32, 32)
    cases = [
        (beta, size * uniform(-3, 3, 5, 7), size * uniform(-4, 3, 5, 7)) for beta, size in ((0.1, 1.0), (2.5, 0.3))
    ]
    names = ("loss", "mse", "kl")
    for beta, mu, logvar in cases:
        leaves = {"recon": recon, "mu": mu.requires_grad_(), "logvar": logvar.requires_grad_()}
        before = {key: value.detach().clone() for key, value in leaves.items()}
        got = vae_loss(recon, x, mu, logvar, beta)
        yield from untouched("vae_loss", before, leaves)
        three = isinstance(got, tuple | list) and len(got) == 3
        if three:
            mse, kl = loss.recon_loss(recon, x).detach(), loss.kl_divergence(mu, logvar).detach()
            yield clue("kl", got[2], lambda one, _, mse=mse, kl=kl, beta=beta: read_kl_part(one, mse, kl, beta))
            yield clue("mse", got[1], lambda one, _, mse=mse, kl=kl, beta=beta: read_mse_part(one, mse, kl, beta))
            parts = {"mse": mse, "kl": kl.mean(), "beta": beta}
            yield clue("loss", got[0], lambda one, _, parts=parts: read_total(one, **parts))
        yield from returned("vae_loss", got, names)
        if three and all(isinstance(one, Tensor) for one in got):
            yield from gradients("loss", got[0], leaves)
    yield must(
        "loss without a beta",
        vae_loss(recon, x, mu, logvar)[0],
        "vae_loss without a beta must use 0.1: keep the default in the first line.",
    )
    meta, codes = torch.empty(2, 1, 32, 32, device="meta"), torch.empty(2, 3, device="meta")
    yield from portable(vae_loss, lambda: vae_loss(meta, meta, codes, codes))


def read_kl_part(got, mse, kl, beta):
    if not isinstance(got, Tensor) or got.ndim:
        return (
            None
            if not isinstance(got, Tensor)
            else f"kl has shape {tuple(got.shape)}: take the mean over the batch and over D, one number."
        )
    batch, dims = kl.shape
    how = {
        batch * dims: "summed over the batch and over D: take the mean over both",
        dims: f"summed over D, so it is D = {dims} times too large: take the mean",
        batch: f"summed over the batch, so it is {batch} times too large: take the mean",
        -1: "negative, which a KL divergence never is: there is a sign too many",
        0.5: "halved once too often: the 0.5 is in kl_divergence already",
        beta: "multiplied by beta already: beta weighs the KL in the sum only",
        1 / batch: "divided by the batch size once too often: mean() does that",
        1 / dims: "divided by D once too often: mean() does that",
    }
    if any(same(got, total) for total in (mse + beta * kl.mean(), mse + kl.mean())):
        return "kl is changed in place: loss = kl gives one tensor two names, and loss *= ... and loss += ... change it under both."
    ratio = (got / kl.mean()).item()
    said = next((said for size, said in how.items() if abs(ratio - size) < 1e-4 * abs(size)), None)
    others = {
        "the largest KL of all": kl.max(),
        "the median": kl.median(),
        "the KL of the first image alone": kl[0].mean(),
        "a number of the first dimension alone": kl[:, 0].mean(),
    }
    said = said or next((f"{name}: take the mean over all" for name, value in others.items() if same(got, value)), None)
    return f"kl is {said} (it is {brief(got)}, where {brief(kl.mean())} is expected)." if said else None


def read_mse_part(got, mse, kl, beta):
    if isinstance(got, Tensor) and any(same(got, mse + factor * kl.mean()) for factor in (beta, 1)):
        return "mse holds the KL as well: loss = mse + ... makes a new number, where += changes mse itself."
    if isinstance(got, Tensor) and same(got, kl.mean()):
        return "The second value is the KL: loss, mse, kl are expected, in this order."
    return None


def read_total(got, mse, kl, beta):
    """Read a wrong loss as a sum of products of its parts."""
    if not isinstance(got, Tensor) or got.ndim:
        return None
    known = {
        "the KL is subtracted: it is a price to pay, and is added": mse - beta * kl,
        "the KL is computed and never used, as in a plain autoencoder": mse,
        "the reconstruction error is missing": beta * kl,
        "beta is never used: it weighs the KL": mse + kl,
        "0.1 is typed in where beta belongs": mse + 0.1 * kl,
        "the terms are multiplied, where they should be added: a product is 0 as soon as one of them is": mse
        * beta
        * kl,
        "beta weighs the reconstruction error: it belongs to the KL": beta * mse + kl,
        "beta weighs the whole loss: it belongs to the KL alone": beta * (mse + kl),
        "beta divides the KL: it multiplies it": mse + kl / beta,
        "beta is added: it multiplies the KL": mse + beta + kl,
        "the two terms are averaged: they are added": (mse + beta * kl) / 2,
        "its sign is wrong: a loss is made as small as possible": -(mse + beta * kl),
        "beta weighs the KL twice": mse + beta**2 * kl,
        "the KL is multiplied with the reconstruction error: it is added": mse * (1 + beta * kl),
        "beta is shared out between the two: it weighs the KL alone": beta * mse + (1 - beta) * kl,
        "beta is shared out between the two terms: it weighs the KL alone": (1 - beta) * mse + beta * kl,
        "the error is counted twice": 2 * mse + beta * kl,
    }
    said = next((said for said, value in known.items() if same(got, value)), None)
    seen = f"with mse = {mse:.3f}, kl = {kl:.3f} and beta = {beta} it is {brief(got)}, where {mse + beta * kl:.3f} is expected"
    return f"In loss, {said} ({seen})." if said else f"loss is not mse + beta * kl: {seen}."


LOSS_ROWS = (
    ("kl_divergence(mu, logvar).mean()", "kl_divergence(logvar, mu).mean()", "kl_divergence gets logvar first: it takes mu, then logvar."),
    ("kl_divergence(mu, logvar).mean()", "kl_divergence(recon, x).mean()", "kl_divergence gets images: it compares mu and logvar with the prior."),
    ("mse = recon_loss(recon, x)", "mse = recon_loss(x, x)", "recon_loss compares x with itself."),
    ("loss = mse + beta * kl", "loss = mse; loss += beta * kl", "mse is changed in place, because loss += ... changes the tensor that both names mean."),
    ("loss = mse + beta * kl", "kl *= beta; loss = mse + kl", "kl is changed in place by *=: it is returned without beta."),
    ("return loss, mse, kl", "return loss, kl, mse", "mse and kl have changed places in what is returned: loss, mse, kl."),
    ("return loss, mse, kl", "return mse, kl, loss", "The loss comes last: return loss, mse, kl, in this order."),
)  # fmt: skip


# 1.2, 1.3 the encoder, 1.5 the decoder

ENCODER_SIZES = [{"in_channels": 3, "width": 5, "latent_dim": 7}, {"in_channels": 1, "width": 3, "latent_dim": 4}]
DECODER_SIZES = [{"out_channels": 3, "width": 5, "latent_dim": 7}, {"out_channels": 1, "width": 3, "latent_dim": 4}]
BLOCKS = {
    "conv1": ("", ""),
    "bn1": ("conv1", ""),
    "conv2": ("bn1", "relu"),
    "bn2": ("conv2", ""),
    "conv3": ("bn2", "relu"),
    "bn3": ("conv3", ""),
}
HEADS = {"conv_mu": ("bn3", "relu"), "conv_logvar": ("bn3", "relu")}
HALVE = "with kernel 4 and stride 2 it halves the map, (8 + 2 - 4) / 2 + 1 = 4"
WHOLE = "so that the kernel fits the 4x4 map in just one place"
GROW = "only so one pixel becomes a map of 4x4"
DOUBLE = "with kernel 4 and stride 2 it doubles the map, (16 - 1) * 2 - 2 + 4 = 32"
ENCODER_REASONS = {("conv3", "padding"): HALVE, ("conv_mu", "padding"): WHOLE, ("conv_logvar", "padding"): WHOLE}
DECODER_REASONS = {("conv1", "padding"): GROW, ("conv1", "kernel_size"): GROW, ("conv4", "padding"): DOUBLE}


def observe_encoder_layers(Encoder):
    Encoder = restructured(Encoder, model.Encoder, ENCODER_SIZES, lambda size: (size["in_channels"], 32, 32))
    maps = {"conv1": 8, "conv2": 8, "conv3": 8, "bn1": 2, "bn2": 2, "bn3": 2, "conv_mu": 4, "conv_logvar": 4}
    yield from layers(Encoder, model.Encoder, ENCODER_SIZES, maps, ENCODER_REASONS)


def observe_encoder_forward(Encoder):
    Encoder = restructured(Encoder, model.Encoder, ENCODER_SIZES, lambda size: (size["in_channels"], 32, 32))
    for size in ENCODER_SIZES:
        batches = [uniform(-1, 1, batch, size["in_channels"], 32, 32) for batch in (3, 1)]
        yield from forward(Encoder, model.Encoder, size, batches, BLOCKS | HEADS, ("mu", "logvar"))


def observe_decoder_layers(Decoder):
    maps = {"conv2": 4, "conv3": 4, "conv4": 4, "bn1": 2, "bn2": 2, "bn3": 2}
    Decoder = restructured(Decoder, model.Decoder, DECODER_SIZES, lambda size: (size["latent_dim"],))
    # on a map of one pixel the stride makes no difference
    yield from layers(Decoder, model.Decoder, DECODER_SIZES, maps, DECODER_REASONS, {("conv1", "stride")})


def observe_decoder_forward(Decoder):
    Decoder = restructured(Decoder, model.Decoder, DECODER_SIZES, lambda size: (size["latent_dim"],))
    for size in DECODER_SIZES:
        codes = [torch.randn(batch, size["latent_dim"]) for batch in (3, 1)]
        yield from forward(Decoder, model.Decoder, size, codes, BLOCKS | {"conv4": ("bn3", "relu")}, ("images",))


X_LOST = "x is overwritten by the first head, but both heads need it: give the head's result another name."
ENCODER_ROWS = (
    ("mu = self.conv_mu(x).flatten(1)", "mu = x = self.conv_mu(x).flatten(1)", X_LOST),
    ("mu = self.conv_mu(x).flatten(1)", "x = self.conv_mu(x); mu = x.flatten(1)", X_LOST),
)

# 1.4 reparameterize, 1.6 what is decoded


def observe_reparameterize(reparameterize):
    mu, logvar = uniform(-3, 3, 2048, 16), uniform(-4, 3, 2048, 16)
    far = {"logvar = -9.5": (0.0, -9.5), "logvar = 9.5": (0.0, 9.5), "mu = 50": (50.0, 0.0)}
    leaves = torch.zeros(64, 16).requires_grad_(), uniform(-4, 3, 64, 16).requires_grad_()
    std = (0.5 * logvar).exp()
    z = yield from draw(reparameterize, mu, logvar)
    if z is None:
        return
    eps = (z - mu) / std
    again = (reparameterize(mu, logvar) - mu) / std
    twice = "Two calls draw the same noise: it must be drawn anew in every call."
    yield must("The noise of one call less that of another", noise((again - eps) / 2**0.5), twice)
    with torch.no_grad():
        off = (reparameterize(mu, logvar) - mu) / std
    yield must(
        "The noise under torch.no_grad()",
        noise(off),
        "Under torch.no_grad() the noise is another: draw it in every mode.",
    )
    for name, (m, v) in far.items():
        wide = reparameterize(torch.full((1024, 16), m), torch.full((1024, 16), v))
        cut = f"z is right for moderate numbers, but not at {name}: nothing needs to be clamped or added."
        yield must(f"The noise at {name}", noise((wide - m) / torch.tensor(0.5 * v).exp()), cut)
    z = reparameterize(*leaves)
    yield must(
        "Whether gradients flow",
        z.requires_grad,
        "No gradient reaches mu and logvar: a sample that is drawn from a distribution, or detached, carries none.",
    )
    if z.requires_grad:
        to_mu, to_logvar = torch.autograd.grad(z.sum(), leaves, allow_unused=True)
        to_mu, to_logvar = (torch.zeros_like(z) if grad is None else grad for grad in (to_mu, to_logvar))
        drawn = "No gradient reaches mu and logvar: a sample that is drawn from a distribution carries none."
        yield must("Whether any gradient flows", bool(to_mu.any() or to_logvar.any()), drawn)
        yield must("The gradient of mu", to_mu, "The gradient of z with respect to mu must be 1: is mu detached?")
        yield clue(
            "Whether logvar gets a gradient",
            bool(to_logvar.any()),
            "No gradient reaches logvar: is it, or std, detached?",
        )
        nearly = (
            "std is nearly, but not exactly, the root of exp(logvar): something is added to it, clamped or rounded."
        )
        yield must("The gradient of logvar", same(to_logvar, 0.5 * z, 1e-3), nearly)
    yield from own_generator(reparameterize, lambda: reparameterize(mu, logvar))
    clamp = "right for all but extreme numbers. A clamp has no gradient outside its range, and nothing here needs one."
    wide = [
        reparameterize(torch.zeros(1024, 16), torch.full((1024, 16), v)) / torch.tensor(0.5 * v).exp()
        for v in (-15.0, 15.0)
    ]
    yield should("Further out", [noise(one) for one in wide], clamp, "clamp|clip|hardtanh|max|min")
    meta, double = torch.empty(2, 3, device="meta"), torch.zeros(2, 3, dtype=torch.float64)
    yield from portable(reparameterize, lambda: reparameterize(meta, meta), lambda: reparameterize(double, double))


def draw(reparameterize, mu, logvar):
    """Yield what a draw of z is like; return it, None if it is no tensor of the right kind."""
    before = {"mu": mu.clone(), "logvar": logvar.clone()}
    z = reparameterize(mu, logvar)
    yield from untouched("reparameterize", before, {"mu": mu, "logvar": logvar})
    kind = (tuple(z.shape), str(z.dtype)) if isinstance(z, Tensor) else brief(z)
    given = f"{brief(z)} and type {z.dtype}" if isinstance(z, Tensor) else brief(z)
    wanted = f"one of shape {tuple(mu.shape)} and type {mu.dtype}, one z per entry,"
    yield must("z", kind, f"reparameterize returns {given}, where {wanted} is expected.")
    if kind != (tuple(mu.shape), str(mu.dtype)):
        return None
    z = z.detach()
    facts = noise((z - mu) / (0.5 * logvar).exp(), mu=mu, logvar=logvar)
    yield must("Of the noise in z, (z - mu) / std, the", facts, lambda *_: read_draw(z, mu, logvar))
    return z


REPARAMETERIZE_ROWS = (
    ("torch.exp(0.5 * logvar)", "torch.sqrt(logvar)", "The root is taken of logvar itself, which may be negative: the variance is exp(logvar)."),
    ("torch.randn_like(std)", "torch.randn_like(1)", "randn_like takes a tensor, whose shape it copies."),
    ("return mu + eps * std", "return mu + eps @ std", "@ multiplies matrices: every entry of eps is multiplied by its own std, with *."),
)  # fmt: skip


def observe_vae(VAE):
    x, seen = torch.zeros(1024, 1, 32, 32), {}
    modes = [(False, True), (True, False), (True, True), (False, False)]  # of the model, of its encoder
    parts = [(StubEncoder(), StubDecoder()) for _ in modes]
    for (training, other), (encoder, decoder) in zip(modes, parts, strict=True):
        net = VAE(encoder, decoder).train(training)
        encoder.train(other)
        got = net(x)
        mode = "train" if training else "eval"
        calls = encoder.calls, len(decoder.seen)
        yield must(
            "Calls", calls, f"forward calls the encoder {times(calls[0])} and the decoder {times(calls[1])}: once each."
        )
        left = net.training is training and encoder.training is other
        yield must(
            "The mode afterwards", left, "forward changes the mode of the model: it should only read self.training."
        )
        seen[training, other] = got, decoder.seen[0], encoder
    kinds = {mode: kind_of_code(z, encoder) for mode, (_, z, encoder) in seen.items()}
    yield must("What is decoded", kinds, lambda got, _: read_modes(got))
    for training, other in modes[:2]:
        got, z, encoder = seen[training, other]
        known = {
            "z": z,
            "recon": 3 * z + 1,
            "logvar": encoder.logvar,
            "mu": encoder.mu,
            "the variance": encoder.logvar.exp(),
        }
        three = isinstance(got, tuple | list) and len(got) == 3
        # recon depends on chance: what is left of it without z does not
        without_z = (got[0] - 3 * z, *got[1:]) if three and getattr(got[0], "shape", 0) == z.shape else got
        yield from returned("forward", without_z, ("recon", "mu", "logvar"), known)
        yield must(
            "recon", same(got[0], 3 * z + 1), "recon is not what the decoder makes of z: return its output as it is."
        )
        mode = "train" if training else "eval"
        leaves = [encoder.mu, encoder.logvar]
        cut = f"In {mode} mode recon carries no gradient: detach, .data or no_grad cuts it off."
        yield must(f"Whether recon carries a gradient in {mode} mode", got[0].requires_grad, cut)
        to_mu, to_logvar = torch.autograd.grad(got[0].sum(), leaves, allow_unused=True)
        reached = to_mu is not None and same(to_mu, torch.full_like(to_mu, 3.0))
        yield must(
            f"The gradient of mu in {mode} mode",
            reached,
            "z is detached from mu: the encoder learns nothing from the reconstruction.",
        )
        if training:
            reached = to_logvar is not None and same(to_logvar, 1.5 * (z - encoder.mu), 1e-3)
            yield must(
                "The gradient of logvar",
                reached,
                "z is detached from logvar: the encoder does not learn how wide to draw.",
            )
        carries = got[1].requires_grad and got[2].requires_grad
        yield must(
            "Whether mu and logvar carry a gradient",
            carries,
            "mu and logvar are detached on the way out: the KL teaches the encoder nothing.",
        )
    (_, one, encoder), (_, other, second) = seen[True, False], seen[True, True]
    between = [(z - e.mu) / (0.5 * e.logvar).exp() for z, e in ((one, encoder), (other, second))]
    twice = "Two passes in train mode draw the same noise: seed once, at the top of the notebook."
    yield must("The noise of one pass less that of another", noise((between[0] - between[1]) / 2**0.5), twice)
    net = VAE(model.Encoder(1, 2, 4), model.Decoder(1, 2, 4)).to("meta").train()
    yield from portable(VAE, lambda: net(torch.empty(2, 1, 32, 32, device="meta")))


def kind_of_code(z, encoder):
    """Say what was decoded: "mu", "a sample", or a sentence about what else it is."""
    mu, logvar = encoder.mu.detach(), encoder.logvar.detach()
    if not isinstance(z, Tensor) or z.shape != mu.shape or z.dtype != mu.dtype:
        return f"the decoder gets {brief(z)}, where z, of shape {tuple(mu.shape)}, is expected."
    z, std = z.detach(), (0.5 * logvar).exp()
    for name, value in {"mu": mu, "logvar": logvar, "std": std, "exp(logvar), the variance,": std**2}.items():
        if same(z, value):
            return name
    if alike(noise((z - mu) / std, mu=mu, logvar=logvar), noise(torch.randn(mu.shape), mu=mu, logvar=logvar)):
        return "a sample"
    swapped = read_draw(z, logvar, mu)
    if swapped is None and alike(noise((z - logvar) / (0.5 * mu).exp()), noise(torch.randn(mu.shape))):
        return "reparameterize gets logvar first: it takes mu, then logvar."
    return read_draw(z, mu, logvar) or "z is neither mu nor a sample of q(z|x)."


def read_modes(kinds):
    """Say what is decoded in which mode of the model, from {(mode of the model, of its encoder): kind}."""
    evaluated, trained = kinds[False, True], kinds[True, False]
    if (kinds[False, False], kinds[True, True]) == ("mu", "a sample") and evaluated != "mu":
        return "The mode is read off another module than the VAE itself: self.training tells the VAE's mode."
    if (evaluated, trained) == ("a sample", "mu"):
        return "The two modes are mixed up: mu is decoded in train mode here, and a sample in eval mode."
    for kind, mode, wanted in ((trained, "train", "a sample"), (evaluated, "eval", "mu")):
        if kind != wanted and mode == "eval" and "noise" in kind:
            return (
                "In eval mode there is noise in what is decoded: mu itself is expected. self.training tells the mode."
            )
        if kind != wanted and kind.endswith((".", "?")):
            return f"In {mode} mode {kind[0].lower()}{kind[1:]}"
    if trained != "a sample":
        why = ": without noise the KL has no purpose" if trained == "mu" else ""
        return f"In train mode {trained} is decoded, where a sample of z is expected{why}."
    return f"In eval mode {evaluated} is decoded, where mu is expected: self.training tells the mode."


CODE = "z = reparameterize(mu, logvar) if self.training else mu"
VAE_ROWS = (
    (CODE, "z = reparameterize(mu, logvar.exp()) if self.training else mu", "reparameterize gets the variance: it takes logvar as it is."),
    (CODE, "z = reparameterize(mu, 0.5 * logvar) if self.training else mu", "reparameterize gets half of logvar: it takes logvar as it is."),
    (CODE, "z = reparameterize(mu, (0.5 * logvar).exp()) if self.training else mu", "reparameterize gets std: it takes logvar as it is."),
    (CODE, "z = reparameterize(x, logvar) if self.training else mu", "reparameterize gets the images: it takes mu and logvar."),
    (CODE, "z = torch.randn_like(mu) if self.training else mu", "z does not depend on x in train mode: sample it with reparameterize(mu, logvar)."),
    (CODE, "z = torch.randn_like(mu)", "z does not depend on x: in train mode it is a sample of q(z|x), in eval mode mu."),
)  # fmt: skip


# 1.7 the training step


class TinyVAE(nn.Module):
    """A model without noise that notes what it does: two training steps that do the same give the same weights."""

    def __init__(self, events):
        super().__init__()
        self.encode, self.decode, self.events = nn.Linear(1024, 4), nn.Linear(2, 1024), events

    def forward(self, x):
        self.events.append("the model" if all(part.training for part in self.modules()) else "the model in eval mode")
        mu, logvar = self.encode(x.flatten(1)).chunk(2, dim=1)
        return self.decode(mu + 0.1 * logvar).reshape(x.shape), mu, logvar


class NotingSGD(torch.optim.SGD):
    """An optimizer that notes when it clears and when it steps, and with which gradients."""

    def __init__(self, weights, events):
        super().__init__(weights, lr=0.1, momentum=0.9)
        self.events, self.grads = events, []

    def zero_grad(self, set_to_none=True):
        self.events.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self, closure=None):
        result = None if closure is None else closure()
        self.events.append("step")
        weights = self.param_groups[0]["params"]
        self.grads.append([torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights])
        super().step()
        return result


def observe_train_step(train_step):
    events, given, kept = [], [], []
    model, batches = TinyVAE(events), torch.randn(3, 8, 1, 32, 32)
    optimizer = NotingSGD(model.parameters(), events)

    def loss_fn(recon, x, mu, logvar):
        events.append("loss_fn")
        given.append((recon, x, mu, logvar))
        leaf = torch.zeros((), requires_grad=True)
        factor = leaf.exp()  # 1, with a graph of its own, which backward frees unless it is told to retain it
        kept.append((factor, leaf))
        # so small that gradients clipped at a norm of 1 stay as they are
        error, kl = 0.1 * (recon - 0.8 * x).pow(2).mean(), 0.0002 * (mu.pow(2) + 3 * logvar.exp()).mean()
        total = (error + 0.5 * kl) * factor
        if total.requires_grad:
            total.register_hook(lambda _: events.append("backward"))
            mu.register_hook(lambda _: events.append("gradients")) if mu.requires_grad else None
        return total, error, kl

    for x in batches:
        events.clear(), given.clear()
        weights, before = [weight.detach().clone() for weight in model.parameters()], x.clone()
        returned_ = train_step(model, x, optimizer, loss_fn)
        yield from untouched("train_step", {"x": before}, {"x": x})
        runs = [event for event in events if event.startswith("the model")]
        yield must("The runs of the model", runs, read_runs(runs))
        calls = events.count("loss_fn")
        never = "loss_fn is never called: use the argument, whatever loss it stands for, with recon, x, mu and logvar."
        yield must("Calls of loss_fn", calls, f"loss_fn is called {times(calls)}: once is right." if calls else never)
        with torch.no_grad():
            recon, mu, logvar = functional(model, weights, x)
        known = {"recon": recon, "x": x, "mu": mu, "logvar": logvar}
        names = [
            next((name for name, one in known.items() if isinstance(g, Tensor) and same(g, one)), "something else")
            for g in given[0]
        ]
        yield must(
            "What loss_fn gets",
            names,
            lambda got, _: f"loss_fn gets {', '.join(got)}, where recon, x, mu, logvar are expected, in this order.",
        )
        yield must("The order of things", order(events), lambda *_, happened=list(events): read_order(happened))
        yield must(
            "The gradients that the optimizer steps with",
            optimizer.grads[-1:],
            lambda got, want: read_gradients(got, want, events),
        )
        moved = [weight.detach() - old for weight, old in zip(model.parameters(), weights, strict=True)]
        yield must("The change of the weights", moved, read_change)
        learns = all(weight.requires_grad for weight in model.parameters())
        yield must(
            "Whether the weights learn", learns, "train_step freezes weights of the model: leave requires_grad alone."
        )
        yield must("The mode afterwards", model.training, "train_step leaves the model in eval mode.")
        yield from floats(returned_)
    try:
        torch.autograd.grad(*kept[-1])
        held = kept[-1][1].grad is not None
    except RuntimeError:
        held = False
    memory = (
        "retain_graph keeps the graph, and so its memory. Every step builds a new graph, so nothing needs the old one."
    )
    yield should("The graph afterwards", held, memory, "retain_graph|create_graph")
    train_step(model, 1000 * x, optimizer, loss_fn)
    clip = "right here, but large gradients are clipped, which is not asked for: a plain step leaves them as they are."
    yield should("Large gradients", optimizer.grads[-1], clip, "clip|clamp")


def functional(model, weights, x):
    """Return what a TinyVAE with these weights gives, without a note."""
    twin = copy.deepcopy(model)
    for weight, old in zip(twin.parameters(), weights, strict=True):
        weight.data = old
    return twin(x)


def read_runs(runs):
    if len(runs) != 1:
        return f"The model runs {times(len(runs))} in one step: once, and everything from that run."
    return "The model runs in eval mode, or a part of it does: then BatchNorm and the noise are off in training."


def order(events):
    """Return backward and step in their order, and with them zero_grad where it undoes what backward did."""
    kept = [event for event in events if event in ("backward", "step", "zero_grad")]
    return [
        e for at, e in enumerate(kept) if e != "zero_grad" or kept[at - 1 : at] == ["backward"] and "step" in kept[at:]
    ]


def read_order(events):
    if "gradients" in events and "backward" not in events:
        return "backward starts from something other than the loss, which is the first of what loss_fn returns."
    if "backward" not in events:
        return "Nobody computes the gradients: loss.backward() is missing, or the loss is cut off from the graph."
    if events.count("backward") > 1:
        return f"backward runs {times(events.count('backward'))}, and its gradients add up: once is right."
    if "step" not in events:
        return "The optimizer that is given never steps. It carries averages from step to step, so use this one."
    if events.count("step") > 1:
        return f"The optimizer steps {times(events.count('step'))}: once is right."
    if events.index("step") < events.index("backward"):
        return "The optimizer steps before backward has computed the gradients: clear, compute, step."
    return "The gradients are cleared between backward and step: nothing is left to step with."


def read_gradients(got, want, events):
    if not got:
        return "The optimizer that is given never steps. It carries averages from step to step, so use this one."
    flat = [torch.cat([grad.flatten() for grad in grads[0]]) for grads in (got, want)]
    if "zero_grad" not in events and not (said := relation(*flat)):
        return "The gradients of the step before are never cleared: PyTorch adds the new ones to them."
    said = relation(*flat)
    if said and "sign" in said:
        return "The weights move uphill: the loss, or its gradient, has the wrong sign."
    if said and "0" != said[:1]:
        return f"The gradient of every weight is {said}: something scales the loss or its gradient."
    if said:
        return (
            f"The gradient of every weight is {said}: where does it get lost?"
            if "everywhere" in said
            else f"The gradient of every weight is {said}: something scales the loss or its gradient."
        )
    zero = [name for name, grad in zip(("encoder", "decoder"), (got[0][0], got[0][2]), strict=True) if not grad.any()]
    return f"No gradient reaches the {zero[0]}: is something detached?" if zero else None


def read_change(got, want):
    flat = [torch.cat([part.flatten() for part in change]) for change in (got, want)]
    said = relation(*flat)
    return (
        f"The weights change by something that is {said}."
        if said
        else "The weights change in another way than by the optimizer's step: what else touches them?"
    )


def floats(result):
    """Yield the three numbers that a step returns."""
    several = isinstance(result, tuple | list)
    came = f"{len(result)} values" if several else "one value" if isinstance(result, Tensor | float) else brief(result)
    yield must(
        "What train_step returns",
        len(result) if several else 0,
        f"train_step returns {came}, where three are expected: loss, recon_loss, kl_loss.",
    )
    tensors = any(isinstance(part, Tensor) for part in result)
    yield must(
        "Their type",
        tensors,
        "train_step returns tensors, which keep the whole graph in memory: return numbers, with .item().",
    )
    kinds = ", ".join(type(part).__name__ for part in result)
    yield must(
        "Their type",
        all(isinstance(part, float) for part in result),
        f"train_step returns {kinds}, where three floats are expected: .item() makes them.",
    )
    other = "train_step returns other numbers than loss, recon_loss and kl_loss of this batch, in this order."
    yield must("What is returned", [float(part) for part in result], other)


CALL = "loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar)"
CLEAR, BACK, STEP = "    optimizer.zero_grad()\n", "    loss.backward()\n", "    optimizer.step()\n"
STEP_ROWS = (
    (BACK, "    recon_loss.backward()\n", "backward starts from recon_loss, so the KL teaches the model nothing: start from the whole loss."),
    (BACK, "    kl_loss.backward()\n", "backward starts from kl_loss, so the reconstruction error teaches nothing: start from the whole loss."),
    (BACK, "    (recon_loss + kl_loss).backward()\n", "backward starts from the sum of the two parts, without their weights: start from loss."),
    (BACK, "    (loss / len(x)).backward()\n", "The loss is divided by the batch size: it is a mean already."),
    (BACK, "    (loss * len(x)).backward()\n", "The loss is multiplied by the batch size: take it as it is."),
    (BACK, "    loss.detach().backward()\n", "The loss is detached: no gradient goes back through it."),
    (CLEAR + BACK + STEP, STEP + CLEAR + BACK, "The optimizer steps first, with the gradients of the batch before: clear, compute, step."),
    (BACK + STEP, STEP, "Nobody computes the gradients: loss.backward() is missing."),
    (CLEAR + BACK + STEP, "", "The lines that train are missing: clear the gradients, compute them, step."),
    (CLEAR, "", "The gradients of the step before are never cleared: PyTorch adds the new ones to them."),
    (CALL, "loss, kl_loss, recon_loss = loss_fn(recon, x, mu, logvar)", "recon_loss and kl_loss have changed places: loss_fn returns the loss, the error, the KL."),
    (CALL, "recon_loss, kl_loss, loss = loss_fn(recon, x, mu, logvar)", "loss_fn returns the loss first, then its two parts."),
    (CALL, "loss = loss_fn(recon, x, mu, logvar)", "loss_fn returns three values: the loss and its two parts."),
)  # fmt: skip


# 1.8 the prior, 1.9 class means, 1.10 interpolation


class WatchedDecoder(nn.Module):
    """A decoder that notes what it was given, and in which mode; its copies note it in the same lists."""

    def __init__(self, latent_dim):
        super().__init__()
        self.net, self.latent_dim = model.Decoder(1, 2, latent_dim), latent_dim
        seen, modes = [], []
        self.note, self.seen, self.modes = (lambda z, mode: (seen.append(z), modes.append(mode))), seen, modes

    def __deepcopy__(self, memo):
        twin = WatchedDecoder(self.latent_dim).train(self.training)
        twin.load_state_dict(self.state_dict())
        twin.note, twin.seen, twin.modes = self.note, self.seen, self.modes
        return twin

    def forward(self, z):
        self.note(z, self.net.bn1.training)
        return self.net(z)


def observe_sample_prior(sample_prior):
    decoders = [
        (WatchedDecoder(6).train(), 1024, 6),
        (WatchedDecoder(9).eval(), 5, 9),
        (WatchedDecoder(4).eval(), 1, 4),
    ]
    for decoder, count, latent_dim in decoders:
        training, before = decoder.training, copy.deepcopy(decoder.net.state_dict())
        images = sample_prior(decoder, count, latent_dim)
        yield must("Whether the decoder is used", bool(decoder.seen), "The decoder is never called: decode z.")
        kinds = [tuple(z.shape[1:]) if isinstance(z, Tensor) else brief(z) for z in decoder.seen]
        wanted = f"z of shape (num_samples, latent_dim), here {count, latent_dim},"
        yield must(
            "What the decoder gets",
            set(kinds),
            f"The decoder gets {brief(decoder.seen[0])}, where {wanted} is expected.",
        )
        mixes = "z is decoded in train mode, where BatchNorm mixes the samples of a batch: decode in eval mode."
        yield must("The mode of the decoder", any(decoder.modes), mixes)
        came = sum(len(z) for z in decoder.seen)
        yield must("How many z", came, f"{came} codes are decoded, where num_samples = {count} are asked for.")
        shape = tuple(images.shape) if isinstance(images, Tensor) else brief(images)
        yield must(
            "sample_prior(...)",
            shape,
            lambda got, want, i=images: f"sample_prior returns {brief(i)}, where {want}, one image per z, is expected.",
        )
        carries = "The images carry a gradient: decode under torch.no_grad(), because nobody trains here."
        yield must("Whether the images carry a gradient", images.requires_grad, carries)
        yield from decoder_afterwards(decoder, before, training)
        z = torch.cat(decoder.seen).detach()
        yield must(
            "Whether the decoder made the images",
            same(images, decoder.net.eval()(z)),
            "The images are not what the decoder makes of z: return them as they come.",
        )
        if count > 16:
            yield must("Of z, the", noise(z), lambda *_, z=z: read_noise(z, "z"))
        decoder.net.train(training)
        decoder.seen.clear()
        again = sample_prior(decoder, count, latent_dim)
        twice = "Two calls give the same images: the noise is seeded inside the function. Seed once, at the top."
        yield must("Whether two calls differ", same(images, again), twice)
    yield from own_generator(sample_prior, lambda: sample_prior(decoder, 2, 4))
    far, double = model.Decoder(1, 2, 6).to("meta"), model.Decoder(1, 2, 6).double()
    yield from portable(sample_prior, lambda: sample_prior(far, 2, 6), lambda: sample_prior(double, 2, 6))


def decoder_afterwards(decoder, before, training):
    """Yield whether the decoder is as it was, and gradients are on."""
    after = decoder.net.state_dict()
    types = all(after[key].dtype == value.dtype for key, value in before.items())
    yield must(
        "The type of the weights",
        types,
        "Sampling changes the type of the decoder's weights: leave the decoder as it is.",
    )
    intact = all(torch.equal(before[key], value) for key, value in after.items())
    yield must(
        "The decoder's state", intact, "Sampling changes the decoder's weights or averages: decode in eval mode."
    )
    mode = decoder.training is training and decoder.net.bn1.training is training
    left = "The decoder is left in another mode than before: `with eval_mode(decoder):` restores it."
    yield must("The decoder's mode", mode, left)
    frozen = "The decoder's weights are frozen for good: torch.no_grad() switches gradients off for a moment."
    yield must("Whether weights learn", all(weight.requires_grad for weight in decoder.parameters()), frozen)
    off = "Gradients stay switched off for whatever comes later: `with torch.no_grad():` switches them on again."
    yield must("Whether gradients are on", torch.is_grad_enabled(), off)
    torch.set_grad_enabled(True)


PRIOR = "torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)"
DECODE = "    with eval_mode(decoder), torch.no_grad():\n        images = decoder(z)\n"
PRIOR_ROWS = (
    (DECODE, "    with eval_mode(decoder), torch.no_grad():\n        decoder(z)\n", "What the decoder gives is not kept: images = decoder(z)."),
    (PRIOR, f"{PRIOR} * 0.5", "z is half as wide as the prior: draw it, and leave it as it comes."),
    (PRIOR, "torch.randn(latent_dim, num_samples)", "The two sizes have changed places: one row per image, (num_samples, latent_dim)."),
)  # fmt: skip


def observe_class_means(class_means):
    classes = [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9], [3, 1, 1, 2, 3, 4, 5, 6, 8, 8, 8], [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9]
    cases = [
        (torch.randn(11, dims) + 1, torch.tensor(one), count)
        for one, dims, count in zip(classes, (10, 4, 6), (10, 10, 12), strict=True)
    ]
    for codes, labels, count in cases:
        before = {"codes": codes.clone(), "labels": labels.clone()}
        got = class_means(codes, labels) if count == 10 else class_means(codes, labels, count)
        yield from untouched("class_means", before, {"codes": codes, "labels": labels})
        shape = (tuple(got.shape), str(got.dtype)) if isinstance(got, Tensor) else brief(got)
        wanted = (count, codes.shape[1]), str(codes.dtype)
        yield clue("class_means(...)", shape, lambda *_, g=got, w=wanted, c=codes, la=labels: read_shape(g, w, c, la))
        yield must("class_means(...)", shape)
        if shape != wanted:
            return
        present = labels.unique()
        at = "The means of the classes that occur"
        yield must(
            at, got[present].detach(), lambda one, want, c=codes, la=labels, n=count: read_means(one, want, c, la, n)
        )
    empty = got[11].isnan().all() or not got[11].any()
    yield must("The row of an empty class", bool(empty), "A class without codes has a mean made up from others' codes.")
    nan = (
        "right for every class that occurs. An empty class gets 0 here, a code like any other, where nan would show it."
    )
    yield should("An empty class", bool(got[11].isnan().all()), nan, "clamp|max|where|nan_to_num|if |eps|1e-|zeros")
    meta, labels = torch.empty(4, 3, device="meta"), torch.tensor([0, 1, 2, 2])
    double = torch.randn(4, 3, dtype=torch.float64)
    yield from portable(class_means, lambda: class_means(meta, labels), lambda: class_means(double, labels))


def read_shape(got, wanted, codes, labels):
    count, dims = wanted[0]
    if not isinstance(got, Tensor):
        return f"class_means returns {brief(got)}, where a tensor of shape {wanted[0]}, one mean code per class, is expected."
    if tuple(got.shape) == (dims, count):
        return f"The result is transposed: it has shape {tuple(got.shape)}, where one row per class is expected."
    if len(got) == len(labels.unique()) and got.ndim == 2:
        return f"Only classes that occur get a row: num_classes = {count} rows are asked for, also for an empty class."
    if len(got) == int(labels.max()) + 1:
        return f"The result has {len(got)} rows, as many as the largest label asks for: num_classes = {count} is asked for."
    if tuple(got.shape) == wanted[0]:
        return f"The result is of type {got.dtype}, where that of codes, {codes.dtype}, is expected."
    return f"The result has shape {tuple(got.shape)}, where {wanted[0]}, one mean code per class, is expected."


def read_means(got, want, codes, labels, num_classes):
    """Read wrong means: what the sums are divided by, or what else the rows are."""
    sums = torch.stack([codes[labels == c].sum(0) for c in range(num_classes)])
    counts, present = torch.bincount(labels, minlength=num_classes), labels.unique()
    ratios = sums[present] / got
    if got.isfinite().all() and alike(ratios, ratios.mean(1, keepdim=True).expand_as(ratios)):
        by = ratios[:, 0]
        if same(by, by[:1].expand_as(by)):
            known = {
                1: "not divided at all",
                len(codes): "divided by the number of all codes",
                num_classes: "divided by the number of classes",
            }
            known |= {len(codes) / num_classes: "divided as if the classes were equally large"}
            how = next(
                (said for n, said in known.items() if abs(by[0] - n) < 1e-3),
                f"divided by {by[0]:.4g}, whatever the class",
            )
            return f"The sums are {how}: divide each by how many codes its class has."
        c = int((by - counts[present]).abs().argmax())
        return f"The sum of the codes of class {present[c]} is divided by {by[c]:.3g}, but the class has {counts[present[c]]}: count each class."
    medians = torch.stack([codes[labels == c].median(0).values for c in present])
    known = {
        "Every class gets the mean of all codes: use the labels.": codes.mean(0).expand_as(got),
        "Every row is the mean of the next class: class 0 comes first.": (sums / counts[:, None]).roll(-1, 0)[present],
        "Every row is the mean of the class before: class 0 comes first.": (sums / counts[:, None]).roll(1, 0)[present],
        "That is the median of every class, not the mean.": medians,
        "Only one code of each class is added: += with an index does not add up. A matrix product does.": torch.stack(
            [codes[labels == c][-1] / (labels == c).sum() for c in present]
        ),
        "Each class has the code of one of its images, not the mean of all.": torch.stack(
            [codes[labels == c][-1] for c in present]
        ),
        "Each class has the code of its first image, not the mean of all.": torch.stack(
            [codes[labels == c][0] for c in present]
        ),
    }
    if sums.shape[0] == sums.shape[1]:
        known["The counts divide the columns, not the rows: counts needs the shape (num_classes, 1)."] = (
            sums / counts
        )[present]
        known["The result is transposed: one row per class."] = (sums / counts[:, None]).T[present]
        known["The result is transposed: one row for every class."] = (sums.T / counts)[present]
        known["The sums are transposed, and each row is divided by its count: one row per class."] = (
            sums.T / counts[:, None]
        )[present]
    if said := next((said for said, value in known.items() if same(got, value)), None):
        return said
    row = int((got - want).abs().nan_to_num(torch.inf).amax(1).argmax())
    return (
        None
        if relation(got, want)
        else (
            f"The mean of class {present[row]} {difference(got[row], want[row])}: which codes are added up, and divided by what?"
        )
    )


MEANS = "one_hot.T @ codes / counts[:, None]"
MEANS_ROWS = (
    (MEANS, "one_hot @ codes / counts[:, None]", "one_hot and codes do not fit: (N, num_classes) is transposed before it multiplies (N, D)."),
    (MEANS, "one_hot.T @ codes / counts", "counts has shape (num_classes,), and divides the columns: it needs the shape (num_classes, 1)."),
    (MEANS, "one_hot.T * codes / counts[:, None]", "* multiplies entry by entry: the sums over the codes are a matrix product, @."),
    (MEANS, "codes.T @ one_hot / counts", "The result is transposed: one row per class is asked for, (num_classes, D)."),
    (MEANS, "one_hot.T @ codes", "The codes of every class are added up, but not divided by how many there are."),
    ("F.one_hot(labels.long(), num_classes).to(codes)", "F.one_hot(labels.long(), num_classes)", "one_hot holds integers, and codes are floats: give one_hot the type of codes."),
    ("F.one_hot(labels.long(), num_classes).to(codes)", "F.one_hot(labels.long()).to(codes)", "one_hot is given no num_classes, so it has only as many columns as the largest label asks for."),
    ("F.one_hot(labels.long(), num_classes).to(codes)", "F.one_hot(labels.long(), 10).to(codes)", "10 is typed in where num_classes belongs."),
    ("one_hot.sum(dim=0)", "one_hot.sum(dim=1)", "counts is summed over the classes, so every image counts 1: sum over the images, dim=0."),
    ("one_hot.sum(dim=0)", "one_hot.sum()", "counts is the number of all images: count each class by itself, dim=0."),
    ("one_hot.sum(dim=0)", "one_hot.mean(dim=0)", "counts is the share of each class: its number is the sum."),
)  # fmt: skip


def observe_interpolate(interpolate):
    start, end = torch.randn(7) + 2, torch.randn(7) - 2
    for steps in (5, 2, 49, 3, 16, 100):
        unit = "one code per step, (num_steps, D)"
        path = yield from call(
            f"interpolate(start, end, {steps})",
            interpolate,
            lambda got, want, n=steps: read_path(got, want, start, end, n),
            unit,
            start=start,
            end=end,
            num_steps=steps,
        )
        if not isinstance(path, Tensor):
            return
    yield must(
        "Whether two calls agree",
        same(path, interpolate(start, end, steps)),
        "Two calls give different paths: nothing here is random.",
    )
    meta, double = torch.empty(3, device="meta"), torch.ones(3, dtype=torch.float64)
    yield from portable(interpolate, lambda: interpolate(meta, meta, 4), lambda: interpolate(double, -double, 4))


def read_path(got, want, start, end, steps):
    """Read a wrong path off the shares that start and end have in each of its codes."""
    if not isinstance(got, Tensor) or got.ndim != 2 or got.dtype != want.dtype:
        return None
    if got.shape == want.T.shape != want.shape:
        return f"The path has shape {tuple(got.shape)}, (D, num_steps): t needs the shape (num_steps, 1), so that each row is a code."
    if got.shape[1] != want.shape[1]:
        return None
    if len(got) != steps:
        return f"The path has {len(got)} codes, where num_steps = {steps} are asked for, both ends included."
    basis = torch.stack([start, end, torch.ones_like(start)], dim=1).double()
    shares = torch.linalg.lstsq(basis, got.detach().double().T).solution
    if not same((basis @ shares).T, got, 1e-4):
        return None
    a, b, c = shares
    if c.abs().max() > 1e-3:
        return f"A number, {c.abs().max():.3g}, is added to the codes: 1 - t must stand in brackets, and multiply start as a whole."
    t = torch.linspace(0, 1, steps, dtype=torch.float64)
    known = {
        "The path runs backwards: the first code is start.": (t, 1 - t),
        "Every code is the middle: use t.": (0 * t + 0.5, 0 * t + 0.5),
        "The path stops before end: t must reach 1.": (1 - torch.arange(steps) / steps, torch.arange(steps) / steps),
        "The path begins after start: t must begin at 0.": (
            1 - torch.arange(1, steps + 1) / steps,
            torch.arange(1, steps + 1) / steps,
        ),
    }
    for said, (first, second) in known.items():
        if same(a, first) and same(b, second):
            return said
    ends = [
        formula({n: r for n, v in (("start", x), ("end", y)) if (r := round(v.item(), 3))})
        for x, y in ((a[0], b[0]), (a[-1], b[-1]))
    ]
    if not same(torch.stack([a[0], b[0], a[-1], b[-1]]), torch.tensor([1.0, 0, 0, 1])):
        return f"The first code is {ends[0]}, and the last is {ends[1]}: they should be start and end themselves."
    if not same(a + b, torch.ones_like(a)):
        return "Both ends are right, but the codes between do not lie on the straight line, as on an arc: the shares are 1 - t and t."
    return "Both ends are right, but the steps between are not even: t must grow evenly from 0 to 1."


T = "torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]"
PATH_ROWS = (
    (T, T.removesuffix("[:, None]"), "t has shape (num_steps,): it needs the shape (num_steps, 1), so that each row is a code."),
    (T, T.replace("[:, None]", "[None, :]"), "t has shape (1, num_steps): it needs the shape (num_steps, 1), so that each row is a code."),
    (T, "torch.arange(num_steps)[:, None] / num_steps", "The path stops before end: arange leaves its end out, linspace includes both ends."),
    (T, "torch.arange(num_steps)[:, None]", "t counts the steps, from 0 to num_steps - 1: it should go from 0 to 1."),
    (T, "torch.rand(num_steps, 1)", "t is random: it should grow evenly from 0 to 1."),
    (T, "torch.randn(num_steps, 1)", "t is random noise: it should grow evenly from 0 to 1."),
    (T, "torch.linspace(0, 1, 10)[:, None]", "There are always 10 steps: use num_steps."),
)  # fmt: skip


def uniform(low, high, *shape):
    """Draw random numbers: a formula is tested where no two terms happen to agree."""
    return torch.empty(shape).uniform_(low, high)


check = Check(
    {
        "1.1": Exercise("the loss", 15, (
            Lesson(loss.kl_divergence, observe_kl, KL_ROWS, reminder="The KL is -1/2 times (1 + logvar - mu^2 - exp(logvar)). It is not reduced: one number per entry."),
            Lesson(loss.recon_loss, observe_recon, reminder="Take the mean over all squared differences of recon and x."),
            Lesson(loss.vae_loss, observe_vae_loss, LOSS_ROWS, reminder="kl is the mean of kl_divergence over everything. loss is mse plus beta times kl."),
        )),
        "1.2": Exercise("the encoder's layers", 5, (
            Lesson(model.Encoder, observe_encoder_layers, method="__init__", reminder="conv3 is like conv2, with twice the channels. The two heads have a 4x4 kernel, and neither stride nor padding."),
        )),
        "1.3": Exercise("the encoder's forward pass", 5, (
            Lesson(model.Encoder, observe_encoder_forward, ENCODER_ROWS, "forward", "The third block is like the first two. Each head reads the same x, and its result is only flattened."),
        )),
        "1.4": Exercise("the reparameterization", 10, (
            Lesson(model.reparameterize, observe_reparameterize, REPARAMETERIZE_ROWS, reminder="sigma is the square root of the variance. z is mu plus sigma times standard normal noise."),
        )),
        "1.5": Exercise("the decoder", 10, (
            Lesson(model.Decoder, observe_decoder_layers, method="__init__", reminder="Both layers are transposed 4x4 convolutions. conv4 doubles the map like conv2 and conv3; conv1 needs no stride and no padding."),
            Lesson(model.Decoder, observe_decoder_forward, (), "forward", "The first block is like the next two. The last layer is followed by tanh alone."),
        )),
        "1.6": Exercise("what is decoded", 5, (
            Lesson(model.VAE, observe_vae, VAE_ROWS, "forward", "In train mode a sample from reparameterize is decoded. In eval mode mu is."),
        )),
        "1.7": Exercise("the training step", 10, (
            Lesson(train.train_step, observe_train_step, STEP_ROWS, reminder="Compute the loss with loss_fn. Then clear the gradients, compute the new ones, and let the optimizer step."),
        )),
        "1.8": Exercise("samples from the prior", 10, (
            Lesson(latent.sample_prior, observe_sample_prior, PRIOR_ROWS, reminder="Draw a normal number for every entry of z, where the decoder is. Decode z in eval mode and without gradients."),
        )),
        "1.9": Exercise("class means", 10, (
            Lesson(latent.class_means, observe_class_means, MEANS_ROWS, reminder="Add up the codes of every class with a matrix product. Divide each row by its own count."),
        )),
        "1.10": Exercise("interpolation", 5, (
            Lesson(latent.interpolate, observe_interpolate, PATH_ROWS, reminder="t goes evenly from 0 to 1, both included. start has the share 1 - t, end the share t."),
        )),
    }
)  # fmt: skip
