"""The checks of notebook 01: the loss, the network, the training step and the latent space."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial import latent, loss, model, train
from vae_tutorial.checks import Check, Exercise
from vae_tutorial.checks.comparing import brief, difference, relation, same, times
from vae_tutorial.checks.engine import Lesson, clue, holds, must, should
from vae_tutorial.checks.looking import (
    StubDecoder,
    StubEncoder,
    WatchedDecoder,
    call,
    counted,
    fit,
    formula,
    gradients,
    kind_of_code,
    named,
    noise,
    noise_in,
    observe_output,
    own_generator,
    portable,
    ratio,
    read_draw,
    read_modes,
    read_noise,
    read_total,
    refused,
    returned,
    unharmed,
    uniform,
    untouched,
    value_of,
)
from vae_tutorial.checks.networks import forward, layers

NOT_CLAMPED = "for extreme numbers this gives other values, and no gradient: nothing here needs a clamp."
CLAMPS = "clamp|clip|hardtanh|max|min"


# 1.1 loss


def observe_kl(kl_divergence):
    mu, logvar = uniform(-3, 3, 40, 7).requires_grad_(), uniform(-4, 3, 40, 7).requires_grad_()
    far = torch.tensor([[-5.0, 5.0, -5.0, 5.0]]), torch.tensor([[-9.5, -9.5, 9.5, 9.5]])
    unit = "one KL divergence per entry, (B, D), not reduced"
    yield from call("kl_divergence(mu, logvar)", kl_divergence, read_kl, unit, mu=mu, logvar=logvar)
    cut = "kl_divergence is right for moderate numbers, but not at mu = -5 or 5, logvar = -9.5 or 9.5: clamp nothing."
    yield must("kl_divergence far from 0", kl_divergence(*far), cut)
    yield should("Further out", kl_divergence(far[0], 2 * far[1]), NOT_CLAMPED, CLAMPS)
    meta, double = torch.empty(2, 3, device="meta"), torch.ones(2, 3, dtype=torch.float64)
    yield from portable(kl_divergence, lambda: kl_divergence(meta, meta), lambda: kl_divergence(double, double))


def read_kl(got, _, mu, logvar):
    """Read a wrong formula as a sum of known terms, and compare the terms."""
    if not isinstance(got, Tensor) or got.shape != mu.shape or got.dtype != mu.dtype:
        return None
    m, v = mu.detach().double(), logvar.detach().double()
    terms = {"1": torch.ones_like(m), "logvar": v, "mu^2": m**2, "exp(logvar)": v.exp(), "mu": m, "|mu|": m.abs()}
    terms |= {"mu^3": m**3, "mu^4": m**4, "exp(2 logvar)": (2 * v).exp(), "exp(logvar / 2)": (v / 2).exp()}
    terms |= {"exp(-logvar)": (-v).exp(), "logvar^2": v**2, "|logvar|": v.abs(), "exp(mu)": m.exp(), "mu logvar": m * v}
    terms |= {"mu^2 exp(-logvar)": m**2 * (-v).exp(), "mu^2 exp(logvar)": m**2 * v.exp()}
    has = fit(got, terms)
    return None if has is None else f"{compare_terms(has)} (your code computes {formula(has)})."


def compare_terms(has):
    """Say how a formula, {term: factor}, differs from that of the KL."""
    wanted = {"1": -0.5, "logvar": -0.5, "mu^2": 0.5, "exp(logvar)": 0.5}
    ratios = {name: has.get(name, 0) / factor for name, factor in wanted.items()}
    plain = has.keys() == wanted.keys() and len(set(ratios.values())) == 1
    lacks, extra = [name for name in wanted if name not in has], [name for name in has if name not in wanted]
    off = [name for name in wanted if ratios[name] != 1]
    has_mu = ", ".join(name for name in extra if "mu" in name) or "nothing at all"
    bracket = ratios == {"1": 1, "logvar": -2, "mu^2": -2, "exp(logvar)": -2}
    hints = [
        (not has, "kl_divergence is 0 whatever mu and logvar are"),
        (plain and ratios["1"] == -1, "The sign is wrong: this is minus the KL, as in appendix B of the paper, and a KL is never negative"),
        (plain, f"kl_divergence is {ratios['1']:g} times the right value: look at the factor before the bracket"),
        ("exp(-logvar)" in has and "logvar" in has, "The two distributions have changed places: this is KL(p || q)"),
        (has.get("logvar") == -1 and "exp(2 logvar)" in has, "sigma^2 is used where sigma belongs, or logvar as log sigma: logvar is the log of sigma^2"),
        ("exp(2 logvar)" in has, "exp(logvar) is sigma^2 already, and is squared once more"),
        ("exp(logvar / 2)" in has and "exp(logvar)" in lacks, "exp(logvar / 2) is sigma, but the formula has sigma^2"),
        ("mu^2" in lacks, f"mu enters as {has_mu}, but the formula has mu^2"),
        (lacks == ["1"] and not extra, "At mu = 0 and logvar = 0 the KL is 0, but here it is 0.5: a constant is missing"),
        (extra, f"There is a term {', '.join(extra)}, which the formula does not have"),
        (lacks, f"The formula's term {', '.join(lacks)} is missing"),
        (bracket, "-0.5 multiplies the 1 alone: put the bracket around the whole sum"),
        (len(off) == 1 and ratios[off[0]] == -1, f"The sign of {' and '.join(off)} is wrong"),
        (all(ratios[name] == -1 for name in off), f"The signs of {' and '.join(off)} are wrong"),
        (True, f"The factor of {' and '.join(off)} is not the formula's"),
    ]  # fmt: skip
    return next(hint for fits, hint in hints if fits)


KL = "-0.5 * (1 + logvar - mu.pow(2) - logvar.exp())"
OWN = "torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0, 1)"
KL_ROWS = (
    (KL, "F.kl_div(mu, logvar)", "F.kl_div compares lists of probabilities, but mu and logvar describe normal distributions: write the formula."),
    (KL, 'F.kl_div(mu, logvar, reduction="none")', "F.kl_div compares lists of probabilities, not normal distributions: write the formula."),
    (KL, f"kl_divergence({OWN})", "kl_divergence calls itself here: torch's own is torch.distributions.kl_divergence."),
    (KL, "0.5 * (mu.pow(2) / logvar.exp() + logvar.exp() - logvar - 1)", "mu^2 is divided by sigma^2, but it should be divided by the variance of p, which is 1."),
    (KL, "-0.5 * (1 + torch.log(logvar) - mu.pow(2) - logvar)", "logvar is a log already: it may be negative, and its log is nan."),
)  # fmt: skip


def observe_recon(recon_loss):
    recon, x = uniform(-1, 1, 5, 3, 32, 32).requires_grad_(), uniform(-0.4, 1, 5, 3, 32, 32)
    unit = "the mean over the batch, the channels and the pixels"
    yield from call("recon_loss(recon, x)", recon_loss, read_recon, unit, recon=recon, x=x)
    pairs = "recon_loss takes recon and x of different shapes, so PyTorch compares all pairs: put the line with assert back."
    yield holds(refused(lambda: recon_loss(recon[:, 0], x[:, :1])), pairs)
    meta = torch.empty(2, 1, 32, 32, device="meta")
    yield from portable(recon_loss, lambda: recon_loss(meta, meta), lambda: recon_loss(recon.double(), x.double()))


def read_recon(got, want, recon, x):
    """Read a wrong number as a mean or sum of the squared error, or of another one."""
    if not isinstance(got, Tensor):
        return None
    recon = recon.detach()
    off, bce = recon - x, F.binary_cross_entropy_with_logits
    errors = {
        "the squared error": off**2,
        "the absolute error, not the squared one": off.abs(),
        "the smooth L1 (Huber) error, not the squared one": F.smooth_l1_loss(recon, x, reduction="none"),
        "a cross-entropy, not the squared error": bce(recon, x, reduction="none"),
        "a cross-entropy of sigmoid(recon), not the squared error": bce(recon, (x + 1) / 2, reduction="none"),
        "a cross-entropy of pixels from 0 to 1, not the squared error": F.binary_cross_entropy(
            (recon + 1) / 2, ((x + 1) / 2).clamp(0, 1), reduction="none"
        ),
        "the difference, whose signs cancel": off,
        "the difference of the squares, not the square of the difference": recon**2 - x**2,
    }
    batch, pixels, entries = len(x), 32 * 32, x.numel()
    sizes = {1: "", -1: ", with the wrong sign", 0.5: ", halved", 2: ", doubled", pixels: ", summed over the pixels"}
    sizes |= {
        entries: ", summed over everything",
        entries / batch: ", summed over each image",
        batch: ", summed over the batch",
    }
    sizes |= {
        entries / 2: ", halved and summed over everything",
        entries / batch / 2: ", halved and summed over each image",
    }
    sizes |= {1 / batch: ", divided by the batch size once more", 3: ", summed over the channels"}
    for name, error in errors.items():
        if got.shape == want.shape:
            said = ratio(got, error.mean(), sizes)
            if said or (said is not None and error is not errors["the squared error"]):
                return f"recon_loss is {name}{said}{said and ': the mean over everything is expected'}."
        elif said := reduced(got, error):
            return f"recon_loss is {name}, {said}: one number, the mean over everything, is expected."
    known = {
        "0: something is compared with itself.": want * 0,
        "the square of the mean difference: average the squares.": off.mean() ** 2,
        "a variance, which leaves out the mean of the difference.": off.var(),
        "the square root of the mean squared error: drop the root.": want.sqrt(),
        "the length of the difference, the root of a sum: take the mean of the squares.": off.norm(),
        "the largest squared error: take the mean.": off.pow(2).max(),
        "the error of the first image alone: average over all.": off[0].pow(2).mean(),
        "the error of the first channel alone: use all.": off[:, 0].pow(2).mean(),
    }
    said = named(got, known)
    return said and f"recon_loss is {said}"


def reduced(got, error):
    """Say how an error was reduced over some of its axes only."""
    if same(got, error):
        return "not reduced"
    for said, reduce in (("averaged", torch.mean), ("summed", torch.sum)):
        if any(
            same(got.flatten(), reduce(error, axes).flatten()) for axes in (0, 1, (2, 3), (1, 2, 3), (0, 1), (0, 2, 3))
        ):
            return f"{said} over some axes only, of shape {tuple(got.shape)}"
    return None


def observe_vae_loss(vae_loss):
    recon, x = uniform(-1, 1, 5, 3, 32, 32).requires_grad_(), uniform(-0.4, 1, 5, 3, 32, 32)
    cases = [
        (beta, size * uniform(-3, 3, 5, 7), size * uniform(-4, 3, 5, 7)) for beta, size in ((0.1, 1.0), (2.5, 0.3))
    ]
    for beta, mu, logvar in cases:
        leaves = {"recon": recon, "mu": mu.requires_grad_(), "logvar": logvar.requires_grad_()}
        after = untouched("vae_loss", **leaves)
        got = vae_loss(recon, x, mu, logvar, beta)
        yield from after()
        mse, kl = loss.recon_loss(recon, x).detach(), loss.kl_divergence(mu, logvar).detach()
        three = isinstance(got, tuple | list) and len(got) == 3
        if three:
            readers = {"kl": (got[2], read_kl_part), "mse": (got[1], read_mse_part), "loss": (got[0], read_total)}
            for name, (one, reader) in readers.items():
                yield clue(name, value_of(one), reader, mse=mse, kl=kl, beta=beta)
        yield from returned("vae_loss", got, ("loss", "mse", "kl"))
        if not three:
            return
        if isinstance(got[0], Tensor):
            yield from gradients("loss", got[0], leaves)
    default = "vae_loss without a beta must use 0.1: keep the default in the first line."
    yield must("loss without a beta", value_of(vae_loss(recon, x, mu, logvar)[0]), default)
    meta, codes = torch.empty(2, 1, 32, 32, device="meta"), torch.empty(2, 3, device="meta")
    yield from portable(vae_loss, lambda: vae_loss(meta, meta, codes, codes))


def read_kl_part(got, _, mse, kl, beta):
    if not isinstance(got, Tensor):
        return None
    if got.ndim:
        return f"kl is not one number, but has shape {tuple(got.shape)}: take the mean over the batch and over D."
    (batch, dims), mean = kl.shape, kl.mean()
    sizes = {
        batch * dims: "summed over the batch and over D: take the mean over both",
        dims: f"summed over D, so it is D = {dims} times too large: take the mean",
        batch: f"summed over the batch, so it is {batch} times too large: take the mean",
        -1: "negative, which a KL divergence never is: there is a sign too many",
        0.5: "halved once too often: the 0.5 is in kl_divergence already",
        beta: "multiplied by beta already: beta weighs the KL in the sum only",
        1 / batch: "divided by the batch size once too often: mean() does that",
    }
    known = {
        "changed in place: kl and loss name one tensor, so += and *= change both": mse + beta * mean,
        "the largest KL of all: take the mean": kl.max(),
        "the median: take the mean": kl.median(),
        "the KL of the first image alone: take the mean over all": kl[0].mean(),
    }
    said = ratio(got, mean, sizes) or named(got, known)
    return said and f"kl is {said} (it is {brief(got)}, where {brief(mean)} is expected)."


def read_mse_part(got, _, mse, kl, beta):
    known = {
        "mse is changed in place: mse and loss name one tensor, so += changes both.": mse + beta * kl.mean(),
        "The second value is the KL: loss, mse, kl are expected, in this order.": kl.mean(),
    }
    return named(got, known)


LOSS_ROWS = (
    ("kl_divergence(mu, logvar).mean()", "kl_divergence(logvar, mu).mean()", "kl_divergence gets logvar first: it takes mu, then logvar."),
    ("kl_divergence(mu, logvar).mean()", "kl_divergence(recon, x).mean()", "kl_divergence gets images: it compares mu and logvar with the prior."),
    ("mse = recon_loss(recon, x)", "mse = recon_loss(x, x)", "recon_loss compares x with itself."),
    ("loss = mse + beta * kl", "kl *= beta; loss = mse + kl", "kl is changed in place by *=, and is returned with beta in it."),
    ("return loss, mse, kl", "return loss, kl, mse", "mse and kl have changed places in what is returned: loss, mse, kl."),
    ("return loss, mse, kl", "return mse, kl, loss", "The loss comes last: return loss, mse, kl, in this order."),
)  # fmt: skip


# 1.2, 1.3 the encoder, 1.5 the decoder

ENCODER_SIZES = [{"in_channels": 3, "width": 5, "latent_dim": 7}, {"in_channels": 1, "width": 3, "latent_dim": 4}]
DECODER_SIZES = [{"out_channels": 3, "width": 5, "latent_dim": 7}, {"out_channels": 1, "width": 3, "latent_dim": 4}]
# where the input of each layer comes from, and the activation between
BLOCKS = {
    "conv1": ("", ""),
    "bn1": ("conv1", ""),
    "conv2": ("bn1", "relu"),
    "bn2": ("conv2", ""),
    "conv3": ("bn2", "relu"),
    "bn3": ("conv3", ""),
}
ENCODER_CHAIN = BLOCKS | {"conv_mu": ("bn3", "relu"), "conv_logvar": ("bn3", "relu")}
DECODER_CHAIN = BLOCKS | {"conv4": ("bn3", "relu")}
WHOLE = "the kernel is as large as the map"
GROW = "one pixel becomes a map of 4x4"
HALVE = "kernel 4, stride 2 and padding 1 halve the map"
DOUBLE = "kernel 4, stride 2 and padding 1 double the map"
ENCODER_REASONS = {
    (f"conv_{head}", key): WHOLE for head in ("mu", "logvar") for key in ("kernel_size", "stride", "padding")
}
ENCODER_REASONS |= {("conv3", "padding"): HALVE}
DECODER_REASONS = {("conv1", "kernel_size"): GROW, ("conv1", "padding"): GROW, ("conv4", "padding"): DOUBLE}


def encoder_input(size):
    return size["in_channels"], 32, 32


def decoder_input(size):
    return (size["latent_dim"],)


def observe_encoder_layers(Encoder):
    maps = {"conv1": 8, "conv2": 8, "conv3": 8, "bn1": 2, "bn2": 2, "bn3": 2, "conv_mu": 4, "conv_logvar": 4}
    yield from layers(Encoder, model.Encoder, ENCODER_SIZES, encoder_input, maps, ENCODER_REASONS)


def observe_encoder_forward(Encoder):
    yield from forward(Encoder, model.Encoder, ENCODER_SIZES, encoder_input, ENCODER_CHAIN, ("mu", "logvar"))


def observe_decoder_layers(Decoder):
    maps = {"conv2": 4, "conv3": 4, "conv4": 4, "bn1": 2, "bn2": 2, "bn3": 2}
    # on a map of one pixel the stride makes no difference
    free = {("conv1", "stride")}
    yield from layers(Decoder, model.Decoder, DECODER_SIZES, decoder_input, maps, DECODER_REASONS, free)


def observe_decoder_forward(Decoder):
    yield from forward(Decoder, model.Decoder, DECODER_SIZES, decoder_input, DECODER_CHAIN, ("images",))


LOST = "x is overwritten by the first head, but both heads need it: give the result another name."
ENCODER_ROWS = (
    ("mu = self.conv_mu(x).flatten(1)", "mu = x = self.conv_mu(x).flatten(1)", LOST),
    ("mu = self.conv_mu(x).flatten(1)", "x = self.conv_mu(x); mu = x.flatten(1)", LOST),
)

# 1.4 reparameterize, 1.6 what is decoded


def observe_reparameterize(reparameterize):
    mu, logvar = uniform(-3, 3, 2048, 16), uniform(-4, 3, 2048, 16)
    zero, open_ = torch.zeros(64, 16).requires_grad_(), uniform(-4, 3, 64, 16).requires_grad_()
    after = untouched("reparameterize", mu=mu, logvar=logvar)
    z = reparameterize(mu, logvar)
    yield from after()
    given = f"a tensor of shape {tuple(z.shape)} and type {z.dtype}" if isinstance(z, Tensor) else brief(z)
    wanted = f"{tuple(mu.shape)} and {mu.dtype}, as mu has,"
    fits = isinstance(z, Tensor) and z.shape == mu.shape and z.dtype == mu.dtype
    yield holds(fits, f"reparameterize returns {given}, where {wanted} is expected.")
    if not fits:
        return
    eps, again = noise_in(z, mu, logvar), noise_in(reparameterize(mu, logvar), mu, logvar)
    yield must(
        "Of the noise in z, (z - mu) / std, the", noise(eps, mu=mu, logvar=logvar), lambda *_: read_draw(z, mu, logvar)
    )
    twice = "Two calls draw the same noise: it must be drawn anew in every call."
    yield must("The noise of one call less that of another", noise((again - eps) / 2**0.5), twice)
    with torch.no_grad():
        off = noise_in(reparameterize(mu, logvar), mu, logvar)
    other = "Under torch.no_grad() z is drawn in another way: draw it the same, with gradients or without."
    yield must("The noise under torch.no_grad()", noise(off), other)
    for name, m, v in (("logvar = -9.5", 0.0, -9.5), ("logvar = 9.5", 0.0, 9.5), ("mu = 50", 50.0, 0.0)):
        cut = f"z is right for moderate numbers, but not at {name}: nothing needs to be clamped or added."
        yield must(f"The noise at {name}", far_noise(reparameterize, m, v), cut)
    yield from gradient_of_draw(reparameterize, zero, open_)
    yield from own_generator(reparameterize, lambda: reparameterize(mu, logvar))
    far = [far_noise(reparameterize, 0.0, v) for v in (-15.0, 15.0)]
    yield should("Further out", far, NOT_CLAMPED, CLAMPS)
    meta, double = torch.empty(2, 3, device="meta"), torch.zeros(2, 3, dtype=torch.float64)
    yield from portable(reparameterize, lambda: reparameterize(meta, meta), lambda: reparameterize(double, double))


def far_noise(reparameterize, mu, logvar):
    mu, logvar = torch.full((1024, 16), mu), torch.full((1024, 16), logvar)
    return noise(noise_in(reparameterize(mu, logvar), mu, logvar))


def gradient_of_draw(reparameterize, mu, logvar):
    """Yield the gradients of a z whose mu is 0."""
    z = reparameterize(mu, logvar)
    none = "No gradient reaches mu and logvar: sample() and torch.normal carry none."
    grads = torch.autograd.grad(z.sum(), (mu, logvar), allow_unused=True) if z.requires_grad else (None, None)
    to_mu, to_logvar = (torch.zeros_like(mu) if grad is None else grad for grad in grads)
    yield holds(to_mu.any() or to_logvar.any(), none)
    yield holds(same(to_mu, torch.ones_like(mu)), "No gradient, or a wrong one, reaches mu through z.")
    yield holds(to_logvar.any(), "z has the right values, but no gradient reaches logvar.")
    nearly = "std is nearly, but not exactly, the root of exp(logvar): something is added to it, clamped or rounded."
    yield holds(same(to_logvar, 0.5 * z, 1e-3), nearly)


DRAW_ROWS = (
    ("torch.randn_like(std)", "torch.randn_like(1)", "randn_like copies the shape of a tensor: give it std."),
    ("return mu + eps * std", "return mu + eps @ std", "@ multiplies matrices: every entry of eps is multiplied by its own std, with *."),
)  # fmt: skip


def observe_vae(VAE):
    x, seen = torch.zeros(1024, 1, 32, 32), {}
    modes = [(False, True), (True, False), (True, True), (False, False)]  # of the model, of its two parts
    parts = [(StubEncoder(), StubDecoder()) for _ in modes]
    for (training, other), (encoder, decoder) in zip(modes, parts, strict=True):
        net = VAE(encoder, decoder).train(training)
        encoder.train(other), decoder.train(other)
        got = net(x)
        calls = encoder.calls, len(decoder.seen)
        called = f"forward calls the encoder {times(calls[0])} and the decoder {times(calls[1])}: call each once, and use what it gave."
        yield holds(calls == (1, 1), called)
        left = net.training is training and encoder.training is other
        yield holds(left, "forward changes the mode of the model: it should only read self.training.")
        seen[training, other] = got, decoder.seen[0], encoder
    kinds = {mode: kind_of_code(z, encoder) for mode, (_, z, encoder) in seen.items()}
    yield must("What is decoded", kinds, read_modes)
    for mode in modes[:2]:
        yield from observe_output(*seen[mode], "train" if mode[0] else "eval")
    one, other = (noise_in(z, encoder.mu, encoder.logvar) for _, z, encoder in (seen[True, False], seen[True, True]))
    twice = "Two passes in train mode draw the same noise: leave the seed to the notebook."
    yield must("The noise of one pass less that of another", noise((one - other) / 2**0.5), twice)
    net = VAE(model.Encoder(1, 2, 4), model.Decoder(1, 2, 4)).to("meta").train()
    yield from portable(VAE, lambda: net(torch.empty(2, 1, 32, 32, device="meta")))


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
        self.events.append("model" if all(part.training for part in self.modules()) else "model in eval mode")
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
        self.grads = [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]
        super().step()
        return result


class NotingLoss:
    """A loss that notes its calls, what it is given, and when gradients come back through it."""

    def __init__(self, events):
        self.events = events

    def __call__(self, recon, x, mu, logvar):
        self.events.append("loss_fn")
        self.given = recon, x, mu, logvar
        self.leaf = torch.zeros((), requires_grad=True)
        self.factor = self.leaf.exp()  # 1, with a graph of its own, which backward frees unless it is told to retain it
        # so small that gradients clipped at a norm of 1 stay as they are
        error, kl = 0.1 * (recon - 0.8 * x).pow(2).mean(), 0.0002 * (mu.pow(2) + 3 * logvar.exp()).mean()
        total = (error + 0.5 * kl) * self.factor
        for name, one in (("backward", total), ("gradients", mu)):
            if one.requires_grad:
                one.register_hook(lambda _, name=name: self.events.append(name))
        return total, error, kl

    def retained(self):
        try:
            torch.autograd.grad(self.factor, self.leaf)
        except RuntimeError:
            return False
        return self.leaf.grad is not None


def observe_train_step(train_step):
    events, batches = [], torch.randn(3, 8, 1, 32, 32)
    net, loss_fn = TinyVAE(events), NotingLoss(events)
    optimizer = NotingSGD(net.parameters(), events)
    for x in batches:
        twin = copy.deepcopy(net)
        events.clear()
        after = untouched("train_step", x=x)
        result = train_step(net, x, optimizer, loss_fn)
        yield from after()
        yield from observe_order(events, loss_fn, twin, x)
        name = "The gradients that the optimizer steps with"
        yield must(name, optimizer.grads, read_step_gradients, events=list(events))
        pairs = list(zip(net.parameters(), twin.parameters(), strict=True))
        yield must("The change of the weights", [(new - old).detach() for new, old in pairs], read_change)
        learns = all(weight.requires_grad for weight in net.parameters())
        yield holds(learns, "train_step freezes weights of the model: leave requires_grad alone.")
        yield holds(net.training, "train_step leaves the model in eval mode: leave its mode as it was.")
        yield from observe_floats(result)
    memory = "this keeps what backward needs in memory. Every step computes it anew, so nothing needs the old."
    yield should("The graph afterwards", loss_fn.retained(), memory, "retain_graph|create_graph")
    train_step(net, 1000 * x, optimizer, loss_fn)
    clip = "large gradients are clipped here. Many do that; the finished version takes the plain step."
    yield should("Large gradients", optimizer.grads, clip, "clip|clamp")


def observe_order(events, loss_fn, twin, x):
    """Yield what ran in a step, with what, in which order; twin: the model as it was before the step."""
    runs, calls = [event for event in events if event.startswith("model")], events.count("loss_fn")
    yield holds(
        len(runs) == 1,
        f"The model runs {times(len(runs))} in one step: run it once, and use recon, mu and logvar from that run.",
    )
    yield holds(
        runs == ["model"], "The model, or a part of it, runs in eval mode, without noise: leave its mode as it is."
    )
    never = "loss_fn is never called: use the argument, whatever loss it stands for, with recon, x, mu and logvar."
    yield holds(calls == 1, f"loss_fn is called {times(calls)}: call it once." if calls else never)
    known = dict(zip(("recon", "x", "mu", "logvar"), (twin(x)[0], x, *twin(x)[1:]), strict=True))
    given = [named(one, known) or "something else" for one in loss_fn.given]
    order = f"loss_fn gets {', '.join(given)}, where recon, x, mu, logvar are expected, in this order."
    yield holds(given == list(known), order)
    kept = [event for event in events if event in ("backward", "step", "zero_grad")]
    undone = [
        at for at, one in enumerate(kept) if one == "zero_grad" and kept[at - 1 : at + 2] == ["backward", one, "step"]
    ]
    happened = [one for at, one in enumerate(kept) if one != "zero_grad" or at in undone]
    yield holds(happened == ["backward", "step"], read_order(list(events)))


def read_order(events):
    backward, step = events.count("backward"), events.count("step")
    if not backward and "gradients" in events:
        return "backward starts from something other than the loss, which is the first of what loss_fn returns."
    if not backward:
        return "No gradient is computed from the loss: backward is missing, or starts from a copy of the loss."
    if backward > 1:
        return f"backward runs {times(backward)}, and its gradients add up: run it once."
    if step != 1:
        steps = f"steps {times(step)}: let it step once." if step else "never steps: use it, and no other one."
        return f"The optimizer that is passed in {steps}"
    if events.index("step") < events.index("backward"):
        return "The optimizer steps before backward has computed the gradients: clear, compute, step."
    return "The gradients are cleared between backward and step: nothing is left to step with."


def read_step_gradients(got, want, events):
    said = relation(*(torch.cat([grad.flatten() for grad in grads]) for grads in (got, want)))
    if "zero_grad" not in events and not said:
        return "The gradients of the step before are never cleared: PyTorch adds the new ones to them."
    if said and "sign" in said:
        return "The weights move uphill: the loss, or its gradient, has the wrong sign."
    if said:
        return f"The gradient of every weight is {said}: something scales the loss or its gradient."
    lost = [name for name, grad in (("encoder", got[0]), ("decoder", got[2])) if not grad.any()]
    return f"No gradient reaches the {lost[0]}: is something detached?" if lost else None


def read_change(got, want):
    said = relation(*(torch.cat([part.flatten() for part in parts]) for parts in (got, want)))
    return f"The change of the weights is {said}: what else than the optimizer touches them?" if said else None


def observe_floats(result):
    """Yield the three numbers that a step returns."""
    if not (yield from counted("train_step", result, ("loss", "recon_loss", "kl_loss"))):
        return
    memory = (
        "train_step returns tensors, which keep all they were computed from in memory: return numbers, with .item()."
    )
    yield holds(not any(isinstance(part, Tensor) for part in result), memory)
    kinds = (
        f"train_step returns {', '.join(map(brief, map(type, result)))}: .item() makes the floats that are asked for."
    )
    yield holds(all(isinstance(part, float) for part in result), kinds)
    other = "train_step returns other numbers than loss, recon_loss and kl_loss of this batch, in this order."
    yield must("What is returned", list(result), other)


CALL = "loss, recon_loss, kl_loss = loss_fn(recon, x, mu, logvar)"
CLEAR, BACK, STEP = "    optimizer.zero_grad()\n", "    loss.backward()\n", "    optimizer.step()\n"
STEP_ROWS = (
    (BACK, "    recon_loss.backward()\n", "backward starts from recon_loss, so the KL teaches the model nothing: start from the whole loss."),
    (BACK, "    kl_loss.backward()\n", "backward starts from kl_loss, so the reconstruction error teaches nothing: start from the whole loss."),
    (BACK, "    (recon_loss + kl_loss).backward()\n", "backward starts from the sum of the two parts, which leaves out their weights: start from loss."),
    (BACK, "    (loss / len(x)).backward()\n", "The loss is divided by the batch size: it is a mean already."),
    (BACK, "    (loss * len(x)).backward()\n", "The loss is multiplied by the batch size: take it as it is."),
    (BACK, "    loss.detach().backward()\n", "The loss is detached: no gradient goes back through it."),
    (CLEAR + BACK + STEP, STEP + CLEAR + BACK, "The optimizer steps first, with the gradients of the batch before: clear, compute, step."),
    (CLEAR + BACK + STEP, "", "The lines that train are missing: clear the gradients, compute them, step."),
    (CLEAR, "", "The gradients of the step before are never cleared: PyTorch adds the new ones to them."),
    (CALL, "loss, kl_loss, recon_loss = loss_fn(recon, x, mu, logvar)", "recon_loss and kl_loss have changed places: loss_fn returns the loss, the error, the KL."),
    (CALL, "recon_loss, kl_loss, loss = loss_fn(recon, x, mu, logvar)", "loss_fn returns the loss first, then its two parts."),
    (CALL, "loss = loss_fn(recon, x, mu, logvar)", "loss_fn returns three values, and loss gets all three: give each its own name."),
)  # fmt: skip


# 1.8 the prior, 1.9 class means, 1.10 interpolation


def observe_sample_prior(sample_prior):
    decoders = [
        (WatchedDecoder(6).train(), 1024, 6),
        (WatchedDecoder(9).eval(), 5, 9),
        (WatchedDecoder(4).eval(), 1, 4),
    ]
    for decoder, count, latent_dim in decoders:
        training, after = decoder.training, unharmed("decoder", decoder)
        images = sample_prior(decoder, count, latent_dim)
        yield holds(decoder.notes, "The decoder is never called: decode z.")
        codes = [z for z, _ in decoder.notes]
        fits = all(isinstance(z, Tensor) and z.shape[1:] == (latent_dim,) for z in codes)
        wanted = f"z of shape (num_samples, latent_dim), here {count, latent_dim},"
        yield holds(fits, f"The decoder gets {brief(codes[0])}, where {wanted} is expected.")
        mixes = "z is decoded in train mode, where BatchNorm mixes the samples of a batch: decode inside `with eval_mode(decoder)`."
        yield holds(not any(mode for _, mode in decoder.notes), mixes)
        z = torch.cat(codes).detach()
        yield holds(len(z) == count, f"{len(z)} codes are decoded, where num_samples = {count} are asked for.")
        fits = isinstance(images, Tensor) and images.shape == (count, 1, 32, 32)
        wanted = f"one image per z, {(count, 1, 32, 32)}, is expected"
        yield holds(fits, f"sample_prior returns {brief(images)}, where {wanted}.")
        carries = "The images carry a gradient: decode under torch.no_grad(), because nobody trains here."
        yield holds(not images.requires_grad, carries)
        yield from after()
        made = "The images are not what the decoder makes of z: return them as they come."
        yield holds(same(images, decoder.net.eval()(z)), made)
        if count > 16:
            yield must("Of z, the", noise(z), lambda *_, z=z: read_noise(z, "z"))
        decoder.net.train(training)
        twice = (
            "Two calls give the same images: is the noise seeded inside the function? Leave the seed to the notebook."
        )
        yield holds(not same(images, sample_prior(decoder, count, latent_dim)), twice)
    yield from own_generator(sample_prior, lambda: sample_prior(decoder, 2, 4))
    far, double = model.Decoder(1, 2, 6).to("meta"), model.Decoder(1, 2, 6).double()
    yield from portable(sample_prior, lambda: sample_prior(far, 2, 6), lambda: sample_prior(double, 2, 6))


PRIOR = "torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)"
PRIOR_ROWS = (
    ("        images = decoder(z)\n", "        decoder(z)\n", "What the decoder gives is not kept: give it the name images."),
    (PRIOR, "torch.randn(latent_dim, num_samples)", "The two sizes have changed places: one row per image, (num_samples, latent_dim)."),
)  # fmt: skip


def observe_class_means(class_means):
    classes = [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9], [3, 1, 1, 2, 3, 4, 5, 6, 8, 8, 8], [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9]
    cases = list(zip(classes, (10, 4, 6), (10, 10, 12), strict=True))
    for labels, dims, count in [(torch.tensor(one), dims, count) for one, dims, count in cases]:
        codes = torch.linspace(1, 40, 11 * dims).sin().reshape(11, dims) + 1
        after = untouched("class_means", codes=codes, labels=labels)
        got = class_means(codes, labels) if count == 10 else class_means(codes, labels, count)
        yield from after()
        fits = isinstance(got, Tensor) and (tuple(got.shape), got.dtype) == ((count, dims), codes.dtype)
        yield holds(fits, read_shape(got, (count, dims), codes, labels))
        if not fits:
            return
        means = got[labels.unique()].detach()
        yield must("The mean code of a class", means, read_means, codes=codes, labels=labels, num_classes=count)
    made_up = "A class without codes has a mean made up from others' codes."
    yield holds(got[11].isnan().all() or not got[11].any(), made_up)
    nan = "an empty class gets 0 here, a code like any other, where nan would show that it is empty."
    yield should("An empty class", bool(got[11].isnan().all()), nan, "clamp|max|where|nan_to_num|if |eps|1e-|zeros")
    meta, labels = torch.empty(4, 3, device="meta"), torch.tensor([0, 1, 2, 2])
    double = torch.ones(4, 3, dtype=torch.float64)

    def on_meta():  # the labels may lie beside the codes, or not
        return class_means(meta, labels), class_means(meta, labels.to("meta"))

    yield from portable(class_means, on_meta, lambda: class_means(double, labels))


def read_shape(got, wanted, codes, labels):
    if not isinstance(got, Tensor):
        return f"class_means returns {brief(got)}, where one mean code per class, {wanted}, is expected."
    if tuple(got.shape) == wanted:
        return f"The result is of type {got.dtype}, where that of codes, {codes.dtype}, is expected."
    said = {
        wanted[::-1]: "it is transposed",
        (len(labels.unique()), wanted[1]): "only classes that occur get a row",
        (int(labels.max()) + 1, wanted[1]): "the largest label decides about the rows, and not num_classes",
        (10, wanted[1]): "10 is typed in where num_classes belongs",
    }.get(tuple(got.shape))
    expected = f"one mean code per class, {wanted}, is expected"
    return f"The result has shape {tuple(got.shape)}, where {expected}{said and ': ' + said or ''}."


def read_means(got, want, codes, labels, num_classes):
    """Read wrong means: what the sums are divided by, or what else the rows are."""
    present, all_counts = labels.unique(), torch.bincount(labels, minlength=num_classes)
    groups = [codes[labels == c] for c in present]
    sums, counts = torch.stack([group.sum(0) for group in groups]), all_counts[present]
    divided = sums / got
    if not got.isnan().any() and same(divided, divided[:, :1].expand_as(divided)):
        by = divided[:, 0]
        how = {1: "are not divided at all", len(codes): "are divided by the number of all codes"}
        how |= {num_classes: "are divided by the number of classes"}
        how |= {len(codes) / num_classes: "are divided as if all classes were equally large"}
        if same(by, by[:1].expand_as(by)):
            said = ratio(by[0], torch.tensor(1.0), how) or f"are divided by {by[0]:.4g}, whatever the class"
            return f"The sums {said}: divide each by how many codes its class has."
        at = int((by - counts).abs().argmax())
        seen = f"divided by {by[at]:.3g}, but the class has {counts[at]}"
        return f"The sum of the codes of class {present[at]} is {seen}: count each class."
    every = torch.stack([codes[labels == c].sum(0) for c in range(num_classes)])
    means = every / all_counts[:, None]
    known = {
        "Every class gets the mean of all codes: use the labels.": codes.mean(0).expand_as(got),
        "Every row is the mean of the next class: class 0 comes first.": means.roll(-1, 0)[present],
        "Every row is the mean of the class before: class 0 comes first.": means.roll(1, 0)[present],
        "That is the median of every class, not the mean.": torch.stack([group.median(0).values for group in groups]),
        "Only one code of each class is in its sum: where an index comes twice, the last value replaces the others.": torch.stack([g[-1] / len(g) for g in groups]),
        "Each class has the code of its last image, not the mean of all.": torch.stack([group[-1] for group in groups]),
        "Each class has the code of its first image, not the mean of all.": torch.stack([group[0] for group in groups]),
    }  # fmt: skip
    if len(every) == every.shape[1]:
        known["The counts divide the columns: counts needs the shape (num_classes, 1)."] = (every / all_counts)[present]
        known["The result is transposed: one row per class."] = means.T[present]
        known["The sums are transposed: one row per class."] = (every.T / all_counts[:, None])[present]
    row = int((got - want).abs().nan_to_num(torch.inf).amax(1).argmax())
    off = f"The mean of class {present[row]} {difference(got[row], want[row])}: compare the sum and the count."
    return named(got, known) or (None if relation(got, want) else off)


ONE_HOT, MEANS = "F.one_hot(labels.long(), num_classes).to(codes)", "one_hot.T @ codes / counts[:, None]"
MEANS_ROWS = (
    (MEANS, "one_hot @ codes / counts[:, None]", "one_hot is (N, num_classes) and codes is (N, D), so they cannot be multiplied: transpose one_hot first."),
    (MEANS, "one_hot.T @ codes / counts", "counts has shape (num_classes,), and divides the columns: it needs the shape (num_classes, 1)."),
    (MEANS, "one_hot.T * codes / counts[:, None]", "* multiplies entry by entry: the sums over the codes are a matrix product, @."),
    (MEANS, "codes.T @ one_hot / counts", "The result is transposed: one row per class is asked for, (num_classes, D)."),
    (ONE_HOT, "F.one_hot(labels.long(), num_classes)", "one_hot holds integers, and codes are floats: give one_hot the type of codes."),
    (ONE_HOT, "F.one_hot(labels.long()).to(codes)", "one_hot is given no num_classes, so it has only as many columns as the largest label asks for."),
    ("one_hot.sum(dim=0)", "one_hot.sum(dim=1)", "sum(dim=1) adds along each row and gives 1 for every image: count along the images, dim=0."),
    ("one_hot.sum(dim=0)", "one_hot.sum()", "counts is the number of all images: count each class by itself, dim=0."),
    ("one_hot.sum(dim=0)", "one_hot.mean(dim=0)", "counts holds the share of each class, where its number of codes is expected: add up, do not average."),
)  # fmt: skip


def observe_interpolate(interpolate):
    start, end = torch.randn(7) + 2, torch.randn(7) - 2
    for steps in (5, 2, 49, 3, 16, 100):
        name, unit = f"interpolate(start, end, {steps})", "one code per step, (num_steps, D)"
        path = yield from call(name, interpolate, read_path, unit, start=start, end=end, num_steps=steps)
    again = isinstance(path, Tensor) and same(path, interpolate(start, end, steps))
    yield holds(again, "Two calls give different paths: nothing here is random.")
    meta, double = torch.empty(3, device="meta"), torch.ones(3, dtype=torch.float64)
    yield from portable(interpolate, lambda: interpolate(meta, meta, 4), lambda: interpolate(double, -double, 4))


def read_path(got, want, start, end, num_steps):
    """Read a wrong path off the shares that start and end have in each of its codes."""
    if not isinstance(got, Tensor) or got.ndim != 2 or got.dtype != want.dtype:
        return None
    if got.shape == want.T.shape != want.shape:
        return f"The path has shape {tuple(got.shape)}, (D, num_steps): one code a column: one code a row is expected, (num_steps, D)."
    if len(got) != num_steps and got.shape[1] == want.shape[1]:
        return f"The path has {len(got)} codes, where num_steps = {num_steps} are asked for, both ends included."
    if got.shape != want.shape:
        return None
    basis = torch.stack([start, end, torch.ones_like(start)], dim=1).double()
    shares = torch.linalg.lstsq(basis, got.detach().double().T).solution
    if not same((basis @ shares).T, got, 1e-4):
        return None
    a, b, c = shares
    if c.abs().max() > 1e-3:
        return (
            f"A number, {c.abs().max():.3g}, is added to the codes: 1 - t must stand in brackets, and multiply start."
        )
    t, k = torch.linspace(0, 1, num_steps), torch.arange(num_steps) / num_steps
    known = {
        "The path runs backwards: it should begin at start.": torch.stack([t, 1 - t]),
        "Every code is the middle: use t.": torch.full((2, num_steps), 0.5),
        "The path stops before end: t must reach 1.": torch.stack([1 - k, k]),
        "The path begins after start: t must begin at 0.": torch.stack([k.flip(0), 1 - k.flip(0)]),
    }
    if said := named(shares[:2], known):
        return said
    first, last = (formula({n: round(v, 3) for n, v in zip(("start", "end"), ab.tolist(), strict=True) if abs(v) > 5e-4})
                   for ab in (shares[:2, 0], shares[:2, -1]))  # fmt: skip
    if (first, last) != ("start", "end"):
        return f"The first code is {first}, and the last is {last}: they should be start and end themselves."
    if not same(a + b, torch.ones_like(a)):
        return "Both ends are right, but the codes between are not on the straight line from start to end."
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


check = Check(
    {
        "1.1": Exercise("the loss", 15, (
            Lesson(loss.kl_divergence, observe_kl, KL_ROWS, "The KL is -1/2 times (1 + logvar - mu^2 - exp(logvar)). It is not reduced: one number per entry."),
            Lesson(loss.recon_loss, observe_recon, (), "Take the mean over all squared differences of recon and x."),
            Lesson(loss.vae_loss, observe_vae_loss, LOSS_ROWS, "kl is the mean of kl_divergence over everything. loss is mse plus beta times kl."),
        )),
        "1.2": Exercise("the encoder's layers", 5, (
            Lesson(model.Encoder, observe_encoder_layers, (), "conv3 is like conv2, with twice the channels. The heads have a 4x4 kernel, and neither stride nor padding.", "__init__"),
        )),
        "1.3": Exercise("the encoder's forward pass", 5, (
            Lesson(model.Encoder, observe_encoder_forward, ENCODER_ROWS, "The third block is like the first two. Each head reads the same x, and its result is only flattened.", "forward"),
        )),
        "1.4": Exercise("the reparameterization", 10, (
            Lesson(model.reparameterize, observe_reparameterize, DRAW_ROWS, "sigma is the square root of the variance. z is mu plus sigma times standard normal noise."),
        )),
        "1.5": Exercise("the decoder", 10, (
            Lesson(model.Decoder, observe_decoder_layers, (), "Both layers are transposed 4x4 convolutions. conv4 doubles the map like conv2 and conv3; conv1 needs no padding.", "__init__"),
            Lesson(model.Decoder, observe_decoder_forward, (), "The first block is like the next two. The last layer is followed by tanh alone.", "forward"),
        )),
        "1.6": Exercise("what is decoded", 5, (
            Lesson(model.VAE, observe_vae, VAE_ROWS, "In train mode a sample from reparameterize is decoded. In eval mode mu is.", "forward"),
        )),
        "1.7": Exercise("the training step", 10, (
            Lesson(train.train_step, observe_train_step, STEP_ROWS, "Compute the loss with loss_fn. Then clear the gradients, compute the new ones, and let the optimizer step."),
        )),
        "1.8": Exercise("samples from the prior", 10, (
            Lesson(latent.sample_prior, observe_sample_prior, PRIOR_ROWS, "Draw a normal number for every entry of z, where the decoder is. Decode z in eval mode and without gradients."),
        )),
        "1.9": Exercise("class means", 10, (
            Lesson(latent.class_means, observe_class_means, MEANS_ROWS, "Add up the codes of every class with a matrix product. Divide each row by its own count."),
        )),
        "1.10": Exercise("interpolation", 5, (
            Lesson(latent.interpolate, observe_interpolate, PATH_ROWS, "t goes evenly from 0 to 1, both included. start has the share 1 - t, end the share t."),
        )),
    }
)  # fmt: skip
