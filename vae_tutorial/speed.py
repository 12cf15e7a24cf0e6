"""Train faster on a CPU, with the same network and the same loss; tests/benchmarks shows what each of these brings.

None of it belongs to a VAE, so it stands here, and fit uses it.
"""

from contextlib import nullcontext

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def prepare(model):
    """Lay out the weights, whose values stay, in the order in memory with which a CPU convolves fastest; have the
    memory of one training step kept for the next."""
    if next(model.parameters()).device.type == "cpu":
        model.to(memory_format=torch.channels_last)
        # glibc gives memory back to the system beyond twice the largest block of up to 32 MiB that was freed so far;
        # asked for anew in every step, it has to be cleared page by page (mallopt(3), M_MMAP_THRESHOLD)
        torch.empty(31 * 2**20, dtype=torch.uint8)


def quick_convolutions(device):
    """Return a context in which a CPU computes some convolutions as matrix products, which take it half the time."""
    return _MatrixProducts() if device.type == "cpu" else nullcontext()


class _MatrixProducts(TorchFunctionMode):
    """Compute a convolution whose kernel covers the whole map, and a transposed one whose map is a single pixel, as
    the matrix products that they are; leave every other function as it is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.conv2d and not kwargs and len(args) == 7:
            x, weight, bias, _, padding, dilation, groups = args
            if x.shape[1:] == weight.shape[1:] and (padding, dilation, groups) == ((0, 0), (1, 1), 1):
                return F.linear(_rows(x), _rows(weight), bias)[:, :, None, None]
        if func is torch.conv_transpose2d and not kwargs and len(args) == 8:
            x, weight, bias, _, padding, output_padding, groups, dilation = args
            single = x.ndim == 4 and x.shape[1:] == (len(weight), 1, 1)
            if single and (padding, output_padding, groups, dilation) == ((0, 0), (0, 0), 1, (1, 1)):
                maps = (x.flatten(1) @ _rows(weight)).unflatten(1, (*weight.shape[2:], weight.shape[1])).movedim(3, 1)
                return maps if bias is None else maps + bias[:, None, None]
        return func(*args, **(kwargs or {}))


def _rows(x):
    """(N, C, H, W) -> (N, H * W * C), a view where memory is channels-last."""
    return x.movedim(1, 3).flatten(1)
