"""The terms of a VAE's loss, KL divergence and reconstruction error, and two ways to add them.

Shapes: B images a batch, C channels, D latent dimensions; images are 32x32.
"""

import torch
import torch.nn.functional as F


def require_same_shape(**tensors):
    """Raise TypeError unless the two named tensors hold floats, ValueError unless they have one shape, not empty."""
    for name, tensor in tensors.items():
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()):
            given = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point tensor, but is {given}: convert it first.")
        if tensor.numel() == 0:
            raise ValueError(f"{name} must hold at least one number, but has shape {tuple(tensor.shape)}.")
    (one, a), (other, b) = tensors.items()
    if a.shape != b.shape:
        raise ValueError(
            f"{one} and {other} must have the same shape, but have {tuple(a.shape)} and {tuple(b.shape)}: "
            f"broadcasting them would give a wrong number without an error."
        )


def require_batch(recon, x, mu, logvar, beta):
    """Raise ValueError or TypeError unless these are one batch, images and codes, and beta is a number."""
    require_same_shape(recon=recon, x=x)
    require_same_shape(mu=mu, logvar=logvar)
    if (x.ndim, mu.ndim) != (4, 2) or len(x) != len(mu):
        shapes = f"{tuple(x.shape)} and {tuple(mu.shape)}"
        raise ValueError(f"x must be (B, C, 32, 32) and mu (B, D), of one batch, but are {shapes}.")
    scalar = isinstance(beta, torch.Tensor) and beta.ndim == 0 and not beta.is_complex()
    if not ((scalar or isinstance(beta, int | float)) and 0 <= beta <= 1e9):
        raise ValueError(f"beta must be a number from 0 to 1e9, but is {beta!r:.60}.")


def kl_divergence(mu, logvar):
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) of every latent dimension.

    mu, logvar: (B, D) -> (B, D), in nats, not reduced. Never negative; 0 only at mu = 0, logvar = 0.
    Raises ValueError when the shapes differ, TypeError for tensors without floats.
    Source: Kingma & Welling 2014, appendix B.
    """
    require_same_shape(mu=mu, logvar=logvar)
    # -1/2 of a sum of four terms, with ln sigma^2 = logvar and sigma^2 = exp(logvar): (B, D)
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())


def recon_loss(recon, x):
    """Return the mean squared error between images and their reconstructions.

    recon, x: (B, C, 32, 32) in [-1, 1] -> scalar, the mean over batch, channels and pixels.
    Raises ValueError when the shapes differ, TypeError for tensors without floats.
    """
    require_same_shape(recon=recon, x=x)
    # F.mse_loss averages over everything: one number
    return F.mse_loss(recon, x)


def vae_loss(recon, x, mu, logvar, beta=0.1):
    """Return (loss, recon_loss, kl_loss), three scalars with loss = recon_loss + beta * kl_loss.

    recon, x: (B, C, 32, 32); mu, logvar: (B, D).
    recon_loss is the mean squared error over batch and pixels; kl_loss is the KL divergence, in nats,
    as the mean over batch and latent dimensions. So what beta means depends on D; with
    vae_tutorial.loss.elbo_loss, which sums, it does not.
    Raises ValueError when shapes differ and for a beta below 0, TypeError for tensors without floats.
    """
    require_batch(recon, x, mu, logvar, beta)
    mse = recon_loss(recon, x)
    # the mean of the KL divergence over the batch and the latent dimensions: one number
    kl = kl_divergence(mu, logvar).mean()
    # the reconstruction error plus beta times the KL: one number
    loss = mse + beta * kl
    return loss, mse, kl


def elbo_loss(recon, x, mu, logvar, beta=1.0):
    """Return (loss, recon_loss, kl_loss) per image, in nats; at beta = 1 the negative ELBO, up to a constant.

    recon, x: (B, C, 32, 32); mu, logvar: (B, D). The three are scalars, means over the batch.
    recon_loss is half the squared error summed over an image: -log p(x|z) of a Gaussian decoder with
    variance 1, without its constant. kl_loss is the KL divergence summed over D.
    Raises ValueError when shapes differ and for a beta below 0, TypeError for tensors without floats.
    Source: Kingma & Welling 2014, equation 10; Higgins et al. 2017, equation 4, for beta.
    """
    require_batch(recon, x, mu, logvar, beta)
    # half the squared error, summed over each image, then averaged over the batch: one number
    half_squared_error = 0.5 * (recon - x).pow(2).flatten(1).sum(dim=1).mean()
    # the KL divergence, summed over D, then averaged over the batch: one number
    kl = kl_divergence(mu, logvar).sum(dim=1).mean()
    # the error plus beta times the KL: one number
    loss = half_squared_error + beta * kl
    return loss, half_squared_error, kl
