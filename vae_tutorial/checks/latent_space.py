"""The checks of notebook 03, the latent space.

Shapes: N images or codes, D latent dimensions, C channels, H, W height and width.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.utils import make_grid

from vae_tutorial import latent, metrics, model
from vae_tutorial.checks import Check, Exercise, Wrong
from vae_tutorial.checks.compare import expect_tensor, name_mistake, on_meta, same, unchanged, uniform
from vae_tutorial.latent import interpolate

GPU = "makes a tensor on the CPU, which fails as soon as its input is on a GPU: make it on the device of its input."


def _one_truth(hint, answer, *arguments):
    """Return answer(*arguments), or raise Wrong where Python asks a tensor of many numbers whether it is true."""
    try:
        return answer(*arguments)
    except RuntimeError as error:
        if "Boolean value of Tensor" not in str(error):
            raise
        raise Wrong(hint) from error


# 3.1 the map


def judge_map(quantile_grid, lay_out, map_position):
    _judge_grid(quantile_grid)
    _judge_lay_out(lay_out)
    _judge_map_position(map_position)


def _judge_grid(quantile_grid):
    for n in (5, 12, 1):
        got = quantile_grid(n)
        expect_tensor(f"quantile_grid({n})", got, (n * n, 2), "one code per picture")
        if got.dtype != torch.get_default_dtype():
            raise Wrong(f"The grid is of type {got.dtype}: the decoder takes {torch.get_default_dtype()}.")
        right = torch.special.ndtri((torch.arange(n) + 0.5) / n)
        if same(got, _grid(right, right.flip(0), n)):
            continue
        _name_quantiles(got, right, n)
        _name_order(got, right, n)
        raise Wrong("The numbers are the right quantiles, but not every pair of them occurs once, row by row.")


def _grid(along, down, n):
    return torch.stack([along.repeat(n), down.repeat_interleave(n)], dim=1)


def _name_quantiles(got, right, n):
    """Raise Wrong unless both columns are made of the right n numbers."""
    if got.isnan().any():
        bare = got.isnan().float().mean() > 0.5  # without brackets or division all shares but the first are above 1
        cause = "are there brackets around i + 1/2?" if bare else "i runs from 0 to n - 1, and is divided by n."
        raise Wrong(f"The grid has nan in it: ndtri takes shares between 0 and 1; {cause}")
    if got.isinf().any():
        raise Wrong("The grid has infinite ends, as ndtri(0) and ndtri(1) are: take the middles of n equal parts.")
    i = torch.arange(n)
    known = [
        ((i + 0.5) / n, "The grid holds the shares themselves: their quantiles are meant, ndtri"),
        (torch.special.ndtr((i + 0.5) / n), "ndtr is Phi, which gives the share below a point: its inverse is ndtri"),
        (torch.special.ndtri((i + 1) / (n + 1)), "The shares are (i + 1) / (n + 1), not the middles of n equal parts"),
        (torch.special.ndtri((i + 0.5) / (n + 1)), "The shares are divided by n + 1, but there are n parts"),
        (torch.special.ndtri((i + 0.5) / 20), "20 is typed in where n belongs"),
        (torch.special.ndtri(torch.linspace(0.025, 0.975, n)), "The ends of n = 20 are typed in: they depend on n"),
        (right / 2**0.5, "With erfinv the root of 2 is missing: the quantile is sqrt(2) erfinv(2 share - 1)"),
        (right.abs(), "The quantiles have lost their sign"),
    ]
    for column, name in ((0, "z_1"), (1, "z_2")):
        have = got[:, column].unique()
        seen = f" ({name} goes from {have[0]:.2f} to {have[-1]:.2f}, not from {right[0]:.2f} to {right[-1]:.2f})."
        for value, hint in known:
            if same(have, value.unique()) and not same(have, right):
                raise Wrong(hint + seen)
        if len(have) != n and not same(right[torch.cdist(have[:, None], right[:, None]).argmin(1)], have):
            raise Wrong(f"{name} takes {len(have)} values for n = {n}, where {n} are expected: where is n?")
        if len(have) == n and not same(have, right):
            steps = have.diff()
            if n > 2 and same(steps, steps[:1].expand_as(steps), 1e-3):
                raise Wrong(f"{name} takes even steps, where the prior's quantiles lie closer together near 0{seen}")
            raise Wrong(f"{name} is not made of the quantiles at the middles of n equal parts{seen}")


def _name_order(got, right, n):
    """Name how the right numbers are laid out in a wrong way."""
    up, still = right.repeat(n), right.repeat_interleave(n)
    down, falling = right.flip(0).repeat(n), right.flip(0).repeat_interleave(n)
    ways = [
        ((up, still), "The map is upside down: z_2 must be largest in the first row."),
        ((falling, up), "z_1 and z_2 have changed places: z_1 is the first column of the result."),
        ((still, up), "z_1 is the same along a row, where it should grow: repeat and repeat_interleave are swapped."),
        ((still, down), "z_1 is the same along a row, where it should grow: repeat and repeat_interleave are swapped."),
        (
            (falling, down),
            "z_1 is the same along a row, where it should grow: repeat and repeat_interleave are swapped.",
        ),
        ((down, falling), "z_1 falls along a row, where it should grow: only z_2 is turned round."),
        (
            (down, still),
            "z_1 falls along a row and z_2 grows from row to row: q must ascend, and only z_2 is turned round.",
        ),
        ((up, down), "z_2 changes along a row, where it should be constant: repeat_interleave repeats each entry."),
        ((up, up), "z_1 and z_2 are always equal: that is one diagonal, not a square."),
        ((still, still), "z_1 and z_2 are always equal: that is one diagonal, not a square."),
        ((still, falling), "Both numbers are constant along a row: z_1 should grow, and repeat repeats the whole."),
    ]
    name_mistake(got, _grid(right, right.flip(0), n), [(torch.stack(way, dim=1), hint) for way, hint in ways])


def _judge_lay_out(lay_out):
    for n, height, width in ((3, 6, 5), (4, 4, 8)):
        images = uniform(-1, 1, n * n, 1, height, width)
        intact = unchanged(images=images)
        got = lay_out(images, n)
        intact()
        right = images.view(n, n, height, width).transpose(1, 2).reshape(n * height, n * width)
        stretched = (right - right.min()) / (right.max() - right.min())
        name_mistake(got, right, [(wrong, hint) for wrong, hint in _wrong_pictures(images, n, right, stretched)])
        expect_tensor("lay_out(images, n)", got, right.shape, "n images high and n wide", images.dtype)
        if not same(got, right):
            raise Wrong("The picture has the right size, but its pixels are not those of the images, row by row.")


def _wrong_pictures(images, n, right, stretched):
    height, width = images.shape[2:]
    scrambled = "The map is scrambled: make_grid puts 8 images in a row, unless nrow says otherwise."
    for padding in (0, 2):
        yield make_grid(images, padding=padding), scrambled
        yield make_grid(images, padding=padding)[0], scrambled
        yield make_grid(images, padding=padding)[:1], scrambled
    border = "There is a border of 2 pixels around every image: set the padding."
    yield make_grid(images, nrow=n), border
    yield make_grid(images, nrow=n)[0], border
    three = f"The picture has shape {(3, *right.shape)}: make_grid gives three equal channels, take one of them."
    yield make_grid(images, nrow=n, padding=0), three
    yield make_grid(images, nrow=n, padding=0).permute(1, 2, 0), three
    yield 3 * right, "The three channels are added up: they are equal, so take one of them."
    yield right.clamp(0, 1), "What is darker than grey is cut off: the pixels go from -1 to 1, leave them as they are."
    yield right[None], f"The picture has shape {(1, *right.shape)}, with a channel to drop: {tuple(right.shape)}."
    yield make_grid(images, nrow=n * n, padding=0)[0], "All images stand in one row: nrow is the number in a row, n."
    turned = images.view(n, n, height, width).permute(1, 2, 0, 3).reshape(right.shape)
    yield turned, "The images run down the columns: the first n belong in the first row."
    yield images.reshape(right.shape), "view or reshape cuts the images into strips: their rows must stay side by side."
    yield stretched, "The range is stretched: -1 is black in every picture, so leave the pixels as they are."
    yield (right + 1) / 2, "The pixels are moved to 0 to 1: leave them as they are."


class _WatchedEncoder(nn.Module):
    """An encoder with rough statistics, whose mean in train mode differs from that in eval mode."""

    def __init__(self):
        super().__init__()
        self.net = model.Encoder(1, 2, 3)
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5), nn.init.uniform_(layer.running_var, 0.2, 0.6)
                nn.init.uniform_(layer.weight, 1, 2)

    def forward(self, x):
        return self.net(x)


def _judge_map_position(map_position):
    for training in (True, False):
        encoder, images = _WatchedEncoder().train(training), torch.rand(6, 1, 32, 32) * 2 - 1
        before = copy.deepcopy(encoder.state_dict())
        intact = unchanged(images=images)
        first, second = map_position(encoder, images), map_position(encoder, images)
        intact()
        mixed = copy.deepcopy(encoder)
        mixed.load_state_dict(before)
        with torch.no_grad():
            train_mu = mixed.train()(images)[0]
            mixed.load_state_dict(before)
            mu, logvar = mixed.eval()(images)
        _name_map_position(first, second, mu, logvar, train_mu)
        if encoder.training is not training or encoder.net.bn1.training is not training:
            raise Wrong("map_position leaves the encoder in another mode than before: encode_all puts the mode back.")
        if not all(torch.equal(before[key], value) for key, value in encoder.state_dict().items()):
            raise Wrong("map_position changes the encoder's statistics: encode in eval mode, as encode_all does.")


def _name_map_position(first, second, mu, logvar, train_mu):
    phi = torch.special.ndtr
    if isinstance(first, Tensor) and first.shape == mu.shape and not same(first, second):
        raise Wrong(
            "Two calls put the images in different places: a z is drawn, or BatchNorm is in train mode; place mu."
        )
    name_mistake(
        first,
        phi(mu),
        [
            (mu, "map_position returns mu itself, which may be any number: Phi takes it into the square."),
            (phi(train_mu), "The images are encoded in train mode, where BatchNorm mixes them: eval mode first."),
            (train_mu, "map_position returns mu itself, in train mode: Phi of mu in eval mode is meant."),
            (torch.special.ndtri(mu), "ndtri is the inverse of Phi, and nan outside 0 to 1: Phi is ndtr."),
            (phi(logvar), "map_position uses logvar: the encoder returns mu first."),
            (torch.sigmoid(mu), "sigmoid rises from 0 to 1 as well, but it is not Phi: ndtr."),
            (torch.erf(mu), "erf runs from -1 to 1, and is not Phi: ndtr."),
            (torch.erf(mu / 2**0.5), "erf runs from -1 to 1, and Phi from 0 to 1: add 1 and halve, or use ndtr."),
            ((1 + torch.erf(mu)) / 2, "Phi(a) is (1 + erf(a / sqrt(2))) / 2: the root of 2 is missing, or use ndtr."),
            (1 - phi(mu), "The map is turned round: the share below mu is meant, not the one above."),
            (torch.exp(-mu.pow(2) / 2) / (2 * torch.pi) ** 0.5, "That is the density at mu, not the share below it."),
            (phi(phi(mu)), "Phi is applied twice."),
        ],
    )
    expect_tensor("map_position(encoder, images)", first, mu.shape, "a place per image", mu.dtype)
    if first.requires_grad:
        raise Wrong("The places carry a gradient, and cannot be drawn: encode without gradients, as encode_all does.")
    if not same(first, phi(mu)):
        raise Wrong(f"The first image is placed at {first[0, 0]:.3f} in z_1, where Phi(mu) is {phi(mu)[0, 0]:.3f}.")


# 3.2 one dimension at a time


def judge_traverse(by_activity, traverse):
    for count, dims in ((40, 7), (9, 5)):
        mu = torch.rand(dims, dtype=torch.float64).argsort() * (uniform(-1, 1, count, dims)) + 3 * uniform(-1, 1, dims)
        intact = unchanged(mu=mu)
        got = by_activity(mu)
        intact()
        _name_activity(got, mu)
    _judge_traverse(traverse)
    meta = torch.empty(7, device="meta"), torch.empty(5, device="meta")
    on_meta(lambda: by_activity(torch.empty(4, 3, device="meta")), f"by_activity {GPU}")
    on_meta(lambda: traverse(meta[0], 2, meta[1]), f"traverse {GPU}")


def _name_activity(got, mu):
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"by_activity returns {type(got).__name__}, where the two of order, activity are expected.")
    order, activity = got
    right, count = mu.var(0), len(mu)
    wanted = right.argsort(descending=True)
    if isinstance(order, Tensor) and isinstance(activity, Tensor) and same(order, right) and same(activity, wanted):
        raise Wrong("order and activity have changed places in the return.")
    name_mistake(
        activity,
        right,
        [
            (mu.std(0), "The activity is a standard deviation: it should be its square, the variance."),
            (mu.std(0, correction=0), "The activity is a standard deviation: it should be its square, the variance."),
            (mu.pow(2).mean(0), "The activity is the mean of mu^2, which is large for a mean that never moves."),
            (mu.abs().mean(0), "The activity is the mean of |mu|, which is large for a mean that never moves."),
            (
                (mu - mu.mean()).pow(2).mean(0),
                "One mean of all numbers is subtracted before squaring: each dimension has its own, dim=0.",
            ),
            (mu.mean(0), "The activity is the mean of mu, but it should say how far mu moves: the variance."),
            (mu.var(1), "The variance is taken along each image: it should be over the images, dim=0."),
            (mu.var(), "The variance is taken over everything: one per dimension, dim=0."),
            (mu.amax(0) - mu.amin(0), "The activity is the distance from the smallest to the largest mu."),
            (right * (count - 1), "The squares are added up, but not divided by how many there are."),
            ((mu - mu.mean(0)).abs().mean(0), "The deviations from the mean are averaged: their squares are meant."),
            (right / right.sum(), "The activities are divided by their sum: leave them as they are."),
            (right.sort(descending=True).values, "activity is sorted: it stays in the order of the dimensions."),
        ],
    )
    expect_tensor("activity", activity, right.shape, "the variance of each dimension", mu.dtype)
    if not (same(activity, right) or same(activity, mu.var(0, correction=0))):
        raise Wrong(f"The activity of dimension 0 is {activity[0]:.3f}, where the variance of mu is {right[0]:.3f}.")
    if isinstance(order, tuple):
        raise Wrong("order is a pair: sort and topk give the values and their places, take the places, .indices.")
    sort = "order holds the sorted activities: it should hold the numbers of the dimensions, argsort."
    name_mistake(
        order,
        wanted,
        [
            (wanted.flip(0), "order begins with the least active dimension: the most active comes first."),
            (right.sort(descending=True).values, sort),
            (right.sort().values, sort),
            (wanted.argsort(), "order gives each dimension its place: it should name the dimension at each place."),
            (wanted + 1, "The dimensions are counted from 1: the first is 0."),
            (mu.pow(2).mean(0).argsort(descending=True), "order sorts by something other than the activity."),
        ],
    )
    expect_tensor("order", order, wanted.shape, "the dimensions, sorted")
    if order.is_floating_point() or not same(order, wanted):
        raise Wrong(f"order is {order.tolist()}, where {wanted.tolist()} is expected: the most active dimension first.")


def _judge_traverse(traverse):
    for dim, count in ((2, 5), (0, 7), (6, 1)):
        code, values = uniform(-1, 1, 7), uniform(1, 3, count)
        intact = unchanged(code=code, values=values)
        got = traverse(code, dim, values)
        intact()
        base = code.repeat(count, 1)

        def put(where, what, base=base):
            changed = base.clone()
            changed[:, where] = what
            return changed

        right = put(dim, values)
        mixed = put(dim, values, code.repeat_interleave(count).view(count, -1))
        name_mistake(
            got,
            right,
            [
                (base, f"Nothing changes: dimension {dim} should take the values."),
                (put(dim, code[dim] + values), "The values are added to what was there: they should replace it."),
                (
                    put(dim, code[dim] * values),
                    "The values are multiplied with what was there: they should replace it.",
                ),
                (put(dim, code[dim] + values.cumsum(0)), "The changes add up from row to row: each starts from code."),
                (put(dim, values.cumsum(0)), "The values add up from row to row: row k has values[k]."),
                (put(dim, values[-1]), "Every row has the last value: the rows share memory, or a step writes to all."),
                (put(dim, values[0]), "Every row has the first value: row k has values[k]."),
                (put(dim, values.flip(0)), "The values run backwards."),
                (put((dim + 1) % 7, values), f"dimension {(dim + 1) % 7} changes instead of {dim}: they count from 0."),
                (put((dim - 1) % 7, values), f"dimension {(dim - 1) % 7} changes instead of {dim}: they count from 0."),
                (values[:, None].expand(-1, 7), "All dimensions take the value: only one should, codes[:, dim]."),
                (right - base, "Only the change is returned: the rest of the code belongs to it."),
                (right * (base != right), "The other dimensions are 0: they should be those of code."),
                (mixed, "The copies of code are mixed up: repeat repeats the whole, repeat_interleave each number."),
                (right.T, "The result is transposed: one row per value."),
            ],
        )
        expect_tensor("traverse(code, dim, values)", got, right.shape, "one code per value", code.dtype)
        if not same(got, right):
            row = int((got - right).abs().amax(1).nan_to_num(torch.inf).argmax())
            at = int((got - right)[row].abs().nan_to_num(torch.inf).argmax())
            raise Wrong(
                f"Row {row} has {got[row, at]:.2f} in dimension {at}, where {right[row, at]:.2f} is expected: "
                f"dimension {dim} takes values[{row}], the others are those of code."
            )
        if got.data_ptr() == code.data_ptr():
            raise Wrong("The result shares its memory with code: whoever changes one changes the other, so copy.")


# 3.3 slerp


def judge_slerp(slerp):
    _judge_arc(slerp)
    _judge_line(slerp)
    meta = torch.empty(3, device="meta")

    for answer in (False, True):
        with _Undecided(answer):
            on_meta(lambda: slerp(meta, meta, 4), f"slerp {GPU}")
    start, end = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, -1.0, 2.0])
    expect_tensor("slerp(start, end, 4) of float32", slerp(start, end, 4), (4, 3), "one code per step", torch.float32)


class _Undecided(TorchFunctionMode):
    """Answer where the code asks a tensor on the meta device, which has no values, for its truth or its value."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__bool__:
            return self.answer
        return 0.5 if function in (Tensor.item, Tensor.__float__) else function(*args, **(kwargs or {}))


