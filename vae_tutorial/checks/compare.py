"""What the judges of every notebook share: comparing values, naming activations, following a forward pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vae_tutorial import model
from vae_tutorial.checks import Wrong

ACTIVATIONS = {
    "relu": F.relu,
    "no activation": lambda v: v,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "leaky_relu": F.leaky_relu,
    "relu6": F.relu6,
    "a factor 0.5": lambda v: 0.5 * v,
    "a minus sign": torch.neg,
    "a square": torch.square,
    "exp(0.5 * ...)": lambda v: torch.exp(0.5 * v),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softmax": lambda v: v.softmax(1),
    "exp": torch.exp,
    "abs": torch.abs,
    "tanh twice": lambda v: torch.tanh(torch.tanh(v)),
    "relu before tanh": lambda v: torch.tanh(F.relu(v)),
    "a clamp to [-1, 1]": lambda v: v.clamp(-1, 1),
    "a sigmoid and a tanh": lambda v: torch.tanh(torch.sigmoid(v)),
}


def same(got, want, tolerance=1e-4):
    """Tell whether two tensors have one shape and, to rounding, the same values, nan included."""
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return False
    return torch.allclose(got.detach().double(), want.detach().double(), tolerance, tolerance, equal_nan=True)


def expect_tensor(name, got, shape, meaning, dtype=None):
    """Raise Wrong unless got is a tensor of the shape, and of the dtype if given; meaning says what each entry is."""
    wanted = f"a tensor of shape {tuple(shape)}, {meaning}"
    if not isinstance(got, Tensor):
        raise Wrong(f"{name} is {_describe(got)}, where {wanted} is expected.")
    if got.shape != torch.Size(shape):
        raise Wrong(f"{name} has shape {tuple(got.shape)}, where {wanted} is expected.")
    if dtype and got.dtype != dtype:
        raise Wrong(
            f"{name} is of type {got.dtype}, but what goes in is {dtype}: keep the type, or nothing fits later."
        )


def unchanged(**tensors):
    """Remember tensors; return a function that raises Wrong, with its name, if one was changed in place."""
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def check():
        for name, tensor in tensors.items():
            if not torch.equal(tensor.detach(), before[name]):
                raise Wrong(f"{name} is changed in place: whoever passed it in still needs it as it was.")

    return check


def check_gradients(got, want, inputs, name):
    """Raise Wrong unless got has the gradients of want with respect to the inputs, {name: tensor}.

    got and want may hang on tensors of their own, {name: (tensor of got, tensor of want)}.
    """
    if not got.requires_grad:
        raise Wrong(f"{name} carries no gradient: detach, .data, torch.tensor, .item() or no_grad cuts it off.")
    pairs = [value if isinstance(value, tuple) else (value, value) for value in inputs.values()]
    have = torch.autograd.grad(got, [pair[0] for pair in pairs], allow_unused=True)
    wanted = torch.autograd.grad(want, [pair[1] for pair in pairs], allow_unused=True)
    for key, one, other in zip(inputs, have, wanted, strict=True):
        other = (
            torch.zeros_like(inputs[key][1] if isinstance(inputs[key], tuple) else inputs[key])
            if other is None
            else other
        )
        if one is None and not other.any():
            continue
        if one is None or not same(one, other, 1e-3):
            seen = "no" if one is None or not one.any() else "a wrong"
            raise Wrong(f"{name} has the right value, but {seen} gradient reaches {key}: is something detached?")


def _describe(value):
    if value is None:
        return "None (is the return missing?)"
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, tuple | list) else f"a {kind}"


def name_mistake(got, right, mistakes, seen=""):
    """Raise Wrong with the hint of the first known wrong value that got equals, unless got is right."""
    for value, hint in mistakes:
        if same(got, value) and not same(got, right):
            raise Wrong(f"{hint}{seen}")


def uniform(low, high, *shape):
    """Draw random float64 numbers: a formula is tested where no two terms happen to agree."""
    return torch.empty(shape, dtype=torch.float64).uniform_(low, high)


def activation(after, before):
    """Name the function that turns before into after, or None."""
    return next((name for name, f in ACTIVATIONS.items() if same(after, f(before))), None)


class _OneDevice(TorchFunctionMode):
    """Refuse to mix tensors of two devices, as a GPU does; the meta device by itself lets some of that pass."""

    MOVES = {"to", "type_as", "copy_", "__getitem__", "__setitem__", "__get__"}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        flat = [part for arg in args for part in (arg if isinstance(arg, tuple | list) else [arg])]
        devices = {part.device.type for part in flat if isinstance(part, Tensor) and part.ndim > 0}
        name = getattr(function, "__name__", "")
        if (len(devices) > 1 and name not in self.MOVES) or (name == "cpu" and "meta" in devices):
            raise RuntimeError("Expected all tensors to be on the same device")
        return function(*args, **(kwargs or {}))


def on_meta(call, hint):
    """Run call, whose tensors lie on the meta device, and raise Wrong where it mixes devices, as a GPU would."""
    try:
        with _OneDevice():
            call()
    except (RuntimeError, NotImplementedError) as error:
        if "same device" in str(error) or "expected device" in str(error):
            raise Wrong(hint) from error


def follow(model, names, call):
    """Run call() and return (log, result, error): the layers used, in order, each as [name, input, output]."""
    log, hooks = [], []

    def before(name):
        def record(_, inputs, named):
            given = next(iter([*inputs, *named.values()]), None)  # self.conv1(x), or self.conv1(input=x)
            if not isinstance(given, Tensor):
                raise TypeError(f"self.{name} is given {_describe(given)}, where a tensor is expected")
            log.append([name, given.detach().clone(), None])

        return record

    def after(_, inputs, output):
        log[-1][2] = output.detach().clone()

    for name in names:
        hooks.append(getattr(model, name).register_forward_pre_hook(before(name), with_kwargs=True))
        hooks.append(getattr(model, name).register_forward_hook(after))
    try:
        return log, call(), None
    except Exception as error:
        return log, None, error
    finally:
        for hook in hooks:
            hook.remove()


def follow_chain(log, x, stages):
    """Raise Wrong where the layers used differ from the stages, (layer, activation after it) each, x going in first.

    A log that an error cut short is right as far as it goes.
    """
    used = [name for name, _, _ in log]
    for layer, _ in stages:
        if used.count(layer) > 1:
            raise Wrong(f"self.{layer} is used {used.count(layer)} times: every layer has one place of its own.")
    before, wanted, previous, act = x, x, "the input", None
    for (layer, next_act), (name, given, out) in zip(stages, log, strict=False):
        if name != layer:
            fault = "is never used" if layer not in used else f"comes after self.{name}"
            raise Wrong(f"self.{layer} {fault}, but it is due right after {previous}.")
        if not same(given, wanted):
            found = activation(given, before) or "something else"
            raise Wrong(f"Between {previous} and self.{layer} there is {found}, where {act or 'nothing'} is expected.")
        if out is None:
            return
        before, wanted, previous, act = (
            out,
            ACTIVATIONS[next_act](out) if next_act else out,
            f"self.{layer}",
            next_act,
        )


REASONS = {
    ("padding", 1): "with it 4x4 at stride 2 halves or doubles a size exactly, (32 + 2 - 4) / 2 + 1 = 16",
    ("padding", 0): "so that the kernel fits the 4x4 map in just one place",
    ("stride", 2): "each of these layers halves or doubles the size",
    ("kernel_size", 4): "the comment above asks for it",
}


def check_layers(make, sizes, table):
    """Hold a network's layers against table(**sizes), {name: (type, {attribute: value or set of values})}.

    make(**sizes) builds the student's network; two sizes tell a number typed in from two arguments mixed up.
    """
    nets, tables = [make(**size) for size in sizes], [table(**size) for size in sizes]
    for name, (kind, attributes) in tables[0].items():
        layers = [net._modules.get(name) for net in nets]
        if layers[0] is None and hasattr(nets[0], name):
            raise Wrong(
                f"self.{name} is a {type(getattr(nets[0], name)).__name__}, where {kind.__name__}(...) is expected."
            )
        if layers[0] is None:
            raise Wrong(f"self.{name} is not among the network's layers: assign it to self, not to a list or a dict.")
        if twins := [other for other in tables[0] if other != name and nets[0]._modules.get(other) is layers[0]]:
            raise Wrong(f"self.{name} and self.{twins[0]} are one and the same layer: each needs its own weights.")
        if not isinstance(layers[0], kind):
            raise Wrong(f"self.{name} is a {type(layers[0]).__name__}, where {kind.__name__} is expected.")
        for attribute in attributes:
            have = [_plain(getattr(layer, attribute)) for layer in layers]
            want = [wanted[name][1][attribute] for wanted in tables]
            _check_attribute(f"self.{name}", attribute, have, want, sizes)
        _check_weights(name, layers[0], {other: nets[0]._modules.get(other) for other in tables[0]})


def _check_weights(name, layer, twins):
    if getattr(layer, "eps", 0) > 0.01:
        raise Wrong(f"self.{name} has eps {layer.eps}: BatchNorm2d is given the number of channels, and no size.")
    if any(weight.dtype != torch.float32 for weight in layer.parameters()):
        raise Wrong(f"self.{name} is not of type float32, like the others: leave dtype out.")
    own = {weight.data_ptr() for weight in layer.parameters()}
    for other, twin in twins.items():
        if twin not in (layer, None) and own & {weight.data_ptr() for weight in twin.parameters()}:
            raise Wrong(f"self.{name} and self.{other} share their weights: each needs its own.")


def _check_attribute(name, attribute, have, want, sizes):
    for size, has, wants in zip(sizes, have, want, strict=True):
        if has in (wants if isinstance(wants, set) else {wants}):
            continue
        if len(set(have)) == 1 and want[0] != want[1]:
            raise Wrong(f"{name} has {attribute} {has} whatever the sizes: use the arguments of __init__, no number.")
        wants = min(wants) if isinstance(wants, set) else wants
        reason = f": {REASONS[attribute, wants]}" if (attribute, wants) in REASONS else ""
        given = "" if reason else f" for {', '.join(f'{key}={value}' for key, value in size.items())}"
        raise Wrong(f"{name} has {attribute} {has}, where {wants} is expected{given}{reason}.")


def _plain(value):
    """Write (4, 4) as 4 and padding by name as a number, so that every way to say a thing compares equal."""
    value = {"valid": 0}.get(value, value) if isinstance(value, str) else value
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def number(value):
    """Write a tensor that holds one number."""
    return f"{value.item():.4f}" if isinstance(value, torch.Tensor) and value.numel() == 1 else "no single number"


def expect_refusal(name, call):
    """Raise Wrong unless call(), of the function with that name, refuses two shapes that PyTorch would broadcast."""
    try:
        call()
    except Exception:
        return
    raise Wrong(
        f"{name} takes recon and x of different shapes, so PyTorch compared all pairs: keep the line that refuses."
    )


def name_total(got, mse, kl, beta):
    """Raise Wrong unless got is the reconstruction error plus beta times the KL."""
    seen = f" (with error {mse:.2f}, kl = {kl:.2f}, beta = {beta} it gives {number(got)}, not {mse + beta * kl:.2f})."
    name_mistake(
        got,
        mse + beta * kl,
        [
            (mse - beta * kl, "We pay for the KL: it is added to the loss, not subtracted"),
            (mse, "The KL is computed and never used: this is the loss of a plain autoencoder"),
            (beta * kl, "The reconstruction error is missing from the loss"),
            (mse + kl, "beta is never used: it weighs the KL"),
            (mse + 0.1 * kl, "0.1 is typed in where beta belongs"),
            (mse * beta * kl, "The two terms are added: a product is 0 as soon as one of them is"),
            (mse * kl, "The two terms are added: a product is 0 as soon as one of them is"),
            (beta * mse + kl, "beta weighs the wrong term: it belongs to the KL"),
            (beta * (mse + kl), "beta weighs the KL alone, not the whole loss"),
            (mse / beta + kl, "beta weighs the wrong term: it belongs to the KL"),
            (mse + kl / beta, "beta multiplies the KL, it does not divide it"),
            (mse + beta + kl, "beta multiplies the KL, it is not added to it"),
            ((mse + beta * kl) / 2, "The two terms are added, not averaged"),
            (-(mse + beta * kl), "The loss has the wrong sign: it is made as small as possible"),
            (mse + beta**2 * kl, "beta weighs the KL twice"),
            (mse * (1 + beta * kl), "The KL is added, not multiplied with the reconstruction error"),
            (beta * mse + (1 - beta) * kl, "beta weighs the KL alone, it does not share out between the two"),
            ((1 - beta) * mse + beta * kl, "beta weighs the KL alone, it does not share out between the two"),
        ],
        seen,
    )
    expect_tensor("loss", got, (), "one number")
    if not same(got, mse + beta * kl):
        raise Wrong(f"loss is not the reconstruction error plus beta times the KL{seen}")


def name_prior(z):
    """Raise Wrong unless the rows of z are independent draws from N(0, I)."""
    seen = f" (z has mean {z.mean():.2f} and std {z.std():.2f}, not 0 and 1)."
    if same(z, z[:1].expand_as(z)):
        raise Wrong("All rows of z are the same: draw num_samples codes, not one.")
    if same(z, z[:, :1].expand_as(z)):
        raise Wrong("All dimensions of a z are the same: draw latent_dim numbers for each.")
    if z.min() >= 0:
        raise Wrong(f"z is never negative: the prior is normal, on both sides of 0{seen}")
    if z.mean().abs() > 0.1 or (z.std() - 1).abs() > 0.045:
        raise Wrong(f"z does not come from the prior N(0, I){seen}")
    if (z.pow(4).mean() - 3).abs() > 0.6 or z.abs().max() < 3.001:
        raise Wrong(f"z is not normal: fourth moment {z.pow(4).mean():.1f}, not 3, largest entry {z.abs().max():.1f}.")
    if z.mean(0).abs().max() < 1e-5:
        raise Wrong("z is centred or rescaled by hand: draw it, and leave it as it comes.")
    if (torch.corrcoef(z.T) - torch.eye(z.shape[1])).abs().max() > 0.25:
        raise Wrong("The dimensions of z hang together: draw each of them by itself.")
    half = len(z) // 2
    if max((z[:half] * z[half : 2 * half]).mean().abs(), (z[::2] * z[1::2]).mean().abs()) > 0.12:
        raise Wrong("Some rows of z repeat others: draw every one of them.")


class StubEncoder(nn.Module):
    """An encoder whose mu and logvar are known, whatever it is shown."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.mu = (2 * torch.randn(2000, 3)).requires_grad_()
        self.logvar = torch.empty(2000, 3).uniform_(-3, 1).requires_grad_()

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
        return 3 * z + 1


