"""Train faster on a CPU: the same network and, up to rounding, the same results; tests/benchmarks has the gains.

None of this is specific to VAEs, so it is in a module of its own. train.fit uses it.
"""

from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn
from torch.nn import functional as F


def prepare(model, optimizer=None):
    """On a CPU, store the weights and the optimizer's state for them in channels-last order, in which a CPU convolves
    fastest. The values do not change. Also let the memory of one training step be kept for the next."""
    if next(model.parameters()).device.type == "cpu":
        states = {} if optimizer is None else optimizer.state
        for weight in model.parameters():
            # fused optimizers read weights, gradients and moments in memory order, so all three need the same layout
            for tensor in (weight, weight.grad, *states.get(weight, {}).values()):
                if isinstance(tensor, torch.Tensor) and tensor.ndim == 4:
                    # contiguous() would leave a weight of one channel as it is, since both orders fit it; its gradient
                    # would have other strides
                    laid_out = torch.empty_like(tensor, memory_format=torch.channels_last)
                    tensor.data = laid_out.copy_(tensor.data)
        # glibc returns free memory to the system above a limit: twice the largest block of up to 32 MiB that was freed
        # so far. Memory that is requested again in every step has to be cleared page by page. Freeing this block of 31
        # MiB raises the limit (mallopt(3), M_MMAP_THRESHOLD).
        torch.empty(31 * 2**20, dtype=torch.uint8)


@contextmanager
def quick_convolutions(model):
    """On a CPU, compute each convolution that is really one matrix product as a matrix product.

    These are the convolutions whose kernel covers the whole map, and the transposed ones whose map is a single pixel.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    layers = [layer for layer in model.modules() if on_cpu and _is_plain(layer)]
    for layer in layers:
        layer.forward = MethodType(_AS_PRODUCT[type(layer)], layer)  # deleting it brings back the class's own forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer):
    if type(layer) not in _AS_PRODUCT or "forward" in vars(layer):  # or somebody has replaced its forward
        return False
    extra = getattr(layer, "output_padding", (0, 0))
    return (layer.padding, extra, layer.dilation, layer.groups) == ((0, 0), (0, 0), (1, 1), 1)


def _convolve(layer, x):
    if x.shape[1:] != layer.weight.shape[1:]:  # the kernel does not cover the whole map
        return nn.Conv2d.forward(layer, x)
    # (N, H * W * C) times (H * W * C, K): (N, K), as maps (N, K, 1, 1)
    return F.linear(_rows(x), _rows(layer.weight), layer.bias)[:, :, None, None]


def _convolve_transposed(layer, x, output_size=None):
    if output_size is not None or x.ndim != 4 or x.shape[1:] != (layer.in_channels, 1, 1):
        return nn.ConvTranspose2d.forward(layer, x, output_size)
    # (N, C) times (C, kh * kw * K): (N, kh * kw * K), unfolded to (N, kh, kw, K), then (N, K, kh, kw)
    maps = (x.flatten(1) @ _rows(layer.weight)).unflatten(1, (*layer.kernel_size, layer.out_channels)).movedim(3, 1)
    return maps if layer.bias is None else maps + layer.bias[:, None, None]


_AS_PRODUCT = {nn.Conv2d: _convolve, nn.ConvTranspose2d: _convolve_transposed}


def _rows(x):
    """(N, C, H, W) -> (N, H * W * C), a view if the memory is channels-last."""
    return x.movedim(1, 3).flatten(1)