def _arc(start, end, omega, t):
    return (torch.sin((1 - t) * omega) * start + torch.sin(t * omega) * end) / torch.sin(omega)


def _ends_of_arcs():
    """Pairs of codes: small enough that even their bare dot product lies in (-1, 1), large, and at chosen angles."""
    a, b = uniform(-3, 3, 7), uniform(-3, 3, 7)
    yield 0.05 * a + 0.1, 0.1 * b + 0.1
    yield a + 1, 0.6 * b + 1
    across = b - a * (a @ b) / (a @ a)
    across = across * a.norm() / across.norm()
    for angle in (0.1, 2.2, torch.pi - 0.1):
        angle = torch.tensor(angle, dtype=torch.float64)
        yield a, 1.5 * (torch.cos(angle) * a + torch.sin(angle) * across)


def _judge_arc(slerp):
    for (start, end), steps in zip(_ends_of_arcs(), (5, 9, 4, 2, 7), strict=True):
        t = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
        cosine = F.cosine_similarity(start, end, dim=0)
        right = _arc(start, end, torch.acos(cosine), t)
        intact = unchanged(start=start, end=end)
        many = "omega is not one number: start @ end adds up the products, start * end does not."
        got = _one_truth(many, slerp, start, end, steps)
        intact()
        if isinstance(got, Tensor) and got.shape == right.shape and got.isnan().any():
            raise Wrong("slerp gives nan: acos takes a cosine, a number from -1 to 1, of the two *directions*.")
        if not same(got, right, 1e-6):
            _name_arc(got, right, start, end, t, cosine)


