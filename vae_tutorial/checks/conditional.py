"""The checks of notebook 05: a VAE that is told the label, its pictures, and a classifier probe of its codes."""

import copy
import re
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial import latent, metrics
from vae_tutorial.checks import Check, Exercise, Wrong
from vae_tutorial.checks.compare import expect_tensor, name_mistake, on_meta, same, unchanged, wrong_losses
from vae_tutorial.model import ConditionalVAE, Decoder, Encoder, build_cvae, join_labels

# 5.1 the label in encoder and decoder


def judge_conditional(join_labels, conditional_vae, build_cvae):
    _judge_join(join_labels)
    _judge_decode(conditional_vae)
    _judge_forward(conditional_vae)
    _judge_build(build_cvae)


def _judge_join(answer):
    x = torch.rand(5, 1, 32, 32) * 2 - 1
    for num_classes, classes in ((10, [3, 0, 5, 5, 1]), (6, [3, 0, 5, 5, 1]), (7, [2, 6, 0, 1, 3])):
        labels = torch.tensor(classes)
        intact = unchanged(x=x, labels=labels)
        try:
            got = answer(x, labels) if num_classes == 10 else answer(x, labels, num_classes)
        except RuntimeError as error:
            _name_misfit(error)
            raise
        intact()
        _name_joined(got, x, labels, num_classes)
    joined = answer(x.double(), labels, 7)
    expect_tensor("join_labels(x, labels)", joined, (5, 8, 32, 32), "image and planes", torch.float64)
    meta = torch.empty(5, 1, 32, 32, device="meta")
    on_meta(
        lambda: answer(meta, labels, 7),
        "Labels on the CPU and images on a GPU do not mix: bring what you make of the labels to the device of x.",
    )


def _name_misfit(error):
    """Say why image and label did not fit together, where PyTorch's words are about sizes only."""
    if "dimensions: got 3 and 4" in str(error):
        raise Wrong("The image has lost its channel: x is (B, 1, 32, 32), as the planes need it.") from error
    if "number of dimensions" in str(error):
        raise Wrong(
            "The label, one number for every class, cannot be laid beside an image of 32x32 pixels as it is: "
            "spread each number over a plane of its own first."
        ) from error
    if joined := re.search(r"must match except in dimension ([023])", str(error)):
        raise Wrong(
            f"The image and the label planes are joined along dimension {joined[1]}: the channels are dimension 1."
        ) from error
    if "Sizes of tensors must match" in str(error):
        raise Wrong(
            "The image and the label planes do not fit along the dimension in which they are joined: each plane must "
            "be 32x32, like the image, and stand in a channel of its own."
        ) from error


