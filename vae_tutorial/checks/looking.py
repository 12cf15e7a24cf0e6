"""What the observations of several lessons share: a call with its side effects, formulas, noise, other devices."""

import contextlib
import copy
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from vae_tutorial import model
from vae_tutorial.checks.comparing import Near, alike, brief, same
from vae_tutorial.checks.engine import holds, must, should
from vae_tutorial.checks.running import functions_of, raised_at, source_of


def call(name, function, read=None, unit="", **given):
    """Yield what a call shows: what goes in stays as it was, the result, its gradients; return the result.

    given: the arguments, by position; the reader gets them by name, and those that require gradients show them.
    """
    after = untouched(name, **given)
    result = function(*given.values())
    yield from after()
    yield must(name, value_of(result), read, unit, **given)
    if isinstance(result, Tensor):
        leaves = {key: one for key, one in given.items() if isinstance(one, Tensor) and one.requires_grad}
        yield from gradients(name, result, leaves)
    return result


def value_of(result):
    return result.detach() if isinstance(result, Tensor) else result


def untouched(name, **given):
    """Return a generator function that yields, after a call, whether the tensors are as they are now."""
    before = {key: one.detach().clone() for key, one in given.items() if isinstance(one, Tensor)}

    def after():
        for key, old in before.items():
            intact = given[key].shape == old.shape and torch.equal(given[key].detach(), old)
            yield holds(intact, f"{name} changes {key} in place: whoever passed it in still needs it as it was.")

    return after


def gradients(name, result, leaves):
    """Yield the gradients of a result, each entry weighted differently, with respect to {what it is: leaf}.

    All are divided by their largest entry, whose logarithm comes last: where a gradient should be 0, what is left
    is rounding.
    """
    if leaves:
        yield holds(result.requires_grad, f"{name} carries no gradient.")
    if leaves and result.requires_grad:
        weights = torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
        grads = torch.autograd.grad((result * weights).sum(), list(leaves.values()), allow_unused=True)
        grads = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves.values(), grads, strict=True)]
        flat = torch.cat([grad.flatten() for grad in grads])
        parts = [grad.numel() for grad in grads]
        size = flat.abs().max().clamp(min=1e-12)
        flat = torch.cat([flat / size, size.log()[None]])
        yield must("The gradients", flat, read_gradients, name=name, keys=list(leaves), parts=parts)


def read_gradients(got, want, name, keys, parts):
    """Name the first of the leaves whose gradient is lost, or else is wrong."""
    got, want = ((flat[:-1] * flat[-1].exp()).split(parts) for flat in (got, want))
    pairs = list(zip(keys, got, want, strict=True))
    lost = [key for key, one, other in pairs if not one.any() and other.any()]
    wrong = [key for key, one, other in pairs if not same(one, other, 1e-3)]
    seen, key = ("no", lost[0]) if lost else ("a wrong", (wrong or keys)[0])
    return f"{name} has the right value, but {seen} gradient reaches {key}."


def returned(name, result, parts, known=None):
    """Yield what is returned where several values are asked for: how many, and each of them.

    known: {name: tensor}, what may be returned in a part's place.
    """
    right = yield from counted(name, result, parts)
    for part, value in zip(parts, result if right else (), strict=False):
        yield must(
            f"{part}, as {name} returns it,", value_of(value), read_part, name=name, part=part, known=known or {}
        )


def counted(name, result, parts):
    """Yield whether as many values are returned as there are parts; return that, too."""
    several = isinstance(result, tuple | list)
    came = f"{len(result)} values" if several else "one value" if isinstance(result, Tensor | float) else brief(result)
    right = several and len(result) == len(parts)
    yield holds(right, f"{name} returns {came}, where {len(parts)} are expected: {', '.join(parts)}.")
    return right


def read_part(got, _, name, part, known):
    held = named(got, known)
    return held and f"{name} returns {held} where {part} is expected: is the order right, or {part} overwritten?"