def _name_arc(got, right, start, end, t, cosine):
    line, omega = torch.lerp(start, end, t), torch.acos(cosine)
    norms = start.norm() * end.norm()
    middle = len(t) // 2
    seen = f" (the angle is {omega:.2f})."
    if isinstance(got, Tensor) and got.shape == right.shape and not same(got[middle].norm(), right[middle].norm()):
        at, wanted = got[middle].norm(), right[middle].norm()
        seen = f" (the angle is {omega:.2f}; at t = {t[middle, 0]:.2f} the norm is {at:.3g}, not {wanted:.3g})."
    once = "The cosine is divided by one of the two norms only: by both"
    angles = [
        (
            torch.acos((start @ end).clamp(-1, 1)),
            "acos takes the dot product of two *directions*: divide by both norms",
        ),
        (torch.acos((start @ end / start.norm()).clamp(-1, 1)), once),
        (torch.acos((start @ end / end.norm()).clamp(-1, 1)), once),
        (torch.acos((start @ end / start.norm() ** 2).clamp(-1, 1)), once),
        (torch.acos((start @ end / norms**2).clamp(-1, 1)), "The norms are divided out twice"),
        (
            torch.acos((start @ end / start.norm() * end.norm()).clamp(-1, 1)),
            "a / b * c multiplies with c: put brackets around the product of the norms",
        ),
        (torch.acos(start @ end / (start.norm() + end.norm())), "The sum of the norms is divided out: their product"),
        (torch.acos(cosine / len(start)), "The products are averaged: the dot product adds them up"),
        (torch.acos(cosine.abs()), "The cosine has lost its sign"),
        (torch.acos(cosine.clamp(0, 1)), "The cosine is cut off at 0, but an angle may be obtuse"),
        (cosine, "The cosine stands where the angle belongs: acos makes an angle of it"),
        (torch.asin(cosine), "asin stands where acos belongs"),
        (torch.cos(cosine), "cos is taken of the cosine: its inverse gives the angle"),
        (torch.rad2deg(omega), "The angle is in degrees: torch.sin takes radians"),
        (omega.clamp(-1, 1), "The angle is cut off: it is the cosine that must lie between -1 and 1"),
        (omega / 2, "The angle is halved"),
        (2 * omega, "The angle is doubled"),
        (torch.pi - omega, "The angle is that between start and -end: a sign too many"),
    ]
    a, b = start / start.norm(), end / end.norm()
    first, second = torch.sin((1 - t) * omega) * start, torch.sin(t * omega) * end
    straight = "The path is the straight line: its shares are no sines, or a wrong angle makes slerp fall back to it"
    known = [
        (line, straight),
        (right.flip(0), "The path runs backwards: t = 0 is start"),
        *((_arc(start, end, angle, t), hint) for angle, hint in angles),
        (first + second, "The division by sin(omega) is missing"),
        (
            (torch.sin(1 - t * omega) * start + second) / torch.sin(omega),
            "The sine is taken of 1 - t * omega: put brackets around 1 - t",
        ),
        (
            (torch.sin(1 - t) * omega * start + torch.sin(t) * omega * end) / torch.sin(omega),
            "omega stands outside the sines: it belongs inside",
        ),
        ((first + second) * torch.sin(omega), "It is multiplied with sin(omega): divided"),
        (right / torch.sin(omega), "It is divided by sin(omega) twice"),
        ((first + second) / omega, "It is divided by omega, where sin(omega) belongs"),
        (_arc(a, b, omega, t), "The path joins the two directions, of norm 1: start and end themselves belong there"),
        (right / right.norm(dim=1, keepdim=True), "Every code of the path is divided by its norm"),
        ((first - second) / torch.sin(omega), "The two parts are added, not subtracted"),
        (first + second / torch.sin(omega), "Only one part is divided by sin(omega): put brackets around the sum"),
        ((torch.cos((1 - t) * omega) * start + torch.cos(t * omega) * end) / torch.cos(omega), "cos stands for sin"),
        (torch.cos(0.5 * torch.pi * t) * start + torch.sin(0.5 * torch.pi * t) * end, "The path takes the angle for a"
         " right one, whatever it is"),
        (t.sqrt() * end + (1 - t).sqrt() * start, "The shares are roots of t: that is no arc of equal angles"),
        (line / line.norm(dim=1, keepdim=True) * right.norm(dim=1, keepdim=True), "The straight line is pushed outwards"
         ", so that the angles are not equal: use the formula"),
    ]  # fmt: skip
    scale = 100 / right.abs().max()  # so that angles that differ a little are told apart
    if isinstance(got, Tensor):
        name_mistake(got * scale, right * scale, [(value * scale, hint) for value, hint in known], seen)
    expect_tensor("slerp(start, end, num_steps)", got, right.shape, "one code per step", start.dtype)
    if not same(got[0], start) or not same(got[-1], end):
        i, name, wanted = (0, "start", start) if not same(got[0], start) else (-1, "end", end)
        raise Wrong(
            f"The {'last' if i else 'first'} code begins with {got[i, 0]:.3f}, where {name} has {wanted[0]:.3f}."
        )
    raise Wrong(f"Both ends are right, but the path between is not the arc{seen}")