def _name_joined(got, x, labels, num_classes):
    """Raise Wrong unless got is the images, then a plane a class, in the channels."""
    one_hot = F.one_hot(labels, num_classes).float()
    planes = one_hot[:, :, None, None].expand(-1, -1, 32, 32)
    right = torch.cat([x, planes], dim=1)
    if isinstance(got, Tensor) and got.ndim == 4 and len(got) == len(x):
        channels = got.shape[1]
        seen = f"The result has {channels} channels for {num_classes} classes, where {1 + num_classes} are expected: "
        if channels == num_classes != 1 and same(got, planes):
            raise Wrong("The image is missing: what comes back is the label planes alone.")
        if same(got, x):
            raise Wrong("The label planes are missing: what comes back is the image alone.")
        if same(got, x + planes):
            raise Wrong("The planes are added to the image: put them behind it, as channels of their own.")
        if channels == 2 and num_classes > 1:
            raise Wrong(seen + "a class is a name, not a quantity, so each class needs a plane of its own.")
        if channels == 1 + int(labels.max()) + 1 != 1 + num_classes:
            raise Wrong(seen + "classes that do not occur in a batch need their plane as well.")
        if channels == 11 != 1 + num_classes:
            raise Wrong(seen + "use num_classes, no number.")
    expect_tensor("join_labels(x, labels)", got, right.shape, "the image and one plane a class", x.dtype)
    last, first = got[:, :-1], got[:, 1:]
    name_mistake(
        got,
        right,
        [
            (torch.cat([planes, x], 1), "The planes come first: put the image into channel 0, the planes after it."),
            (torch.cat([x, 1 - planes], 1), "The planes are 0 at the class and 1 elsewhere: the other way round."),
            (torch.cat([x, 2 * planes - 1], 1), "The planes are -1 where 0 is expected: leave the one-hot as it is."),
            (torch.cat([x, planes.flip(1)], 1), "The planes stand in reverse: plane 0 is that of class 0."),
            (torch.cat([x, planes.roll(1, 1)], 1), "The planes are one off: plane 0 is that of class 0."),
            (torch.cat([x, planes.roll(-1, 1)], 1), "The planes are one off: plane 0 is that of class 0."),
            (torch.cat([x, planes.flip(0)], 1), "Images and labels do not belong together: keep their order."),
            (torch.cat([x, x * planes], 1), "The planes hold the image: they should hold the label, 0 or 1."),
        ],
    )
    if not same(got[:, :1], x):
        back = same(last, planes) or same(first, planes)
        raise Wrong(f"Channel 0 is not the image as it came in{', but the label planes are right' if back else ''}.")
    if not same(got, right):
        constant = (got[:, 1:] == got[:, 1:, :1, :1]).all()
        what = "an image's planes are not 1 at its class and 0 elsewhere" if constant else "a plane is not constant"
        raise Wrong(f"The image is right, but {what}.")


class _StubEncoder(nn.Module):
    def __init__(self, batch, latent_dim):
        super().__init__()
        self.seen = []
        self.mu = (2 * torch.randn(batch, latent_dim)).requires_grad_()
        self.logvar = torch.empty(batch, latent_dim).uniform_(-2, 1).requires_grad_()

    def forward(self, x, *more):
        if more:
            raise Wrong("The encoder takes x alone, which holds the label already, in its planes.")
        self.seen.append(x)
        return 1 * self.mu, 1 * self.logvar  # computed here, so that no_grad around the call shows


