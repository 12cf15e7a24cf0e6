"""The checks of notebook 05: a VAE that is told the label, its pictures, and a classifier probe of its codes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_tutorial import latent, metrics, model
from vae_tutorial.checks import Check, Exercise
from vae_tutorial.checks.comparing import brief, difference, relation, same, times
from vae_tutorial.checks.engine import Lesson, clue, holds, must
from vae_tutorial.checks.looking import (
    StubDecoder,
    StubEncoder,
    WatchedDecoder,
    call,
    gradients,
    kind_of_code,
    observe_output,
    portable,
    read_modes,
    rough,
    unharmed,
    untouched,
    value_of,
)

# 5.1 the label in encoder and decoder


def observe_join(join_labels):
    batches = ([3, 0, 5, 5, 1], 10), ([3, 0, 5, 5, 1], 6), ([6], 7), ([2, 11, 0, 4], 12)  # labels, K
    cases = [(2 * torch.rand(len(one), 1, 32, 32) - 1, torch.tensor(one), count) for one, count in batches]
    for x, labels, count in cases:
        given = {"x": x, "labels": labels} | ({} if count == 10 else {"num_classes": count})
        unit = f"a channel for the image, and one for each of the {count} classes"
        yield from call("join_labels(x, labels)", join_labels, read_joined, unit, **given)
    meta, double = torch.empty(4, 1, 32, 32, device="meta"), x.double()
    yield from portable(join_labels, lambda: join_labels(meta, labels, 12), lambda: join_labels(double, labels, 12))


def read_joined(got, want, **_):
    return read_parts(got, want, {"The image, in channel 0,": 1, "What stands in the planes": want.shape[1] - 1})


def read_parts(got, want, parts):
    """Say which of the parts that stand side by side is wrong; parts: {name: its size along dimension 1}."""
    if not isinstance(got, Tensor) or got.shape != want.shape or got.dtype != want.dtype:
        return None
    sizes = list(parts.values())
    both = zip(parts, got.split(sizes, 1), want.split(sizes, 1), strict=True)
    said = [f"{name} {difference(one, other)}." for name, one, other in both if not same(one, other)]
    return said[0].replace("row", "image").replace("in reverse", "with the images in reverse") if said else None


ONE_HOT, PLANES = "F.one_hot(labels, num_classes).to(x)", "one_hot[:, :, None, None].expand(-1, -1, 32, 32)"
JOINED = "torch.cat([x, planes], dim=1)"
JOIN_ROWS = (
    (ONE_HOT, "F.one_hot(labels).to(x)", "The largest label of a batch decides how many planes there are: num_classes should."),
    (ONE_HOT, "F.one_hot(labels, 10).to(x)", "10 is typed in where num_classes belongs."),
    (ONE_HOT, "labels[:, None].to(x)", "The label goes in as one number. A class is a name, not a quantity: each class needs a plane of its own."),
    (ONE_HOT, "2 * F.one_hot(labels, num_classes).to(x) - 1", "The planes hold -1 and 1: they should hold 0 and 1."),
    (PLANES, "one_hot[:, None, None, :].expand(-1, 32, 32, -1).reshape(len(x), num_classes, 32, 32)", "A plane is not the same number everywhere: reshape moves no axis, so the classes run along the pixels."),
    (ONE_HOT, "F.one_hot((labels + 1) % num_classes, num_classes).to(x)", "The planes are one off: plane 0 should be that of class 0."),
    (ONE_HOT, "1 - F.one_hot(labels, num_classes).to(x)", "The planes are 0 at the class and 1 elsewhere: it should be the other way round."),
    (PLANES, "one_hot", "What is joined to the image has two dimensions, as one_hot has: spread each of its numbers over a plane first."),
    (PLANES, "one_hot[:, :, None, None]", "The planes are smaller than the image: each should be 32x32, as large as the image."),
    (PLANES, "one_hot[:, None, :, None].expand(-1, -1, 32, 32)", "The classes stand in dimension 2, the height: they are channels, dimension 1."),
    (PLANES, "one_hot[:, :, None].expand(-1, -1, 32, 32)", "one_hot has three dimensions when it is stretched: it needs four, (B, num_classes, 1, 1)."),
    (PLANES, "one_hot.expand(-1, -1, 32, 32)", "one_hot has two dimensions when it is stretched: it needs four, (B, num_classes, 1, 1)."),
    (PLANES, "one_hot.repeat(1, 1, 32, 32)", "one_hot has two dimensions when it is repeated: it needs four, (B, num_classes, 1, 1)."),
    (PLANES, "one_hot.view(-1, num_classes, 32, 32)", "one_hot has too few numbers for 32x32 pixels: each of them should be repeated, not only given another shape."),
    (JOINED, "torch.cat([planes, x], dim=1)", "The planes come first: the image should be channel 0, with the planes after it."),
    (JOINED, "planes", "What comes back is the label planes alone, without the image."),
    (JOINED, "x + planes", "The planes are added to the image: they should follow it, as channels of their own."),
    (JOINED, "torch.cat([x, x * planes], dim=1)", "The planes hold the image: they should hold the label, 1 or 0 in every pixel."),
    (JOINED, "torch.cat([x, planes])", "Image and planes are joined along dimension 0, the images of the batch: the channels are dimension 1."),
    (JOINED, "torch.cat([x, planes], dim=3)", "Image and planes are joined along dimension 3, the width: the channels are dimension 1."),
    (JOINED, "torch.cat([x[:, 0], planes], dim=1)", "The image has lost its channel: it should have four dimensions, as the planes have."),
)  # fmt: skip


def observe_decode(ConditionalVAE):
    sizes = (8, 3, 10), (5, 7, 6), (1, 2, 4)  # images, D, K
    cases = [(torch.randn(n, d).requires_grad_(), F.one_hot(torch.randint(k, (n,)), k).float()) for n, d, k in sizes]
    for z, one_hot in cases:
        decoder, after = StubDecoder(), untouched("decode", z=z, one_hot=one_hot)
        images = ConditionalVAE(nn.Identity(), decoder).decode(z, one_hot)
        yield from after()
        yield holds(decoder.seen, "The decoder is never called: send z and the label through it.")
        yield holds(len(decoder.seen) == 1, f"decode calls the decoder {times(len(decoder.seen))}: call it once.")
        given, name = z_first(decoder.seen[0], one_hot), "What the decoder gets"
        parts = {"z, as the decoder gets it,": z.shape[1], "The label, as the decoder gets it,": one_hot.shape[1]}
        unit = "a row for each image, with the {} numbers of z and the {} of the label".format(*parts.values())
        yield must(name, value_of(given), read_parts, unit, parts=parts)
        made = isinstance(images, Tensor) and same(images, decoder(decoder.seen[0]))
        yield holds(made, "decode does not return what the decoder makes of z and the label.")
        yield holds(images.requires_grad, "No gradient goes from the images that decode returns back to z.")
        yield from gradients(name, given, {"z": z})

    far = ConditionalVAE(nn.Identity(), model.Decoder(1, 2, 6)).to("meta")
    z, one_hot = torch.empty(2, 6, device="meta").tensor_split([2], dim=1)
    yield from portable(ConditionalVAE, lambda: far.decode(z, one_hot))


def z_first(given, one_hot):
    """Return what the decoder gets with z before the label: either may come first."""
    classes = one_hot.shape[1]
    if isinstance(given, Tensor) and given.ndim == 2 and same(given[:, :classes], one_hot):
        return torch.cat([given[:, classes:], given[:, :classes]], dim=1)
    return given


PAIR, ENCODE = "torch.cat([z, one_hot], dim=1)", "mu, logvar = self.encoder(x)"
DECODE_ROWS = (
    (PAIR, "z", "The decoder gets z without the label."),
    (PAIR, "one_hot", "The decoder gets the label without z."),
    (PAIR, "torch.cat([z, one_hot.argmax(1, keepdim=True)], dim=1)", "The label goes in as one number. A class is a name, not a quantity: keep it one-hot."),
    (PAIR, "torch.cat([z, one_hot])", "z and the label are joined along the images, dimension 0: every image should keep one row, which grows."),
    (PAIR, "z + one_hot", "z and the label are combined entry by entry, as by + or *: they should stand side by side."),
    (PAIR, "z, one_hot", "The decoder takes one tensor: join z and the label before they go in."),
)  # fmt: skip


class NotingEncoder(StubEncoder):
    """A stub that keeps what it is shown."""

    def forward(self, x):
        self.given = x
        return super().forward(x)


class SplittingDecoder(StubDecoder):
    """A stub that takes codes and labels side by side: it keeps both apart, and triples the codes."""

    def __init__(self, one_hot):
        super().__init__()
        self.one_hot = one_hot

    def forward(self, given):
        code, self.label = z_first(given, self.one_hot).tensor_split([-self.one_hot.shape[1]], dim=1)
        return super().forward(code)


def observe_forward(ConditionalVAE):
    """Look at forward with the finished decode, whatever the answer's own does."""
    whole = type("ConditionalVAE", (ConditionalVAE,), {"decode": model.ConditionalVAE.decode})
    labels, seen = torch.randint(12, (64,)), {}
    x = model.join_labels(2 * torch.rand(64, 1, 32, 32) - 1, labels, 12)
    modes = [(False, True), (True, False), (True, True), (False, False)]  # of the model, of its encoder
    parts = [(NotingEncoder(64, 32), SplittingDecoder(F.one_hot(labels, 12).float())) for _ in modes]
    for (training, other), (encoder, decoder) in zip(modes, parts, strict=True):
        net, after = whole(encoder, decoder).train(training), untouched("forward", x=x)
        encoder.train(other)
        got = net(x)
        yield from after()
        calls = encoder.calls, len(decoder.seen)
        called = f"forward calls the encoder {times(calls[0])} and the decoder {times(calls[1])}: call each once."
        yield holds(calls == (1, 1), called)
        left = net.training is training and encoder.training is other
        yield holds(left, "forward changes the mode of the model: it should only read self.training.")
        yield must("What the encoder gets", value_of(encoder.given), unit="the images with all their label planes")
        beside = "In forward the decoder does not get each z beside the label of its own image: look at one_hot, and at what decode is given."
        yield must("The label, as the decoder gets it,", value_of(decoder.label), beside)
        seen[training, other] = got, decoder.seen[0], encoder
    kinds = {mode: kind_of_code(z, encoder) for mode, (_, z, encoder) in seen.items()}
    yield must("What is decoded", kinds, read_modes)
    for mode in modes[:2]:
        yield from observe_output(*seen[mode], "train" if mode[0] else "eval")
    net = whole(model.Encoder(5, 2, 3), model.Decoder(1, 2, 7)).to("meta")
    yield from portable(ConditionalVAE, lambda: net(torch.empty(2, 5, 32, 32, device="meta")))