def _judge_line(slerp):
    """Hold slerp, where no arc is singled out, against a walk along the line: there, finite, and never back."""
    for number in range(40):
        a = torch.randn(7)
        kind = ("codes in the same direction", "opposite codes", "a code of 0", "a code of 0", "equal codes")[
            number % 5
        ]
        start, end = {0: (a, 2.5 * a), 1: (a, -a), 2: (0 * a, a), 3: (a, 0 * a), 4: (a, a)}[number % 5]
        _walk(slerp(start, end, 9), start, end, kind)
    a = torch.tensor([0.0, 3.0, 0.0])  # of which the cosine is -1 or 1 without any rounding
    _walk(slerp(a, -a, 9), a, -a, "opposite codes")
    _walk(slerp(a, 2 * a, 9), a, 2 * a, "codes in the same direction")


def _walk(got, start, end, kind):
    expect_tensor("slerp(start, end, 9)", got, (9, len(start)), "one code per step", start.dtype)
    if not got.isfinite().all():
        raise Wrong(f"For {kind} slerp gives nan or inf, where it should fall back to the straight line.")
    if not same(got[0], start, 1e-3) or not same(got[-1], end, 1e-3):
        raise Wrong(f"For {kind} the path does not lead from start to end: it should fall back to the straight line.")
    way = (end - start) / (end - start).norm().clamp(min=1e-6)
    along = (got - start) @ way
    off = (got - start - along[:, None] * way).abs().max()
    if (
        off > 1e-2
        or along.diff().min() < -1e-2
        or (kind.endswith("direction") and not same(got, interpolate(start, end, 9), 1e-2))
    ):
        raise Wrong(
            f"For {kind} the path leaves the straight line, or goes back on it: there it should be interpolate."
        )