class _StubDecoder(nn.Module):
    """Takes codes of any length, so that what it is given can be named; draws them as stripes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, z, *more):
        if more:
            raise Wrong("The decoder takes one row of numbers an image: join z and the label before they go in.")
        self.seen.append(z)
        if not isinstance(z, Tensor) or z.ndim != 2:
            given = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else f"type {type(z).__name__}"
            raise Wrong(f"The decoder is given something of {given}, where one row of numbers an image is expected.")
        return torch.cat([z, -z], 1)[:, None, None]


def _judge_decode(conditional_vae):
    """Hold decode against z and the label side by side; the one may come before the other."""
    for latent_dim, num_classes in ((3, 10), (7, 6)):
        net, z = conditional_vae(_StubEncoder(8, latent_dim), _StubDecoder()), torch.randn(8, latent_dim)
        one_hot = F.one_hot(torch.randint(num_classes, (8,)), num_classes).float()
        intact = unchanged(z=z, one_hot=one_hot)
        try:
            got = net.decode(z, one_hot)
        except RuntimeError as error:
            if "Sizes of tensors must match" in str(error):
                raise Wrong(
                    f"In decode z, {tuple(z.shape)}, and the label, {tuple(one_hot.shape)}, are joined along the "
                    "images: every image keeps one row, which grows."
                ) from error
            raise
        intact()
        _split(net, "decode", one_hot, z)
        expect_tensor("decode(z, one_hot)", got, net.decoder(net.decoder.seen[0]).shape, "the decoder's images")
        z.requires_grad_()
        if not net.decode(z, one_hot).requires_grad:
            raise Wrong("decode cuts z off from what is drawn: no gradient would reach the encoder.")


def _split(net, name, one_hot, z=None):
    """Return the code that the decoder was given beside the label; raise Wrong where the label is not there."""
    seen = net.decoder.seen
    if len(seen) != 1:
        raise Wrong(f"{name} calls the decoder {len(seen)} times, where once is expected.")
    given, (batch, classes) = seen[0], one_hot.shape
    length = net.encoder.mu.shape[1]
    wanted = f"the {length} numbers of z and the {classes} of the label are expected"
    if given.shape == (batch, length):
        raise Wrong(f"In {name} the decoder is given {length} numbers, z without the label, where {wanted}.")
    if given.shape == (batch, classes) and same(given, one_hot):
        raise Wrong(f"In {name} the decoder is given the label without z, where {wanted}.")
    if given.shape == (batch, length + 1):
        raise Wrong(f"In {name} the label goes in as one number: a class is a name, not a quantity; keep it one-hot.")
    if given.shape != (batch, length + classes):
        raise Wrong(f"In {name} the decoder is given a tensor of shape {tuple(given.shape)}, where {wanted}.")
    for code, label in ((given[:, :length], given[:, length:]), (given[:, classes:], given[:, :classes])):
        if same(label, one_hot) and (z is None or same(code, z)):
            return code
    part = "z" if same(given[:, length:], one_hot) or same(given[:, :classes], one_hot) else "the label"
    raise Wrong(f"In {name} the decoder is given {length + classes} numbers, but {part} is not among them as it is.")


def _judge_forward(conditional_vae):
    batch, latent_dim, num_classes, noises = 40, 30, 12, []
    x = torch.rand(batch, 1, 32, 32) * 2 - 1
    x = join_labels(x, torch.randint(num_classes, (batch,)), num_classes)
    one_hot = x[:, 1:, 0, 0]
    for training in (False, True, True):
        net = conditional_vae(_StubEncoder(batch, latent_dim), _StubDecoder()).train(training)
        net.encoder.train(not training)  # the mode that counts is the model's own
        intact = unchanged(x=x)
        got = net(x)
        intact()
        if net.training is not training or net.encoder.training is training:
            raise Wrong("forward changes the mode of the model: it should only read self.training.")
        _name_encoder_input(net.encoder.seen, x)
        z = _split(net, "forward", one_hot)
        _name_code(z, net.encoder, training)
        _name_returned(got, net)
        noises.append(((z - net.encoder.mu) / (0.5 * net.encoder.logvar).exp()).detach())
    if same(noises[1], noises[2], 1e-3):
        raise Wrong("Two forwards in train mode draw the same noise: seed once, at the top of the notebook.")


def _name_encoder_input(seen, x):
    if len(seen) != 1:
        raise Wrong(f"forward calls the encoder {len(seen)} times, where once is expected.")
    given = seen[0]
    if not isinstance(given, Tensor) or given.ndim != 4:
        what = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"type {type(given).__name__}"
        raise Wrong(f"The encoder is given something of {what}, where images are expected.")
    if torch.equal(given, x):
        return
    if same(given, x[:, :1]):
        raise Wrong("The encoder sees the image without its label planes: so far only the decoder is told the label.")
    if same(given, x[:, 1:]):
        raise Wrong("The encoder sees the label planes without the image: what is it to encode?")
    raise Wrong(
        f"The encoder is given a tensor of shape {tuple(given.shape)} that is not x, {tuple(x.shape)}, as it came."
    )


def _name_code(z, encoder, training):
    """Raise Wrong unless z is a sample in train mode, mu in eval mode."""
    if not training:
        if same(z, encoder.logvar):
            raise Wrong("In eval mode logvar is decoded: the encoder gives mu first, then logvar.")
        if not same(z, encoder.mu):
            raise Wrong("In eval mode something other than mu is decoded: leave the line of z as it was.")
        return
    eps = ((z - encoder.mu) / (0.5 * encoder.logvar).exp()).detach()
    if eps.mean().abs() > 0.2 or (eps.std() - 1).abs() > 0.15:
        raise Wrong("In train mode something other than a sample of z is decoded: leave the line of z as it was.")
    ends = [encoder.mu, encoder.logvar]
    gradients = torch.autograd.grad(z.sum(), ends, allow_unused=True, retain_graph=True) if z.requires_grad else [None]
    if any(gradient is None or not gradient.any() for gradient in gradients):
        raise Wrong("No gradient reaches the encoder through z: is something detached, or under no_grad?")


def _name_returned(got, net):
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Wrong(f"forward returns a {type(got).__name__}, where the three of recon, mu, logvar are expected.")
    if not (same(got[1], net.encoder.mu) and same(got[2], net.encoder.logvar)):
        raise Wrong("forward must return mu and logvar, in this order, as the encoder gives them.")
    if not same(got[0], net.decoder(net.decoder.seen[0])):
        raise Wrong("The first value of forward is not what the decoder makes of z and the label.")
    if not (got[1].requires_grad and got[2].requires_grad):
        raise Wrong("mu and logvar are cut off from the encoder, by detach or no_grad: then it learns nothing.")


def _judge_build(answer):
    cases = [(5, 9, 6), (3, 4, 8)]
    nets = [answer(*case) for case in cases]
    for net in nets:
        if type(net).__name__ != "ConditionalVAE":
            raise Wrong(f"build_cvae returns a {type(net).__name__}, where a ConditionalVAE is expected.")
        for part, kind in (("encoder", Encoder), ("decoder", Decoder)):
            if not isinstance(getattr(net, part, None), kind):
                given = type(getattr(net, part, None)).__name__
                raise Wrong(f"The {part} is of type {given}, where {kind.__name__} is expected.")
    for part, read, want, known in _sizes():
        have = [read(net) for net in nets]
        wants = [want(*case) for case in cases]
        for case, has, wanted in zip(cases, have, wants, strict=True):
            given = "width={}, latent_dim={}, num_classes={}".format(*case)
            seen = f"With {given} {part} {has}, where {wanted} is expected"
            why = next((words for value, words in known if value(*case) == has), "")
            if has != wanted and have[0] == have[1] and wants[0] != wants[1] and not why:
                why = "use the arguments, no number"
            if has != wanted:
                raise Wrong(f"{seen}{': ' * bool(why)}{why}.")
    if answer(2, 3).encoder.conv1.in_channels != 11:
        raise Wrong("build_cvae without num_classes must use 10: keep the default in the first line.")
    _run_built(nets[0], 6)


def _sizes():
    """What is read off a built network: words, how, what is expected of (width, D, K), and known wrong values."""
    order = "the sizes are given in another order than channels, width, latent_dim"
    alone = [(lambda w, d, k: 1, "that is the image alone, and only the decoder is told the label")]
    alone += [(lambda w, d, k: k, "that leaves no room for the image, or for one of the label planes")]
    alone += [(lambda w, d, k: w, order)]
    grown = [(lambda w, d, k: d + k, "the code itself does not grow by the label")]
    deaf = [(lambda w, d, k: d, "that is z alone, but the decoder is told the label as well")]
    deaf += [(lambda w, d, k: k, "that is the label alone")]
    deaf += [(lambda w, d, k: d + 1, "the label is one-hot, not one number")]
    deaf += [(lambda w, d, k: d + k + 1, "the planes belong to the encoder, and the image does not go to the decoder")]
    deaf += [(lambda w, d, k: d + 10, "use num_classes, no number")]
    deaf += [(lambda w, d, k: w, order), (lambda w, d, k: 1, order)]
    deaf += [(lambda w, d, k: d * k, "z and the label stand side by side: their sizes add up")]
    turned = [(lambda w, d, k: d, order)]
    planes = [(lambda w, d, k: 1 + k, "only the image is drawn, not its label planes")]
    planes += [(lambda w, d, k: k, "only the image is drawn, not its label planes")]
    return [
        ("the encoder sees channels:", lambda n: n.encoder.conv1.in_channels, lambda w, d, k: 1 + k, alone),
        (
            "the encoder's first convolution has width",
            lambda n: n.encoder.conv1.out_channels,
            lambda w, d, k: w,
            turned,
        ),
        ("the encoder gives codes of length", lambda n: n.encoder.conv_mu.out_channels, lambda w, d, k: d, grown),
        ("the decoder takes codes of length", lambda n: n.decoder.conv1.in_channels, lambda w, d, k: d + k, deaf),
        ("the decoder's last but one layer has width", lambda n: n.decoder.conv3.out_channels, lambda w, d, k: w, []),
        ("the decoder draws channels:", lambda n: n.decoder.conv4.out_channels, lambda w, d, k: 1, planes),
    ]


def _run_built(net, num_classes):
    x = join_labels(torch.rand(3, 1, 32, 32), torch.arange(3), num_classes)
    recon, mu, _ = net.eval()(x)
    expect_tensor("recon of the model built", recon, (3, 1, 32, 32), "one image each")
    expect_tensor("mu of the model built", mu, (3, 9), "one code an image")


# 5.2 one handwriting a row


def judge_handwriting(handwriting_grid):
    for count, latent_dim, num_classes, training in ((4, 3, 10, True), (3, 5, 7, False), (1, 2, 4, True)):
        net, z = _network(latent_dim, num_classes).train(training), torch.randn(count, latent_dim)
        z.requires_grad_(training)
        before, intact = copy.deepcopy(net.state_dict()), unchanged(z=z)
        call = partial(handwriting_grid, net, z, *([] if num_classes == 10 else [num_classes]))
        try:
            got = call()
        except (RuntimeError, ValueError, Wrong) as error:
            _name_pairs(error, count, num_classes)
            raise
        intact()
        _name_model_after(net, before, training)
        shape = (count * num_classes, 1, 32, 32)
        expect_tensor("handwriting_grid(model, z)", got, shape, "every code with every label", z.dtype)
        if not same(got, call()):
            raise Wrong("Two calls for the same codes give different images: nothing here is random.")
        _name_grid(got, net, z.detach(), num_classes)
        if got.requires_grad:
            raise Wrong("The images carry a gradient: decode under torch.no_grad(), nobody trains here.")
    net, z = _network(3, 10).double(), torch.randn(2, 3, dtype=torch.float64)
    expect_tensor("handwriting_grid(model, z)", handwriting_grid(net, z), (20, 1, 32, 32), "images", torch.float64)
    net, z = _network(3, 10).to("meta"), torch.empty(2, 3, device="meta")
    on_meta(
        lambda: handwriting_grid(net, z),
        "handwriting_grid makes a tensor on the CPU and joins it to z, which fails as soon as z is on a GPU.",
    )


def _name_pairs(error, count, num_classes):
    """Say why no grid came about, where PyTorch's words are about sizes only."""
    if "channels" in str(error):
        raise Wrong("The decoder is given the codes without the labels: model.decode takes both.") from error
    if num_classes != 10:
        raise Wrong(
            f"What fits 10 classes fails with {count} codes and num_classes={num_classes}: use num_classes, no number."
        ) from error
    if "must be smaller than num_classes" in str(error):
        raise Wrong("labels holds numbers that are no class: the classes are 0 to num_classes - 1.") from error


