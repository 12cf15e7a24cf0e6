"""Encoder, Decoder, reparameterize and VAE, held against plain stacks of layers, a normal distribution and laws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from vae_tutorial.loss import kl_divergence
from vae_tutorial.model import VAE, Decoder, Encoder, reparameterize

DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
SIZES = [(1, 16, 32), (3, 5, 7), (1, 1, 1)]  # channels, width, latent_dim


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(channels=1, width=3, latent_dim=5):
    return VAE(Encoder(channels, width, latent_dim), Decoder(channels, width, latent_dim))


def images(count, channels=1):
    return torch.rand(count, channels, 32, 32) * 2 - 1


def shake(module):
    """Move BatchNorm away from where it starts: there it hardly changes anything."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
    return module


def stack(convolutions):
    return nn.Sequential(
        *[part for conv in convolutions for part in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())]
    )


def encoder_stack(channels, width):
    sizes = [channels, width, 2 * width, 4 * width]
    return stack([nn.Conv2d(n, m, 4, 2, 1) for n, m in zip(sizes[:-1], sizes[1:], strict=True)])


def decoder_stack(channels, width, latent_dim):
    first = nn.ConvTranspose2d(latent_dim, 4 * width, 4)
    others = [nn.ConvTranspose2d(2 * n * width, n * width, 4, 2, 1) for n in (2, 1)]
    return nn.Sequential(*stack([first, *others]), nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())


def copy_weights(layers, plain):
    weighted = [layer for layer in plain if list(layer.parameters())]
    for layer, twin in zip(layers, weighted, strict=True):
        twin.load_state_dict(layer.state_dict())