# 3.4 a direction with a meaning


def judge_attribute(thickness, attribute_direction):
    _judge_thickness(thickness)
    _judge_direction(attribute_direction)


def _judge_thickness(thickness):
    for shape in ((3, 1, 9, 12), (2, 1, 32, 32)):
        images = uniform(-1, 1, *shape)
        intact = unchanged(images=images)
        got = thickness(images)
        intact()
        _name_thickness(got, images)
    meta = torch.empty(2, 1, 8, 8, device="meta")
    on_meta(lambda: thickness(meta), f"thickness {GPU}")


def _area_and_outline(ink):
    across, down = ink[:, 1:, 1:] - ink[:, 1:, :-1], ink[:, 1:, 1:] - ink[:, :-1, 1:]
    slopes = (across.pow(2) + down.pow(2)).sqrt(), across.abs() + down.abs(), across.pow(2) + down.pow(2), across + down
    return ink.sum(dim=(1, 2)), *(slope.sum(dim=(1, 2)) for slope in slopes)


def _other_ink(ink):
    area, outline, *_ = _area_and_outline(ink)
    return 2 * area / outline


def _wrong_inks(pixels):
    """What is taken for ink, in the area and in the outline, and its hint."""
    yield pixels + 0.5, "x + 1 / 2 adds a half: put brackets around x + 1"
    yield (pixels - 1) / 2, "1 is subtracted: added, black becomes 0"
    yield (pixels > 0).double(), "Pixels are counted as ink or none: a grey one is a part"
    yield pixels.clamp(0, 1), "Cutting off what is below 0 drops the dark greys: shift and halve"
    yield pixels.abs(), "abs makes ink of black, too: shift and halve"


