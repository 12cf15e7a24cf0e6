"""The checks of notebook 03: the map, traversals, slerp, the direction of an attribute, principal components."""

import contextlib
import copy

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vae_tutorial import latent, metrics, model
from vae_tutorial.checks import Check, Exercise
from vae_tutorial.checks.comparing import brief, same
from vae_tutorial.checks.engine import Lesson, clue, edited, holds, must, should
from vae_tutorial.checks.looking import (
    call,
    fit,
    formula,
    named,
    portable,
    returned,
    rough,
    uniform,
    untouched,
    value_of,
)

# 3.1 the map


def observe_grid(quantile_grid):
    for n in (5, 12, 2, 1):
        yield from call(f"quantile_grid({n})", quantile_grid, read_grid, "one code per picture, (n * n, 2)", n=n)


def read_grid(got, want, n):
    """Read off each column which numbers it is made of, and to which shares of N(0, 1) they belong."""
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return None
    if got.dtype != want.dtype:
        return f"The grid is of type {got.dtype}, but the decoder takes {want.dtype}."
    if got.isnan().any():
        return (
            "The grid is nan in places, as quantiles outside 0 to 1 are: i goes from 0 to n - 1, and is divided by n."
        )
    if got.isinf().any():
        return "The grid is infinite in places, as the quantiles of 0 and 1 are: no share may be 0 or 1."
    right, rounded = want[:n, 0], (got * 1e4).round() / 1e4
    for name, values in zip(("z_1", "z_2"), (rounded[:, at].unique() for at in (0, 1)), strict=True):
        seen = f"{name} takes {len(values)} values for n = {n}, from {values[0]:.2f} to {values[-1]:.2f}"
        shares, middles = torch.special.ndtr(values), torch.special.ndtr(right)
        if not same(values, right) and even(shares):
            expected = f"the middles of {n} equal parts go from {middles[0]:.3g} to {middles[-1]:.3g}"
            return f"The shares go from {shares[0]:.3g} to {shares[-1]:.3g} for n = {n}, but {expected}."
        if not same(values, right):
            why = " Its steps are even, but the quantiles lie closer together near 0." if even(values) else ""
            return f"{seen}, where {n} quantiles from {right[0]:.2f} to {right[-1]:.2f} are expected.{why}"
    return "z_1 and z_2 take the right values in a wrong order: along a row z_1 grows, and from row to row z_2 falls."


def even(values):
    return len(values) > 2 and same(values.diff(), values.diff().mean().expand(len(values) - 1), 1e-3)


SHARES, Q = "(torch.arange(n) + 0.5) / n", "torch.special.ndtri(shares)"
Z_1, Z_2 = "q.repeat(n)", "q.flip(0).repeat_interleave(n)"
GRID_ROWS = (
    (SHARES, "torch.arange(n) + 0.5 / n", "The shares go past 1: put brackets around i + 1/2."),
    (Q, "shares", "The grid holds the shares themselves: it should hold their quantiles."),
    (Q, "torch.special.ndtr(shares)", "ndtr is Phi, which gives the share below a point. Its inverse is needed: ndtri."),
    (Q, "torch.erfinv(2 * shares - 1)", "With erfinv the root of 2 is missing: the quantile is sqrt(2) erfinv(2 share - 1)."),
    (Z_2, "q.repeat_interleave(n)", "The map is upside down: z_2 must be largest in the first row."),
    (Z_1, "q.flip(0).repeat(n)", "z_1 falls along a row, where it should grow: turn round z_2 alone."),
    (Z_2, "q.flip(0).repeat(n)", "z_2 changes along a row, where it should stay the same: repeat_interleave repeats each entry."),
    (f"{Z_1}\n    z_2 = {Z_2}", "q.repeat_interleave(n)\n    z_2 = q.flip(0).repeat(n)", "z_1 stays the same along a row, where it should grow: repeat and repeat_interleave are swapped."),
    ("torch.stack([z_1, z_2], dim=1)", "torch.stack([z_2, z_1], dim=1)", "z_1 and z_2 have changed places: z_1 is the first column of the result."),
)  # fmt: skip


def observe_lay_out(lay_out):
    sizes = (3, 6, 5), (4, 4, 8), (1, 5, 4)
    for n, images in [(n, uniform(-1, 1, n * n, 1, height, width)) for n, height, width in sizes]:
        unit = "one picture, (n * H, n * W)"
        yield from call(f"lay_out(images, {n})", lay_out, read_picture, unit, images=images, n=n)
    meta, double = torch.empty(4, 1, 3, 2, device="meta"), torch.zeros(4, 1, 3, 2, dtype=torch.float64)
    yield from portable(lay_out, lambda: lay_out(meta, 2), lambda: lay_out(double, 2))