def kind_of_code(z, encoder):
    """Say what was decoded: mu, a sample, or what else it may be."""
    mu, logvar = encoder.mu, encoder.logvar
    if not isinstance(z, torch.Tensor) or z.shape != mu.shape or z.dtype != mu.dtype:
        given = f"{tuple(z.shape)} of {z.dtype}" if isinstance(z, torch.Tensor) else f"a {type(z).__name__}"
        return f"something else ({given})"
    for name, value in (("mu", mu), ("logvar", logvar), ("std", (0.5 * logvar).exp()), ("the variance", logvar.exp())):
        if same(z, value):
            return name
    eps = ((z - mu) / (0.5 * logvar).exp()).detach()
    if (torch.corrcoef(eps.T) - torch.eye(3)).abs().max() > 0.15:
        return "mu with one noise for all dimensions"
    normal = eps.mean().abs() < 0.1 and (eps.std() - 1).abs() < 0.05 and (eps.pow(4).mean() - 3).abs() < 0.8
    return "a sample" if normal else "something other than mu or a sample"


def rough(net):
    """Give BatchNorm layers large weights and statistics at random: gentle ones would hide a missing step."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 2, 6)
            for tensor, low in ((layer.bias, -0.5), (layer.running_mean, -0.5), (layer.running_var, 0.5)):
                nn.init.uniform_(tensor, low, low + 1)
    return net


class WatchedDecoder(nn.Module):
    """A decoder that tells what it was given, and in which mode; its copies tell it to the same lists."""

    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim, self.net = latent_dim, rough(model.Decoder(1, 2, latent_dim))
        self.seen, self.modes = [], []
        self.tell_code, self.tell_mode = self.seen.append, self.modes.append

    def forward(self, z):
        if not isinstance(z, torch.Tensor):
            raise Wrong(f"The decoder is given a {type(z).__name__}, where one tensor is expected.")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            wanted = f"(num_samples, {self.latent_dim}) is expected"
            raise Wrong(f"The decoder gets z of shape {tuple(z.shape)}, where {wanted}.")
        self.tell_code(z.detach())
        self.tell_mode(self.net.bn1.training)
        return self.net(z)


def wrong_losses(labels, num_classes):
    """List losses that are not the cross-entropy, as functions of the scores, and what to say of each."""
    one_hot, known = F.one_hot(labels, num_classes).float(), "cross_entropy takes them as they are"
    squared = "That is the squared error, not the cross-entropy."
    return [
        (
            lambda scores: F.cross_entropy(scores.softmax(1), labels),
            "The scores go through a softmax twice: cross_entropy does it itself.",
        ),
        (
            lambda scores: F.cross_entropy(scores.softmax(0), labels),
            f"The scores go through a softmax first, and over the codes: {known}.",
        ),
        *(
            (lambda scores, f=f: F.cross_entropy(f(scores), labels), f"The scores go through a {name} first: {known}.")
            for name, f in (("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("relu", torch.relu))
        ),
        (
            lambda scores: F.cross_entropy(scores, labels, reduction="sum"),
            "The cross-entropy is summed over the codes: take the mean.",
        ),
        (lambda scores: -F.cross_entropy(scores, labels), "The loss has the wrong sign: it is made small."),
        (
            lambda scores: F.nll_loss(scores, labels),
            "nll_loss wants logarithms of probabilities, and gets scores: cross_entropy takes scores.",
        ),
        (
            lambda scores: F.nll_loss(scores.softmax(1), labels),
            "The logarithm is missing: minus the probability of the right class is no cross-entropy.",
        ),
        (lambda scores: F.mse_loss(scores, one_hot), squared),
        (lambda scores: F.mse_loss(scores.softmax(1), one_hot), squared),
        (
            lambda scores: F.binary_cross_entropy_with_logits(scores, one_hot),
            "That asks yes or no for every class by itself; one class out of several is asked for.",
        ),
        (lambda scores: F.multi_margin_loss(scores, labels), "That is a margin loss, not the cross-entropy."),
        (lambda scores: 0 * scores.sum(), "The probe has not moved: does the loss depend on its scores?"),
    ]