class _StrictVAE(ConditionalVAE):
    """Says what is wrong with the codes or the labels that it is to decode, before PyTorch does."""

    def decode(self, z, one_hot):
        latent_dim, num_classes = self.encoder.conv_mu.out_channels, self.encoder.conv1.in_channels - 1
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in (z, one_hot)]
        if shapes != [(len(z), latent_dim), (len(z), num_classes)]:
            wanted = f"(rows, {latent_dim}) and (rows, {num_classes}) are expected, a row for every pair of the two"
            raise Wrong(
                f"model.decode gets codes of shape {shapes[0]} and labels of shape {shapes[1]}, where {wanted}."
            )
        return super().decode(z, one_hot)


def _network(latent_dim, num_classes):
    """Build a small ConditionalVAE that has seen one batch, so that train and eval mode differ."""
    plain = build_cvae(2, latent_dim, num_classes)
    net = _StrictVAE(plain.encoder, plain.decoder)
    with torch.no_grad():
        net(join_labels(torch.rand(num_classes, 1, 32, 32), torch.arange(num_classes), num_classes))
        for weight in net.decoder.parameters():
            weight.mul_(3)  # an untrained decoder would draw the same grey for all codes
    return net


def _name_model_after(net, before, training):
    """Raise Wrong unless the model is as it was, and gradients are on."""
    if any(layer.training is not training for layer in net.modules()):
        raise Wrong("The model is left in another mode: decode inside `with eval_mode(model):`, which restores it.")
    if not all(torch.equal(before[key], value) for key, value in net.state_dict().items()):
        raise Wrong("The model's weights or BatchNorm statistics are changed: decode in eval mode.")
    if not all(weight.requires_grad for weight in net.parameters()):
        raise Wrong("The model's weights are frozen for good: torch.no_grad() switches gradients off for a moment.")
    if not torch.is_grad_enabled():
        raise Wrong("Gradients stay switched off for whatever comes later: use `with torch.no_grad():`.")