def read_picture(got, want, images, n):
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return None
    if same(got.flatten().sort().values, want.flatten().sort().values):
        return "The picture has the right pixels in wrong places: image 0 is top left, and image 1 to its right."
    has = fit(got, {"x": want, "1": torch.ones_like(want)})
    return has and f"Every pixel x becomes {formula(has)}: leave the pixels as they are, from -1 to 1."


PICTURE = "make_grid(images, nrow=n, padding=0)[0]"
PICTURE_ROWS = (
    (PICTURE, "make_grid(images, padding=0)[0]", "make_grid puts 8 images in a row, unless nrow says otherwise: the map is scrambled."),
    (PICTURE, "make_grid(images, nrow=n * n, padding=0)[0]", "All images stand in one row: nrow is the number of images in a row, n."),
    (PICTURE, "make_grid(images, nrow=n)[0]", "There is a border of 2 pixels around every image: set the padding."),
    (PICTURE, "make_grid(images, nrow=n, padding=0)", "make_grid gives three equal channels: take one of them."),
    (PICTURE, "images.reshape(n * images.shape[2], -1)", "reshape and view cut the images into strips: their rows must stay side by side."),
)  # fmt: skip


def observe_position(map_position):
    cases = [(rough(model.Encoder(1, 2, 3)), uniform(-1, 1, 6, 1, 32, 32)) for _ in range(2)]
    for training, (encoder, images) in zip((True, False), cases, strict=True):
        known = codes_of(encoder, images)
        before = copy.deepcopy(encoder.train(training).state_dict())
        after = untouched("map_position", images=images)
        got = map_position(encoder, images)
        yield from after()
        drawn = (
            "Two calls put the images in different places: something is drawn at random. Take Phi of mu, not of a draw."
        )
        yield holds(not isinstance(got, Tensor) or same(got, map_position(encoder, images)), drawn)
        yield must("map_position(encoder, images)", value_of(got), read_position, "one place per image", **known)
        yield from encoder_afterwards(encoder, before, training, got)
    yield must("map_position of a single image", value_of(map_position(encoder, images[:1])))
    away = False
    with contextlib.suppress(Exception):  # what fails on the meta device may be right on another
        places = imagined(map_position, model.Encoder(1, 2, 3).to("meta"), torch.zeros(2, 1, 32, 32))
        away = places.device.type != "cpu"
    stays = "on a GPU the places stay there, and cannot be drawn: fetch them with .cpu()."
    yield should("Where the places are", away, stays, "encode|encoder|return")


def codes_of(encoder, images):
    """Return mu and logvar in eval mode, and mu in train mode; the encoder stays as it is."""
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        mu, logvar = twin.eval()(images)
        return {"mu": mu, "logvar": logvar, "trained": twin.train()(images)[0]}


def encoder_afterwards(encoder, before, training, places):
    """Yield whether the encoder is as it was, and the places carry no gradient."""
    carries = "The places carry a gradient, and cannot be drawn: encode without gradients, as encode_all does."
    yield holds(not getattr(places, "requires_grad", False), carries)
    intact = all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    yield holds(intact, "The encoder's weights or averages change: encode in eval mode, and leave the weights alone.")
    kept = encoder.training is training and encoder.bn1.training is training
    yield holds(kept, "The encoder is left in another mode than before: encode_all puts the mode back.")


def read_position(got, _, mu, logvar, trained):
    phi, mixed = torch.special.ndtr, "in train mode, where BatchNorm mixes the images: encode them in eval mode"
    known = {
        "mu itself, which may be any number: Phi takes it into the square": mu,
        f"mu, {mixed}, and take Phi of it": trained,
        f"Phi of mu {mixed}": phi(trained),
        "Phi of logvar: the encoder returns mu first": phi(logvar),
    }
    said = named(got, known)
    return said and f"map_position returns {said}."


