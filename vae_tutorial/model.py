"""The network: Encoder, Decoder, the reparameterization between them, and the VAE that joins them.

Shapes: B images a batch, C channels, D latent dimensions; images are 32x32.
"""

import torch
import torch.nn.functional as F
from torch import nn


def require_positive(**sizes):
    """Raise ValueError unless every size is a whole number from 1 to 1024; larger networks fill the memory."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1024:
            raise ValueError(f"{name} must be a whole number from 1 to 1024, but is {size!r}.")


def require_shape(name, tensor, *shape):
    """Raise TypeError unless tensor holds floats, ValueError unless it has the shape; a letter is any size."""
    wanted = f"({', '.join(map(str, shape))})"
    if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
        given = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a floating-point tensor of shape {wanted}, but is {given}: convert it first.")
    fits = len(shape) == tensor.ndim and all(
        isinstance(want, str) or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} must have shape {wanted}, but has {tuple(tensor.shape)}: "
            f"change {name}, or build the network with other sizes."
        )


def require_input(name, tensor, layer, *size):
    """Raise ValueError unless tensor is (B, the layer's channels, *size), TypeError unless it has its dtype."""
    require_shape(name, tensor, "B", layer.in_channels, *size)
    wanted, device = layer.weight.dtype, tensor.device.type
    converts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if tensor.dtype != wanted and not converts:
        raise TypeError(
            f"{name} must have the same dtype as the weights, {wanted}, but has {tensor.dtype}: convert it."
        )


def require_networks(**networks):
    """Raise TypeError unless every network can be called, and is no class that is still to be built."""
    for name, network in networks.items():
        if isinstance(network, type) or not callable(network):
            raise TypeError(f"{name} must be a network, as {name.title()}() builds it, but is {network!r:.60}.")


class Encoder(nn.Module):
    """Map images to the mean and the log-variance of q(z|x), the posterior over their latent codes.

    x: (B, C, 32, 32) in [-1, 1] -> mu, logvar: (B, D) each; q(z|x) = N(mu, diag(exp(logvar))).
    Raises ValueError for a size below 1 or another shape, TypeError for another dtype than the weights'.
    Source: Kingma & Welling 2014, appendix C.2, with convolutions for the fully-connected layers.
    """

    def __init__(self, in_channels=1, width=16, latent_dim=32):
        super().__init__()
        require_positive(in_channels=in_channels, width=width, latent_dim=latent_dim)
        # kernel 4, stride 2, padding 1: (B, in_channels, 32, 32) -> (B, width, 16, 16)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        # kernel 4, stride 2, padding 1: (B, width, 16, 16) -> (B, 2 * width, 8, 8)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        # kernel 4, stride 2, padding 1: (B, 2 * width, 8, 8) -> (B, 4 * width, 4, 4)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        # kernel 4, no padding: it covers the whole map, (B, 4 * width, 4, 4) -> (B, D, 1, 1)
        self.conv_mu = nn.Conv2d(4 * width, latent_dim, kernel_size=4)
        self.conv_logvar = nn.Conv2d(4 * width, latent_dim, kernel_size=4)

    def forward(self, x):
        require_input("x", x, self.conv1, 32, 32)
        # each time: convolution, then BatchNorm, then ReLU
        x = F.relu(self.bn1(self.conv1(x)))  # (B, width, 16, 16)
        x = F.relu(self.bn2(self.conv2(x)))  # (B, 2 * width, 8, 8)
        x = F.relu(self.bn3(self.conv3(x)))  # (B, 4 * width, 4, 4)
        # both from the same x; flatten(1) drops the two sizes of 1: (B, D, 1, 1) -> (B, D)
        mu = self.conv_mu(x).flatten(1)
        logvar = self.conv_logvar(x).flatten(1)
        return mu, logvar


def reparameterize(mu, logvar):
    """Draw one z from N(mu, diag(exp(logvar))) per row, so that gradients reach mu and logvar.

    mu, logvar: (B, D) -> z: (B, D), z = mu + eps * std; eps ~ N(0, I) from the global generator.
    Raises ValueError when the shapes differ, TypeError for tensors without floats.
    Source: Kingma & Welling 2014, section 2.4.
    """
    require_shape("mu", mu, "B", "D")
    require_shape("logvar", logvar, *mu.shape)
    # logvar is the log of the variance std ** 2: (B, D) -> (B, D)
    std = torch.exp(0.5 * logvar)
    # one standard normal number for every entry: (B, D)
    eps = torch.randn_like(std)
    return mu + eps * std


class Decoder(nn.Module):
    """Map latent codes to images.

    z: (B, D) -> (B, C, 32, 32) in [-1, 1].
    Raises ValueError for a size below 1 or another shape, TypeError for another dtype than the weights'.
    """

    def __init__(self, out_channels=1, width=16, latent_dim=32):
        super().__init__()
        require_positive(out_channels=out_channels, width=width, latent_dim=latent_dim)
        # kernel 4, no padding: (B, D, 1, 1) -> (B, 4 * width, 4, 4)
        self.conv1 = nn.ConvTranspose2d(latent_dim, 4 * width, kernel_size=4)
        self.bn1 = nn.BatchNorm2d(4 * width)
        # kernel 4, stride 2, padding 1: (B, 4 * width, 4, 4) -> (B, 2 * width, 8, 8)
        self.conv2 = nn.ConvTranspose2d(4 * width, 2 * width, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        # kernel 4, stride 2, padding 1: (B, 2 * width, 8, 8) -> (B, width, 16, 16)
        self.conv3 = nn.ConvTranspose2d(2 * width, width, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(width)
        # kernel 4, stride 2, padding 1: (B, width, 16, 16) -> (B, out_channels, 32, 32)
        self.conv4 = nn.ConvTranspose2d(width, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, z):
        require_input("z", z, self.conv1)
        x = z[:, :, None, None]  # (B, D) -> (B, D, 1, 1), a map of one pixel
        # each time: transposed convolution, then BatchNorm, then ReLU
        x = F.relu(self.bn1(self.conv1(x)))  # (B, 4 * width, 4, 4)
        x = F.relu(self.bn2(self.conv2(x)))  # (B, 2 * width, 8, 8)
        x = F.relu(self.bn3(self.conv3(x)))  # (B, width, 16, 16)
        # the last transposed convolution, then tanh
        return torch.tanh(self.conv4(x))  # (B, out_channels, 32, 32)


class VAE(nn.Module):
    """Join an encoder and a decoder; decode a sample of z in train mode, mu in eval mode.

    x: (B, C, 32, 32) in [-1, 1] -> recon: like x, mu: (B, D), logvar: (B, D).
    Any encoder that returns (mu, logvar) and any decoder that takes z will do.
    Raises TypeError for what cannot be called, or is still to be built, such as Encoder for Encoder().
    """

    def __init__(self, encoder, decoder):
        super().__init__()
        require_networks(encoder=encoder, decoder=decoder)
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x):
        mu, logvar = self.encoder(x)  # (B, D) each
        # a sample of z in train mode (self.training is True), mu in eval mode: (B, D)
        z = reparameterize(mu, logvar) if self.training else mu
        return self.decoder(z), mu, logvar
