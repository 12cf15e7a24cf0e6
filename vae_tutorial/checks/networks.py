"""Look at a network: what each layer is and does, and what flows from layer to layer."""

import contextlib
import copy
import functools
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial.checks.comparing import alike, brief, difference, same, times
from vae_tutorial.checks.engine import clue, holds, must
from vae_tutorial.checks.looking import gradients, returned, rough, untouched, value_of

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
    """Return the finished network where the answer is the same function, whatever its parts; else the answer.

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


def layers(answer, finished, sizes, shape, maps, reasons, free=()):
    """Yield, for networks of two sizes, what each layer is and what it makes of a map.

    sizes: two {argument: number}; shape(size): that of one input;
    maps: {name of a layer: side of the map that it gets}, 1 where it is not named;
    reasons: {(layer, attribute): why}; free: the (layer, attribute) that do not matter.
    """
    answer = restructured(answer, finished, sizes, shape)
    nets, finished_nets = [answer(**size) for size in sizes], [finished(**size) for size in sizes]
    for name, kind in finished_nets[0].named_children():
        own, right = ([net._modules.get(name) for net in both] for both in (nets, finished_nets))
        yield holds(isinstance(own[0], nn.Module), missing(name, getattr(nets[0], name, None), kind))
        if own[0] is None:
            return
        types = [type(one).__name__ for one in (own[0], kind)]
        yield clue(
            f"self.{name}", types[0], f"self.{name} is {brief(own[0])}, where {brief(type(kind))} alone is expected."
        )
        lazy = any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in own[0].parameters())
        keys = [key for key in ATTRIBUTES if hasattr(kind, key) and (name, key) not in free and not lazy]
        values = {key: [plain_value(getattr(one, key, None)) for one in own] for key in keys}
        why = {key: reasons.get((name, key), "") for key in keys}
        yield clue(f"The sizes of self.{name}", values, read_attributes, name=name, sizes=sizes, why=why)
        side = maps.get(name, 1)
        yield must(f"What self.{name} makes of a map", [act(*both, side) for both in zip(own, right, strict=True)])
        types = {brief(weight.dtype) for weight in own[0].parameters()}
        yield holds(types == {"torch.float32"}, f"self.{name} has weights of {', '.join(types)}: leave dtype out.")
        learns = all(weight.requires_grad for weight in own[0].parameters())
        yield holds(learns, f"self.{name} is frozen: its weights do not require gradients.")
    shared = twins(nets[0], finished_nets[0])
    yield holds(not shared, f"{' and '.join(shared)} share their weights: each layer needs its own.")


def missing(name, found, kind):
    if found is None:
        return (
            f"self.{name} is not among the network's layers: assign it to self, not to a local name, a list or a dict."
        )
    wanted = f"{brief(type(kind))} itself is expected: is there a comma or a bracket too many?"
    return f"self.{name} is {brief(found)}, where {wanted}"


def read_attributes(got, want, name, sizes, why):
    """Say which attributes of a layer, {attribute: its values in two networks}, are not as they should be."""
    off = [key for key in want if got[key] != want[key]]
    typed = [key for key in off if got[key][0] == got[key][1] and want[key][0] != want[key][1]]
    if typed:
        number = f"{typed[0]} {got[typed[0]][0]} for every size of the network"
        return f"self.{name} has {number}: write it with the arguments of __init__."
    at = next(at for at in (0, 1) if any(got[key][at] != want[key][at] for key in off))
    has = " and ".join(f"{key} {got[key][at]}" for key in off)
    wanted = " and ".join(str(want[key][at]) for key in off)
    told = next((f": {why[key]}" for key in off if why[key]), "")
    if any(want[key][0] != want[key][1] for key in off):
        told = f" for {', '.join(f'{argument} = {value}' for argument, value in sizes[at].items())}"
    return f"self.{name} has {has}, where {wanted} {'are' if len(off) > 1 else 'is'} expected{told}."


def plain_value(value):
    """Write (4, 4) as 4 and padding by name as a number, so that every way to say a thing compares equal."""
    value = {"valid": 0}.get(value, value) if isinstance(value, str) else value
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def act(layer, right, side):
    """Return what a copy of a layer makes of a map, in eval and in train mode, with weights that are known.

    A layer of another type that can be the same function, an affine map with as many weights, stands for the right one.
    """
    channels = getattr(right, "in_channels", getattr(right, "num_features", 1))
    x = torch.linspace(-1, 1, 2 * channels * side * side).reshape(2, channels, side, side)
    try:
        layer(x)  # gives a lazy layer its weights
        weights = [sum(weight.numel() for weight in one.parameters() if weight.ndim > 1) for one in (layer, right)]
        affine = type(layer) is not type(right) and weights[0] == weights[1] and layer(x).shape == right(x).shape
        if affine and same(layer(x) + layer(x.flip(0)), layer(x + x.flip(0)) + layer(0 * x), 1e-3):
            layer = right
        layer = copy.deepcopy(layer)
        for weight in layer.parameters():
            weight.data = 1 + torch.linspace(-1, 1, weight.numel()).sin().reshape(weight.shape)
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.bias is not None:
            layer.bias.data.zero_()  # a bias is a matter of taste: BatchNorm takes it out again
        for name, buffer in layer.named_buffers():
            if name.startswith("running"):
                buffer.data = torch.linspace(1, 2, len(buffer))
        parts = [layer.eval()(x), layer.train()(x), *(buffer for buffer in layer.buffers() if buffer.ndim)]
        return [part.detach().double() for part in parts]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def twins(net, right):
    """Return the names of the first two layers that share a weight, [] if none do."""
    owners = {}
    for name in right._modules:
        for weight in net._modules[name].parameters():
            if owners.setdefault(id(weight), name) != name:
                return [f"self.{owners[id(weight)]}", f"self.{name}"]
    return []


# what flows from layer to layer


def forward(answer, finished, sizes, shape, chain, parts):
    """Yield what a network's forward makes of batches, on the finished layers, and what each layer gets on the way.

    sizes: two {argument: number}; shape(size): that of one input; parts: the names of what is returned;
    chain: {name of a layer: (where its input comes from, the activation between)}, "" for the network's input.
    """
    answer = restructured(answer, finished, sizes, shape)
    for size, count, training in itertools.product(sizes, (3, 1), (False, True)):
        net, right = around(answer, finished, size)
        net.train(training), right.train(training)
        x = torch.linspace(0, 300, count * torch.Size(shape(size)).numel()).sin().reshape(count, *shape(size))
        others = record(net, [name for name in net._modules if name not in right._modules])
        log = record(net, list(right._modules))
        after, error, result = untouched("forward", **{"its input": x}), None, None
        try:
            result = net(x)
        except Exception as raised:
            error = raised
        yield from flow(log, x, chain, error)
        if error:
            raise error
        yield from after()
        outs = {name: uses[0][1] for name, uses in log.items()} if all(log.values()) else {}
        if len(parts) > 1:
            yield from heads(result, parts, outs, others)
            yield from returned("forward", result, parts)
        else:
            yield must(
                "What forward returns", value_of(result), read_image, outs=outs, last=list(chain)[-1], others=others
            )
            result = [result]
        if not all(isinstance(part, Tensor) for part in result):
            return
        joined = torch.cat([part.flatten() for part in result])
        leaves = {f"self.{name}": net.get_parameter(name) for name, _ in right.named_parameters()}
        yield from gradients("What forward returns", joined, leaves)
        buffers = [net.get_buffer(name) for name, buffer in right.named_buffers() if buffer.ndim]
        once = "One of the BatchNorm layers is used more or less than once a pass."
        yield must("The BatchNorm averages afterwards", buffers, once)
        modes = all(part.training is training for part in net.modules())
        yield holds(modes, "forward changes the mode of the network or of a layer: that is up to whoever trains it.")


def around(answer, finished, size):
    """Build the student's network around copies of the finished layers, and the finished one.

    What else the student's __init__ sets stays; where it is open or fails, there is nothing else.
    """
    right = rough(finished(**size))
    with torch.random.fork_rng(devices=[]):  # what is drawn here shifts no later draw
        try:
            net = rough(answer(**size))
        except Exception:
            net = answer.__new__(answer)
            nn.Module.__init__(net)
    for name, layer in right.named_children():
        net.__dict__.pop(name, None)
        net._modules.pop(name, None)
        setattr(net, name, copy.deepcopy(layer))
    return net, right


def record(net, names):
    """Let layers note what they get and give: return {name: [[input, output], ...]}, filled as the network runs."""
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


def flow(log, x, chain, error):
    """Yield how often each layer is used, and what it gets; after an error some are not reached."""
    often = [f"self.{name} is used {times(len(uses))}" for name, uses in log.items() if len(uses) > 1]
    never = [f"self.{name} is never used" for name, uses in log.items() if not uses]
    for name, uses in log.items():
        uses_seen = 1 if error and not uses else len(uses)
        yield clue(f"Uses of self.{name}", uses_seen, f"{' and '.join(often + never[:1])}: use each layer once.")
        if uses:
            yield clue(f"The input of self.{name}", uses[0][0], read_input, name=name, place=chain[name], log=log, x=x)


def read_input(got, want, name, place, log, x):
    """Say what a layer gets in place of what it should."""
    (source, activation), found = place, where_from(got, log, x)
    before = f"self.{source}" if source else "the input"
    if found and found[0] == source and found[1] != activation:
        there, wanted = (one or "no activation" for one in (found[1], activation))
        return f"Between {before} and self.{name} there is {there}, where {wanted} is expected."
    if found and found != (source, activation):
        gets = f"what self.{found[0]} gives" if found[0] else "the network's input"
        gets += f", through {found[1]}" if found[1] else ""
        return f"self.{name} gets {gets}, where it should get what {before} gives."
    if got.shape != want.shape:
        return f"self.{name} gets {brief(got)}, where one of shape {tuple(want.shape)} is expected."
    return dropped(got, want, f"what self.{name} gets")


def where_from(value, log, x):
    """Say where a tensor comes from: (layer or "" for the input, activation); None if neither is known."""
    known = [("", x), *([("", x[:, :, None, None])] if x.ndim == 2 else [])]
    known += [(name, out) for name, uses in log.items() for _, out in uses if out is not None]
    for activation, function in ACTIVATIONS.items():
        for name, out in reversed(known):
            with contextlib.suppress(Exception):
                if same(value, function(out)):
                    return name, activation
    return None


def heads(result, parts, outs, others):
    """Yield, for each of several results, how it was made of a layer's output, where that can be said."""
    if isinstance(result, tuple | list) and len(result) == len(parts) and outs:
        for part, value in zip(parts, result, strict=True):
            right = isinstance(value, Tensor) and same(value, outs[f"conv_{part}"].flatten(1))
            yield clue(part, right, read_head, part=part, head=value, outs=outs, others=others)