class Imagined(TorchFunctionMode):
    """Let the meta device, which stands for a GPU, give zeros to the CPU, and say yes, or 0.5, where it is asked."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (Tensor.__bool__, Tensor.item, Tensor.__float__):
            return function is Tensor.__bool__ or 0.5
        targets = {str(getattr(one, "device", one)) for one in (*args[1:], *(kwargs or {}).values())}
        fetched = function is Tensor.cpu or (function is Tensor.to and "cpu" in targets)
        return torch.zeros(args[0].shape) if fetched else function(*args, **(kwargs or {}))


def imagined(function, *given):
    with Imagined():
        return function(*given)


MU, PHI = "encode_all(encoder, images).cpu()", "torch.special.ndtr(mu)"
POSITION_ROWS = (
    (MU, "encoder(images)", "The encoder returns a pair, mu and logvar: encode_all gives mu alone, in eval mode."),
    (PHI, "torch.special.ndtri(mu)", "ndtri is the inverse of Phi, and nan outside 0 to 1: Phi is ndtr."),
    (PHI, "torch.sigmoid(mu)", "sigmoid rises from 0 to 1 as well, but it is not Phi: ndtr is."),
    (PHI, "torch.erf(mu / 2**0.5)", "erf goes from -1 to 1, and Phi from 0 to 1: add 1 and halve, or use ndtr."),
    (PHI, "(1 + torch.erf(mu)) / 2", "Phi(a) is (1 + erf(a / sqrt(2))) / 2: the root of 2 is missing. Or use ndtr."),
)  # fmt: skip


# 3.2 one dimension at a time


def observe_activity(by_activity):
    shapes = (40, 7), (9, 5), (2, 3)
    # one dimension does not move at all, and has a large mean
    sets = [uniform(-1, 1, *shape) * torch.randperm(shape[1]) + uniform(2, 5, shape[1]) for shape in shapes]
    for mu in sets:
        after = untouched("by_activity", mu=mu)
        got = by_activity(mu)
        yield from after()
        if isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(part, Tensor) for part in got):
            order, activity = got
            whole = not order.is_floating_point()
            by_n = activity.dtype is mu.dtype and same(activity, mu.var(0, correction=0))
            got = order.long() if whole else order, mu.var(0) if by_n else activity
            yield clue("activity", got[1])
            names = "order should hold the numbers of the dimensions, which are whole."
            yield holds(whole, f"order is of type {order.dtype}: {names}")
        yield from returned("by_activity", got, ("order", "activity"))
    meta, double = torch.empty(4, 3, device="meta"), torch.rand(4, 3).double()
    yield from portable(by_activity, lambda: by_activity(meta), lambda: by_activity(double)[1])


VAR, ORDER = "mu.var(dim=0)", "activity.argsort(descending=True)"
ACTIVITY_ROWS = (
    (VAR, "mu.std(dim=0)", "The activity is a standard deviation: it should be its square, the variance."),
    (VAR, "mu.var(dim=1)", "The variance is taken along each image: take it over the images, dim=0."),
    (VAR, "mu.pow(2).mean(dim=0)", "The activity is the mean of mu^2, which can be large though mu never moves: take the variance."),
    (VAR, "(mu - mu.mean()).pow(2).mean(dim=0)", "One mean of all numbers is subtracted: each dimension has its own, dim=0."),
    (ORDER, "activity.sort(descending=True)", "order is a pair: sort and topk give the values and their indices. Take the indices."),
    (ORDER, "activity.argsort(descending=True).argsort()", "order gives each dimension its rank: it should name the dimension at each rank."),
    ("return order, activity", "return activity, order", "order and activity have changed places in the return."),
    ("return order, activity", "return order, activity[order]", "activity is sorted: it should stay in the order of the dimensions."),
)  # fmt: skip


def observe_traverse(traverse):
    cases = [(dim, uniform(-1, 1, 7), uniform(1, 3, count)) for dim, count in ((2, 5), (0, 7), (6, 1))]
    for dim, code, values in cases:
        name = f"traverse(code, {dim}, values)"
        yield from call(name, traverse, read_traverse, "one code per value", code=code, dim=dim, values=values)
    meta, double = torch.empty(7, device="meta"), torch.ones(7, dtype=torch.float64)
    yield from portable(traverse, lambda: traverse(meta, 2, meta[:5]), lambda: traverse(double, 2, double[:5]))


def read_traverse(got, want, code, dim, values):
    """Say which dimensions of a code change that should not."""
    if not isinstance(got, Tensor) or got.shape != want.shape or got.dtype != want.dtype:
        return None
    others = [at for at in range(len(code)) if at != dim and not same(got[:, at], code[at].expand(len(got)))]
    if len(others) == 1 and same(got[:, others[0]], values):
        return f"Dimension {others[0]} takes the values, where dimension {dim} should: they count from 0."
    numbers = ", ".join(map(str, others))
    return f"Only dimension {dim} should differ from code: look at dimension {numbers}." if others else None


COPIES, PUT = "code.repeat(len(values), 1)", "codes[:, dim] = values"
TRAVERSE_ROWS = (
    (COPIES, "code.expand(len(values), -1)", "expand shows the same memory K times, so writing into one row writes into all: repeat makes copies."),
    (COPIES, "code.repeat(1, len(values))", "The copies stand side by side in one long row: one copy a row is needed, (K, D)."),
    (PUT, "codes[:, dim] += values", "The values are added to what was there: they should replace it."),
    (PUT, "codes[dim] = values", "codes[dim] is a row: a dimension is a column, codes[:, dim]."),
    (PUT, "codes[:, dim] = values[-1]", "Every row has the last value, where row k should have values[k]: do the rows share memory, or is only the last value written?"),
    (PUT, "codes[:, dim] = code[dim] + values.cumsum(0)", "The changes add up from row to row: each row starts from code."),
)  # fmt: skip


# 3.3 slerp


def observe_slerp(slerp):
    pairs, lines = [*ends_of_arcs()], [*ends_of_lines()]
    for (start, end), steps in zip(pairs, (9, 5, 7, 2, 21), strict=True):
        with Sines() as sines:
            slerp(start.clone(), end.clone(), steps)
        if sines.angles:
            yield clue("omega", sines.angles[0], read_angle)
        name, unit = f"slerp(start, end, {steps})", "one code per step, (num_steps, D)"
        yield from call(name, slerp, read_arc, unit, start=start, end=end, num_steps=steps)
    for kind, start, end in lines:
        got = slerp(start, end, 9)
        finite = isinstance(got, Tensor) and bool(got.isfinite().all())
        seen = "nan or inf" if isinstance(got, Tensor) else brief(got)
        yield holds(finite, f"For {kind} slerp gives {seen}, where the straight line is expected.")
        along = finite and got.shape == (9, len(start)) and walks(got, start, end, kind != "a code of 0")
        yield holds(along, f"For {kind} the path does not lead from start to end on the straight line in even steps.")
    meta, double = torch.empty(3, device="meta"), torch.tensor([1.0, 2.0, 3.0]).double()
    yield from portable(slerp, lambda: imagined(slerp, meta, meta, 4), lambda: slerp(double, double.flip(0), 4))


class Sines(TorchFunctionMode):
    """Note the single numbers of which a sine is taken."""

    def __init__(self):
        super().__init__()
        self.angles = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.sin, Tensor.sin) and [getattr(one, "ndim", 1) for one in args] == [0]:
            self.angles.append(args[0].detach().clone())
        return function(*args, **(kwargs or {}))


def ends_of_arcs():
    """Yield pairs of codes: so short that even their dot product lies between -1 and 1, then longer ones."""
    a, b = uniform(-3, 3, 7), uniform(-3, 3, 7)
    across = b - a * (a @ b) / (a @ a)
    across = across * a.norm() / across.norm()
    for angle, start, end in ((1.1, 0.07, 0.12), (2.2, 0.12, 0.07), (2.0, 1.4, 0.6), (0.1, 1, 1.5), (3.04, 1, 1.5)):
        yield start * a, end * (torch.cos(torch.tensor(angle)) * a + torch.sin(torch.tensor(angle)) * across)


def ends_of_lines():
    """Yield pairs of codes between which no arc is singled out, enough of them for every way of rounding."""
    for a in torch.randn(8, 7):
        yield from (("codes in the same direction", a, 2.5 * a), ("opposite codes", a, -3 * a), ("equal codes", a, a))
        yield from (("a code of 0", 0 * a, a), ("a code of 0", a, 0 * a))
    a = torch.tensor([0.0, 3.0, 0.0])  # of which the cosine is -1 or 1 without any rounding
    yield from (("opposite codes", a, -a), ("codes in the same direction", a, 2 * a))


def walks(path, start, end, evenly):
    """Tell whether a path leads from start to end on the straight line, never back, and perhaps in even steps."""
    if evenly:
        return same(path, latent.interpolate(start, end, 9), 1e-2)
    way = (end - start) / (end - start).norm()
    along = (path - start) @ way
    straight = (path - start - along[:, None] * way).abs().max() < 1e-2 and along.diff().min() > -1e-2
    return bool(straight and same(path[0], start, 1e-2) and same(path[-1], end, 1e-2))


def read_angle(got, want):
    return f"omega is {got:.3g}, where the angle between start and end is {want:.3g}: look at cosine and omega."


def read_arc(got, want, start, end, num_steps):
    """Read a wrong path, where omega is right, as a sum of start and end."""
    if not isinstance(got, Tensor) or got.shape != want.shape or got.dtype != want.dtype:
        return None
    if same(got, latent.interpolate(start, end, num_steps)):
        return "The path is a straight line, where an arc is expected: t belongs inside the sines."
    at, terms = num_steps // 4, {"start": start, "end": end}
    parts = [fit(code, terms, 1e-4) for code in (got[0], got[at], got[-1], want[at])]
    if None in parts:
        return None
    first, quarter, last, right = map(formula, parts)
    if (first, last) != ("start", "end"):
        return f"The first code is {first}, and the last is {last}: they should be start and end themselves."
    return f"Both ends are right, but code {at} is {quarter}, where {right} is expected."


COSINE, ANGLE = "start @ end / (start.norm() * end.norm())", "torch.acos(cosine)"
ARC = "(torch.sin((1 - t) * omega) * start + torch.sin(t * omega) * end) / torch.sin(omega)"
ONE_NORM = "The dot product is divided by one of the two norms only: divide it by both."
ARC_ROWS = (
    (COSINE, "start @ end", "acos takes the dot product of two *directions*: divide by both norms."),
    (COSINE, "start @ end / start.norm()", ONE_NORM),
    (COSINE, "start @ end / end.norm()", ONE_NORM),
    (COSINE, "start @ end / (start.norm() * end.norm()) ** 2", "The dot product is divided by both norms twice: once is right."),
    (COSINE, "start @ end / start.norm() * end.norm()", "a / b * c multiplies by c: put brackets around the product of the norms."),
    (COSINE, "start * end / (start.norm() * end.norm())", "omega is not one number: the dot product adds up the products, and * alone does not."),
    (COSINE, f"({COSINE}).abs()", "The cosine has lost its sign: it is negative where the angle is larger than 90 degrees."),
    (ANGLE, "cosine", "The cosine stands where the angle belongs: acos makes an angle of it."),
    (ANGLE, "math.acos(cosine)", "math.acos gives a plain number, but torch.sin takes a tensor: use torch.acos."),
    (ANGLE, f"torch.rad2deg({ANGLE})", "The angle is in degrees: torch.sin takes radians."),
    (ANGLE, "torch.acos(cosine.clamp(0, 1))", "The cosine is cut off below 0, but it goes down to -1, where the codes are opposite."),
    (ANGLE, "torch.acos(cosine).clamp(-1, 1)", "The angle is cut off: it is the cosine that must lie between -1 and 1."),
    (ARC, ARC.replace(" / torch.sin(omega)", ""), "The division by sin(omega) is missing."),
    (ARC, ARC.replace("/ torch.sin(omega)", "/ omega"), "The sum is divided by omega, where sin(omega) belongs."),
    (ARC, ARC[1:].replace("end) ", "end "), "Only one part is divided by sin(omega): put brackets around the sum."),
    (ARC, ARC.replace("(1 - t) * omega", "1 - t * omega"), "The sine is taken of 1 - t * omega: put brackets around 1 - t."),
    (ARC, "(torch.sin(1 - t) * omega * start + torch.sin(t) * omega * end) / torch.sin(omega)", "omega stands outside the sines: it belongs inside."),
    (ARC, ARC.replace("sin", "cos"), "cos stands in the place of sin."),
    (ARC, ARC.replace("* start", "* start / start.norm()").replace("* end", "* end / end.norm()"), "The path joins two codes of norm 1: start and end themselves belong into the formula."),
)  # fmt: skip


# 3.4 a direction with a meaning


def observe_thickness(thickness):
    shapes = (3, 1, 9, 12), (1, 1, 8, 8), (2, 1, 32, 32)
    for images in [uniform(-1, 1, *shape) for shape in shapes]:
        name = f"thickness of {len(images)} image{'s' * (len(images) > 1)}"
        yield from call(name, thickness, unit="one number per image, (N,)", images=images)
    plain = thickness(torch.tensor([-1.0, 0.0])[:, None, None, None].expand(2, 1, 8, 8))
    number = "an image of one colour gets a thickness here, where nan and inf would show that it has no strokes."
    without = [bool(plain[0].isnan()), bool(plain[1].isinf())]
    yield should("Images of one colour", without, number, "eps|1e-|clamp|max|nan|where")
    meta, double = torch.empty(2, 1, 8, 8, device="meta"), torch.rand(2, 1, 8, 8).double()
    yield from portable(thickness, lambda: thickness(meta), lambda: thickness(double))


INK, OUTLINE = "(images[:, 0] + 1) / 2", "(across.pow(2) + down.pow(2)).sqrt().sum(dim=(1, 2))"
THICK = "2 * ink.sum(dim=(1, 2)) / outline"
THICKNESS_ROWS = (
    (INK, "images[:, 0]", "The pixels are used as they are, from -1 to 1: ink goes from 0 to 1."),
    (INK, "(1 - images[:, 0]) / 2", "Black is ink here, and white is none: it should be the other way round."),
    (INK, "images[:, 0] + 1 / 2", "x + 1 / 2 adds a half: put brackets around x + 1."),
    (INK, "images[:, 0].clamp(0, 1)", "All that is darker than 0 becomes 0: shift the pixels and halve them."),
    (INK, "(images + 1) / 2", "ink still has the axis of the channels, so its other axes are one place off: take channel 0."),
    (INK, "(images.squeeze() + 1) / 2", "squeeze() also drops the axis of the images where there is just one: drop that of the channels alone."),
    (OUTLINE, "(across.abs() + down.abs()).sum(dim=(1, 2))", "|across| + |down| makes a slanting edge too long: its length is the root of the sum of the squares."),
    (OUTLINE, "(across.pow(2) + down.pow(2)).sum(dim=(1, 2)).sqrt()", "The root is taken of the sum over the image: take it at every pixel, then sum."),
    (OUTLINE, "(across.pow(2) + down.pow(2)).sqrt().sum(dim=1)", "The outline is summed over one axis alone: sum it over both axes of an image, dim=(1, 2)."),
    (OUTLINE, "(across + down).sum(dim=(1, 2))", "The changes keep their sign and cancel: the length of the slope is a root of squares."),
    (OUTLINE, "across.abs().sum(dim=(1, 2))", "The outline is made of across alone: down is missing."),
    (THICK, "ink.sum(dim=(1, 2)) / outline", "The factor 2 is missing: a stroke has an edge on either side."),
    (THICK, "outline / (2 * ink.sum(dim=(1, 2)))", "The fraction is upside down: divide the area by the outline."),
    (THICK, "2 * ink.sum(dim=(1, 2))", "The outline is missing: this is twice the area."),
    (THICK, "2 * images.sum(dim=(1, 2, 3)) / outline", "The area is the sum of the pixels, from -1 to 1: it should be the sum of the ink."),
)  # fmt: skip


def observe_direction(attribute_direction):
    cases = [labelled(*case) for case in (((1, 3, 4, 8), (4, 10, 6, 8)), ((0, 5), (7, 5)), ((2,), (9,)))]
    for codes, values, labels in cases:
        given = {"codes": codes, "values": values, "labels": labels}
        after = untouched("attribute_direction", **given)
        got = value_of(attribute_direction(codes, values, labels))
        yield from after()
        # the median itself may be on either side
        other = edited(latent.attribute_direction, (HIGH, HIGH.replace(">", ">="), ""))(codes, values, labels)
        free = isinstance(got, Tensor) and got.dtype is other.dtype and same(got, other)
        got = latent.attribute_direction(codes, values, labels) if free else got
        yield must("The direction", got, read_direction, "one direction, (D,)", **given)
    double = codes.double(), values.double(), labels
    yield from portable(attribute_direction, lambda: None, lambda: attribute_direction(*double))


def labelled(classes, sizes):
    """Return codes and values, which depend on the class and on each other, and labels in mixed order."""
    labels = torch.tensor(classes).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels))]
    values = uniform(0, 1, len(labels)) + 2 * labels
    codes = uniform(-1, 1, len(labels), 11) + torch.stack([values, labels.float()], dim=1) @ uniform(-1, 1, 2, 11)
    return codes, values, labels


def read_direction(got, want, codes, values, labels):
    """Read a wrong direction as a sum of the mean codes of the classes' two halves."""
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return None
    if got.isnan().any():
        return "The direction is nan, as the mean of no codes is: in every class some codes must be high, and some not."
    terms, classes = {}, labels.unique().tolist()
    for label in classes:
        own, high = codes[labels == label], values[labels == label] > values[labels == label].median()
        terms |= {f"high {label}": own[high].mean(0), f"low {label}": own[~high].mean(0)}
    if (has := fit(got, terms)) is None:
        return None
    ups, downs = ([has.get(f"{side} {label}", 0) for label in classes] for side in ("high", "low"))
    for label, up, down in zip(classes, ups, downs, strict=True):
        if up != -down:
            seen = f"the mean of the high codes counts {up:g}, and that of the others {down:g}"
            return f"In class {label} {seen}: with {len(classes)} classes, 1 / {len(classes)} and -1 / {len(classes)} are expected."
    if len({*ups}) == 1:
        wanted = f"take their mean over the {len(classes)} classes"
        times = f" and multiplied by {ups[0]:g}" if ups[0] != 1 else ""
        return f"The differences are added up{times}: {wanted}."
    counts = ", ".join(f"class {label} counts {up:g}" for label, up in zip(classes, ups, strict=True))
    return f"The classes do not count the same: {counts}."


