"""Compare what two answers show, and say in words how they differ."""

import inspect
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Near:
    """A number that depends on chance: two are alike when they differ by at most the tolerance."""

    value: float
    tolerance: float


def alike(a, b):
    """Tell whether two values are the same to rounding, in type, shape and dtype as well; nan is like nan."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and same(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, Near):
        equal = a.value == b.value or (a.value != a.value and b.value != b.value)  # infinite, or nan
        return equal or abs(a.value - b.value) <= a.tolerance
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b or (isinstance(a, float) and (math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) or a != a and b != b))


def same(a, b, tolerance=1e-4):
    """Tell whether two tensors have one shape and, to rounding, the same values."""
    if a.shape != b.shape:
        return False
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    size = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
    return torch.allclose(a, b, tolerance, tolerance * min(size or 0.1, 1), equal_nan=True)


def difference(got, want, unit=""):
    """Say how the first part of got that is not like want differs; unit: what one entry of a tensor is."""
    if isinstance(got, Near) and isinstance(want, Near):
        return f"is {got.value:.3g}, where about {want.value:.3g} is expected"
    if isinstance(want, dict) and isinstance(got, dict) and got.keys() == want.keys():
        key = next(key for key in want if not alike(got[key], want[key]))
        return f"{key} {difference(got[key], want[key], unit)}"
    if isinstance(want, Tensor) and isinstance(got, Tensor) and got.dtype == want.dtype:
        got, want = got.detach().cpu(), want.detach().cpu()
        if said := relation(got, want):
            return f"is {said}"
        if got.shape == want.shape:
            at = int((got.double() - want.double()).abs().nan_to_num(math.inf).argmax())
            return (
                f"is {brief(got.flatten()[at])}{place(at, want.shape)}, where {brief(want.flatten()[at])} is expected"
            )
        return f"has shape {tuple(got.shape)}, where {tuple(want.shape)} is expected{unit and ': ' + unit}"
    if isinstance(want, Tensor) and isinstance(got, Tensor):
        return f"is of type {got.dtype}, where {want.dtype} is expected"
    if isinstance(want, Tensor) and isinstance(got, float | int):
        return "is a plain number, where a tensor is expected, as it is without .item(), float() or len()"
    if isinstance(want, Tensor):
        return f"is {brief(got)}, where a tensor of shape {tuple(want.shape)} is expected{unit and ': ' + unit}"
    return f"is {brief(got)}, where {brief(want)} is expected"


def place(at, shape):
    """Write a position in a tensor of the shape: ' at [2, 3]'."""
    return f" at {[int(i) for i in torch.unravel_index(torch.tensor(at), shape)]}" if len(shape) else ""


def relation(got, want):
    """Say what one tensor of numbers has to do with another, where that is simple; None if it is not."""
    if got.shape != want.shape:
        return reshaped(got.double(), want.double())
    got, want = got.double(), want.double()
    if got.isnan().any() and not want.isnan().any():
        return f"nan{'' if got.isnan().all() else ' in places'}, as from a root or log of a negative number, or 0 / 0"
    if got.isinf().any() and not want.isinf().any():
        return "infinite" + ("" if got.isinf().all() else " in places")
    return next((said for other, said in simple(got, want) if same(got, other, 1e-5)), None)


def simple(got, want):
    """Yield (a simple function of want, how to call it): families of wrong numbers, which need no row each."""
    yield torch.zeros_like(want), "0" if want.ndim == 0 else "0 everywhere"
    yield -want, "right but for its sign"
    if want.any():
        factor = float((got * want).sum() / want.pow(2).sum())
        inverse = f" ({1 / factor:.3g} times too small)" if 0 < factor < 0.6 else ""
        # any two numbers have a factor
        if want.ndim or min(abs(factor - plain) for plain in (0.25, 0.5, 2, 3, 4, 10)) < 1e-4:
            yield factor * want, f"{factor:.3g} times what is expected{inverse}"
    if want.ndim == 0:
        yield from ((f(want), said) for f, said in ONE_NUMBER)
        return
    yield want + (got - want).mean(), f"off by {float((got - want).mean()):+.3g} everywhere"
    yield got.flatten()[0].expand_as(want), "the same number everywhere"
    yield from ((f(want), said) for f, said in EVERY_ENTRY)
    yield got[:1].expand_as(want), "the same in every row"
    if want.ndim == 2:
        yield got[:, :1].expand_as(want), "the same in every column"
        yield from (
            (want.roll(shift, 0), f"right, but {by}") for shift, by in ((1, "one row late"), (-1, "one row early"))
        )
        if want.shape[0] == want.shape[1]:
            yield want.T, "transposed"
    yield want.flip(0), "right, but in reverse order"


ONE_NUMBER = (
    (torch.square, "the square of what is expected"),
    (torch.sqrt, "the square root of what is expected"),
    (torch.log, "the logarithm of what is expected"),
    (torch.exp, "exp of what is expected"),
    (torch.reciprocal, "1 divided by what is expected"),
    (torch.floor, "rounded down, as // does"),
)
EVERY_ENTRY = (
    *ONE_NUMBER,
    (torch.abs, "without its signs"),
    (torch.round, "rounded"),
    (lambda v: v.clamp(min=0), "0 where it should be negative"),
    (torch.tanh, "passed through tanh"),
    (torch.sigmoid, "passed through sigmoid"),
    (lambda v: v - v.mean(), "shifted to mean 0"),
    (lambda v: v.mean().expand_as(v), "averaged over everything"),
    (lambda v: v.mean(0).expand_as(v), "averaged over the rows"),
    (lambda v: v.cumsum(0), "added up from row to row"),
)


def reshaped(got, want):
    """Say how a tensor of another shape was made from want: a mean or sum over some axes, a transpose, an axis more."""
    if got.numel() == want.numel() and same(got.flatten(), want.flatten()):
        return f"right, but has shape {tuple(got.shape)}, not {tuple(want.shape)}"
    for count in range(1, want.ndim + 1):
        for axes in itertools.combinations(range(want.ndim), count):
            for f, said in ((torch.mean, "averaged"), (torch.sum, "summed")):
                if any(same(got, f(want, axes, keepdim=keep)) for keep in (False, True)):
                    over = "everything" if count == want.ndim else f"axis {' and '.join(map(str, axes))}"
                    return f"{said} over {over} already: it has shape {tuple(got.shape)}, not {tuple(want.shape)}"
    if want.ndim == 2 and same(got, want.T):
        return f"transposed: it has shape {tuple(got.shape)}, not {tuple(want.shape)}"
    return None


def times(count):
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def article(word):
    """Write a word with a or an before it, by its first sound: a module, an Encoder, an MSELoss."""
    spelled = len(word) > 1 and word[:2].isupper()
    vowel = word[0] in "AEFHILMNORSX" if spelled else word[0].lower() in "aeio"
    return f"{'an' if vowel else 'a'} {word}"


def brief(value):
    """Write any value in a few words."""
    if value is None:
        return "None (is a return missing?)"
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.ndim == 0 else f"a tensor of shape {tuple(value.shape)}"
    if inspect.isroutine(value):
        return "a function and not its result (are the brackets left out?)"
    if isinstance(value, torch.nn.Sequential):
        return f"a Sequential of {', '.join(type(part).__name__ for part in value)}"
    if isinstance(value, type):
        return article(value.__name__)
    if isinstance(value, tuple | list) and not all(isinstance(part, str | int | float) for part in value):
        return f"{article(type(value).__name__)} of {len(value)}"
    if isinstance(value, str | int | float | tuple | list | dict):
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text if len(text) < 100 else f"{text[:100]}..."
    return article(type(value).__name__)