def count_weights(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_encoder_is_a_stack_of_layers_with_two_linear_heads(sizes, training):
    channels, width, latent_dim = sizes
    encoder, x = shake(Encoder(*sizes)).train(training), images(4, channels)
    plain = encoder_stack(channels, width).train(training)
    *layers, head_mu, head_logvar = encoder.children()
    copy_weights(layers, plain)
    features = plain(x).flatten(1)
    for output, head in zip(encoder(x), (head_mu, head_logvar), strict=True):
        torch.testing.assert_close(output, F.linear(features, head.weight.flatten(1), head.bias))
        assert output.shape == (4, latent_dim)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_decoder_is_a_stack_of_layers_that_ends_in_tanh(sizes, training):
    decoder, plain = shake(Decoder(*sizes)).train(training), decoder_stack(*sizes).train(training)
    z = torch.randn(4, sizes[2])
    copy_weights(decoder.children(), plain)
    torch.testing.assert_close(decoder(z), plain(z[..., None, None]))


@pytest.mark.parametrize(("channels", "width", "latent_dim"), SIZES)
def test_no_weights_beside_those_of_the_named_layers(channels, width, latent_dim):
    heads = [nn.Linear(4 * width * 4 * 4, latent_dim) for _ in range(2)]
    plain = decoder_stack(channels, width, latent_dim)
    assert count_weights(Encoder(channels, width, latent_dim)) == count_weights(encoder_stack(channels, width), *heads)
    assert count_weights(Decoder(channels, width, latent_dim)) == count_weights(plain)


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_sizes_left_out_are_1_channel_width_16_and_32_dimensions(part):
    shapes = [[weight.shape for weight in module.parameters()] for module in (part(), part(1, 16, 32))]
    assert shapes[0] == shapes[1]


def maps_of(model, x):
    """Return the shape that every convolution gives, by its name."""
    shapes = {}
    for name, layer in model.named_modules():
        if "conv" in name:
            layer.register_forward_hook(lambda *args, name=name: shapes.update({name: tuple(args[2].shape[1:])}))
    model(x)
    return shapes


@pytest.mark.parametrize(("channels", "width", "latent_dim"), SIZES)
def test_every_convolution_gives_the_map_its_comment_says(channels, width, latent_dim):
    down = [(width, 16, 16), (2 * width, 8, 8), (4 * width, 4, 4), (latent_dim, 1, 1), (latent_dim, 1, 1)]
    up = [(4 * width, 4, 4), (2 * width, 8, 8), (width, 16, 16), (channels, 32, 32)]
    assert list(maps_of(build(channels, width, latent_dim), images(2, channels)).values()) == down + up


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_shapes_and_device_follow_the_input(device, training, count):
    model, x = build(channels=3).to(device).train(training), images(count, 3).to(device)
    recon, mu, logvar = model(x)
    assert (recon.shape, mu.shape, logvar.shape) == (x.shape, (count, 5), (count, 5))
    assert {part.device.type for part in (recon, mu, logvar)} == {device}


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_gives_numbers(training):
    assert all(part.isfinite().all() for part in build().train(training)(images(1)))


@pytest.mark.parametrize("training", [True, False])
def test_float64_stays_float64(training):
    parts = build().double().train(training)(images(2).double())
    assert [part.dtype for part in parts] == [torch.float64] * 3


def test_images_lie_between_minus_1_and_1_and_come_near_both():
    recon = build().decoder(100 * torch.randn(50, 5))
    assert -1 <= recon.min() < -0.5 and 0.5 < recon.max() <= 1


def test_eval_is_deterministic():
    model, x = shake(build()).eval(), images(3)
    for first, second in zip(model(x), model(x), strict=True):
        assert torch.equal(first, second)


def test_eval_decodes_mu():
    model = shake(build()).eval()
    recon, mu, _ = model(images(3))
    assert torch.equal(recon, model.decoder(mu))


def test_eval_takes_no_notice_of_the_other_images_of_a_batch():
    model, x = shake(build()).eval(), images(3)
    for together, alone in zip(model(x), model(x[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone)


def test_train_samples_anew_every_time():
    model, x = build(), images(3)
    (recon, mu, logvar), (other_recon, other_mu, other_logvar) = model(x), model(x)
    assert torch.equal(mu, other_mu) and torch.equal(logvar, other_logvar)
    assert not torch.isclose(recon, other_recon).all(dim=(1, 2, 3)).any()


def test_train_decodes_what_reparameterize_draws():
    model, x = build(), images(3)
    torch.manual_seed(1)
    recon, mu, logvar = model(x)
    torch.manual_seed(1)
    assert torch.equal(recon, model.decoder(reparameterize(mu, logvar)))


def test_vae_takes_any_encoder_and_decoder():
    model = VAE(lambda x: (x.mean((2, 3)), torch.zeros(len(x), 1)), lambda z: 2 * z).eval()
    recon, mu, logvar = model(torch.ones(2, 1, 4, 4))
    assert (recon.tolist(), mu.tolist(), logvar.tolist()) == ([[2.0]] * 2, [[1.0]] * 2, [[0.0]] * 2)


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_reaches_every_parameter(training):
    # BatchNorm takes out the bias of the layer before it while it averages over the batch, so it stays in eval mode
    model, x = shake(build()).eval(), images(4)
    model.training = training
    recon, mu, logvar = model(x)
    ((recon - x).pow(2).sum() + kl_divergence(mu, logvar).sum()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_a_gradient_reaches_logvar_through_the_sample_alone():
    model = build()
    model(images(4))[0].pow(2).sum().backward()
    assert model.encoder.conv_logvar.weight.grad.any()


def test_samples_follow_the_normal_distribution_of_mu_and_logvar():
    mu, logvar = torch.tensor([-1.5, 0.3, 2.0]), torch.tensor([-2.0, 0.5, 1.4])
    z = reparameterize(mu.expand(20_000, 3), logvar.expand(20_000, 3))
    # a number's place in its own distribution is uniform: the Kolmogorov-Smirnov distance, at one in 10,000
    places = Normal(mu, (0.5 * logvar).exp()).cdf(z).sort(dim=0).values
    distance = (places - torch.linspace(0, 1, len(z))[:, None]).abs().amax(dim=0)
    assert (distance < 2.23 / len(z) ** 0.5).all()


def test_every_entry_has_noise_of_its_own():
    assert reparameterize(torch.zeros(8, 9), torch.zeros(8, 9)).unique().numel() == 8 * 9


def test_without_variance_the_sample_is_mu():
    mu = torch.randn(4, 3)
    assert torch.equal(reparameterize(mu, torch.full_like(mu, -torch.inf)), mu)


def test_the_global_seed_fixes_the_sample():
    samples = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples.append(reparameterize(torch.zeros(2, 3), torch.ones(2, 3)))
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[1], samples[2])


def test_the_gradient_of_the_sample_is_1_for_mu_and_half_the_deviation_for_logvar():
    mu, logvar = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    z = reparameterize(mu, logvar)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(4, 3))
    torch.testing.assert_close(logvar.grad, (z - mu).detach() / 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sample_has_the_device_and_dtype_of_mu(device, dtype):
    z = reparameterize(*torch.zeros(2, 4, 3, device=device, dtype=dtype))
    assert (z.device.type, z.dtype, z.shape) == (device, dtype, (4, 3))


@pytest.mark.parametrize("size", [0, -3, 1025, 1.5, "16", True, None])
@pytest.mark.parametrize("name", ["channels", "width", "latent_dim"])
def test_a_size_that_is_no_positive_whole_number_is_named(name, size):
    for part, prefix in ((Encoder, "in_"), (Decoder, "out_")):
        argument = prefix + name if name == "channels" else name
        with pytest.raises(ValueError, match=rf"^{argument} must be a whole number from 1 to 1024, but is {size!r}\."):
            part(**{argument: size})


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (1, 32, 32), (2, 1, 32, 32, 1)])
def test_an_image_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError) as error:
        Encoder(1, 2, 3)(torch.zeros(shape))
    for piece in ("x must have shape (B, 1, 32, 32)", f"has {shape}", "change x", "other sizes"):
        assert piece in str(error.value)


@pytest.mark.parametrize("shape", [(2, 4), (3,), (2, 3, 1, 1)])
def test_a_code_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError) as error:
        Decoder(1, 2, 3)(torch.zeros(shape))
    for piece in ("z must have shape (B, 3)", f"has {shape}", "change z", "other sizes"):
        assert piece in str(error.value)


@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (3,), (3, 4)])
def test_logvar_of_another_shape_than_mu_is_refused(shape):
    with pytest.raises(ValueError) as error:
        reparameterize(torch.zeros(4, 3), torch.zeros(shape))
    for piece in ("logvar must have shape (4, 3)", f"has {shape}"):
        assert piece in str(error.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "torch.uint8"), (torch.zeros(2, 1, 32, 32).numpy(), "ndarray")],
)
def test_what_is_no_tensor_of_floats_is_refused(given, named):
    with pytest.raises(TypeError) as error:
        Encoder(1, 2, 3)(given)
    for piece in ("x must be a floating-point tensor of shape (B, 1, 32, 32)", f"is {named}", "convert it"):
        assert piece in str(error.value)
