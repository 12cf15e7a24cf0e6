"""The checks of notebook 01: the loss, the network, the training step and the latent space."""

import contextlib
import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl_oracle

from vae_tutorial import latent, loss, model, train
from vae_tutorial.checks import Check, Exercise, Wrong
from vae_tutorial.checks.compare import (
    StubDecoder,
    StubEncoder,
    WatchedDecoder,
    activation,
    check_gradients,
    check_layers,
    expect_refusal,
    expect_tensor,
    follow,
    follow_chain,
    kind_of_code,
    name_mistake,
    name_prior,
    name_total,
    number,
    on_meta,
    rough,
    same,
    unchanged,
    uniform,
)

GPU = "makes a tensor on the CPU, which fails as soon as the model is on a GPU: make it on the device of its input."


# 1.1 loss


def judge_loss(kl_divergence, recon_loss, vae_loss):
    _judge_kl(kl_divergence)
    _judge_recon(recon_loss)
    _judge_vae_loss(vae_loss)


def _judge_kl(kl_divergence):
    mu, logvar = uniform(-3, 3, 40, 7).requires_grad_(), uniform(-4, 3, 40, 7).requires_grad_()
    intact = unchanged(mu=mu, logvar=logvar)
    got = kl_divergence(mu, logvar)
    intact()
    right = _kl(mu, logvar)
    reductions = {"averaged": right.mean(), "summed": right.sum(), "summed over D": right.sum(1)}
    reductions |= {"averaged over D": right.mean(1), "averaged over the batch": right.mean(0)}
    for how, value in reductions.items():
        name_mistake(got, right, [(value, f"kl_divergence is {how} already: return one number per entry, (B, D).")])
    expect_tensor("kl_divergence(mu, logvar)", got, right.shape, "one KL divergence per entry", mu.dtype)
    if not same(got, right):
        _name_kl(got.detach(), mu.detach(), logvar.detach(), right.detach())
    check_gradients(got.sum(), right.sum(), {"mu": mu, "logvar": logvar}, "kl_divergence")
    for size in (0.01, 20.0):
        far = size * torch.tensor([[-1.0, 1.0, -1.0, 1.0]]), size * torch.tensor([[-1.0, -1.0, 1.0, 1.0]])
        if not same(kl_divergence(*far), _kl(*far)):
            raise Wrong(
                f"kl_divergence is right for moderate numbers, but not at mu, logvar = {size:g}: nothing is clamped."
            )


def _kl(mu, logvar):
    return kl_oracle(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))


def _name_kl(got, mu, logvar, right):
    at = (got - right).abs().nan_to_num(torch.inf).argmax()
    m, v, given, wanted = (tensor.flatten()[at] for tensor in (mu, logvar, got, right))
    seen = f" (at mu = {m:.2f}, logvar = {v:.2f} it gives {given:.2f}, not {wanted:.2f})."
    if got.isnan().any():
        raise Wrong(
            f"kl_divergence gives nan, as a log or a root of a negative number does; logvar is a log already{seen}"
        )
    if got.isinf().any():
        raise Wrong("kl_divergence gives inf: nothing in the formula divides, or takes a log.")
    has = _fit_formula(got, mu, logvar)
    wanted = {"1": -0.5, "logvar": -0.5, "mu^2": 0.5, "exp(logvar)": 0.5}
    factors = {name: has.get(name, 0) / value for name, value in wanted.items()}
    plain = has.keys() == wanted.keys() and len(set(factors.values())) == 1
    others = ", ".join(name for name in has if name not in wanted)
    lacks = wanted.keys() - has.keys()
    odd = next((name for name in wanted if factors[name] != 1), "1")
    log_sigma = has.get("logvar") == -1 and "exp(2 logvar)" in has
    hints = [
        (not has, "kl_divergence is made of other terms than 1, logvar, mu^2 and exp(logvar)"),
        (plain and factors["1"] == -1, "A KL divergence is never negative: look at the sign in front of the 0.5"),
        (plain, f"kl_divergence is {factors['1']:g} times the right value: which factor stands before the bracket"),
        ("exp(-logvar)" in has, "The two distributions have changed places: KL(q || p) is not KL(p || q)"),
        (log_sigma, "logvar stands where log sigma belongs: it is the log of the variance, sigma^2"),
        ("exp(2 logvar)" in has, "exp(logvar) is sigma^2 already and must not be squared again"),
        ("exp(logvar / 2)" in has, "exp(logvar / 2) is sigma, where the formula has sigma^2"),
        ("mu^2" not in has, f"mu enters as {others or 'nothing at all'}, where the formula has mu^2"),
        (lacks == {"1"}, "At mu = 0 and logvar = 0 the KL must be 0, and it is 0.5: which constant is missing"),
        (has.get("logvar") == 0.5, "A small variance makes the KL small: which sign has log(sigma^2) in the formula"),
        (others, f"The formula has no term {others}"),
        (lacks, f"The formula has a term {', '.join(sorted(lacks))}, which is missing"),
        (True, f"The term {odd} has the factor {has.get(odd, 0):g}: compare it with the formula"),
    ]
    raise Wrong(next(hint for fits, hint in hints if fits) + seen)


def _fit_formula(got, mu, logvar):
    """Write got as a sum of known terms; return {name: factor} of those in it, {} if that does not succeed."""
    terms = {
        "1": torch.ones_like(mu), "logvar": logvar, "mu^2": mu**2, "exp(logvar)": logvar.exp(), "mu": mu,
        "|mu|": mu.abs(), "mu^3": mu**3, "mu^4": mu**4, "exp(2 logvar)": (2 * logvar).exp(),
        "exp(logvar / 2)": (0.5 * logvar).exp(), "exp(-logvar)": (-logvar).exp(), "logvar^2": logvar**2,
        "mu^2 exp(-logvar)": mu**2 * (-logvar).exp(), "|logvar|": logvar.abs(), "exp(mu)": mu.exp(),
        "mu logvar": mu * logvar,
    }  # fmt: skip
    basis = torch.stack([term.flatten() for term in terms.values()], dim=1)
    weights = torch.linalg.lstsq(basis, got.flatten()[:, None]).solution[:, 0]
    if not same(basis @ weights, got.flatten(), 1e-6):
        return {}
    return {name: weight for name, number in zip(terms, weights.tolist(), strict=True) if (weight := round(number, 4))}