FORWARD_ROWS = (
    (ENCODE, "mu, logvar = self.encoder(x[:, :1])", "The encoder sees the image without its label planes: so only the decoder is told the label."),
    (ENCODE, "mu, logvar = self.encoder(x[:, 1:])", "The encoder sees the label planes without the image: what is it to encode?"),
    (ENCODE, "mu, logvar = self.encoder(one_hot)", "The encoder gets one_hot: it should get the images with all their label planes."),
    (ENCODE, "mu, logvar = self.encoder(x, one_hot)", "The encoder takes one tensor: x holds the label already, in its planes."),
    (ENCODE, "logvar, mu = self.encoder(x)", "mu and logvar have changed places: the encoder returns mu first, then logvar."),
    (ENCODE, "mu = logvar = self.encoder(x)", "The encoder returns two tensors: give the first the name mu, the second the name logvar."),
)  # fmt: skip


def observe_build(build_cvae):
    sizes = {"width": 5, "latent_dim": 9, "num_classes": 6}, {"width": 3, "latent_dim": 4, "num_classes": 8}
    for given in (*sizes, {"width": 2, "latent_dim": 3}):
        net = build_cvae(**given)
        kinds = {"model": model.ConditionalVAE, "encoder": model.Encoder, "decoder": model.Decoder}
        for name, kind in kinds.items():
            part = getattr(net, name, None) if name != "model" else net
            yield holds(isinstance(part, kind), f"The {name} is {brief(part)}, where {brief(kind)} is expected.")
        made = f"With {', '.join(f'{name}={value}' for name, value in given.items())} the"
        first, last = net.encoder.conv1, net.decoder.conv4
        encoder = first.in_channels, first.out_channels, net.encoder.conv_mu.out_channels
        yield must(f"{made} encoder", f"Encoder{encoder}")
        yield must(f"{made} decoder", f"Decoder{last.out_channels, last.in_channels, net.decoder.conv1.in_channels}")