def _name_grid(got, net, z, num_classes):
    """Raise Wrong unless got is code after code, each with all classes in turn, decoded in eval mode."""
    i = torch.arange(len(z) * num_classes)
    across, down, block, part = i % num_classes, i // num_classes, i % len(z), i // len(z)
    eye = torch.eye(num_classes)

    def draw(codes, classes, training=False):
        with torch.no_grad():
            return copy.deepcopy(net).train(training).decode(z[codes], eye[classes])

    if same(got, draw(down, across)):
        return
    mixed = "rows mix the handwritings: codes come as z_0, z_1, ... again and again, not each one's copies together"
    turned = "The grid is turned: one digit a row, where one handwriting a row is expected"
    name_mistake(
        got,
        draw(down, across),
        [
            (draw(down, across, True), "The images are decoded in train mode: BatchNorm then mixes them; eval first."),
            (draw(block, across), f"The {mixed}."),
            (draw(block, part), f"{turned}."),
            (draw(down, part), "The labels stay the same while the codes do: along a row they should go through all."),
            (draw(down, down % num_classes), "A whole row has one label: along a row the label should change."),
            (draw(down, across.flip(0)), "The labels run backwards: class 0 comes first."),
            (draw(down, (across + 1) % num_classes), "The labels are one off: class 0 comes first."),
            (draw(0 * i, across), "Every row shows the first code: use all of z."),
            (draw(down, 0 * i), "Every image has label 0: along a row the label should change."),
        ],
    )
    bad = next(n for n in range(len(got)) if not same(got[n], draw(down, across)[n]))
    pair = f"code {bad // num_classes} with label {bad % num_classes}"
    raise Wrong(f"Image {bad} of the {len(got)} is not what model.decode makes of {pair}, which belongs there.")