def _wrong_slopes(ink):
    """What is taken for the slope at every pixel, and its hint."""
    across, down = ink[:, 1:, 1:] - ink[:, 1:, :-1], ink[:, 1:, 1:] - ink[:, :-1, 1:]
    yield across.abs(), "The outline has across alone: down is missing"
    yield down.abs(), "The outline has down alone: across is missing"
    yield (across + down).abs(), "across and down are added before they are squared: square each"
    yield (across + down).sqrt(), "The root of a negative change is nan: square across and down first"


def _name_thickness(got, images):
    area, outline, corners, squares, signed = _area_and_outline((images[:, 0] + 1) / 2)
    bare_area, bare_outline, *_ = _area_and_outline(images[:, 0])
    right, pixels = 2 * area / outline, images[0, 0].numel()
    slopes = (images.shape[2] - 1) * (images.shape[3] - 1)
    counted = "Pixels are counted as ink or none: a grey one is a part"
    known = [
        (area / outline, "The factor 2 is missing: a stroke has an edge on either side"),
        (area / (2 * outline), "The 2 belongs above the line: twice the area"),
        (outline / area, "The fraction is upside down: the area is divided by the outline"),
        (outline / (2 * area), "The fraction is upside down: the area is divided by the outline"),
        (2 * outline / area, "The fraction is upside down: the area is divided by the outline"),
        (2 * area * outline, "The area is divided by the outline, not multiplied with it"),
        (2 * area, "The outline is missing: this is twice the area"),
        (area, "This is the area: twice the area is divided by the outline"),
        (2 * bare_area / bare_outline, "The pixels are used as they are, from -1 to 1: ink goes from 0 to 1"),
        (2 * bare_area / outline, "The pixels are used as they are, from -1 to 1: ink goes from 0 to 1"),
        (2 * area / bare_outline, "The area is that of the ink, but the outline that of the pixels from -1 to 1"),
        (2 * (pixels - area) / outline, "White is ink here, and black is paper: the ink is turned round"),
        (2 * area / corners, "|across| + |down| makes a slanting edge too long: its length is the root of the squares"),
        (2 * area / squares, "The square root is missing from the length of the slope"),
        (2 * area / signed, "The changes keep their sign and cancel: the length of the slope is a root of squares"),
        (2 * area / squares.sqrt(), "The root is taken of the sum over the image: take it at every pixel, then sum"),
        (2 * area / pixels / outline, "The area is averaged and the outline summed: sum both"),
        (2 * area / (outline / slopes), "The outline is averaged and the area summed: sum both"),
        (2 * (area / pixels) / (outline / slopes), "Area and outline are averaged, over different numbers: sum both"),
        ((2 * area.sum() / outline.sum()).expand_as(area), "All images get one number: keep them apart, dim=(1, 2)"),
        (2 * area.sum() / outline, "The area is summed over all images: keep them apart, dim=(1, 2)"),
        (2 * area / outline.sum(), "The outline is summed over all images: keep them apart, dim=(1, 2)"),
        (2 * area / (outline + 1), "1 is added to the outline"),
        (right.round(), "The thickness is rounded"),
        (2 * (images[:, 0] > 0).sum(dim=(1, 2)) / outline, counted),
        (2 * pixels / outline, counted),
    ]
    known += [(_other_ink(ink), hint) for ink, hint in _wrong_inks(images[:, 0])]
    known += [(2 * area / slope.sum(dim=(1, 2)), hint) for slope, hint in _wrong_slopes((images[:, 0] + 1) / 2)]
    seen = (
        f" (it gives {got[0]:.3f}, not {right[0]:.3f})."
        if isinstance(got, Tensor) and got.shape == right.shape
        else "."
    )
    name_mistake(got, right, known, seen)
    expect_tensor("thickness(images)", got, right.shape, "one thickness per image", images.dtype)
    if not same(got, right):
        raise Wrong(f"thickness is not twice the sum of the ink over the sum of the slopes{seen}")


def _judge_direction(attribute_direction):
    for classes, sizes in (((1, 3, 4, 8), (4, 10, 6, 8)), ((0, 5), (6, 4))):
        labels = torch.tensor(classes).repeat_interleave(torch.tensor(sizes))
        labels = labels[torch.randperm(len(labels))]
        # codes and values hang on the class, and within a class on each other
        values = uniform(0, 1, len(labels)) + 2 * labels
        codes = (
            uniform(-1, 1, len(labels), 7) + values[:, None] * uniform(-1, 1, 7) + labels[:, None] * uniform(-1, 1, 7)
        )
        intact = unchanged(codes=codes, values=values, labels=labels)
        many = "`not`, `and`, `or` and `if` take one truth, and a tensor of many has none: ~high turns high round."
        got = _one_truth(many, attribute_direction, codes, values, labels)
        intact()
        _name_direction(got, codes, values, labels)