ENCODER, DECODER = "Encoder(1 + num_classes, width, latent_dim)", "Decoder(1, width, latent_dim + num_classes)"
BUILD_ROWS = (
    (ENCODER, "Encoder(1, width, latent_dim)", "The encoder takes one channel, the image: it gets the label planes as well."),
    (ENCODER, "Encoder(num_classes, width, latent_dim)", "The encoder takes num_classes channels, which leaves no room for the image beside the label planes."),
    (ENCODER, "Encoder(1 + num_classes, width, latent_dim + num_classes)", "The encoder's codes are as long as z and the label together: they should be as long as z."),
    (ENCODER, "Encoder(11, width, latent_dim)", "11 is typed in: the number of channels depends on num_classes."),
    (DECODER, "Decoder(1, latent_dim + num_classes, width)", "width and the length of the code have changed places in the decoder."),
    (DECODER, "Decoder(1, width, latent_dim)", "The decoder takes latent_dim numbers, which is z alone: it gets the label as well."),
    (DECODER, "Decoder(1, width, num_classes)", "The decoder takes num_classes numbers, which is the label alone: it gets z as well."),
    (DECODER, "Decoder(1, width, latent_dim + 1)", "The decoder takes one number more than z has: the label is one-hot, num_classes numbers."),
    (DECODER, "Decoder(1, width, latent_dim + 1 + num_classes)", "The decoder takes one number too many: z and the label go in, and the image does not."),
    (DECODER, "Decoder(1, width, latent_dim + 10)", "10 is typed in where num_classes belongs."),
    (DECODER, "Decoder(1 + num_classes, width, latent_dim + num_classes)", "The decoder draws the label planes as well: only the image is asked for."),
)  # fmt: skip


