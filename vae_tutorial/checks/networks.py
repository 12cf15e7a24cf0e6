"""Look at a network: what each layer is and does, and what flows from layer to layer."""

import contextlib
import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial.checks.comparing import alike, brief, difference, same, times
from vae_tutorial.checks.engine import clue, must
from vae_tutorial.checks.looking import gradients, returned, rough, untouched

# what may happen to a tensor on its way from layer to layer
ACTIVATIONS = {
    "": lambda v: v,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "leaky_relu": F.leaky_relu,
    "leaky_relu with slope 0.2": lambda v: F.leaky_relu(v, 0.2),
    "relu6": F.relu6,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softmax": lambda v: v.softmax(1),
    "exp": torch.exp,
    "exp(0.5 * ...)": lambda v: torch.exp(0.5 * v),
    "abs": torch.abs,
    "a square": torch.square,
    "a minus sign": torch.neg,
    "a factor 0.5": lambda v: 0.5 * v,
    "a factor 2": lambda v: 2 * v,
    "a clamp to [-1, 1]": lambda v: v.clamp(-1, 1),
    "a clamp to [0, 1]": lambda v: v.clamp(0, 1),
    "a clamp to [-10, 10]": lambda v: v.clamp(-10, 10),
    "tanh twice": lambda v: torch.tanh(torch.tanh(v)),
    "relu and tanh": lambda v: torch.tanh(F.relu(v)),
    "sigmoid and tanh": lambda v: torch.tanh(torch.sigmoid(v)),
    "a scaling to [-1, 1] after sigmoid": lambda v: 2 * torch.sigmoid(v) - 1,
    "a scaling to [0, 1] after tanh": lambda v: (torch.tanh(v) + 1) / 2,
    "a normalisation to length 1": lambda v: F.normalize(v, dim=1),
    "a division by its maximum": lambda v: v / v.abs().max(),
}
ATTRIBUTES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "dilation", "groups",
              "num_features", "eps", "momentum", "affine", "track_running_stats")  # fmt: skip


@torch.random.fork_rng(devices=[])  # what is drawn here shifts no later draw
def restructured(answer, finished, sizes, shape):
    """Return the finished network where the answer as a whole is the same function, whatever its parts; else the answer.

    shape(size): that of one input. The weights are carried over in their order.
    """
    for size in sizes:
        try:
            net, right = answer(**size), rough(finished(**size))
            for own, other in ((net.parameters(), right.parameters()), (net.buffers(), right.buffers())):
                for one, wanted in zip(own, other, strict=True):
                    if one.shape != wanted.shape or one.requires_grad != wanted.requires_grad:
                        return answer
                    one.data.copy_(wanted.data)
            for count, training in ((3, True), (3, False), (1, False)):
                x = torch.linspace(-1, 1, count * torch.Size(shape(size)).numel()).sin().reshape(count, *shape(size))
                grads = []
                for network in (net, right):
                    before = x.clone()
                    out = network.train(training)(x)
                    if not torch.equal(x, before) or any(part.training is not training for part in network.modules()):
                        return answer
                    flat = torch.cat(out, dim=1) if isinstance(out, tuple | list) else out
                    total = (flat * torch.linspace(1, 2, flat.numel()).reshape(flat.shape)).sum()
                    parts = torch.autograd.grad(total, list(network.parameters()))
                    grads.append((flat, torch.cat([part.flatten() for part in parts]) / total.abs()))
                if not all(map(alike, *grads)) or not all(map(alike, net.buffers(), right.buffers())):
                    return answer
        except Exception:
            return answer
    return finished


# the layers


