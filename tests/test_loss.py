"""The two losses and their terms, held against torch.distributions, an explicit loop and laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.distributions import kl_divergence as kl_oracle

from vae_tutorial.loss import elbo_loss, equivalent_beta, kl_divergence, recon_loss, vae_loss

DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
LOSSES = [vae_loss, elbo_loss]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
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


@pytest.mark.parametrize(("beta", "latent_dim"), [(0.1, 5), (1.0, 2), (0.0, 1)])
def test_elbo_loss_at_the_equivalent_beta_is_half_the_pixels_times_vae_loss(beta, latent_dim):
    recon, x, mu, logvar = batch(latent_dim=latent_dim, dtype=torch.float64)
    num_pixels = x[0].numel()
    loss = elbo_loss(recon, x, mu, logvar, equivalent_beta(beta, num_pixels, latent_dim))[0]
    torch.testing.assert_close(loss, num_pixels / 2 * vae_loss(recon, x, mu, logvar, beta)[0])


def within(dtype):
    """Return tolerances of a few roundings of a dtype."""
    return dict.fromkeys(["rtol", "atol"], 50 * torch.finfo(dtype).eps)


def drawn(dtype, seed, count, size, spread):
    """Return recon, x, mu, logvar of a dtype, with squares and exponentials that float16 holds."""
    noise = torch.Generator().manual_seed(seed)
    shapes = (count, 1, size, 4), (count, 1, size, 4), (count, size), (count, size)
    return [(spread * torch.randn(shape, generator=noise)).to(dtype) for shape in shapes]


DRAWN = st.builds(
    drawn,
    st.sampled_from(FLOATS),
    st.integers(0, 99),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.01, 1.0, 2.0]),
)


@given(DRAWN)
def test_kl_in_every_dtype_is_that_of_normals_in_doubles(parts):
    mu, logvar = parts[2:]
    kl, wanted = kl_divergence(mu, logvar), kl_oracle(posterior(mu.double(), logvar.double()), PRIOR)
    size = 1 + mu.double() ** 2 + logvar.double().exp() + logvar.double().abs()  # of the terms that cancel
    torch.testing.assert_close(kl.double() / size, wanted / size, **within(mu.dtype))


@given(DRAWN)
def test_recon_loss_in_every_dtype_is_the_mean_in_doubles(parts):
    recon, x = parts[:2]
    error = recon_loss(recon, x)
    torch.testing.assert_close(error.double(), (recon.double() - x.double()).pow(2).mean(), **within(x.dtype))


@given(DRAWN, st.floats(0, 5))
def test_the_parts_of_a_loss_in_every_dtype_are_the_means_and_sums_in_doubles(parts, beta):
    recon, x, mu, logvar = [part.double() for part in parts]
    squares, kl = (recon - x).pow(2), kl_oracle(posterior(mu, logvar), PRIOR)
    wanted = {
        vae_loss: (squares.mean(), kl.mean()),
        elbo_loss: (squares.sum() / 2 / len(x), kl.sum() / len(x)),
    }
    for loss_fn, (error, divergence) in wanted.items():
        for got, want in zip(loss_fn(*parts, beta), (error + beta * divergence, error, divergence), strict=True):
            assert got.shape == ()
            torch.testing.assert_close(got.double(), want, **within(parts[0].dtype))


def refused(function, shapes, message):
    with pytest.raises(AssertionError) as error:
        function(*map(torch.zeros, shapes))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (3,), (5, 3)])
def test_kl_refuses_a_logvar_of_another_shape(shape):
    refused(kl_divergence, [(4, 3), shape], f"mu is (4, 3), but logvar is {shape}")


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 3, 32, 32), (3, 32, 32)])
def test_recon_loss_refuses_images_of_another_shape(shape):
    refused(recon_loss, [(2, 3, 32, 32), shape], f"recon is (2, 3, 32, 32), but x is {shape}")


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_loss_refuses_what_would_be_broadcast(loss_fn):
    x, code = (2, 3, 32, 32), (2, 4)
    refused(loss_fn, [(2, 1, 32, 32), x, code, code], f"recon is (2, 1, 32, 32), but x is {x}")
    refused(loss_fn, [x, x, code, (2, 1)], "mu is (2, 4), but logvar is (2, 1)")


@pytest.mark.parametrize("codes", [1, 3])
@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_loss_refuses_the_codes_of_another_batch(loss_fn, codes):
    x, code = (2, 3, 32, 32), (codes, 4)
    refused(loss_fn, [x, x, code, code], f"2 images, but {codes} codes")
