"""The two losses and their terms, held against torch.distributions, an explicit loop and laws."""

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl_oracle

from vae_tutorial.loss import elbo_loss, kl_divergence, recon_loss, vae_loss

DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
LOSSES = [vae_loss, elbo_loss]
PRIOR = Normal(0.0, 1.0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def posterior(mu, logvar):
    return Normal(mu, (0.5 * logvar).exp())


def batch(count=4, channels=3, latent_dim=5, **kind):
    """Return recon, x, mu, logvar at random points."""
    pictures = torch.rand(2, count, channels, 32, 32, **kind) * 2 - 1
    return (*pictures, *torch.randn(2, count, latent_dim, **kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_that_of_torch_distributions_entry_by_entry(dtype):
    mu, logvar = 2 * torch.randn(2, 50, 7, dtype=dtype)
    torch.testing.assert_close(kl_divergence(mu, logvar), kl_oracle(posterior(mu, logvar), PRIOR))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_zero_at_the_prior(dtype):
    prior = torch.zeros(3, 4, dtype=dtype)
    assert torch.equal(kl_divergence(prior, prior), prior)


@pytest.mark.parametrize("distance", [1e-3, 0.1, 1.0, 10.0])
def test_kl_is_positive_away_from_the_prior(distance):
    angle = torch.linspace(0, 2 * torch.pi, 360, dtype=torch.float64)
    assert (kl_divergence(distance * angle.cos(), distance * angle.sin()) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_negative_by_no_more_than_rounding_at_the_prior(dtype):
    mu, logvar = torch.randn(2, 1000, dtype=dtype) * torch.logspace(-9, -1, 1000, dtype=dtype)
    assert (kl_divergence(mu, logvar) >= -torch.finfo(dtype).eps).all()


def test_the_gradient_of_kl_pulls_to_the_prior():
    mu, logvar = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    kl_divergence(mu, logvar).sum().backward()
    torch.testing.assert_close(mu.grad, mu.detach())
    torch.testing.assert_close(logvar.grad, logvar.detach().expm1() / 2)


def test_recon_loss_is_the_mean_of_the_squared_differences():
    recon, x = torch.rand(2, 2, 3, 4, 4)
    squares = [(a - b) ** 2 for a, b in zip(recon.flatten().tolist(), x.flatten().tolist(), strict=True)]
    assert recon_loss(recon, x).item() == pytest.approx(sum(squares) / len(squares))


def test_recon_loss_is_zero_for_equal_images_alone():
    _, x, *_ = batch()
    assert recon_loss(x, x) == 0 < recon_loss(x, x.flip(0))


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_loss_is_its_reconstruction_error_plus_beta_times_its_kl(loss_fn, beta):
    loss, recon_part, kl_part = loss_fn(*batch(), beta=beta)
    torch.testing.assert_close(loss, recon_part + beta * kl_part)


@pytest.mark.parametrize(("loss_fn", "beta"), [(vae_loss, 0.1), (elbo_loss, 1.0)])
def test_beta_left_out_is_what_the_interface_says(loss_fn, beta):
    parts = batch()
    assert torch.equal(loss_fn(*parts)[0], loss_fn(*parts, beta=beta)[0])


def test_both_parts_of_vae_loss_are_means_over_everything():
    recon, x, mu, logvar = batch()
    _, recon_part, kl_part = vae_loss(recon, x, mu, logvar)
    torch.testing.assert_close(recon_part, (recon - x).pow(2).sum() / x.numel())
    torch.testing.assert_close(kl_part, kl_oracle(posterior(mu, logvar), PRIOR).sum() / mu.numel())


def test_elbo_loss_is_the_negative_elbo_without_its_constant():
    recon, x, mu, logvar = batch()
    log_likelihood = Normal(recon, 1.0).log_prob(x).flatten(1).sum(dim=1)
    constant = PRIOR.log_prob(torch.tensor(0.0)) * x[0].numel()
    kl = kl_oracle(posterior(mu, logvar), PRIOR).sum(dim=1)
    loss, recon_part, kl_part = elbo_loss(recon, x, mu, logvar)
    torch.testing.assert_close(recon_part, (constant - log_likelihood).mean())
    torch.testing.assert_close(kl_part, kl.mean())
    torch.testing.assert_close(loss, (constant - log_likelihood + kl).mean())


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_batch_seen_twice_has_the_same_loss(loss_fn):
    parts = batch()
    torch.testing.assert_close(loss_fn(*parts), loss_fn(*[part.repeat(2, *[1] * (part.ndim - 1)) for part in parts]))


@pytest.mark.parametrize("latent_dim", [1, 6])
def test_only_elbo_loss_counts_a_dimension_added_to_the_code(latent_dim):
    recon, x, mu, logvar = batch(latent_dim=latent_dim)
    doubled = recon, x, mu.repeat(1, 2), logvar.repeat(1, 2)
    torch.testing.assert_close(elbo_loss(*doubled)[2], 2 * elbo_loss(recon, x, mu, logvar)[2])
    torch.testing.assert_close(vae_loss(*doubled)[2], vae_loss(recon, x, mu, logvar)[2])


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_scalars_with_the_device_and_dtype_of_the_batch(loss_fn, device, dtype):
    for part in loss_fn(*batch(count=1, channels=1, device=device, dtype=dtype)):
        assert (part.shape, part.device.type, part.dtype) == ((), device, dtype)


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_gradient_reaches_recon_mu_and_logvar(loss_fn):
    recon, x, mu, logvar = batch()
    inputs = [part.requires_grad_() for part in (recon, mu, logvar)]
    loss_fn(recon, x, mu, logvar)[0].backward()
    assert all(part.grad.all() for part in inputs)


def refused(function, shapes, *pieces):
    with pytest.raises(ValueError) as error:
        function(*map(torch.zeros, shapes))
    for piece in (*pieces, "must have the same shape", "broadcast"):
        assert piece in str(error.value)


@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (3,), (5, 3)])
def test_kl_refuses_a_logvar_of_another_shape(shape):
    refused(kl_divergence, [(4, 3), shape], "mu and logvar", "(4, 3)", str(shape))


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 3, 32, 32), (3, 32, 32)])
def test_recon_loss_refuses_images_of_another_shape(shape):
    refused(recon_loss, [(2, 3, 32, 32), shape], "recon and x", "(2, 3, 32, 32)", str(shape))


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_loss_refuses_what_would_be_broadcast(loss_fn):
    x, code = (2, 3, 32, 32), (2, 4)
    refused(loss_fn, [(2, 1, 32, 32), x, code, code], "recon and x", "(2, 1, 32, 32)", str(x))
    refused(loss_fn, [x, x, code, (2, 1)], "mu and logvar", str(code), "(2, 1)")