def _differences(codes, values, labels, above):
    """The difference of means within every class, above(own values, all values) saying which are the high ones."""
    parts = []
    for label in labels.unique():
        own, value = codes[labels == label], values[labels == label]
        high = above(value, values)
        parts.append(own[high].mean(0) - own[~high].mean(0))
    return torch.stack(parts)


def _name_direction(got, codes, values, labels):
    parts = _differences(codes, values, labels, lambda own, _: own > own.median())
    right = parts.mean(0)
    if same(got, _differences(codes, values, labels, lambda own, _: own >= own.median()).mean(0)):
        return
    if isinstance(got, Tensor) and got.isnan().any():
        raise Wrong("The direction has nan in it, the mean of no codes: split each class at its *own* median.")
    counts = torch.bincount(labels)[labels.unique()][:, None]
    everyone = codes, values, torch.zeros_like(labels)
    to_mean = torch.stack([codes[labels == c].mean(0) for c in labels.unique()])
    below = _differences(codes, values, labels, lambda own, _: own < own.median())
    sides = [(codes[labels == c], values[labels == c] > values[labels == c].median()) for c in labels.unique()]
    sums = torch.stack([own[high].sum(0) - own[~high].sum(0) for own, high in sides])
    highs = torch.stack([own[high].mean(0) for own, high in sides])
    overall = _differences(*everyone, lambda own, _: own > own.median())[0]
    mean_split = _differences(codes, values, labels, lambda own, _: own > own.mean())
    known = [
        (overall, "The difference is taken over all images, so it also leads from one class to another: within each"),
        (-right, "The direction leads from the high ones to the others: the sign is wrong"),
        (-overall, "The difference is taken over all images, and with the wrong sign"),
        (parts.sum(0), "The differences are added up: take their mean over the classes"),
        ((parts * counts).sum(0) / counts.sum(), "Large classes count more: every class counts the same"),
        (parts[-1], "Only the last class is used: average over all"),
        (parts[0], "Only the first class is used: average over all"),
        (parts.median(0).values, "The median over the classes is taken: the mean is meant"),
        (highs.mean(0), "The mean of the others is not subtracted"),
        (
            (highs - to_mean).mean(0),
            "This is half the difference: subtract the mean of the others, not of the whole class; divide by no more",
        ),
        (
            (highs - codes.mean(0)).mean(0),
            "The mean of all codes is subtracted: that of the others of the class is meant",
        ),
        (parts.sum(0) / 10, "The sum is divided by 10: divide it by the number of classes there are"),
        (parts.sum(0) / len(codes), "The sum is divided by the number of codes: by that of the classes"),
        ((parts * counts).mean(0) / counts.sum(), "Large classes count more: every class counts the same"),
        (parts.abs().mean(0), "The signs are lost: a direction may lead down in a dimension"),
        (mean_split.mean(0), "The classes are split at the mean of the values: at their median"),
        (F.normalize(right, dim=0), "The direction is brought to length 1: leave it as it is"),
        (F.normalize(parts, dim=1).mean(0), "Each difference is brought to length 1: leave it as it is"),
        (below.mean(0), "The low values are taken for the high ones: the sign is wrong"),
        (sums.mean(0), "The codes are added up, but not divided by how many there are: take means"),
        ((2 * highs - parts).mean(0), "The two means are added: the difference is meant"),
    ]
    name_mistake(got, right, known, ".")
    expect_tensor("attribute_direction(codes, values, labels)", got, right.shape, "one direction", codes.dtype)
    if not same(got, right):
        raise Wrong(
            f"The direction begins with {got[0]:.3f}, where the mean over the classes of (mean of the high codes minus "
            f"mean of the others) begins with {right[0]:.3f}."
        )


# 3.5 principal components


def judge_pca(pca):
    for count, dims, k in ((40, 7, 3), (9, 5, 5), (30, 6, 1)):
        mixed = torch.linalg.qr(uniform(-1, 1, dims, dims)).Q
        codes = uniform(-1, 1, count, dims) * torch.arange(1, dims + 1) @ mixed + 3 * uniform(-1, 1, dims)
        intact = unchanged(codes=codes)
        got = pca(codes, k)
        intact()
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"pca returns {type(got).__name__}, where the two of components, variances are expected.")
        _name_components(got, codes, k)
        for dtype in (torch.float32, torch.float64):
            for part in pca(codes.to(dtype), k):
                expect_tensor("What pca returns", part, part.shape, "like codes", dtype)
    meta = torch.empty(5, 3, device="meta")
    on_meta(lambda: pca(meta, 2), f"pca {GPU}")


def _turned(components):
    """Give every row the sign that makes its largest entry positive, as the sign of a component is arbitrary."""
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return components * largest.sign()