def layers(answer, finished, sizes, maps, reasons, free=()):
    """Yield, for networks of two sizes, what each layer is and what it makes of a map.

    sizes: two {argument: number}; maps: {name of a layer: side of the map that it gets}, 1 where it is not named;
    reasons: {(layer, attribute): why}; free: the (layer, attribute) that do not matter.
    """
    nets, right = [answer(**size) for size in sizes], [finished(**size) for size in sizes]
    for name, layer in right[0].named_children():
        own = [net._modules.get(name) for net in nets]
        found = getattr(nets[0], name, None) if own[0] is None else own[0]
        yield must(f"self.{name}", isinstance(own[0], nn.Module), lambda *_, n=name, f=found, k=layer: missing(n, f, k))
        if own[0] is None:
            return
        yield clue(
            f"self.{name}",
            type(own[0]).__name__,
            f"self.{name} is {brief(type(own[0]))}, where {brief(type(layer))} is expected.",
        )
        for key in ATTRIBUTES:
            values = [
                [plain_value(getattr(one, key, None)) for one in both]
                for both in (own, [r._modules[name] for r in right])
            ]
            if values[1][0] is not None and not has_lazy(own[0]) and (name, key) not in free:
                yield clue(
                    f"self.{name}'s {key}",
                    values[0],
                    lambda got, want, n=name, k=key: other_number(n, k, got, want, sizes, reasons),
                )
        side = maps.get(name, 1)
        with_own = [
            act(r._modules[name] if alike_in_kind(one, r._modules[name], side) else one, side, r._modules[name])
            for one, r in zip(own, right, strict=True)
        ]
        yield must(f"What self.{name} makes of a map", with_own)
        types = {str(weight.dtype) for weight in own[0].parameters()}
        yield must(
            f"The type of self.{name}'s weights",
            types,
            f"self.{name} has weights of {', '.join(types)}, where float32 is expected: leave dtype out.",
        )
        learns = all(weight.requires_grad for weight in own[0].parameters())
        yield must(
            f"Whether self.{name} learns", learns, f"self.{name} is frozen: its weights do not require gradients."
        )
    shared = twins(nets[0], right[0])
    yield must(
        "Layers that share weights",
        shared,
        lambda got, _: f"self.{got[0][0]} and self.{got[0][1]} share their weights: each layer needs its own.",
    )


def has_lazy(layer):
    return any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in layer.parameters())


def missing(name, found, layer):
    if found is None:
        return (
            f"self.{name} is not among the network's layers: assign it to self, not to a local name, a list or a dict."
        )
    return f"self.{name} is {brief(found)}, where {brief(type(layer))} itself is expected: is there a comma or a bracket too many?"


def other_number(name, key, got, want, sizes, reasons):
    if got[0] is None:
        return None
    at = 0 if got[0] != want[0] else 1
    if got[0] == got[1] and want[0] != want[1]:
        arguments = ", ".join(sizes[0])
        return f"self.{name} has {key} {got[0]} whatever {arguments} are: write it with these, not as a number."
    told = f": {reasons[name, key]}" if (name, key) in reasons else ""
    if want[0] != want[1]:
        told = f" for {', '.join(f'{argument} = {value}' for argument, value in sizes[at].items())}"
    return f"self.{name} has {key} {got[at]}, where {want[at]} is expected{told}."


def alike_in_kind(layer, right, side):
    """Tell whether a module of another type does the same: an affine map of the same shape with as many weights."""
    if type(layer) is type(right) or has_lazy(layer) or not isinstance(right, nn.modules.conv._ConvNd):
        return False
    with contextlib.suppress(Exception):
        one, other = torch.randn(2, 3, right.in_channels, side, side)
        affine = same(layer(one) + layer(other), layer(one + other) + layer(0 * one), 1e-3)
        weights = [
            sum(weight.numel() for weight in module.parameters() if weight.ndim > 1) for module in (layer, right)
        ]
        return affine and layer(one).shape == right(one).shape and weights[0] == weights[1]
    return False


def act(layer, side, right):
    """Return what a copy of a layer makes of a map, in eval and in train mode, with weights that are known."""
    layer, channels = copy.deepcopy(layer), getattr(right, "in_channels", getattr(right, "num_features", 1))
    x = torch.linspace(-1, 1, 2 * channels * side * side).reshape(2, channels, side, side)
    try:
        layer(x)  # gives a lazy layer its weights
        for weight in layer.parameters():
            weight.data = 1 + torch.linspace(-1, 1, weight.numel()).sin().reshape(weight.shape)
        if getattr(layer, "bias", None) is not None and isinstance(layer, nn.modules.conv._ConvNd):
            layer.bias.data.zero_()  # a bias is a matter of taste: BatchNorm takes it out again
        for name, buffer in layer.named_buffers():
            if name.startswith("running"):
                buffer.data = torch.linspace(1, 2, len(buffer))
        parts = [layer.eval()(x).detach(), layer.train()(x).detach()]
        return [part.double() for part in parts] + [b.double() for b in layer.buffers() if b.ndim]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def plain_value(value):
    """Write (4, 4) as 4 and padding by name as a number, so that every way to say a thing compares equal."""
    value = {"valid": 0}.get(value, value) if isinstance(value, str) else value
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def twins(net, right):
    names = [name for name, _ in right.named_children()]
    owners, shared = {}, []
    for name in names:
        for weight in net._modules[name].parameters():
            other = owners.setdefault(weight.data_ptr() if not has_lazy(net._modules[name]) else id(weight), name)
            if other != name and (other, name) not in shared:
                shared.append((other, name))
    return shared


