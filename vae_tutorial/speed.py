"""Train faster on a CPU, with the same network and the same loss; tests/benchmarks shows what each of these brings.

None of it belongs to a VAE, so it stands here, and fit uses it.
"""

from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn
from torch.nn import functional as F


def prepare(model, optimizer=None):
    """Lay out the weights, whose values stay, in the order in memory with which a CPU convolves fastest, and what the
    optimizer keeps for them likewise; have the memory of one training step kept for the next."""
    if next(model.parameters()).device.type == "cpu":
        states = {} if optimizer is None else optimizer.state
        for weight in model.parameters():
            # fused optimizers go through weights, gradients and moments in the order of memory, not of indices
            for tensor in (weight, weight.grad, *states.get(weight, {}).values()):
                if isinstance(tensor, torch.Tensor) and tensor.ndim == 4:
                    # not contiguous(), which leaves weights of one channel their strides, unlike those of the gradient
                    laid_out = torch.empty_like(tensor, memory_format=torch.channels_last)
                    tensor.data = laid_out.copy_(tensor.data)
        # glibc gives memory back to the system beyond twice the largest block of up to 32 MiB that was freed so far;
        # asked for anew in every step, it has to be cleared page by page (mallopt(3), M_MMAP_THRESHOLD)
        torch.empty(31 * 2**20, dtype=torch.uint8)


@contextmanager
def quick_convolutions(model):
    """Let a CPU compute the convolutions that are one matrix product as such, which takes it half the time.

    These are the convolutions whose kernel covers the whole map, and the transposed ones whose map is a single pixel.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    layers = [layer for layer in model.modules() if on_cpu and _is_plain(layer)]
    for layer in layers:
        layer.forward = MethodType(_FORWARD[type(layer)], layer)  # its class's own comes back with the deletion
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer):
    if type(layer) not in _FORWARD or "forward" in vars(layer):
        return False
    extra = getattr(layer, "output_padding", (0, 0))
    return (layer.padding, extra, layer.dilation, layer.groups) == ((0, 0), (0, 0), (1, 1), 1)


def _convolve(layer, x):
    if x.shape[1:] != layer.weight.shape[1:]:
        return nn.Conv2d.forward(layer, x)
    return F.linear(_rows(x), _rows(layer.weight), layer.bias)[:, :, None, None]


def _convolve_transposed(layer, x, output_size=None):
    if output_size is not None or x.ndim != 4 or x.shape[1:] != (layer.in_channels, 1, 1):
        return nn.ConvTranspose2d.forward(layer, x, output_size)
    maps = (x.flatten(1) @ _rows(layer.weight)).unflatten(1, (*layer.kernel_size, layer.out_channels)).movedim(3, 1)
    return maps if layer.bias is None else maps + layer.bias[:, None, None]


_FORWARD = {nn.Conv2d: _convolve, nn.ConvTranspose2d: _convolve_transposed}


def _rows(x):
    """(N, C, H, W) -> (N, H * W * C), a view where memory is channels-last."""
    return x.movedim(1, 3).flatten(1)
