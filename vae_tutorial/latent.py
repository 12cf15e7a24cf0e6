"""Work in the latent space: codes of a set, class means, paths, samples from the prior.

Shapes: N images, D latent dimensions, C channels; images are 32x32.
"""

import torch
import torch.nn.functional as F
from torch import nn


def require_count(least, most, **counts):
    """Raise ValueError unless every count is a whole number from least to most; more would fill the memory."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, but is {count!r:.60}.")


def require_tensors(kind, **tensors):
    """Raise TypeError unless all are tensors, of floats or of whole numbers."""
    whole = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    for name, tensor in tensors.items():
        given = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        if not (given in whole if kind == "whole numbers" else getattr(given, "is_floating_point", False)):
            raise TypeError(f"{name} must be a tensor of {kind}, but is {given}: convert it first.")


def require_network(name, network):
    """Raise TypeError unless network has weights, which tell its device and dtype."""
    if not (isinstance(network, nn.Module) and any(map(torch.is_tensor, network.parameters()))):
        raise TypeError(f"{name} must be a network with weights, but is {network!r:.60}.")


def require_draws(decoder, num_samples, latent_dim):
    """Raise TypeError unless decoder is a network, ValueError unless the sizes are whole numbers."""
    require_network("decoder", decoder)
    require_count(1, 100_000, num_samples=num_samples)
    require_count(1, 1024, latent_dim=latent_dim)


def require_labels(codes, labels, num_classes):
    """Raise ValueError unless codes are (N, D) and labels (N,), whole numbers from 0 to num_classes - 1."""
    require_tensors("floats", codes=codes)
    require_tensors("whole numbers", labels=labels)
    require_count(1, 1000, num_classes=num_classes)
    if codes.ndim != 2 or labels.shape != codes.shape[:1]:
        shapes = f"{tuple(codes.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"codes must be (N, D) and labels (N,), but are {shapes}.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        reach = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"labels must lie in 0 to {num_classes - 1}, but reach {reach}.")


def require_ends(start, end, num_steps):
    """Raise ValueError unless both ends are (D,) and num_steps is at least 2, TypeError for other than floats."""
    require_tensors("floats", start=start, end=end)
    if start.ndim != 1 or start.shape != end.shape or start.dtype != end.dtype:
        given = f"{tuple(start.shape)} of {start.dtype} and {tuple(end.shape)} of {end.dtype}"
        raise ValueError(f"start and end must be (D,), both of one dtype, but are {given}.")
    require_count(2, 100_000, num_steps=num_steps)  # both ends are steps


@torch.no_grad()
def encode_all(encoder, images, batch_size=500):
    """Return the posterior means of all images, in eval mode.

    images: (N, C, 32, 32) in [-1, 1] -> mu: (N, D), on the encoder's device; the encoder's mode is restored.
    Raises ValueError for images of another shape and for batch_size below 1, TypeError for an encoder without weights
    or images without floats.
    """
    require_network("encoder", encoder)
    require_tensors("floats", images=images)
    require_count(1, 100_000, batch_size=batch_size)
    if images.ndim != 4 or images.shape[2:] != (32, 32):
        raise ValueError(f"images must have shape (N, C, 32, 32), but has {tuple(images.shape)}.")
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    try:
        return torch.cat([encoder(x.to(device))[0] for x in images.split(batch_size)])
    finally:
        encoder.train(was_training)


def class_means(codes, labels, num_classes=10):
    """Return the mean code of every class.

    codes: (N, D), labels: (N,) from 0 to num_classes - 1 -> (num_classes, D); nan for an empty class.
    Raises ValueError when the lengths differ or a label is out of range, TypeError for labels that are no
    whole numbers and codes that are no floats.
    """
    require_labels(codes, labels, num_classes)
    # row n has a 1 in the column of image n's class, in the type and on the device of codes:
    # (N, num_classes)
    one_hot = F.one_hot(labels.long(), num_classes).to(codes)
    # how many codes each class has: (num_classes,)
    counts = one_hot.sum(dim=0)
    # the sum of each class's codes, divided by its count: (num_classes, D)
    return one_hot.T @ codes / counts[:, None]


def interpolate(start, end, num_steps):
    """Walk in a straight line from one code to another, both ends included.

    start, end: (D,) -> (num_steps, D), evenly spaced.
    Raises ValueError for another shape and for num_steps below 2, TypeError for codes without floats.
    """
    require_ends(start, end, num_steps)
    # from 0 to 1 in num_steps even steps, one a row, with the device and dtype of start: (num_steps, 1)
    t = torch.linspace(0, 1, num_steps, device=start.device, dtype=start.dtype)[:, None]
    # start where t = 0, end where t = 1: (num_steps, D)
    return (1 - t) * start + t * end


def sample_prior(decoder, num_samples, latent_dim):
    """Decode codes drawn from the prior, z ~ N(0, I), in eval mode and without gradients.

    decoder: takes z (num_samples, latent_dim); its mode is restored.
    -> images: (num_samples, C, 32, 32) in [-1, 1], on the decoder's device.
    Raises ValueError for a size below 1, or that the decoder does not take, TypeError for what is no network.
    Source: Kingma & Welling 2014, section 2.1: z ~ p(z), then x ~ p(x|z), of which this is the mean.
    """
    require_draws(decoder, num_samples, latent_dim)
    weight = next(decoder.parameters())  # any weight: it tells the decoder's device and dtype
    # one draw from N(0, I) per image, with the device and dtype of weight: (num_samples, latent_dim)
    z = torch.randn(num_samples, latent_dim, device=weight.device, dtype=weight.dtype)
    was_training = decoder.training
    try:
        # put the decoder in eval mode; then, without gradients, images is what it makes of z:
        # (num_samples, C, 32, 32)
        decoder.eval()
        with torch.no_grad():
            images = decoder(z)
    finally:
        decoder.train(was_training)
    return images