# what flows from layer to layer


def forward(answer, finished, size, batches, chain, parts):
    """Yield what a network's forward makes of batches, on the finished layers, and what each layer gets on the way.

    chain: {name of a layer: (where its input comes from, the activation between)}, "" for the network's input;
    parts: the names of what is returned.
    """
    for x in batches:
        for training in (False, True):
            net, right = around(answer, finished, size)
            net.train(training), right.train(training)
            others = record(net, [name for name, part in net.named_children() if name not in right._modules])
            log = record(net, [name for name, _ in right.named_children()])
            wanted = record(right, [name for name, _ in right.named_children()])
            right(x)
            before, error = x.clone(), None
            try:
                result = net(x)
            except Exception as raised:
                error = raised
            yield from flow(log, wanted, x, chain)
            if error:
                raise error
            yield from untouched("forward", {"its input": before}, {"its input": x})
            outs = {name: out for name, ((_, out), *_) in log.items()} if all(log.values()) else {}
            if len(parts) > 1:
                yield from heads(result, parts, outs, others)
                yield from returned("forward", result, parts)
                result = result if isinstance(result, tuple | list) else [result]
            else:
                yield must(
                    "What forward returns",
                    result.detach() if isinstance(result, Tensor) else result,
                    last_step(outs, chain, others),
                )
                result = [result]
            if not all(isinstance(part, Tensor) for part in result):
                return
            weights = {f"self.{name}": weight for name, weight in net.named_parameters()}
            own = {f"self.{name}" for name, _ in right.named_parameters()}
            joined = torch.cat([part.flatten() for part in result])
            yield from gradients(
                "What forward returns", joined, {key: weight for key, weight in weights.items() if key in own}
            )
            left = {
                name: buffer
                for name, buffer in net.named_buffers()
                if buffer.ndim and name in dict(right.named_buffers())
            }
            yield must(
                "The BatchNorm averages afterwards",
                left,
                "One of the BatchNorm layers is used more or less than once a pass.",
            )
            modes = {name: part.training for name, part in net.named_modules() if name in dict(right.named_modules())}
            yield must(
                "The modes afterwards",
                modes,
                "forward changes the mode of the network or of a layer: that is up to whoever trains it.",
            )


def around(answer, finished, size):
    """Build the student's network around copies of the finished layers, and the finished one.

    What else the student's __init__ sets stays; where it is open or fails, there is nothing else.
    """
    right = rough(finished(**size))
    try:
        net = rough(answer(**size))
    except Exception:
        net = answer.__new__(answer)
        nn.Module.__init__(net)
    for name, layer in right.named_children():
        with contextlib.suppress(AttributeError):
            delattr(net, name)
        setattr(net, name, copy.deepcopy(layer))
    return net, right


def record(net, names):
    """Let layers note what they get and give: return {name: [(input, output), ...]}, filled as the network runs."""
    log = {name: [] for name in names}

    def note(name, run, *args, **kwargs):
        given = next(iter([*args, *kwargs.values()]), None)
        if not isinstance(given, Tensor):
            raise TypeError(f"self.{name} is given {brief(given)}, where a tensor is expected")
        log[name].append([given.detach().clone(), None])
        out = run(*args, **kwargs)
        log[name][-1][1] = out.detach().clone()
        return out

    for name in names:
        layer = getattr(net, name)
        layer.forward = functools.partial(note, name, layer.forward)  # an attribute: layer.forward(x) notes it too
    return log


def flow(log, wanted, x, chain):
    """Yield how often each layer is used, and what it gets."""
    for name, uses in log.items():
        source, activation = chain[name]
        yield clue(f"Uses of self.{name}", min(len(uses), 2), f"{count_uses(log)}: each layer is used once.")
        if uses:
            (given, _), (right, _) = uses[0], wanted[name][0]
            yield clue(
                f"The input of self.{name}",
                given,
                lambda got, want, n=name, s=source, a=activation: wrong_input(n, got, want, s, a, log, x),
            )


def count_uses(log):
    """Say which layers are not used once."""
    often = [f"self.{name} is used {times(len(uses))}" for name, uses in log.items() if len(uses) > 1]
    never = [f"self.{name} is never used" for name, uses in log.items() if not uses]
    return " and ".join(often + never[:1])