HIGH, AVERAGE = "own_values > own_values.median()", "torch.stack(directions).mean(dim=0)"
DIFFERENCE = "own_codes[high].mean(dim=0) - own_codes[~high].mean(dim=0)"
DIRECTION_ROWS = (
    ("labels.unique():\n", "[0]:\n        labels = 0 * labels\n", "The difference is taken over all images, so it also leads from one class to another: take it within each class."),
    (HIGH, "own_values > values.median()", "The classes are split at the median of all values: split each class at its own."),
    (HIGH, "own_values > own_values.median(dim=0)", "median gives a pair, the values and their indices, when it gets a dim: without one it gives the number alone."),
    (HIGH, "own_values < own_values.median()", "The low values are taken for the high ones."),
    (AVERAGE, f"F.normalize({AVERAGE}, dim=0)", "The direction is scaled to length 1: return the mean of the differences as long as it is."),
    (DIFFERENCE, "own_codes[~high].mean(dim=0) - own_codes[high].mean(dim=0)", "The direction leads from the high codes to the others: the sign is wrong."),
    (DIFFERENCE, "own_codes[high].mean(dim=0) - own_codes.mean(dim=0)", "The mean of the whole class is subtracted: subtract that of its other codes."),
    (DIFFERENCE, "own_codes[high].sum(dim=0) - own_codes[~high].sum(dim=0)", "The codes are added up, but not divided by how many there are: take means."),
    (DIFFERENCE, "(own_codes * high[:, None]).mean(dim=0) - (own_codes * ~high[:, None]).mean(dim=0)", "Each half is divided by the number of codes of the whole class: divide it by its own."),
    (DIFFERENCE, "own_codes[high].mean(dim=0) - own_codes[not high].mean(dim=0)", "`not` works on a single True or False, and high holds many: ~high turns each of them round."),
    (DIFFERENCE, "own_codes[high].mean(dim=1) - own_codes[~high].mean(dim=1)", "The means are taken along each code: take them over the codes, dim=0."),
)  # fmt: skip