def read_head(got, want, part, head, outs, others):
    value = head
    flat = outs[f"conv_{part}"].flatten(1)
    if not isinstance(value, Tensor):
        return None
    if value.shape != flat.shape:
        size = "one row per image, also for a batch of one" if value.ndim < 3 else "drop the two sizes of 1"
        return f"{part} has shape {tuple(value.shape)}, where {tuple(flat.shape)} is expected: {size}."
    for name, out in outs.items():
        if name != f"conv_{part}" and same(value, out.flatten(1)):
            return f"{part} is what self.{name} gives: it should come from self.conv_{part}."
    for activation, function in ACTIVATIONS.items():
        if activation and same(value, function(flat)):
            may = ": a logarithm may be negative, and sigma below 1" if part == "logvar" and value.min() >= 0 else ""
            return f"{part} goes through {activation} after its layer, where nothing is expected{may}."
    return additions(others) or dropped(value, flat, part)


def read_image(got, want, outs, last, others):
    """Say what is done to the output of the last layer."""
    if not isinstance(got, Tensor):
        return None
    for activation, function in ACTIVATIONS.items():
        if last in outs and same(got, function(outs[last])):
            found = f"goes through {activation} at the end" if activation else "goes through no function at the end"
            runs = "which runs from 0 to 1, " if activation == "sigmoid" else ""
            plain = "but pixels run from -1 to 1. Which function has this range?"
            once = "where one smooth function with the range of the pixels, and nothing else, is expected."
            return f"The image {found}, {runs + plain if activation in ('', 'sigmoid') else once}"
    changed = f"Between self.{last} and the image more happens than one function: nothing else belongs there."
    other = changed if got.shape == want.shape else f"What forward returns {difference(got, want)}."
    return additions(others) or other


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
    if value.shape == right.shape and (~kept & (right != 0)).float().mean() > 0.02 and kept.any():
        ratio = value[kept] / right[kept]
        if same(ratio, ratio[:1].expand_as(ratio), 1e-3):
            return f"Some entries of {name} are set to 0 at random, as dropout does: nothing should drop them."
    return None