def _judge_recon(recon_loss):
    recon, x = uniform(-1, 1, 5, 3, 16, 16).requires_grad_(), uniform(-0.4, 1, 5, 3, 16, 16)
    intact = unchanged(recon=recon, x=x)
    got, difference = recon_loss(recon, x), recon - x
    intact()
    right = difference.pow(2).mean()
    name_mistake(
        got,
        right,
        [
            (difference.abs().mean(), "recon_loss is the mean absolute error, but the mean squared error squares it"),
            (right.sqrt(), "recon_loss is the root of the mean squared error: drop the square root"),
            (right * 0, "recon_loss is 0 for two different batches: is a thing compared with itself"),
            (difference.mean(), "recon_loss averages the difference, whose signs cancel: square it first"),
            (difference.mean() ** 2, "recon_loss squares the average, but it should average the squares"),
            ((recon**2 - x**2).mean(), "recon_loss is the difference of the squares, not the square of the difference"),
            (torch.var(difference), "recon_loss is a variance, which leaves out the mean of the difference"),
            (-right, "recon_loss is negative: a squared error never is"),
            (F.smooth_l1_loss(recon, x), "recon_loss is the smooth L1 (Huber) error, not the mean squared error"),
            (F.binary_cross_entropy_with_logits(recon, x), "recon_loss is a cross-entropy, not the mean squared error"),
        ],
        f" (it gives {number(got)}, not {right:.4f}).",
    )
    expect_tensor("recon_loss(recon, x)", got, (), "one number: the average over the batch and all pixels", x.dtype)
    if not same(got, right):
        scale = (got / right).item()
        whole = next((n for n in (5, 3, 16, 32, 256, 768, 3840) if abs(scale - n) < 1e-3 * n), None)
        how = "it is summed over something that it should average over" if whole else "something else is computed"
        raise Wrong(
            f"recon_loss is {got.item():.4f}, {scale:.3g} times the mean squared error {right.item():.4f}: {how}."
        )
    check_gradients(got, right, {"recon": recon}, "recon_loss")
    expect_refusal("recon_loss", lambda: recon_loss(recon[:, 0], x[:, :1]))


def _judge_vae_loss(vae_loss):
    recon, x = uniform(-1, 1, 5, 3, 16, 16).requires_grad_(), uniform(-0.4, 1, 5, 3, 16, 16)
    for beta, size in ((0.1, 1.0), (2.5, 0.1)):
        mu, logvar = (size * uniform(-3, 3, 5, 7)).requires_grad_(), (size * uniform(-4, 3, 5, 7)).requires_grad_()
        intact = unchanged(recon=recon, x=x, mu=mu, logvar=logvar)
        got = vae_loss(recon, x, mu, logvar, beta)
        intact()
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"vae_loss returns {type(got).__name__}, where the three of (loss, mse, kl) are expected.")
        mse, kl = F.mse_loss(recon, x), _kl(mu, logvar)
        total = mse + beta * kl.mean()
        _name_kl_part(got[2], kl, beta)
        if same(got[1], total):
            raise Wrong("mse is changed in place: loss = mse + ... makes a new number, loss += ... changes mse itself.")
        expect_tensor("The second value of vae_loss, the reconstruction error,", got[1], (), "one number")
        if not same(got[1], mse):
            raise Wrong(f"The second value of vae_loss is {got[1].item():.4f}, where recon_loss is {mse.item():.4f}.")
        name_total(got[0], mse, kl.mean(), beta)
        check_gradients(got[0], total, {"recon": recon, "mu": mu, "logvar": logvar}, "vae_loss")
    if not same(vae_loss(recon, x, mu, logvar)[0], loss.vae_loss(recon, x, mu, logvar)[0]):
        raise Wrong("vae_loss without a beta must use 0.1: keep the default in the first line.")


def _name_kl_part(got, kl, beta):
    seen = f" (it gives {number(got)}, not {kl.mean():.4f})."
    batch, dims = kl.shape
    name_mistake(
        got,
        kl.mean(),
        [
            (kl.sum(), "The KL term grows with the batch size and D: take the mean over both, not the sum"),
            (kl.sum(1).mean(), f"The KL term is summed over D, so it is D = {dims} times too large: take the mean"),
            (
                kl.sum(0).mean(),
                f"The KL term is summed over the batch, so it is {batch} times too large: take the mean",
            ),
            (-kl.mean(), "The KL term is negative, which a KL divergence never is: a sign too many"),
            (0.5 * kl.mean(), "The KL term is halved once too often: the 0.5 is in kl_divergence already"),
            (beta * kl.mean(), "beta weighs the KL in the sum only: kl itself is returned without it"),
            (kl[0].mean(), "The KL term is that of the first image alone: take the mean over all"),
            (kl.max(), "The KL term is the largest of all: take the mean"),
            (kl.median(), "The KL term is the median: take the mean"),
        ],
        seen,
    )
    expect_tensor("The KL term of vae_loss", got, (), "one number: the average over the batch and D", kl.dtype)
    if not same(got, kl.mean()):
        raise Wrong(f"The KL term is not the mean of kl_divergence of mu and logvar, in this order{seen}")


# 1.2, 1.3 the encoder, 1.5 the decoder


def encoder_layers(in_channels, width, latent_dim):
    halve = {"kernel_size": 4, "stride": 2, "padding": 1, "dilation": 1, "groups": 1}
    whole = {"kernel_size": 4, "padding": 0, "dilation": 1, "groups": 1}
    sizes = [in_channels, width, 2 * width, 4 * width]
    table = {}
    for n in (1, 2, 3):
        table[f"conv{n}"] = (nn.Conv2d, {"in_channels": sizes[n - 1], "out_channels": sizes[n], **halve})
        table[f"bn{n}"] = nn.BatchNorm2d, {"num_features": sizes[n]}
    head = nn.Conv2d, {"in_channels": 4 * width, "out_channels": latent_dim, **whole}
    return table | {"conv_mu": head, "conv_logvar": head}