# 3.5 principal components


def observe_pca(pca):
    sets = [(slanted(*shape), k) for *shape, k in ((40, 7, 3), (9, 5, 5), (30, 6, 1))]
    for codes, k in (*sets, (sets[0][0].double(), 2)):  # the notebook uses float64 itself
        after = untouched("pca", codes=codes)
        got = pca(codes, k)
        yield from after()
        if isinstance(got, tuple | list) and len(got) == 2 and getattr(got[0], "shape", 0) == (k, codes.shape[1]):
            every = latent.pca(codes, codes.shape[1])[0].to(got[0])
            overlap = got[0] @ every.T
            if (overlap.abs().amax(1) > 0.999).all():
                yield clue("ranks", (overlap.abs().argmax(1) + 1).tolist(), read_ranks)
            got = torch.where(overlap.diagonal()[:, None] < 0, -got[0], got[0]), got[1]  # the sign is arbitrary
        yield from returned("pca", got, ("components", "variances"))
    meta = torch.empty(5, 3, device="meta")
    yield from portable(pca, lambda: pca(meta, 2))


def slanted(count, dims):
    """Return codes whose mean is not 0, and which vary most along directions that are no axes."""
    turn = torch.linalg.qr(uniform(-1, 1, dims, dims)).Q
    return uniform(-1, 1, count, dims) * torch.arange(1, dims + 1) @ turn + 3 * uniform(-1, 1, dims)