def _eigen(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors.T.flip(0), values.flip(0)


def _name_components(got, codes, k):
    components, variances = got
    count, dims = codes.shape
    centred = codes - codes.mean(0)
    rows, values = _eigen(centred.T @ centred / (count - 1))
    right = rows[:k], values[:k]
    if all(isinstance(part, Tensor) for part in got) and components.shape == (k,) and variances.shape == (k, dims):
        raise Wrong("components and variances have changed places in the return.")
    if isinstance(components, Tensor) and components.ndim == 2 and k != dims and components.shape == (dims, k):
        raise Wrong(f"components has shape {(dims, k)}, where {(k, dims)} is expected: one component a row.")
    expect_tensor("components", components, (k, dims), "one component a row", codes.dtype)
    expect_tensor("variances", variances, (k,), "the variance along each component", codes.dtype)
    shifts = {
        "The codes are not centred: their mean must be subtracted first": codes,
        "The mean of each code is subtracted: it should be the mean over the codes, dim=0": codes
        - codes.mean(1, keepdim=True),
        "One mean of all numbers is subtracted: each dimension has its own, dim=0": codes - codes.mean(),
        "The codes are divided by their standard deviations: subtract the mean, and no more": centred / centred.std(0),
        "The mean is added: it must be subtracted": codes + codes.mean(0),
    }
    wrong = [(*_eigen(one.T @ one / (count - 1)), hint) for hint, one in shifts.items()]
    wrong += [(*_eigen(centred.T @ centred / count - 1), "1 is subtracted from the covariance: brackets around N - 1")]
    known = [(_turned(one[:k]), hint + ".") for one, _, hint in wrong]
    known += [
        (_turned(rows.flip(0)[:k]), "The components begin with the smallest variance: eigh sorts in ascending order."),
        (_turned(rows.flip(0)[-k:]), "The right components, but the smallest comes first: turn them round."),
        (_turned(rows[-k:]), "Those are the components of the k smallest variances: turn them round, then take k."),
        (_turned(rows.flip(0, 1)[:k]), "The numbers of each component are turned round, not their order: flip(0)."),
        (_turned(rows.flip(1)[:k]), "The numbers of each component are turned round as well: flip(0) alone."),
        (_turned(rows.T[:k]), "Those are rows of vectors: the eigenvectors are its columns."),
        (_turned(rows.T.flip(1)[:k]), "Those are rows of vectors: the eigenvectors are its columns."),
        (_turned(rows.T.flip(0)[:k]), "Those are rows of vectors: the eigenvectors are its columns."),
        (_turned(rows.T.flip(0, 1)[:k]), "Those are rows of vectors: the eigenvectors are its columns."),
    ]
    name_mistake(_turned(components), _turned(right[0]), known)
    if not same(_turned(components), _turned(right[0])):
        if not same(components @ components.T, torch.eye(k, dtype=codes.dtype), 1e-3):
            raise Wrong("The components are not of length 1 and at right angles: eigh gives such vectors as columns.")
        raise Wrong("The components are at right angles, but not the directions of the largest variance, in order.")
    _name_variances(variances, right[1], values, count, dims, k)


def _name_variances(variances, right, values, count, dims, k):
    at = int((variances - right).abs().nan_to_num(torch.inf).argmax())
    seen = f" (variances[{at}] is {variances[at]:.3f}, not {right[at]:.3f})."
    known = [
        (values.flip(0)[:k], "The variances begin with the smallest: they belong to the components, in the same order"),
        (values[-k:], "Those are the k smallest variances: turn them round, then take k"),
        (right.cumsum(0), "The variances are added up from component to component: each by itself"),
        (right.flip(0), "The variances are in ascending order: they belong to the components, in the same order"),
        (right * (count - 1) / count, "The variances are divided by N: divide the covariance by N - 1"),
        (right * (count - 1), "The covariance is not divided by N - 1"),
        (right / (count - 1), "It is divided by N - 1 twice: the eigenvalues of the covariance are the variances"),
        (right * (count - 1) / dims, "The covariance is divided by D: by the number of codes, N - 1"),
        (right * (count - 1) / (dims - 1), "The covariance is divided by D - 1: by the number of codes, N - 1"),
        (right.sqrt(), "Those are standard deviations: the eigenvalues are the variances"),
        ((right * (count - 1)).sqrt(), "Those are singular values: their squares, divided by N - 1, are the variances"),
        (right / values.sum(), "Those are shares of the whole variance: the variances themselves are meant"),
        (right / right.sum(), "Those are shares of the whole variance: the variances themselves are meant"),
    ]
    name_mistake(variances, right, known, seen)
    if not same(variances, right):
        raise Wrong(f"The variances are not the eigenvalues of the covariance matrix, the k largest{seen}")


REMINDERS = {
    "3.1": "the shares are (i + 1/2) / n, and ndtri makes quantiles of them; z_1 runs along every row, z_2 falls from "
    "row to row; the picture has n images in a row and no border; an image lies at ndtr of its posterior mean.",
    "3.2": "the activity is the variance of mu over the images; sort the dimensions by it; then copy the code, once a "
    "value, and write the values into one column.",
    "3.3": "divide the dot product by both norms, take acos, and put the angle into the formula, with start and end "
    "as they are.",
    "3.4": "twice the summed ink over the summed length of the slope, image by image; and in each class the mean code "
    "of those above the median minus that of the others, averaged over the classes.",
    "3.5": "subtract the mean code, multiply the transposed codes with the codes, divide by N - 1; of what eigh gives "
    "take the last k columns, the last one first.",
}

ATTRIBUTE = (metrics.thickness, latent.attribute_direction)
MAP = (latent.quantile_grid, latent.lay_out, latent.map_position)

check = Check(
    {
        "3.1": Exercise("the map", 15, judge=judge_map, finished=MAP),
        "3.2": Exercise(
            "one dimension at a time", 10, judge=judge_traverse, finished=(latent.by_activity, latent.traverse)
        ),
        "3.3": Exercise("slerp", 10, judge=judge_slerp, finished=(latent.slerp,)),
        "3.4": Exercise("a direction with a meaning", 15, judge=judge_attribute, finished=ATTRIBUTE),
        "3.5": Exercise("principal components", 5, judge=judge_pca, finished=(latent.pca,)),
    },
    REMINDERS,
)