def uniform(low, high, *shape):
    """Draw random numbers: a formula is tested where no two terms happen to agree."""
    return torch.empty(shape).uniform_(low, high)


def refused(function):
    """Tell whether a call is refused, by whatever error."""
    try:
        function()
    except Exception:
        return True
    return False


# numbers


def named(got, known):
    """Return the name of the first of the known values, {name: tensor}, that got is; None if it is none of them."""
    return next((name for name, value in known.items() if isinstance(got, Tensor) and same(got, value)), None)


def ratio(got, want, known):
    """Return what the ratio of two numbers means, of the known, {ratio: meaning}; None if it is none of them."""
    found = (got / want).item()
    return next((said for number, said in known.items() if abs(found - number) <= 1e-4 * abs(number)), None)


def fit(value, terms, tolerance=1e-5):
    """Write a tensor as a sum of known terms, {name: tensor}: return {name: factor}, None if it is no such sum."""
    basis = torch.stack([term.flatten().double() for term in terms.values()], dim=1)
    basis, flat = basis.detach(), value.detach().flatten().double()
    if not flat.isfinite().all():
        return None
    size = basis.norm(dim=0)
    weights = torch.linalg.lstsq(basis / size, flat[:, None]).solution[:, 0] / size
    if not same(basis @ weights, flat, tolerance):
        return None
    return {name: factor for name, number in zip(terms, weights.tolist(), strict=True) if (factor := round(number, 3))}


def formula(factors):
    """Write {name: factor} as a sum: mu + 0.5 std."""
    signs = {1.0: "", -1.0: "-"}
    terms = [f"{f:g}" if name == "1" else signs.get(f, f"{f:g} ") + name for name, f in factors.items()]
    return " + ".join(terms).replace("+ -", "- ") or "0"


def read_total(got, _, mse, kl, beta, error="mse"):
    """Read a wrong loss as a combination of the error, the KL and beta, means of what is given; error: its name."""
    mse, kl = mse.mean(), kl.mean()
    known = {
        "the KL is subtracted: it is a price to pay, and should be added": mse - beta * kl,
        "the KL is computed and never used, as in a plain autoencoder": mse,
        "the reconstruction error is missing": beta * kl,
        "beta is never used: it weighs the KL": mse + kl,
        "0.1 is typed in where beta belongs": mse + 0.1 * kl,
        "the terms are multiplied: a product is 0 as soon as one of them is, so add them": mse * beta * kl,
        "beta weighs the reconstruction error: it belongs to the KL": beta * mse + kl,
        "beta weighs the whole loss: it belongs to the KL alone": beta * (mse + kl),
        "beta divides the KL: it should multiply it": mse + kl / beta,
        "beta is added: it should multiply the KL": mse + beta + kl,
        "the two terms are averaged: they should be added": (mse + beta * kl) / 2,
        "the sign is wrong: training makes a loss as small as it can": -(mse + beta * kl),
        "beta weighs the KL twice": mse + beta**2 * kl,
        "the KL is multiplied with the reconstruction error: it should be added": mse * (1 + beta * kl),
        "beta is shared out between the two: it weighs the KL alone": beta * mse + (1 - beta) * kl,
        "beta is shared out between the two terms: it weighs the KL alone": (1 - beta) * mse + beta * kl,
        "the error is counted twice": 2 * mse + beta * kl,
    }
    if not isinstance(got, Tensor) or got.ndim:
        return None
    parts = f"with {error} = {mse:.3f}, kl = {kl:.3f} and beta = {beta}"
    seen = f"{parts} loss is {brief(got)}, where {mse + beta * kl:.3f} is expected"
    said = named(got, known)
    return f"In loss, {said} ({seen})." if said else f"loss is not {error} + beta * kl: {seen}."


# noise


