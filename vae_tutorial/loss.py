"""The terms of a VAE's loss, KL divergence and reconstruction error, and two ways to add them.

Shapes: B images per batch, C channels, D latent dimensions; images are 32x32.
"""

import torch.nn.functional as F


def kl_divergence(mu, logvar):
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) of every latent dimension.

    mu, logvar: (B, D) -> (B, D), in nats, not reduced. Never negative; 0 only at mu = 0, logvar = 0.
    Source: Kingma & Welling 2014, appendix B.
    """
    assert mu.shape == logvar.shape, f"mu is {tuple(mu.shape)}, but logvar is {tuple(logvar.shape)}"
    # -1/2 of a sum of four terms, with ln sigma^2 = logvar and sigma^2 = exp(logvar): (B, D)
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())


def recon_loss(recon, x):
    """Return the mean squared error between images and their reconstructions.

    recon, x: (B, C, 32, 32) in [-1, 1] -> scalar, the mean over batch, channels and pixels.
    """
    assert recon.shape == x.shape, f"recon is {tuple(recon.shape)}, but x is {tuple(x.shape)}"
    # F.mse_loss averages over everything: one number
    return F.mse_loss(recon, x)


def vae_loss(recon, x, mu, logvar, beta=0.1):
    """Return (loss, recon_loss, kl_loss), three scalars with loss = recon_loss + beta * kl_loss.

    recon, x: (B, C, 32, 32); mu, logvar: (B, D).
    recon_loss is the mean squared error over batch, channels and pixels. kl_loss is the KL divergence in
    nats, the mean over batch and latent dimensions. So the meaning of beta depends on D. In elbo_loss
    of vae_tutorial.loss it does not, because elbo_loss sums.
    """
    assert len(x) == len(mu), f"{len(x)} images, but {len(mu)} codes"
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
    Source: Kingma & Welling 2014, equation 10; Higgins et al. 2017, equation 4, for beta.
    """
    assert recon.shape == x.shape, f"recon is {tuple(recon.shape)}, but x is {tuple(x.shape)}"
    assert len(x) == len(mu), f"{len(x)} images, but {len(mu)} codes"
    # half the squared error, summed over each image, then averaged over the batch: one number
    half_squared_error = 0.5 * (recon - x).pow(2).flatten(1).sum(dim=1).mean()
    # the KL divergence, summed over D, then averaged over the batch: one number
    kl = kl_divergence(mu, logvar).sum(dim=1).mean()
    # the error plus beta times the KL: one number
    loss = half_squared_error + beta * kl
    return loss, half_squared_error, kl


def equivalent_beta(beta, num_pixels, latent_dim):
    """Return the beta for which elbo_loss equals num_pixels / 2 times the vae_loss of the given beta.

    num_pixels: C * H * W; latent_dim: D -> a number, without unit.
    """
    # what stands before the KL summed over D, once vae_loss is multiplied by num_pixels / 2
    return beta * num_pixels / (2 * latent_dim)