def decoder_layers(out_channels, width, latent_dim):
    # on a map of one pixel the stride makes no difference
    whole = {"kernel_size": 4, "stride": {1, 2, 3, 4}, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
    double = {"kernel_size": 4, "stride": 2, "padding": 1, "dilation": 1, "groups": 1, "output_padding": 0}
    sizes = [latent_dim, 4 * width, 2 * width, width, out_channels]
    table = {}
    for n in (1, 2, 3, 4):
        shape = whole if n == 1 else double
        table[f"conv{n}"] = (nn.ConvTranspose2d, {"in_channels": sizes[n - 1], "out_channels": sizes[n], **shape})
        if n < 4:
            table[f"bn{n}"] = nn.BatchNorm2d, {"num_features": sizes[n]}
    return table


ENCODER_SIZES = [{"in_channels": 3, "width": 5, "latent_dim": 7}, {"in_channels": 1, "width": 3, "latent_dim": 4}]
DECODER_SIZES = [{"out_channels": 3, "width": 5, "latent_dim": 7}, {"out_channels": 1, "width": 3, "latent_dim": 4}]
BLOCKS = [("conv1", None), ("bn1", "relu"), ("conv2", None), ("bn2", "relu"), ("conv3", None), ("bn3", "relu")]


def judge_encoder_layers(encoder):
    check_layers(encoder, ENCODER_SIZES, encoder_layers)


def judge_encoder_forward(encoder):
    for size in ENCODER_SIZES:
        images = [torch.rand(batch, size["in_channels"], 32, 32) * 2 - 1 for batch in (3, 1)]
        _judge_forward(encoder, model.Encoder, size, images, _name_encoder)


def _judge_forward(answer, finished, size, batches, name_mistake_in):
    """Hold the forward pass against the finished one, on the same layers, in both modes, gradients included."""
    for x in batches:
        for training in (False, True):
            student, reference = _pair(answer, finished, size)
            student.train(training), reference.train(training)
            wanted, intact = reference(x), unchanged(**{"x" if x.ndim == 4 else "z": x})
            log, got, error = follow(student, dict(reference.named_children()), lambda: student(x))  # noqa: B023
            intact()
            if any(layer.training is not training for layer in student.modules()):
                raise Wrong("forward changes the mode of the network or of a layer: that is up to whoever trains it.")
            outputs, right = (got, wanted) if isinstance(wanted, tuple) else ((got,), (wanted,))
            if not (
                isinstance(outputs, tuple | list) and len(outputs) == len(right) and all(map(same, outputs, right))
            ):
                name_mistake_in(log, got, error, x, wanted)
            for output, one in zip(outputs, right, strict=True):
                expect_tensor("What forward returns", output, one.shape, "like the comments say", x.dtype)
            _judge_layers_after(student, reference, outputs, right)


def _judge_layers_after(student, reference, outputs, right):
    weights = [torch.randn_like(output) for output in right]
    totals = [sum((w * o).sum() for w, o in zip(weights, every, strict=True)) for every in (outputs, right)]
    pairs = {f"self.{name}": (student.get_parameter(name), other) for name, other in reference.named_parameters()}
    check_gradients(*totals, pairs, "What forward returns")
    for name, buffer in reference.named_buffers():
        if buffer.ndim > 0 and not same(student.get_buffer(name), buffer):
            raise Wrong(f"self.{name} differs from what one ordinary use of each BatchNorm layer leaves behind.")


def _pair(answer, finished, size):
    """Build the student's network and the finished one with the same weights.

    Where the student's layers are open or wrong, forward is tested around copies of the finished ones.
    """
    reference = rough(finished(**size))
    with contextlib.suppress(Exception):
        student = answer(**size)
        own = [getattr(student, name) for name, _ in reference.named_children()]
        if [*map(repr, own)] == [*map(repr, reference.children())] and len(set(own)) == len(own):
            for layer, other in zip(own, reference.children(), strict=True):
                layer.load_state_dict(other.state_dict())
            return student, reference
    student = answer.__new__(answer)
    nn.Module.__init__(student)
    for name, layer in reference.named_children():
        student.add_module(name, copy.deepcopy(layer))
    return student, reference


def _name_encoder(log, got, error, x, _):
    follow_chain(log, x, BLOCKS)
    heads = log[len(BLOCKS) :]
    for name, given, _ in heads:
        if not same(given, F.relu(log[5][2])):
            if name == "conv_logvar" and heads[0][2] is not None and given.shape == heads[0][2].shape:
                raise Wrong(
                    "self.conv_logvar receives what self.conv_mu gave: x was overwritten, but both heads need it."
                )
            found = activation(given, log[5][2]) or "something else"
            raise Wrong(f"Between self.bn3 and self.{name} there is {found}, where relu is expected.")
    if error:
        raise error
    outs = {name: out.flatten(1) for name, _, out in heads}
    for head in ("conv_mu", "conv_logvar"):
        if head not in outs:
            raise Wrong(f"self.{head} is never used: copied and not changed?")
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"forward of Encoder returns {type(got).__name__}, where the two of mu, logvar are expected.")
    mu, logvar = outs["conv_mu"], outs["conv_logvar"]
    if same(got[0], logvar) or same(got[1], mu):
        raise Wrong("forward of Encoder mixes up mu and logvar: self.conv_mu gives mu, returned first, then logvar.")
    _name_head("mu", got[0], mu)
    _name_head("logvar", got[1], logvar)
    raise Wrong(
        "forward of Encoder gives other numbers than the layers one after another: something is changed between."
    )