def read_ranks(got, want):
    ranks = ", ".join(map(str, got))
    return (
        f"components holds the directions of rank {ranks} by variance, where 1 to {len(want)} are expected, in order."
    )


CENTRED, COVARIANCE = "codes - codes.mean(dim=0)", "centred.T @ centred / (len(codes) - 1)"
COMPONENTS = "vectors.T.flip(0)[:k]"
COLUMNS = "These are rows of the matrix `vectors`: the eigenvectors are its columns."
OWN_MEAN = "The mean is taken along each code: take it over the codes, dim=0."
PCA_ROWS = (
    (CENTRED, "codes", "The codes are not centred: their mean must be subtracted first."),
    (CENTRED, "codes - codes.mean(dim=1, keepdim=True)", OWN_MEAN),
    (CENTRED, "codes - codes.mean(dim=1)", OWN_MEAN),
    (CENTRED, "(codes - codes.mean(dim=0)) / codes.std(dim=0)", "The dimensions are divided by their standard deviations: subtract the means, and no more."),
    (COVARIANCE, "centred.T @ centred / len(codes)", "The covariance is divided by N: divide it by N - 1."),
    (COVARIANCE, "centred.T @ centred", "The covariance is not divided by N - 1."),
    (COVARIANCE, "centred.T @ centred / len(codes) - 1", "1 is subtracted from the covariance: put brackets around N - 1."),
    (COVARIANCE, "centred * centred / (len(codes) - 1)", "* multiplies entry by entry: sums of products over the codes are a matrix product, @."),
    (COVARIANCE, "centred @ centred.T / (len(codes) - 1)", "The covariance is (N, N), of codes with codes: it should be (D, D), of dimensions with dimensions."),
    (COMPONENTS, "vectors.flip(0)[:k]", COLUMNS),
    (COMPONENTS, "vectors[:k]", COLUMNS),
    (COMPONENTS, "vectors.flip(1)[:k]", COLUMNS),
    (COMPONENTS, "vectors.T.flip(0)[:2]", "2 is typed in where k belongs."),
    (COMPONENTS, "centred @ vectors.flip(1)[:, :k]", "These are the codes along the directions: the directions themselves are expected."),
    ("values.flip(0)[:k]", "values.flip(0)[:k] / values.sum()", "The variances are divided by their sum: return the variances themselves, not their shares."),
    ("return components, variances", "return variances, components", "components and variances have changed places in the return."),
)  # fmt: skip