# 5.3 the probe


def judge_classifier(fit_probe, accuracy):
    _judge_fit(fit_probe)
    _judge_accuracy(accuracy)


def _judge_fit(answer):
    for count, latent_dim, num_classes in ((1100, 5, 4), (45, 3, 10)):  # 1,100: more than the usual batches
        codes = torch.randn(count, latent_dim)
        labels = (codes @ torch.randn(latent_dim, num_classes)).argmax(1)
        start, returned = nn.Linear(latent_dim, num_classes), []
        intact = unchanged(codes=codes, labels=labels)
        got = _trail(start, lambda probe: returned.append(answer(probe, codes, labels, 9)))  # noqa: B023
        intact()
        if not isinstance(returned[0], nn.Module):
            raise Wrong(f"fit_probe returns a {type(returned[0]).__name__}, where the probe is expected.")
        _name_fitted(got, start, codes, labels, num_classes)


def _trail(start, train):
    """Train a copy of start; return its weights after it, and the gradients of the last step, which Adam rescales."""
    probe, last = copy.deepcopy(start), {}
    for name, weight in probe.named_parameters():
        last[name] = torch.zeros_like(weight)
        weight.register_hook(partial(last.__setitem__, name))
    train(probe)
    return torch.cat([part.detach().flatten() for part in (*probe.parameters(), *last.values())])