def noise(eps, **others):
    """Describe numbers (N, D) by what is known of independent standard normal ones, whatever drew them.

    others: (N, D) each, what they must not depend on. Every fact may be off by 8 standard errors, so that two right
    samples differ by more once in 60 million facts, if the facts are normal.
    """
    eps = eps.detach().double()
    unit = (eps - eps.mean()) / eps.std()
    facts = {
        "mean": (eps.mean(), 1),
        "logarithm of the standard deviation": (eps.std().log(), 0.71),
        "skewness": (unit.pow(3).mean(), 2.5),
        "kurtosis": (unit.pow(4).mean(), 4.9),
        "correlation of one row with the next": ((unit[1:] * unit[:-1]).mean(), 1),
        "correlation of rows far apart": ((unit * unit.roll(len(unit) // 2, 0)).mean(), 1.5),
        "correlation of one column with the next": ((unit[:, 1:] * unit[:, :-1]).mean(), 1.2),
        "spread of a row's length": (eps.norm(dim=1).std() if eps.shape[1] > 1 else eps.sum() * 0, 2),
    }
    for name, other in others.items():
        other = (other.detach().double() - other.mean()) / other.std()
        facts[f"correlation with {name}"] = (unit * other).mean(), 1
        facts[f"correlation of its square with {name}"] = ((unit.pow(2) - 1) * other).mean(), 1.42
    by_hand = {
        "repeated": repeats(eps),
        "centred": bool(eps.mean(0).abs().max() < 1e-5),
        "infinite": not bool(eps.isfinite().all()),
    }
    return {name: Near(fact.item(), 8 * error / eps.numel() ** 0.5) for name, (fact, error) in facts.items()} | by_hand


def repeats(eps):
    """Tell whether a row of numbers (N, D) occurs twice, up to its sign."""
    rows = eps.abs()[eps.abs()[:, 0].argsort()]
    return bool(((rows[1:] - rows[:-1]).abs().amax(1) < 1e-4).any())


def read_noise(eps, what="The noise"):
    """Say in what way numbers (N, D) are not independent standard normal ones; None if that cannot be named."""
    eps = eps.detach().double()
    spread, reach = eps.std(), eps.abs().max()
    if eps.isnan().any():
        return f"{what} is nan in places."
    if spread < 1e-4:
        return f"{what} is {eps.mean():.2f} everywhere: nothing is drawn."
    if same(eps, eps[:1].expand_as(eps)):
        return f"{what} is the same in every row: each row needs numbers of its own."
    if eps.shape[1] > 1 and same(eps, eps[:, :1].expand_as(eps)):
        return f"{what} is the same in every column: each entry needs a number of its own."
    if eps.min() >= -1e-6:
        kind = "is uniform between 0 and 1, as rand draws it" if reach <= 1.0001 else "is never negative"
        return f"{what} {kind}: it should be standard normal, on both sides of 0."
    fourth = ((eps - eps.mean()) / spread).pow(4).mean()
    if (fourth - 1.8).abs() < 0.1 and reach < 2 * spread:
        return f"{what} is uniform, between {eps.min():.1f} and {eps.max():.1f}: it should be standard normal."
    edge = (eps.abs() > 0.99 * reach).double().mean()
    if reach < 3.3 and (edge > 0.003 or 0.8 < spread < 1.05) and fourth < 2.95:
        return f"{what} never gets past {reach:.1f}, as if clamped: leave it as it is drawn."
    if eps.mean(0).abs().max() < 1e-5:
        return f"{what} is shifted to mean 0 by hand: leave it as it is drawn."
    if (spread - 1).abs() > 0.05:
        return f"{what} has a standard deviation of {spread:.2f}, where 1 is expected."
    if eps.mean().abs() > 0.05:
        return f"{what} has a mean of {eps.mean():.2f}, where 0 is expected."
    if eps.shape[1] > 1 and eps.norm(dim=1).std() < 0.1:
        return f"{what} has the same length in every row: leave it as it is drawn."
    if repeats(eps):
        return f"Some rows of {what[0].lower()}{what[1:]} repeat others: draw every one of them."
    if (fourth - 3).abs() > 0.3:
        moment = f"its fourth moment is {fourth:.1f}, where 3 is expected"
        return f"{what} has the right mean and spread, but is not normal: {moment}."
    return None


POWERS = {
    2: "the variance, exp(logvar), where std is expected: std is wrong, or used twice",
    0.5: "the square root of std: std is already the square root of the variance",
    4: "the square of the variance, where std, the square root of the variance, is expected",
    -1: "1 / std: look at the sign in the exponent",
    -2: "1 / variance: look at the sign in the exponent",
    0: "nothing: std should multiply it",
}


def read_draw(z, mu, logvar, name="z"):
    """Say what a wrong z (N, D) is, that should be drawn from N(mu, exp(logvar)); None if that cannot be named."""
    z, mu, logvar = (tensor.detach().double() for tensor in (z, mu, logvar))
    std = (0.5 * logvar).exp()
    if z.isnan().any():
        return f"{name} is nan in places: logvar may be negative, and the root or the log of a negative number is nan."
    terms = {
        "mu": mu,
        "logvar": logvar,
        "std": std,
        "exp(logvar)": std**2,
        "mu std": mu * std,
        "1": torch.ones_like(mu),
    }
    if (factors := fit(z, terms)) is not None:
        if any(factors.get(key, 1) not in (1, -1, 0.5, 2) for key in ("std", "1")):
            return f"One number is drawn for all entries of {name}: draw one for every entry."
        return f"{name} is {formula(factors)}, without noise: eps must be drawn at random, and used."
    eps = (z - mu) / std
    if same(eps, eps[:1].expand_as(eps)) or same(eps, eps[:, :1].expand_as(eps)):
        return read_noise(eps)
    for mean in (mu, torch.zeros_like(mu), std):
        if not depends(z - mean, mu, logvar):
            scale, said = read_scale(z - mean, mu, logvar)
            if mean is mu:
                return f"The noise in {name} is {said}" if said else read_noise((z - mu) / scale)
            if mean is std:
                return f"mu and std have changed places in {name}: the noise multiplies std, and mu is added."
            return f"{name} has mean 0, whatever mu is: mu is not added, so z says nothing about the image."
    kept = read_mean(z, terms, std)
    if kept.keys() == {"mu", "std"} and kept["mu"] == 1:
        return read_noise((z - mu) / std) or f"The noise has a mean of {kept['std']:g}, where 0 is expected."
    if kept.get("mu std") == 1:
        return f"std multiplies mu in {name} as well: only the noise is scaled."
    return f"The mean of {name} is {formula(kept)}, where mu is expected." if kept and kept != {"mu": 1} else None


def depends(eps, mu, logvar):
    """Tell whether the mean of what should be noise of one width changes with mu or logvar, or is not 0."""
    others = torch.ones_like(eps), (mu - mu.mean()) / mu.std(), (logvar - logvar.mean()) / logvar.std()
    # the signs alone, because a scale near 0 makes single numbers huge
    return any((eps.sign() * other).mean().abs() > 8 / eps.numel() ** 0.5 for other in others)


def read_mean(z, terms, std):
    """Fit the mean of z as a sum of terms; return {name: factor} of those beyond chance, {} if unclear."""
    basis = torch.stack([(term / std).flatten() for term in terms.values()], dim=1)
    inverse = torch.linalg.inv(basis.T @ basis)
    weights = inverse @ basis.T @ (z / std).flatten()
    rest = (z / std).flatten() - basis @ weights
    error = (inverse @ ((basis * rest[:, None] ** 2).T @ basis) @ inverse).diagonal().sqrt()  # also where rest varies
    sure = zip(terms, weights.tolist(), error.tolist(), strict=True) if error.max() < 0.1 else ()
    return {
        key: float(f"{weight:.1g}") if abs(weight) < 1 else round(weight, 1)
        for key, weight, off in sure
        if abs(weight) > max(6 * off, 0.03)
    }


def read_scale(rest, mu, logvar):
    """Return (what scales the noise in rest, a sentence about it, "" where it is std)."""
    std, size = (0.5 * logvar).exp(), rest.abs().clamp(min=1e-12).log()
    centred = logvar - logvar.mean()
    slope = 2 * float((size * centred).mean() / centred.pow(2).mean())
    power = round(4 * slope) / 4 if abs(4 * slope - round(4 * slope)) < 0.2 else round(slope, 2)
    scales = {
        "": std**power,
        "softplus of logvar": F.softplus(logvar),
        "logvar": logvar.abs(),
        "mu": mu.abs(),
        "the square root of logvar": logvar.abs().sqrt(),
        "exp(mu / 2)": (mu / 2).exp(),
        "exp(mu)": mu.exp(),
        "1 + std": 1 + std,
    }
    # how far log|rest| spreads around the scale: 1.11 for normal noise, and more where the scale is another
    off = {key: (size - scale.clamp(min=1e-12).log()).std().item() for key, scale in scales.items()}
    best = min(off, key=lambda key: off[key] + 0.01 * bool(key))
    scale, factor = scales[best], (rest / scales[best]).std().item()
    if best and off[best] < 1.2:
        return scale, f"scaled by {best}, where std is expected: logvar is a logarithm, and exp undoes it."
    if off[best] > 1.2:
        low = logvar < logvar.quantile(0.1)
        seen, right = rest[low].std(), std[low].pow(2).mean().sqrt()
        at = f"at logvar = {logvar[low].mean():.1f} its standard deviation is {seen:.2g}, where {right:.2g} is expected"
        return scale, f"not as wide as std says: {at}."
    if power != 1:
        return scale, f"scaled by {POWERS.get(power, f'std to the power {power:g}, where std is expected')}."
    if abs(factor - 1) > 0.05 and (rest / scale).pow(4).mean() / factor**4 > 2.5:
        return scale, f"{factor:.2g} times as wide as it should be: std and nothing else multiplies it."
    return scale, ""


# other devices and types


class OneDevice(TorchFunctionMode):
    """Refuse to mix tensors of two devices, as a GPU does; the meta device by itself lets some of that pass."""

    MOVES = {"to", "type_as", "copy_", "__getitem__", "__setitem__", "__get__"}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        flat = [part for arg in args for part in (arg if isinstance(arg, tuple | list) else [arg])]
        devices = {part.device.type for part in flat if isinstance(part, Tensor) and part.ndim > 0}
        name = getattr(function, "__name__", "")
        if (len(devices) > 1 and name not in self.MOVES) or (name == "numpy" and "meta" in devices):
            raise RuntimeError("Expected all tensors to be on the same device")
        return function(*args, **(kwargs or {}))


def portable(answer, on_meta, in_float64=None):
    """Yield whether an answer works with tensors of another device, and of type float64.

    on_meta() calls it with tensors on the meta device, which stands for a GPU; in_float64() with such tensors.
    """
    makes = r"(rand\w*|zeros|ones|linspace|arange|tensor|from_numpy|eye|empty|full|normal|bincount|float|one_hot)\("
    makes += r"(?!.*(device|\.to\(|type_as))"
    far = fails_elsewhere(answer, on_meta)
    where = "On a GPU some tensors would lie elsewhere than the others: bring all of them to one device."
    yield should("Elsewhere", far, f"this works on the CPU only. {where}", makes)
    if in_float64:
        try:
            fails = in_float64().dtype != torch.float64
        except Exception as error:
            fails = at_line(error, answer)
        fails, makes = fails if not far else False, makes.replace("device|", "dtype|")  # one remark for one cause
        yield should(
            "In float64", fails, "this works with float32 only: give the new tensor the dtype of the others.", makes
        )


@contextlib.contextmanager
def unvalidated():
    """Let distributions take their arguments as they are: on the meta device none can be looked at."""
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(__debug__)


def fails_elsewhere(answer, on_meta):
    try:
        with OneDevice(), unvalidated():
            on_meta()
    except Exception as error:
        # code that asks for "cuda" by name knows of devices, and meta is none that it expects
        by_name = any("cuda" in line for function in functions_of(answer) for line in source_of(function))
        if re.search("same device|expected device", str(error)) and not by_name:
            return at_line(error, answer)
    return False


def at_line(error, answer):
    """Return (number, text) of the line that raised, True if it is none of the answer's."""
    at = raised_at(error, answer)
    return at[1:] if at else True


def own_generator(answer, function):
    """Yield whether noise comes from torch's own generator, which torch.manual_seed sets."""
    before = torch.get_rng_state()
    function()
    moved = not torch.equal(before, torch.get_rng_state())
    yield should(
        "The generator",
        moved,
        "torch.manual_seed does not fix these draws: they come from another generator than torch's own.",
        r"numpy|np\.|random|Generator",
    )


# models whose parts are known


class StubEncoder(nn.Module):
    """An encoder whose mu and logvar are known, whatever it is shown."""

    def __init__(self, rows=1024, dims=8):
        super().__init__()
        self.calls = 0
        self.mu = (2 * torch.randn(rows, dims)).requires_grad_()
        self.logvar = torch.empty(rows, dims).uniform_(-3, 1).requires_grad_()

    def forward(self, x):
        self.calls += 1
        return 1 * self.mu, 1 * self.logvar  # computed here, so that no_grad around the call shows


class StubDecoder(nn.Module):
    """A decoder that remembers its codes and triples them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, z):
        self.seen.append(z)
        return 3 * z + 1 if isinstance(z, Tensor) else torch.zeros(1)  # a tuple is named later


class WatchedDecoder(nn.Module):
    """A decoder that notes what it was given, and in which mode; its copies note it in the same lists."""

    def __init__(self, latent_dim):
        super().__init__()
        self.net, self.latent_dim, self.notes = model.Decoder(1, 2, latent_dim), latent_dim, []

    def __deepcopy__(self, memo):
        twin = WatchedDecoder(self.latent_dim).train(self.training)
        twin.load_state_dict(self.state_dict())
        twin.notes = self.notes
        return twin

    def forward(self, z):
        self.notes.append((z.clone() if isinstance(z, Tensor) else z, self.net.bn1.training))
        fits = isinstance(z, Tensor) and z.shape[1:] == (self.latent_dim,)
        return self.net(z) if fits else torch.zeros(1)  # what does not fit is named later


def unharmed(name, net, training=None):
    """Return a generator function that yields, after a call, whether a network is as it is now, and gradients are on.

    name: what it is; training: the mode that every part should be in afterwards, where it is not that of now.
    """
    before = copy.deepcopy(net.state_dict())
    modes = [part.training if training is None else training for part in net.modules()]

    def after():
        now = net.state_dict()
        types = all(now[key].dtype == value.dtype for key, value in before.items())
        yield holds(types, f"The type of the {name}'s weights is changed: leave the {name} as it is.")
        intact = all(torch.equal(now[key], value) for key, value in before.items())
        yield holds(intact, f"The {name}'s weights or averages are changed: leave the {name} as it is.")
        kept = [part.training for part in net.modules()] == modes
        yield holds(kept, f"The {name} is left in another mode than before: `with eval_mode({name}):` restores it.")
        only = "`with torch.no_grad():` switches gradients off for its block only."
        learns = all(weight.requires_grad for weight in net.parameters())
        yield holds(learns, f"The {name}'s weights are frozen for good: {only}")
        yield holds(torch.is_grad_enabled(), f"Gradients stay switched off after the function: {only}")
        torch.set_grad_enabled(True)

    return after


def rough(net):
    """Give BatchNorm layers large weights and statistics at random: gentle ones would hide a missing step."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 2, 6)
            for tensor, low in ((layer.bias, -0.5), (layer.running_mean, -0.5), (layer.running_var, 0.5)):
                nn.init.uniform_(tensor, low, low + 1)
    return net


def noise_in(z, mu, logvar):
    return (z - mu) / (0.5 * logvar).exp()


def observe_output(got, z, encoder, mode):
    """Yield what the VAE returned, and which gradients it carries."""
    mu, logvar = encoder.mu, encoder.logvar
    known = {"z": z, "recon": 3 * z + 1, "logvar": logvar, "mu": mu, "the variance": logvar.exp()}
    three = isinstance(got, tuple | list) and len(got) == 3
    # recon depends on chance: what is left of it without z does not
    without_z = (got[0] - 3 * z, *got[1:]) if three and getattr(got[0], "shape", 0) == z.shape else got
    yield from returned("forward", without_z, ("recon", "mu", "logvar"), known)
    yield holds(same(got[0], 3 * z + 1), "recon is not what the decoder makes of z: return its output as it is.")
    cut = f"No gradient goes from recon back to the encoder in {mode} mode: the encoder does not learn from the error."
    yield holds(got[0].requires_grad, cut)
    to_mu, to_logvar = torch.autograd.grad(got[0].sum(), (mu, logvar), allow_unused=True)
    reached = to_mu is not None and same(to_mu, torch.full_like(to_mu, 3.0))
    yield holds(reached, "No gradient goes through z to mu: the encoder does not learn from the reconstruction.")
    if mode == "train":
        reached = to_logvar is not None and same(to_logvar, 1.5 * (z - mu), 1e-3)
        yield holds(
            reached,
            "No gradient goes through z to logvar: the encoder does not learn how wide to draw.",
        )
    out = "mu and logvar carry no gradient on the way out: the KL teaches the encoder nothing."
    yield holds(got[1].requires_grad and got[2].requires_grad, out)


def kind_of_code(z, encoder):
    """Say what was decoded: "mu", "a sample", or a sentence about what else it is."""
    mu, logvar = encoder.mu.detach(), encoder.logvar.detach()
    if not isinstance(z, Tensor) or z.shape != mu.shape or z.dtype != mu.dtype:
        return f"The decoder gets {brief(z)}, where z, of shape {tuple(mu.shape)}, is expected."
    known = {"mu": mu, "logvar": logvar, "std": (0.5 * logvar).exp(), "exp(logvar), the variance,": logvar.exp()}
    if kind := named(z, known):
        return kind
    right = noise(torch.randn(mu.shape), mu=mu, logvar=logvar)
    if alike(noise(noise_in(z, mu, logvar), mu=mu, logvar=logvar), right):
        return "a sample"
    if alike(noise(noise_in(z, logvar, mu), mu=mu, logvar=logvar), right):
        return "reparameterize gets logvar first: it should get mu, then logvar."
    return read_draw(z, mu, logvar) or "z is neither mu nor a sample of q(z|x)."


def read_modes(kinds, _):
    """Say what is decoded in which mode of the model, from {(mode of the model, of its encoder): kind}."""
    evaluated, trained = kinds[False, True], kinds[True, False]
    if (kinds[False, False], kinds[True, True]) == ("mu", "a sample") and evaluated != "mu":
        return "The mode is taken from another module than the VAE itself: self.training tells the VAE's mode."
    if (evaluated, trained) == ("a sample", "mu"):
        return "The two modes are mixed up: mu is decoded in train mode here, and a sample in eval mode."
    if trained.endswith((".", "?")):
        return f"In train mode {trained[0].lower()}{trained[1:]}"
    if trained != "a sample":
        why = ": without noise this is a plain autoencoder" if trained == "mu" else ""
        return f"In train mode {trained} is decoded, where a sample of z is expected{why}."
    if "noise" in evaluated:
        return "In eval mode there is noise in what is decoded: mu itself is expected. self.training tells the mode."
    if evaluated.endswith((".", "?")):
        return f"In eval mode {evaluated[0].lower()}{evaluated[1:]}"
    return f"In eval mode {evaluated} is decoded, where mu is expected: self.training tells the mode."