def _name_head(name, got, flat):
    size = "flatten(1) makes (B, D, 1, 1) to (B, D), also for a batch of one, where squeeze() loses the batch"
    if isinstance(got, torch.Tensor) and got.shape != flat.shape:
        raise Wrong(f"{name} has shape {tuple(got.shape)}, where {tuple(flat.shape)} is expected: {size}.")
    expect_tensor(name, got, flat.shape, "one row per image")
    if not same(got, flat):
        found = activation(got, flat) or "something"
        positive = name == "logvar" and found in (
            "relu",
            "softplus",
            "sigmoid",
            "exp",
            "relu6",
            "elu",
            "abs",
            "a square",
        )
        why = ": a log may be negative, and without that sigma never falls below 1" if positive else ""
        raise Wrong(f"{name} goes through {found} after its layer, where nothing is expected{why}.")


def judge_decoder(decoder):
    check_layers(decoder, DECODER_SIZES, decoder_layers)
    for size in DECODER_SIZES:
        codes = [torch.randn(batch, size["latent_dim"]) for batch in (3, 1)]
        _judge_forward(decoder, model.Decoder, size, codes, _name_decoder)


def _name_decoder(log, got, error, z, wanted):
    follow_chain(log, z[:, :, None, None], [*BLOCKS, ("conv4", None)])
    if error:
        raise error
    if len(log) < 7:
        raise Wrong("self.conv4 is never used: it makes the image.")
    expect_tensor("The decoder's output", got, wanted.shape, "one image per code")
    found = activation(got, log[6][2]) or "something other than tanh"
    reach = "sigmoid cannot reach -1, the colour of the background" if found == "sigmoid" else "images lie in [-1, 1]"
    raise Wrong(f"The image leaves the decoder through {found}, where one tanh is expected: {reach}.")


# 1.4 reparameterize, 1.6 what is decoded


def judge_reparameterize(reparameterize):
    means, logs = torch.tensor([-20.0, 0.0, 30.0]), torch.tensor([-12.0, -2.0, 0.0, 2.0, 6.0])
    mu = means.repeat_interleave(5).repeat(8_000, 1).requires_grad_()
    logvar = logs.repeat(3).repeat(8_000, 1).requires_grad_()
    intact = unchanged(mu=mu, logvar=logvar)
    z = reparameterize(mu, logvar)
    intact()
    expect_tensor("reparameterize(mu, logvar)", z, mu.shape, "one z per image", mu.dtype)
    _name_moments(z.detach(), mu.detach(), logvar.detach())
    _judge_sample_gradient(z, mu, logvar)
    _judge_calls(reparameterize, mu.detach()[:1], logvar.detach()[:1])
    meta = torch.empty(2, 3, device="meta")
    on_meta(lambda: reparameterize(meta, meta), f"reparameterize {GPU}")


def _judge_calls(reparameterize, mu, logvar):
    """Hold calls for one image against each other: new noise each time, left as drawn, from torch's generator."""
    with torch.no_grad():
        first, second = reparameterize(mu, logvar), reparameterize(mu, logvar)
        eps = reparameterize(0 * mu, 0 * logvar)
    if same(first, second, 1e-6):
        raise Wrong(
            "Two calls give the same z: the noise is seeded inside the function, or switched off under no_grad."
        )
    if eps.mean().abs() < 1e-5 or (eps.pow(2).mean() - 1).abs() < 1e-5:
        raise Wrong("The noise is centred or rescaled by hand: draw it, and leave it as it comes.")
    again = []
    for _ in range(2):
        torch.default_generator.manual_seed(1)
        again.append(reparameterize(mu, logvar))
    if not same(*again, 1e-6):
        raise Wrong(
            "After one seed two calls differ: draw eps with torch's own generator, which torch.manual_seed sets."
        )


def _name_moments(z, mu, logvar):
    """Raise Wrong unless the columns of z are independent draws from N(mu, exp(logvar))."""
    if z.isnan().any():
        raise Wrong("z has nan in it: logvar may be negative, and its root or log is nan; exponentiate first.")
    eps = (z - mu) / (0.5 * logvar).exp()
    mu, logvar, std = mu[0], logvar[0], (0.5 * logvar[0]).exp()
    mean, spread = z.mean(0), z.std(0)
    if spread.max() < 1e-4 or (z[0] == z).all():
        raise Wrong("Every image gets the same noise, or none: eps must be drawn anew for every entry of z.")
    _name_mean(mean, spread, mu, logvar, std)
    reach = eps.abs().max()
    cut = f"eps never gets past {reach:.1f}: its tails are cut off."
    # clamped at 2 standard deviations, 5 % of the draws lie on the edge, and make the spread smaller
    if reach < 3.5 and 0.02 < (eps.abs() > 0.99 * reach).double().mean() < 0.5:
        raise Wrong(cut)
    _name_spread(spread, logvar, std)
    if (torch.corrcoef(eps.T) - torch.eye(len(mu))).abs().max() > 0.1:
        raise Wrong("The latent dimensions of an image move together: draw one eps for every dimension.")
    # mu and logvar are 0 in column 7: there z is eps itself, and no two of 8,000 draws should agree, up to the sign
    if z[:, 7].abs().unique().numel() < 0.98 * len(z):
        raise Wrong("Several images share their noise: draw one eps for every image.")
    fourth = eps.pow(4).mean(0)
    if reach < 3.5 and fourth.mean() > 2:
        raise Wrong(cut)
    if (fourth - 3).abs().max() > 0.6 or eps.pow(3).mean(0).abs().max() > 0.3:
        raise Wrong(
            f"eps has the right mean and spread, but is not normal: its fourth moment is {fourth.mean():.1f}, not 3."
        )
    if eps.mean(0).abs().max() < 1e-5:
        raise Wrong("The noise is centred by hand: draw it, and leave it as it comes.")


