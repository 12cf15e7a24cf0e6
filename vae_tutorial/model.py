"""The networks: Encoder, Decoder, the reparameterization between them, and the models that join them.

Shapes: B images per batch, C channels, D latent dimensions, K classes; images are 32x32.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn


class Encoder(nn.Module):
    """Map images to the mean and the log-variance of q(z|x), the posterior over their latent codes.

    x: (B, C, 32, 32) in [-1, 1] -> mu, logvar: (B, D) each; q(z|x) = N(mu, diag(exp(logvar))).
    Source: Kingma & Welling 2014, appendix C.2, with convolutions instead of fully-connected layers.
    """

    def __init__(self, in_channels=1, width=16, latent_dim=32):
        super().__init__()
        # kernel 4, stride 2 and padding 1 halve the map: (B, in_channels, 32, 32) -> (B, width, 16, 16)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=4, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        # and again: (B, width, 16, 16) -> (B, 2 * width, 8, 8)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        # and a third time: (B, 2 * width, 8, 8) -> (B, 4 * width, 4, 4)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        # two heads, for mu and for logvar, each from the whole map: (B, 4 * width, 4, 4) -> (B, D, 1, 1)
        self.conv_mu = nn.Conv2d(4 * width, latent_dim, kernel_size=4)
        self.conv_logvar = nn.Conv2d(4 * width, latent_dim, kernel_size=4)

    def forward(self, x):
        assert x.shape[-2:] == (32, 32), f"x must be (B, C, 32, 32), but is {tuple(x.shape)}"
        # a block: convolution, then BatchNorm, then ReLU
        x = F.relu(self.bn1(self.conv1(x)))  # (B, width, 16, 16)
        x = F.relu(self.bn2(self.conv2(x)))  # (B, 2 * width, 8, 8)
        # the third block
        x = F.relu(self.bn3(self.conv3(x)))  # (B, 4 * width, 4, 4)
        # each head reads this x and gives (B, D, 1, 1); drop the two sizes of 1: (B, D)
        mu = self.conv_mu(x).flatten(1)
        logvar = self.conv_logvar(x).flatten(1)
        return mu, logvar


def reparameterize(mu, logvar):
    """Draw one z from N(mu, diag(exp(logvar))) per row, so that gradients reach mu and logvar.

    mu, logvar: (B, D) -> z: (B, D), z = mu + eps * std; eps ~ N(0, I) from the global generator.
    Source: Kingma & Welling 2014, section 2.4.
    """
    assert mu.shape == logvar.shape, f"mu is {tuple(mu.shape)}, but logvar is {tuple(logvar.shape)}"
    # logvar is the log of the variance std ** 2: (B, D) -> (B, D)
    std = torch.exp(0.5 * logvar)
    # one standard normal number for every entry: (B, D)
    eps = torch.randn_like(std)
    return mu + eps * std


class Decoder(nn.Module):
    """Map latent codes to images.

    z: (B, D) -> (B, C, 32, 32) in [-1, 1].
    """

    def __init__(self, out_channels=1, width=16, latent_dim=32):
        super().__init__()
        # from a map of one pixel to 4x4, without padding: (B, D, 1, 1) -> (B, 4 * width, 4, 4)
        self.conv1 = nn.ConvTranspose2d(latent_dim, 4 * width, kernel_size=4)
        self.bn1 = nn.BatchNorm2d(4 * width)
        # kernel 4, stride 2 and padding 1 double the map: (B, 4 * width, 4, 4) -> (B, 2 * width, 8, 8)
        self.conv2 = nn.ConvTranspose2d(4 * width, 2 * width, kernel_size=4, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        # and again: (B, 2 * width, 8, 8) -> (B, width, 16, 16)
        self.conv3 = nn.ConvTranspose2d(2 * width, width, kernel_size=4, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(width)
        # and a third time, to the image: (B, width, 16, 16) -> (B, out_channels, 32, 32)
        self.conv4 = nn.ConvTranspose2d(width, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, z):
        x = z[:, :, None, None]  # (B, D) -> (B, D, 1, 1), a map of one pixel
        # the first block; the next two lines show what a block is
        x = F.relu(self.bn1(self.conv1(x)))  # (B, 4 * width, 4, 4)
        x = F.relu(self.bn2(self.conv2(x)))  # (B, 2 * width, 8, 8)
        x = F.relu(self.bn3(self.conv3(x)))  # (B, width, 16, 16)
        # the last layer, and after it the function that fits pixels from -1 to 1
        return torch.tanh(self.conv4(x))  # (B, out_channels, 32, 32)


class VAE(nn.Module):
    """Join an encoder and a decoder; decode a sample of z in train mode, mu in eval mode.

    x: (B, C, 32, 32) in [-1, 1] -> recon: like x, mu: (B, D), logvar: (B, D).
    Any encoder that returns (mu, logvar) and any decoder that takes z will do.
    """

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x):
        mu, logvar = self.encoder(x)  # (B, D) each
        # a sample of z in train mode (self.training is True), mu in eval mode: (B, D)
        z = reparameterize(mu, logvar) if self.training else mu
        return self.decoder(z), mu, logvar


class Autoencoder(VAE):
    """A VAE without its noise.

    x: (B, C, 32, 32) in [-1, 1] -> recon: like x, mu: (B, D), logvar: (B, D), which recon does not depend on.
    """

    def forward(self, x):
        mu, logvar = self.encoder(x)
        # mu is decoded, in train mode and in eval mode: (B, C, 32, 32)
        recon = self.decoder(mu)
        return recon, mu, logvar


def join_labels(x, labels, num_classes=10):
    """Append the label to each image as num_classes channels: 1 in the channel of its class, 0 in the others.

    x: (B, 1, 32, 32), labels: (B,) from 0 to num_classes - 1, on any device
    -> (B, 1 + num_classes, 32, 32), the image in channel 0.
    """
    # one row per image, a 1 in the column of its class, in the type and on the device of x:
    # (B, num_classes)
    one_hot = F.one_hot(labels, num_classes).to(x)
    # each of these numbers, spread over a plane of its own: (B, num_classes, 32, 32)
    planes = one_hot[:, :, None, None].expand(-1, -1, 32, 32)
    # first the image, then its planes, as channels: (B, 1 + num_classes, 32, 32)
    return torch.cat([x, planes], dim=1)


class ConditionalVAE(VAE):
    """A VAE whose encoder and decoder also get the label; like VAE, it is built from the two.

    x: (B, 1 + K, 32, 32), images with K label planes, as join_labels makes them
    -> recon: (B, 1, 32, 32), mu: (B, D), logvar: (B, D).
    Source: Kingma et al. 2014, section 2, model M2; Sohn, Lee & Yan 2015, section 4.
    """

    def decode(self, z, one_hot):
        # z and the label side by side, (B, D) and (B, K), through the decoder: (B, 1, 32, 32)
        return self.decoder(torch.cat([z, one_hot], dim=1))

    def forward(self, x):
        one_hot = x[:, 1:, 0, 0]  # one pixel of each label plane: (B, K)
        # mean and log-variance of q(z|x,y): (B, D) each
        mu, logvar = self.encoder(x)
        z = reparameterize(mu, logvar) if self.training else mu
        return self.decode(z, one_hot), mu, logvar


def build_cvae(width, latent_dim, num_classes=10):
    """Build a ConditionalVAE for images of one channel and codes of latent_dim numbers."""
    # an Encoder(in_channels, width, latent_dim), for an image with its label planes
    encoder = Encoder(1 + num_classes, width, latent_dim)
    # a Decoder(out_channels, width, latent_dim), for a code with its label
    decoder = Decoder(1, width, latent_dim + num_classes)
    return ConditionalVAE(encoder, decoder)


@contextmanager
def eval_mode(module):
    """Put a module and its parts in eval mode inside a `with` block; then give each part its old mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