# 5.2 one handwriting a row


class WatchedCVAE(model.ConditionalVAE):
    """A model that notes what is wrong with the shapes that it is to decode, where PyTorch would raise an error."""

    misfit = ""

    def decode(self, z, one_hot):
        wide = self.encoder.conv_mu.out_channels, self.encoder.conv1.in_channels - 1
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else brief(part) for part in (z, one_hot)]
        if shapes == [(len(z), wide[0]), (len(z), wide[1])]:
            return super().decode(z, one_hot)
        wanted = f"(rows, {wide[0]}) and (rows, {wide[1]}) are expected, with a row for every pair"
        self.misfit = f"model.decode gets codes of shape {shapes[0]} and labels of shape {shapes[1]}, where {wanted}."
        return torch.zeros(1)


def observe_grid(handwriting_grid):
    cases = []
    for count, latent_dim, classes, training in ((4, 3, 10, True), (3, 5, 7, False), (1, 2, 4, True)):
        decoder = WatchedDecoder(latent_dim + classes)
        net = rough(WatchedCVAE(model.Encoder(1 + classes, 2, latent_dim), decoder)).train(training)
        cases.append((net, torch.randn(count, latent_dim), () if classes == 10 else (classes,)))
    for net, z, classes in cases:
        as_before, notes = unharmed("model", net), net.decoder.notes
        after = untouched("handwriting_grid", z=z)
        images = handwriting_grid(net, z, *classes)
        yield from after()
        yield holds(not net.misfit, net.misfit)
        yield holds(notes, "The decoder is never called: decode the codes with model.decode.")
        gets, wide = {brief(given) for given, _ in notes}, net.decoder.latent_dim
        fits = all(isinstance(given, Tensor) and given.shape[1:] == (wide,) for given, _ in notes)
        wanted = f"rows of {wide} numbers, a code and its label, are expected"
        yield holds(fits, f"The decoder gets {' and '.join(gets)}, where {wanted}.")
        if not (notes and fits):
            return
        yield clue("The pairs", pairs_in(torch.cat([given for given, _ in notes]), z), read_pairs, codes=len(z))
        mixes = "The codes are decoded in train mode, where BatchNorm mixes the images: decode inside eval_mode(model)."
        yield holds(not any(mode for _, mode in notes), mixes)
        yield must("handwriting_grid(model, z)", value_of(images), None, "an image for every code with every label")
        carries = "The images carry a gradient: decode under torch.no_grad(), because nobody trains here."
        yield holds(not images.requires_grad, carries)
        yield from as_before()
    far, z = model.build_cvae(2, 3).to("meta"), torch.empty(2, 3, device="meta")
    yield from portable(handwriting_grid, lambda: handwriting_grid(far, z))