def where_from(value, log, x):
    """Say where a tensor comes from: (layer or "", activation); None if neither is known."""
    known = {"": x, "[:, :, None, None]": x[:, :, None, None]} if x.ndim == 2 else {"": x}
    known |= {name: out for name, uses in log.items() for _, out in uses if out is not None}
    known |= {f"{name}, flattened,": out.flatten(1) for name, uses in log.items() for _, out in uses if out is not None}
    for activation, function in ACTIVATIONS.items():
        for name in reversed(known):
            with contextlib.suppress(Exception):
                if same(value, function(known[name])):
                    return name.replace("[:, :, None, None]", ""), activation
    return None


def wrong_input(name, got, want, source, activation, log, x):
    found = where_from(got, log, x)
    before = f"self.{source}" if source else "the input"
    if found and found[0] == source and found[1] != activation:
        there = found[1] or "no activation"
        return f"Between {before} and self.{name} there is {there}, where {activation or 'no activation'} is expected."
    if found and found != (source, activation):
        through = f", through {found[1]}" if found[1] else ""
        gets = f"what self.{found[0]} gives{through}" if found[0] else f"the network's input{through}"
        return f"self.{name} gets {gets}, where it should get what {before} gives."
    if got.shape != want.shape:
        return f"self.{name} gets {brief(got)}, where one of shape {tuple(want.shape)} is expected."
    return dropped(got, want, f"what self.{name} gets")


def heads(result, parts, outs, others):
    """Yield, for each of several results, how it was made of a layer's output, where that can be said."""
    if not isinstance(result, tuple | list) or len(result) != len(parts):
        return
    for part, value in zip(parts, result, strict=True):
        right = outs.get(f"conv_{part}")
        if isinstance(value, Tensor) and right is not None:
            yield clue(
                part,
                same(value, right.flatten(1)),
                lambda *_, p=part, v=value, r=right: wrong_head(p, v.detach(), r, outs, others),
            )


def wrong_head(part, value, right, outs, others):
    flat = right.flatten(1)
    if value.shape != flat.shape:
        size = "flatten(1) makes (B, D) of (B, D, 1, 1), also for a batch of one, where squeeze() loses the batch"
        return f"{part} has shape {tuple(value.shape)}, where {tuple(flat.shape)} is expected: {size}."
    for name, out in outs.items():
        if f"conv_{part}" != name and out.flatten(1).shape == flat.shape and same(value, out.flatten(1)):
            return f"{part} is what self.{name} gives: it comes from self.conv_{part}."
    for activation, function in ACTIVATIONS.items():
        if activation and same(value, function(flat)):
            may = ": a logarithm may be negative, and sigma below 1" if part == "logvar" and value.min() >= 0 else ""
            return f"{part} goes through {activation} after its layer, where nothing is expected{may}."
    return additions(others) or dropped(value, flat, part)


def additions(others):
    """Say which layers that the finished network does not have are used."""
    used = [f"self.{name}" for name, uses in others.items() if uses]
    return (
        f"forward also uses {' and '.join(used)}, which changes the result: nothing else belongs there."
        if used
        else None
    )


def dropped(value, right, name):
    """Say so where some entries of a tensor are 0 and the others as expected, up to a factor."""
    kept = value != 0
    if value.shape == right.shape and 0.02 < (~kept & (right != 0)).float().mean() and kept.any():
        ratio = value[kept] / right[kept]
        if same(ratio, ratio[:1].expand_as(ratio), 1e-3):
            return f"Some entries of {name} are set to 0 at random, as dropout does: nothing of the kind belongs there."
    return None


def last_step(outs, chain, others):
    def read(got, want):
        last = list(chain)[-1]
        if not isinstance(got, Tensor):
            return None
        for activation, function in ACTIVATIONS.items():
            if last in outs and same(got, function(outs[last])):
                found = f"through {activation}" if activation else "without an activation"
                reach = (
                    "sigmoid cannot reach -1, the colour of the background"
                    if activation == "sigmoid"
                    else "pixels lie between -1 and 1"
                )
                return f"The image leaves the decoder {found}: {reach}. Which function gives that, and nothing more?"
        if said := additions(others):
            return said
        if got.shape == want.shape:
            return f"After self.{last}, the image is changed in another way than by one tanh: its values lie between {got.min():.2f} and {got.max():.2f}."
        return f"What forward returns {difference(got, want)}."

    return read