check = Check(
    {
        "3.1": Exercise("the map", 15, (
            Lesson(latent.quantile_grid, observe_grid, GRID_ROWS, "The shares are (i + 1/2) / n, and ndtri makes quantiles of them. z_1 grows along every row, and z_2 falls from row to row."),
            Lesson(latent.lay_out, observe_lay_out, PICTURE_ROWS, "The picture has n images in a row and no border. One of its three channels is enough."),
            Lesson(latent.map_position, observe_position, POSITION_ROWS, "encode_all gives the posterior means. Fetch them, and take ndtr of each."),
        )),
        "3.2": Exercise("one dimension at a time", 10, (
            Lesson(latent.by_activity, observe_activity, ACTIVITY_ROWS, "The activity is the variance of mu over the images. order names the dimensions, the most active first."),
            Lesson(latent.traverse, observe_traverse, TRAVERSE_ROWS, "Make one copy of the code for each value. Then write the values into one column."),
        )),
        "3.3": Exercise("slerp", 10, (
            Lesson(latent.slerp, observe_slerp, ARC_ROWS, "Divide the dot product by both norms, and take acos. Put the angle into the formula, with start and end as they are."),
        )),
        "3.4": Exercise("a direction with a meaning", 15, (
            Lesson(metrics.thickness, observe_thickness, THICKNESS_ROWS, "Divide twice the summed ink by the summed length of the slope, image by image."),
            Lesson(latent.attribute_direction, observe_direction, DIRECTION_ROWS, "In each class, take the mean code of those above the median minus that of the others. Average that over the classes."),
        )),
        "3.5": Exercise("principal components", 5, (
            Lesson(latent.pca, observe_pca, PCA_ROWS, "Subtract the mean code. Multiply the result, transposed, by itself, and divide by N - 1. Of what eigh gives, take the last k values and the last k columns, the last one first. The columns become rows."),
        )),
    }
)  # fmt: skip