def pairs_in(given, z):
    """Return the pairs (number of a code in z, label) that are decoded; None for a code that is not in z."""
    codes, labels = given.tensor_split([z.shape[1]], dim=1)
    known = [(code == z).all(1).nonzero().flatten().tolist() for code in codes]
    return [(at[0] if at else None, int(label)) for at, label in zip(known, labels.argmax(1), strict=True)]


def read_pairs(got, want, codes):
    """Say how the pairs that the decoder gets differ from those of the grid."""
    classes = len(want) // codes
    if len(got) != len(want):
        return f"{len(got)} images are decoded, where {len(want)} are expected: {codes} codes, {classes} labels each."
    if got == sorted(want, key=lambda pair: pair[1]):
        return "The batch goes through all codes with label 0, then label 1: go through all labels, code by code."
    at = next(at for at in range(len(want)) if got[at] != want[at])
    given = "a code that is not in z" if got[at][0] is None else f"code {got[at][0]}"
    wanted = "code {} with label {}".format(*want[at])
    return f"In row {at} of the batch stands {given} with label {got[at][1]}, where {wanted} is expected."


CODES, LABELS = "z.repeat_interleave(num_classes, dim=0)", "torch.arange(num_classes).repeat(len(z))"
DECODED = "model.decode(codes, one_hot)"
GRID_ROWS = (
    (DECODED, "(model.decode(codes, one_hot) + 1) / 2", "The images are moved to the range 0 to 1: they should stay as the model decodes them."),
    (LABELS, "torch.randint(num_classes, (len(codes),))", "The labels are drawn at random: every code needs each label once, in order."),
    (CODES, "z.repeat(num_classes, 1)", "The rows mix the handwritings: the copies of each code should stand next to each other."),
    (CODES, "z.repeat_interleave(num_classes)", "The codes are flattened to single numbers, as repeat_interleave does without dim=0."),
    (CODES, "z.repeat_interleave(num_classes, dim=1)", "The codes are made longer: there should be more of them, each as long as before."),
    (CODES, "z", "There are no more codes than in z: each of them is needed once for every label."),
    (CODES, "z.repeat(num_classes)", "repeat copies the whole of z, one copy after another: the copies of each code should stand next to each other."),
    (CODES, "z.repeat_interleave(10, dim=0)", "10 is typed in where num_classes belongs."),
    (LABELS, "torch.arange(num_classes).repeat_interleave(len(z))", "The copies of each label stand together: along a row the labels should go through all classes."),
    (LABELS, "torch.arange(num_classes)", "labels counts through the classes once: it should do so once for every code."),
    (LABELS, "torch.arange(len(z)).repeat(num_classes)", "labels counts the codes: it should count the classes, once for every code."),
    (LABELS, "torch.arange(len(z)).repeat_interleave(num_classes)", "labels counts the codes, so that a whole row has one label: along a row the label should change."),
    (LABELS, "torch.arange(num_classes).repeat(num_classes)", "The labels are repeated num_classes times: repeat them once for every code."),
    (LABELS, "torch.arange(10).repeat(len(z))", "10 is typed in where num_classes belongs."),
    (LABELS, "torch.arange(1, num_classes + 1).repeat(len(z))", "Some labels are no class: the classes are 0 to num_classes - 1."),
    (LABELS, "torch.arange(num_classes - 1).repeat(len(z))", "The last class has no label: arange leaves out its end by itself."),
    (DECODED, "model.decode(codes, labels)", "model.decode gets the labels as numbers: it takes them one-hot."),
    (DECODED, "model.decode(one_hot, codes)", "codes and one_hot have changed places: model.decode takes the code first, then the label."),
    (DECODED, "model.decode(codes)", "model.decode gets the codes without the labels: it takes both."),
    (DECODED, "model.decoder(codes)", "The decoder gets the codes without the labels: model.decode takes both."),
    (DECODED, "model(codes)", "The model itself takes images: model.decode takes codes and labels."),
    (f"images = {DECODED}", DECODED, "What model.decode returns is not kept: give it the name images."),
)  # fmt: skip