def _name_mean(mean, spread, mu, logvar, std):
    """Raise Wrong unless the mean of z is mu."""
    spread = spread.clamp(min=1e-3)
    shift = (mean - mu) / spread
    j = int(shift.abs().nan_to_num(0).argmax())
    seen = f" (with mu = {mu[j]:.0f}, logvar = {logvar[j]:.0f}, z has mean {mean[j]:.2f} and std {spread[j]:.2f})."
    if close(spread, mu.abs(), 0.05):
        raise Wrong(f"mu and std have changed places: eps multiplies std, and mu is added{seen}")
    if shift.abs().max() < 0.06:
        return
    known = [
        (0 * mu, "z has mean 0 whatever mu is: without mu the code says nothing about the image"),
        (-mu, "mu is subtracted, where it is added"),
        (2 * mu, "mu is added twice"),
        (mu + std, "std is added to mu, where eps times std is added"),
        (std, "mu and std have changed places: eps multiplies std, and mu is added"),
        (mu * std, "std multiplies mu as well: only eps is scaled"),
        (mu + 0.5 * std, "The mean of z is not mu: rand is uniform on [0, 1), and its mean is not 0"),
    ]
    for value, hint in known:
        if ((mean - value) / spread).abs().max() < 0.06:
            raise Wrong(hint + seen)
    raise Wrong(f"The mean of z is not mu{seen}")


def _name_spread(spread, logvar, std):
    """Raise Wrong unless the spread of z is std."""
    j = int(((spread - std).abs() / std).argmax())
    seen = f" (at logvar = {logvar[j]:.0f} z has std {spread[j]:.3g}, not {std[j]:.3g})."
    known = [
        (std**2, "The noise is scaled by the variance: std is its square root"),
        (std**0.5, "The noise is scaled by the root of std: the variance is exp(logvar), and std its root"),
        (std**4, "The noise is scaled by exp(2 * logvar): which power of the variance is std"),
        (1 / std, "The noise is scaled by 1 / std: look at the sign in the exponent"),
        (
            F.softplus(logvar),
            "softplus is another way to make a number positive: logvar is a log, so its inverse is exp",
        ),
        (logvar.abs(), "logvar or its abs scales the noise: logvar is a log, and its inverse is exp"),
        (0.5 * logvar.abs(), "Half of logvar scales the noise: logvar is a log, and its inverse is exp"),
        (1 + 0 * std, "The noise is not scaled at all: std multiplies eps"),
    ]
    for value, hint in known:
        if close(spread, value, 0.05):
            raise Wrong(hint + seen)
    ratio = (spread / std).mean()
    if close(spread, ratio * std, 0.05) and not close(spread, std, 0.05):
        raise Wrong(f"eps has a standard deviation of {ratio:.2f}, but it must be 1{seen}")
    if not close(spread, std, 0.05):
        raise Wrong(f"The spread of z is not std, the root of the variance exp(logvar){seen}")


def close(got, want, tolerance):
    """Tell whether two sets of measured moments agree, to a part of want."""
    return bool(((got - want).abs() <= tolerance * want.abs().clamp(min=1e-4)).all())


def _judge_sample_gradient(z, mu, logvar):
    if not z.requires_grad:
        raise Wrong("No gradient reaches mu and logvar: a sample drawn from a distribution cannot be differentiated.")
    to_mu, to_logvar = torch.autograd.grad(z.sum(), [mu, logvar], allow_unused=True)
    if not any(gradient is not None and gradient.any() for gradient in (to_mu, to_logvar)):
        raise Wrong("No gradient reaches mu and logvar: a sample drawn from a distribution cannot be differentiated.")
    if to_mu is None or not same(to_mu, torch.ones_like(mu)):
        raise Wrong("The gradient of z with respect to mu must be 1: is mu detached?")
    if to_logvar is None or not to_logvar.any():
        raise Wrong("No gradient reaches logvar: is std detached?")
    if not same(to_logvar, 0.5 * (z - mu), 1e-3):
        raise Wrong("std is nearly, but not exactly, the root of exp(logvar): something is added, clamped or rounded.")


def judge_vae(vae):
    kinds, runs = {}, []
    for training in (False, True, True):
        encoder, decoder = StubEncoder(), StubDecoder()
        net = vae(encoder, decoder).train(training)
        encoder.train(not training), decoder.train(not training)  # the mode that counts is the VAE's own
        got = net(torch.zeros(2000, 1, 32, 32))
        if encoder.calls != 1 or len(decoder.seen) != 1:
            calls = f"the encoder {encoder.calls} times and the decoder {len(decoder.seen)} times"
            raise Wrong(f"forward calls {calls}: once each.")
        if net.training is not training or encoder.training is training:
            raise Wrong("forward changes the mode of the model: it should only read self.training.")
        kinds[training] = kind_of_code(decoder.seen[0], encoder)
        runs.append((got, decoder.seen[0], encoder))
    if kinds == {True: "mu", False: "a sample"}:
        raise Wrong("The two modes have changed places: a sample is decoded in train mode, mu in eval mode.")
    if kinds[False] != "mu":
        raise Wrong(f"In eval mode {kinds[False]} is decoded, where mu is expected: self.training tells the mode.")
    if kinds[True] != "a sample":
        why = ": without noise the KL has no purpose" if kinds[True] == "mu" else ""
        raise Wrong(f"In train mode {kinds[True]} is decoded, where a sample of z is expected{why}.")
    for run in runs:
        _check_vae_output(*run)
    first, second = ((z - encoder.mu) / (0.5 * encoder.logvar).exp() for _, z, encoder in runs[1:])
    if same(first, second, 1e-3):
        raise Wrong("Two forwards in train mode draw the same noise: seed once, at the top of the notebook.")
    got, z, encoder = runs[1]
    wanted = 3 * (0.5 * encoder.logvar).exp() * first.detach() + 3 * encoder.mu
    inputs = {"mu": encoder.mu, "logvar": encoder.logvar}
    check_gradients(got[0].sum(), wanted.sum(), inputs, "What the decoder makes of z")
    if not (got[1].requires_grad and got[2].requires_grad):
        raise Wrong("mu and logvar are detached on the way out: then the KL teaches the encoder nothing.")


def _check_vae_output(got, z, encoder):
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong(f"forward of VAE returns {type(got).__name__}, where the three of recon, mu, logvar are expected.")
    if not (same(got[0], 3 * z + 1) and same(got[1], encoder.mu) and same(got[2], encoder.logvar)):
        raise Wrong("forward of VAE must return what the decoder makes of the code, then mu, then logvar.")


# 1.7 the training step