def _name_fitted(got, start, codes, labels, num_classes):
    """Raise Wrong unless the probe went where a few steps down the cross-entropy lead to."""

    def fitted(loss_of):
        def train(probe):
            optimizer = torch.optim.Adam(probe.parameters(), lr=0.02)
            for _ in range(9):
                optimizer.zero_grad()
                loss_of(probe(codes)).backward()
                optimizer.step()

        return _trail(start, train)

    right = fitted(lambda scores: F.cross_entropy(scores, labels))
    name_mistake(got, right, [(fitted(loss_of), hint) for loss_of, hint in wrong_losses(labels, num_classes)])
    weights, gradients = got.chunk(2)
    if not same(weights, right.chunk(2)[0]):
        raise Wrong("The probe's weights are not where the cross-entropy of all codes, step by step, leads them.")
    if not same(gradients, right.chunk(2)[1]):
        times = (gradients.norm() / right.chunk(2)[1].norm()).item()
        raise Wrong(f"The loss is not the mean cross-entropy, but about {times:.3g} times that.")


def _judge_accuracy(answer):
    for count, num_classes in ((230, 7), (1100, 12)):
        scores, labels = torch.randn(count, num_classes), torch.randint(num_classes, (count,))
        labels[: count // 2] = scores[: count // 2].argmax(1)
        labels[count // 2 : count // 2 + 3] = scores[count // 2 : count // 2 + 3].argmin(1)
        scores[0, 2] = 9  # the highest of all
        right = (scores.argmax(1) == labels).float().mean().item()
        try:
            got = answer(lambda codes: scores, torch.randn(count, 4), labels)  # noqa: B023
        except RuntimeError as error:
            if "must match the size" in str(error):
                raise Wrong(
                    f"predicted does not hold one class for each of the {count} codes: what is taken from the scores, "
                    f"{tuple(scores.shape)}, and along which dimension?"
                ) from error
            raise
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, bool) or not isinstance(got, float | int):
            what = f"a tensor of shape {tuple(got.shape)}" if isinstance(got, Tensor) else f"a {type(got).__name__}"
            raise Wrong(f"accuracy returns {what}, where one number from 0 to 1 is expected.")
        lowest = (scores.argmin(1) == labels).float().mean().item()
        overall = (scores.argmax() == labels).float().mean().item()
        crossed = (scores.argmax(1, keepdim=True) == labels).float().mean().item()
        seen = f" (it gives {got:.4g}, not {right:.4g})."
        known = [
            (right * count, "accuracy returns how many codes are right, where their share is expected"),
            (100 * right, "accuracy returns per cent, where a share from 0 to 1 is expected"),
            (1 - right, "accuracy returns the share of codes that are wrong"),
            (lowest, "The class with the lowest score is taken, where the highest is expected"),
            (right * count / num_classes, "The number of codes that are right is divided by that of the classes"),
            (right * count / 1000, "The number of codes that are right is divided by 1000: use len(labels), no number"),
            (overall, "The place of the highest score of all is taken: look along the classes, code by code"),
            (crossed, "Each prediction is compared with every label: predicted must have one dimension, as labels has"),
            (0, "No code at all counts as right: compare the class, not the score, with the label, and round nothing"),
        ]
        for value, hint in known:
            if abs(got - value) < 1e-5 < abs(got - right):
                raise Wrong(hint + seen)
        if abs(got - right) > 1e-5:
            raise Wrong(f"accuracy is not the share of codes whose predicted class is their label{seen}")


LABEL = (join_labels, ConditionalVAE, build_cvae)
REMINDERS = {
    "5.1": "one-hot the labels, spread each number over a plane, put the planes behind the image; the encoder gets all "
    "channels, the decoder z and the one-hot side by side; so both are built for that many more.",
    "5.2": "every code stands once beside each label, all of the first code's first; decode in eval mode, without "
    "gradients.",
    "5.3": "cross_entropy takes the scores as they come and the labels; the accuracy is how often the class with the "
    "highest score is the label, divided by how many there are.",
}

check = Check(
    {
        "5.1": Exercise("the label in encoder and decoder", 15, judge=judge_conditional, finished=LABEL),
        "5.2": Exercise("one handwriting a row", 8, judge=judge_handwriting, finished=(latent.handwriting_grid,)),
        "5.3": Exercise("the probe", 7, judge=judge_classifier, finished=(metrics.fit_probe, metrics.accuracy)),
    },
    REMINDERS,
)