# 5.3 the probe


def observe_fit(fit_probe):
    cases = []
    for count, latent_dim, classes, steps in ((1100, 5, 4, 1), (45, 3, 12, 9)):  # 1,100: more than the usual batches
        codes = torch.randn(count, latent_dim)
        labels = (codes @ torch.randn(latent_dim, classes)).argmax(1) % (classes - 1)  # the last class does not occur
        network = nn.Sequential(nn.Linear(latent_dim, 6), nn.ReLU(), nn.Linear(6, classes))
        cases += [(probe, codes, labels, steps) for probe in (network, nn.Linear(latent_dim, classes))]
    for probe, codes, labels, steps in cases:
        pulls, grads = watch(probe)
        start = nn.utils.parameters_to_vector(probe.parameters())
        after = untouched("fit_probe", codes=codes, labels=labels)
        result = fit_probe(probe, codes, labels, steps)
        yield from after()
        yield holds(result is probe, f"fit_probe returns {brief(result)}, where the probe it is given is expected.")
        reached = min(len(one) for one in grads.values())
        said = f"With steps={steps} the probe's weights get {reached} gradients: one in each step is expected."
        yield holds(reached == steps, said)
        used = min(sum(int(pull.any(1).sum()) for pull in pulls[: len(pulls) // steps]), len(codes))
        said = f"In the first step {used} of the {len(codes)} codes count in the loss: all should."
        yield clue("The codes", used, said)
        first = torch.cat([one[0].flatten() for one in grads.values()])
        yield must("The gradient of the loss in the first step", first, read_first)
        moved = nn.utils.parameters_to_vector(probe.parameters()) - start
        yield must("The change of the probe's weights", moved.detach())
    far, codes, labels = nn.Linear(3, 4, device="meta"), *torch.empty(2, 5, 3, device="meta")
    yield from portable(fit_probe, lambda: fit_probe(far, codes, labels[:, 0].long(), 1))


def watch(probe):
    """Return the gradients that will reach a probe's scores, [...], and its weights, {name: [...]}, as they come."""
    pulls, grads, run = [], {}, probe.forward

    def forward(codes):
        scores = run(codes)
        if scores.requires_grad:
            scores.register_hook(pulls.append)
        return scores

    probe.forward = forward
    for name, weight in probe.named_parameters():
        grads[name] = []
        weight.register_hook(lambda grad, name=name: grads[name].append(grad.clone()))
    return pulls, grads


def read_first(got, want):
    said = relation(got, want)
    seen = f"its gradient is {said}" if said else "it has another gradient"
    return f"The loss is not the mean cross-entropy of the scores and the labels: in the first step {seen}."


LOSS, TARGET = "F.cross_entropy(probe(codes), labels)", "F.one_hot(labels, probe(codes).shape[1]).float()"
FIT_ROWS = (
    (LOSS, "F.cross_entropy(probe(codes).softmax(1), labels)", "The scores go through a softmax twice: cross_entropy applies it itself."),
    (LOSS, "F.cross_entropy(probe(codes).softmax(0), labels)", "The scores go through a softmax over the codes first: cross_entropy takes them as they are."),
    (LOSS, "F.nll_loss(F.log_softmax(probe(codes), dim=0), labels)", "The softmax runs along the codes: it should run over the classes of each code, dim=1."),
    (LOSS, "F.cross_entropy(probe(codes), labels, label_smoothing=0.1)", "The labels are smoothed: take the cross-entropy without label_smoothing."),
    (LOSS, "F.cross_entropy(probe(codes).sigmoid(), labels)", "The scores go through a sigmoid first: cross_entropy takes them as they are."),
    (LOSS, "F.cross_entropy(probe(codes).argmax(1), labels)", "cross_entropy gets one number for each code: it takes the scores, one for each class."),
    (LOSS, "F.cross_entropy(labels, probe(codes))", "cross_entropy gets the labels first: it takes the scores, then the labels."),
    (LOSS, "F.cross_entropy(codes, labels)", "backward finds no way from the loss to the probe: the loss should be made of the probe's scores, without .detach() or argmax between."),
    (LOSS, "F.cross_entropy(probe(codes), labels.float())", "The labels are floats: cross_entropy takes them as whole numbers."),
    (LOSS, "F.cross_entropy(probe(codes), labels[:, None])", "cross_entropy takes the labels as they are, (N,), one whole number for each code."),
    (LOSS, "F.cross_entropy(probe(codes), F.one_hot(labels, len(probe.weight)).float())", "Only a linear probe has a weight, and the notebook also fits a network: cross_entropy takes the labels as they are."),
    (LOSS, 'F.cross_entropy(probe(codes), labels, reduction="sum")', "The cross-entropy is summed over the codes: take the mean."),
    (LOSS, 'F.cross_entropy(probe(codes), labels, reduction="none")', "The loss is more than one number: take the mean over the codes."),
    (LOSS, f"-{LOSS}", "The loss has the wrong sign: training makes a loss as small as it can."),
    (LOSS, f"{LOSS} / steps", "The loss is divided by the number of steps: every step takes it as it is."),
    (LOSS, "F.nll_loss(probe(codes), labels)", "nll_loss takes logarithms of probabilities, and gets scores: cross_entropy takes scores."),
    (LOSS, "F.nll_loss(probe(codes).softmax(1), labels)", "nll_loss takes logarithms of probabilities, and gets the probabilities themselves."),
    (LOSS, f"F.mse_loss(probe(codes), {TARGET})", "The loss is the squared error, where the cross-entropy is expected."),
    (LOSS, f"F.binary_cross_entropy_with_logits(probe(codes), {TARGET})", "The loss asks yes or no for every class by itself: cross_entropy asks for one class out of several."),
)  # fmt: skip


def observe_accuracy(accuracy):
    cases = []
    for count, classes in ((230, 7), (1100, 12), (1, 4), (9, 9)):
        scores, labels, right = torch.randn(count, classes), torch.randint(classes, (count,)), 1 + count // 3
        scores[0, 2] = 9  # the highest of all
        labels[:right], labels[right : right + 9] = scores[:right].argmax(1), scores[right : right + 9].argmin(1)
        cases.append((scores, torch.randn(count, 4), labels))
    for scores, codes, labels in cases:
        after = untouched("accuracy", scores=scores, codes=codes, labels=labels)
        share = accuracy(lambda given: scores, codes, labels)  # noqa: B023
        yield from after()
        number = isinstance(share, int | float) or (isinstance(share, Tensor) and share.numel() == 1)
        right = int((scores.argmax(1) == labels).sum())
        yield must(f"accuracy for {right} right codes of {len(codes)}", float(share) if number else value_of(share))
    far, labels = torch.empty(5, 3, device="meta"), torch.empty(5, dtype=torch.long, device="meta")
    yield from portable(accuracy, lambda: accuracy(lambda given: far, far, labels))


PREDICTED, SHARE = "scores.argmax(dim=1)", "(predicted == labels).float().mean().item()"
ACCURACY_ROWS = (
    (PREDICTED, "scores.argmax(dim=0)", "predicted has one entry for each class, as when argmax looks along the codes: it should have one for each code."),
    (PREDICTED, "(scores.softmax(dim=1) > 0.5).int().argmax(dim=1)", "A class counts only with more than one half of the probability: the highest score counts, however low."),
    (SHARE, "torch.stack([(predicted == labels)[labels == k].float().mean() for k in labels.unique()]).mean().item()", "The shares of the classes are averaged: every code should count the same."),
    (PREDICTED, "scores.argmax()", "The place of the highest score of all is taken: look along the classes, for each code."),
    (PREDICTED, "scores.argmin(dim=1)", "The class with the lowest score is taken: take the one with the highest."),
    (PREDICTED, "scores.argmax(dim=1, keepdim=True)", "predicted has shape (N, 1), so each is compared with every label: it needs the shape of labels, (N,)."),
    (PREDICTED, "scores.max(dim=1).values", "No code counts as right: predicted should hold classes, the places of the highest scores, and not scores."),
    (PREDICTED, "scores.max(dim=1)", "predicted is no tensor: max with a dim, for example, returns two, the scores and their places. Only the places are asked for."),
    (PREDICTED, "scores.argmax(dim=1) == labels", "predicted is True or False for each code: it should be a class, which the last line compares with the label."),
    (PREDICTED, "scores", "The labels are compared with a number for every class: predicted should hold one class for each code."),
    (SHARE, "(predicted == labels).mean().item()", "True and False have no mean: turn them into numbers first."),
    (SHARE, f"100 * {SHARE}", "accuracy returns per cent, where a share from 0 to 1 is expected."),
    (SHARE, "(predicted == labels).sum().item()", "accuracy returns how many codes are right, where their share is expected."),
    (SHARE, "(predicted != labels).float().mean().item()", "accuracy returns the share of codes that are wrong, where that of the right ones is expected."),
    (SHARE, "(predicted == labels).sum().item() / scores.shape[1]", "The number of codes that are right is divided by the number of classes: divide by that of the codes."),
    (SHARE, "(predicted == labels).sum().item() / 1000", "The number of codes that are right is divided by 1000: divide by the number of codes."),
    (SHARE, "(predicted == labels).sum().item() // len(labels)", "accuracy returns 0 as soon as one code is wrong, as with // (which rounds down) or all(): return the share."),
)  # fmt: skip


check = Check(
    {
        "5.1": Exercise("the label in encoder and decoder", 15, (
            Lesson(model.join_labels, observe_join, JOIN_ROWS, "Write each label one-hot. Spread each of its numbers over a plane, and put the planes behind the image."),
            Lesson(model.ConditionalVAE, observe_decode, DECODE_ROWS, "Put z and the one-hot label side by side, one row for each image. Send that through the decoder.", "decode"),
            Lesson(model.ConditionalVAE, observe_forward, FORWARD_ROWS, "The encoder gets all channels, the image and its label planes. It returns mu and logvar.", "forward"),
            Lesson(model.build_cvae, observe_build, BUILD_ROWS, "The encoder takes a channel more for every class. The decoder takes a number more for every class."),
        )),
        "5.2": Exercise("one handwriting a row", 8, (
            Lesson(latent.handwriting_grid, observe_grid, GRID_ROWS, "Every code stands beside each label once, all pairs of the first code first. Decode in eval mode and without gradients."),
        )),
        "5.3": Exercise("the probe", 7, (
            Lesson(metrics.fit_probe, observe_fit, FIT_ROWS, "Give cross_entropy the scores as the probe makes them, and the labels."),
            Lesson(metrics.accuracy, observe_accuracy, ACCURACY_ROWS, "Take the class with the highest score of every code. Compare it with the label, and average."),
        )),
    }
)  # fmt: skip