class _TinyVAE(nn.Module):
    """A model without noise: two training steps that do the same give the same weights."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode, self.modes = nn.Linear(6, 4), nn.Linear(2, 6), []

    def forward(self, x):
        self.modes.append(all(layer.training for layer in self.modules()))
        mu, logvar = self.encode(x).chunk(2, dim=1)
        return self.decode(mu + 0.1 * logvar), mu, logvar


class _Recorder(torch.optim.SGD):
    def __init__(self, parameters, log):
        super().__init__(parameters, lr=0.1, momentum=0.9)
        self.log = log

    def zero_grad(self, set_to_none=True):
        self.log.append("zero_grad")
        super().zero_grad(set_to_none)

    def step(self, closure=None):
        self.log.append("step")
        return super().step(closure)


def _run_steps(train_step, start, batches):
    """Take a step on every batch; return the weights, what the steps returned, and what happened in which order."""
    net, log, kept = copy.deepcopy(start), [], []
    optimizer = _Recorder(net.parameters(), log)

    def loss_fn(recon, x, mu, logvar):
        mse, kl = (recon - 0.8 * x).pow(2).mean(), (mu.pow(2) + 3 * logvar.exp()).mean()
        leaf = torch.zeros((), requires_grad=True)
        factor = leaf.exp()  # 1, with a graph of its own, which backward frees unless it is told to retain it
        total = (mse + 0.5 * kl) * factor if mse.requires_grad else mse + 0.5 * kl
        log.append("loss_fn")
        for name, tensor in {"backward": total, "gradients": mu}.items():
            if tensor.requires_grad:
                tensor.register_hook(lambda _, name=name: log.append(name))
        kept.append((factor, leaf, (recon, x, mu, logvar)))
        return total, mse, kl

    returned = [train_step(net, x, optimizer, loss_fn) for x in batches]
    return net, returned, log, kept


def judge_train_step(train_step):
    start, batches = _TinyVAE(), [torch.randn(8, 6) for _ in range(3)]
    intact = unchanged(x=batches[0])
    wanted, values, _, _ = _run_steps(train.train_step, start, batches)
    net, returned, log, kept = _run_steps(train_step, start, batches)
    intact()
    if len(net.modes) != len(batches):
        raise Wrong(
            f"One step runs the model {len(net.modes) / len(batches):g} times: once, and everything from that run."
        )
    if not all(net.modes) or not all(layer.training for layer in net.modules()):
        raise Wrong("train_step puts the model, or a layer, in eval mode: then BatchNorm and the noise are off.")
    if not all(map(same, net.parameters(), wanted.parameters())):
        _name_step(start, log, kept, batches)
        _name_update(train_step, start, batches[:1])
    if not all(weight.requires_grad for weight in net.parameters()):
        raise Wrong("train_step freezes weights of the model: leave requires_grad alone.")
    _name_returned(returned, values)
    factor, leaf, _ = kept[0]
    try:
        torch.autograd.grad(factor, leaf)
    except RuntimeError:
        return
    if leaf.grad is not None:
        raise Wrong("retain_graph is not needed: every step builds a new graph, and an old one only takes memory.")


def _name_step(start, log, kept, batches):
    """Name what is wrong with the order of things in the first step."""
    first = log[: len(log) // len(batches)]
    if "loss_fn" not in first:
        raise Wrong("loss_fn is never called: use the argument, with recon, x, mu and logvar.")
    x = batches[0]
    recon, mu, logvar = start(x)
    if not all(map(same, kept[0][2], (recon, x, mu, logvar))):
        raise Wrong("loss_fn gets other arguments than recon, x, mu, logvar, in this order.")
    if "backward" not in first and "gradients" in first:
        raise Wrong("backward starts from something other than the loss, which is the first of what loss_fn returns.")
    if "backward" not in first:
        raise Wrong("Nobody computes the gradients: loss.backward() is missing, or the loss is cut off from the graph.")
    if "step" not in first:
        raise Wrong(
            "The optimizer that is given never steps, so no weight moves; it carries averages from step to step."
        )
    if first.index("step") < first.index("backward"):
        raise Wrong("The optimizer steps before backward has computed the gradients: clear, compute, step.")
    if "zero_grad" in first[first.index("backward") : first.index("step")]:
        raise Wrong("The gradients are cleared between backward and step: nothing is left to step with.")
    if "zero_grad" not in first:
        raise Wrong("The gradients of the last step are never cleared: PyTorch adds the new ones to them.")


def _name_update(train_step, start, batches):
    """Name how the first change of the weights differs from the right one."""
    right, given = (
        torch.cat(
            [
                (new - old).flatten()
                for new, old in zip(_run_steps(step, start, batches)[0].parameters(), start.parameters(), strict=True)
            ]
        ).detach()
        for step in (train.train_step, train_step)
    )
    ratio = ((given @ right) / (right @ right)).item()
    if same(given, ratio * right, 1e-3) and ratio < 0:
        raise Wrong("The weights move uphill: the loss, or its gradient, has the wrong sign.")
    if same(given, ratio * right, 1e-3) and abs(ratio - 1) > 1e-3:
        raise Wrong(
            f"The weights move {ratio:.3g} times as far as they should: something scales loss, gradient or step."
        )
    raise Wrong("The weights move in another direction than the loss says: what happens besides clear, backward, step?")


def _name_returned(returned, values):
    for got, want in zip(returned, values, strict=True):
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"train_step returns {type(got).__name__}, where the three of loss, mse, kl are expected.")
        if any(isinstance(part, torch.Tensor) for part in got):
            raise Wrong(
                "train_step returns tensors, which keep the whole graph in memory: return numbers, with .item()."
            )
        if not all(isinstance(part, float) for part in got):
            kinds = ", ".join(type(part).__name__ for part in got)
            raise Wrong(f"train_step returns {kinds}, where three floats are expected: .item() makes them.")
        if not all(abs(part - other) < 1e-4 for part, other in zip(got, want, strict=True)):
            raise Wrong("train_step returns other numbers than loss, mse and kl of this batch, in this order.")


# 1.8 the prior, 1.9 class means, 1.10 interpolation


def judge_sample_prior(sample_prior):
    for count, latent_dim, training in ((1000, 6, True), (5, 9, False)):
        decoder = WatchedDecoder(latent_dim).train(training)
        before = copy.deepcopy(decoder.net.state_dict())
        images = sample_prior(decoder, count, latent_dim)
        z = _name_prior_call(decoder, images, count, latent_dim)
        _name_decoder_after(decoder, before, training)
        if not same(images, decoder.eval().net(z)):
            raise Wrong("The result is not what the decoder makes of z in eval mode.")
        if latent_dim == 6:
            name_prior(z)
        if same(images, sample_prior(decoder, count, latent_dim)):
            raise Wrong(
                "Two calls give the same images: the noise is seeded inside the function; seed once, at the top."
            )
    meta = model.Decoder(1, 2, 6).to("meta")
    on_meta(lambda: sample_prior(meta, 2, 6), f"sample_prior {GPU}")
    if sample_prior(model.Decoder(1, 2, 6).double(), 2, 6).dtype != torch.float64:
        raise Wrong(
            "A decoder of type float64 gives images of another type: z takes its dtype from weight, and keeps it."
        )


def _name_prior_call(decoder, images, count, latent_dim):
    """Raise Wrong unless the decoder was called well; return the z it was given."""
    if not decoder.seen:
        raise Wrong("The decoder is never called: decode z.")
    given = torch.cat([z.reshape(-1, z.shape[-1]) for z in decoder.seen])
    if len(given) < count or given.shape[1] != latent_dim:
        wanted = f"(num_samples, latent_dim) is {count, latent_dim}"
        raise Wrong(f"The decoder gets z of shape {tuple(given.shape)}, where {wanted}.")
    if any(decoder.modes):
        raise Wrong("z is decoded in train mode: BatchNorm then mixes the samples of a batch; eval mode first.")
    expect_tensor("sample_prior(...)", images, (count, 1, 32, 32), "one image per z", torch.float32)
    if images.requires_grad:
        raise Wrong("The images carry a gradient: decode under torch.no_grad(), nobody trains here.")
    return given[-count:]


def _name_decoder_after(decoder, before, training):
    """Raise Wrong unless the decoder is as it was, and gradients are on."""
    after = decoder.net.state_dict()
    if any(after[key].dtype != value.dtype for key, value in before.items()):
        raise Wrong("Sampling changes the type of the decoder's weights: leave the decoder as it is.")
    if not all(torch.equal(before[key], value) for key, value in after.items()):
        raise Wrong("Sampling changes the decoder's weights or statistics: decode in eval mode, and leave it as it is.")
    if decoder.training is not training or decoder.net.bn1.training is not training:
        raise Wrong("The decoder is left in another mode: decode inside `with eval_mode(decoder):`, which restores it.")
    if not all(weight.requires_grad for weight in decoder.parameters()):
        raise Wrong("The decoder's weights are frozen for good: torch.no_grad() switches gradients off for a moment.")
    if not torch.is_grad_enabled():
        raise Wrong(
            "Gradients stay switched off for whatever comes later: `with torch.no_grad():` switches them on again."
        )


def judge_class_means(class_means):
    cases = ((10, 10, [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9]), (4, 10, [3, 1, 1, 2, 3, 4, 5, 6, 8, 8, 8]))
    for latent_dim, num_classes, classes in (*cases, (6, 12, [0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 9])):
        codes, labels = torch.randn(11, latent_dim) + 1, torch.tensor(classes)
        intact = unchanged(codes=codes, labels=labels)
        got = class_means(codes, labels) if num_classes == 10 else class_means(codes, labels, num_classes)
        intact()
        if isinstance(got, torch.Tensor) and got.ndim == 2 and len(got) != num_classes:
            raise Wrong(f"With num_classes = {num_classes} the result has {len(got)} rows: use num_classes itself.")
        expect_tensor(
            "class_means(codes, labels)", got, (num_classes, latent_dim), "a mean code per class", codes.dtype
        )
        _name_means(got, codes, labels, num_classes)
    meta, labels = torch.empty(4, 3, device="meta"), torch.tensor([0, 1, 2, 2])
    on_meta(
        lambda: class_means(meta, labels), "labels on the CPU and codes on a GPU do not mix: bring both to one device."
    )
    codes = torch.randn(4, 3, dtype=torch.float64)
    expect_tensor(
        "class_means(codes, labels)", class_means(codes, labels), (10, 3), "a mean code per class", codes.dtype
    )


def _name_means(got, codes, labels, num_classes):
    """Raise Wrong unless the rows of the classes that occur are their means."""
    sums = torch.stack([codes[labels == c].sum(0) for c in range(num_classes)])
    counts, present = torch.bincount(labels, minlength=num_classes), labels.unique()
    right = sums[present] / counts[present, None]
    square = codes.shape[1] == num_classes
    wrong = [(value[present], hint) for value, hint in _wrong_means(codes, labels, sums, counts, square)]
    name_mistake(got[present], right, wrong)
    for c, row, mean in zip(present, got[present], right, strict=True):
        ratio = (row / mean).mean()
        if ratio.isfinite() and ratio.abs() > 1e-3 and same(row, ratio * mean, 1e-3) and abs(ratio - 1) > 1e-3:
            used = f"divided by {counts[c] / ratio:.3g}, but there are {counts[c]} of them"
            raise Wrong(f"The sum of the codes of class {c} is {used}: count each class.")
        if not same(row, mean):
            at = int((row - mean).abs().nan_to_num(torch.inf).argmax())
            what = f"{row[at]:.3f}, where its codes, added up and divided by their number, give {mean[at]:.3f}"
            raise Wrong(f"Entry {at} of the mean of class {c} is {what}: which codes are added up?")


def _wrong_means(codes, labels, sums, counts, square):
    count = counts[:, None]
    yield sums, "The codes of every class are added up, but not divided by how many there are."
    yield sums / 1000, "The sums are divided by 1000, but the classes are not of that size: count them."
    yield sums / len(codes), "The sums are divided by the number of all images: count each class by itself."
    yield sums / (len(codes) / len(counts)), "The classes are not equally large: count each of them."
    yield sums / len(counts), "The sums are divided by the number of classes: count the images of each class."
    yield codes.mean(0).expand_as(sums), "Every class gets the mean of all codes: use the labels."
    yield (sums / count).roll(-1, 0), "Every row is the mean of the next class: class 0 comes first."
    yield (sums / count).roll(1, 0), "Every row is the mean of the class before: class 0 comes first."
    yield (sums / count).round(), "The means are rounded."
    medians = [codes[labels == c].median(0).values if c in labels else sums[0] for c in range(len(counts))]
    yield torch.stack(medians), "That is the median of every class, not the mean."
    if square:
        yield sums / counts, "counts divides the columns, not the rows: it needs the shape (num_classes, 1)."
        yield (sums / count).T, "The result is transposed: one row per class."
        yield sums.T / count, "The result is transposed: one row per class."
        yield sums.T / counts, "The result is transposed: one row per class."
    yield sums / (count + 1), "The counts are one too large: where do they start?"


def judge_interpolate(interpolate):
    start, end = torch.randn(7) + 2, torch.randn(7) - 2
    for steps in (5, 2, 49):
        t = torch.linspace(0, 1, steps)[:, None]
        right = start + t * (end - start)
        intact = unchanged(start=start, end=end)
        got = interpolate(start, end, steps)
        intact()
        if not same(got, interpolate(start, end, steps)) and isinstance(got, torch.Tensor):
            raise Wrong("Two calls give different paths: nothing here is random.")
        walk = torch.arange(steps)[:, None] / steps
        if isinstance(got, torch.Tensor) and got.shape == (7, steps):
            raise Wrong(f"The path has shape (D, num_steps), {tuple(got.shape)}: t needs the shape (num_steps, 1).")
        expect_tensor("interpolate(start, end, num_steps)", got, right.shape, "one code per step", start.dtype)
        name_mistake(
            got,
            right,
            [
                (right.flip(0), "The path runs backwards: frame 0 is start."),
                (start + t * end, "The path ends at start + end: walk along the difference end - start."),
                (
                    start + walk * (end - start),
                    "The path stops before end: linspace includes both ends, arange does not.",
                ),
                (end + t * (end - start), "The path begins at end: it should begin at start."),
                (t * (end - start), "The path begins at 0: it should begin at start."),
                (start - t * (end - start), "The path leads away from end: the difference is end - start."),
                (start + t**2 * (end - start), "The steps are not even: t must grow evenly from 0 to 1."),
                (1 - t * start + t * end, "1 - t must stand in brackets: it multiplies start as a whole."),
                (start + (1 - t) * end, "start is never faded out, and end fades: the shares are 1 - t and t."),
                ((start + end).expand_as(right) / 2, "Every step is the middle: use t."),
                (right.round(), "The codes are rounded."),
            ],
        )
        if not same(got[0], start) or not same(got[-1], end):
            which, i, name, wanted = (
                ("first", 0, "start", start) if not same(got[0], start) else ("last", -1, "end", end)
            )
            raise Wrong(f"The {which} code begins with {got[i, 0]:.3f}, where {name} has {wanted[0]:.3f}.")
        if not same(got, right):
            raise Wrong("Both ends are right, but the steps between are not evenly spaced on the straight line.")
    meta = torch.empty(3, device="meta")
    on_meta(lambda: interpolate(meta, meta, 4), f"interpolate {GPU}")


LOSS = (loss.kl_divergence, loss.recon_loss, loss.vae_loss)
INIT, FORWARD = ("__init__",), ("forward",)
REMINDERS = {
    "1.1": "kl_divergence is minus one half times (1 plus ln sigma^2 minus mu squared minus sigma^2), entry by entry; "
    "recon_loss is a mean of squares; vae_loss adds the second to beta times the mean of the first.",
    "1.2": "every convolution is 4x4; the first three have stride 2 and padding 1, the two heads have neither; "
    "BatchNorm gets the number of channels of the convolution before it.",
    "1.3": "convolution, BatchNorm, relu, three times; then each head reads the result, and is only flattened.",
    "1.4": "sigma is the square root of the variance; z is mu plus sigma times standard normal noise.",
    "1.5": "every layer is a transposed 4x4 convolution; all but the first have stride 2 and padding 1; "
    "BatchNorm and relu follow all but the last, tanh the last.",
    "1.6": "while training a reparameterized sample goes to the decoder, otherwise mu does.",
    "1.7": "compute the loss with loss_fn, clear the gradients, compute them, let the optimizer step, in this order.",
    "1.8": "draw a normal number for every entry of z, where the decoder is; switch to eval mode; decode without "
    "gradients.",
    "1.9": "add up the codes of every class with a matrix product, and divide each row by its own count.",
    "1.10": "t goes evenly from 0 to 1, both included; the path mixes start and end in these shares.",
}

check = Check(
    {
        "1.1": Exercise("the loss", 15, 4, LOSS, judge_loss),
        "1.2": Exercise("the encoder's layers", 15, 8, (model.Encoder,), judge_encoder_layers, INIT),
        "1.3": Exercise("the encoder's forward pass", 10, 5, (model.Encoder,), judge_encoder_forward, FORWARD),
        "1.4": Exercise("the reparameterization", 10, 3, (model.reparameterize,), judge_reparameterize),
        "1.5": Exercise("the decoder", 15, 11, (model.Decoder,), judge_decoder),
        "1.6": Exercise("what is decoded", 5, 1, (model.VAE,), judge_vae),
        "1.7": Exercise("the training step", 10, 2, (train.train_step,), judge_train_step),
        "1.8": Exercise("samples from the prior", 10, 2, (latent.sample_prior,), judge_sample_prior),
        "1.9": Exercise("class means", 10, 3, (latent.class_means,), judge_class_means),
        "1.10": Exercise("interpolation", 5, 2, (latent.interpolate,), judge_interpolate),
    },
    REMINDERS,
)
